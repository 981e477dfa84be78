"""The load curve of one kind of request: throughput and latency for each number of connections."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median, quantiles

from ..containers import Container
from .clients import Response, run_clients

CONNECTIONS = (1, 8, 32, 64, 128, 256, 400, 800)
WARM_UP_SECONDS = 1
SECONDS = 4
HEALTH_PAUSE_SECONDS = 0.01

OVERLOADED_CONNECTIONS = (256, 800)
"""The numbers of connections to which the targets apply."""

MIN_THROUGHPUT_SHARE = 0.9
MAX_LATENCY_FACTOR = 1.5
MAX_REFUSAL_SECONDS = 0.05
MAX_HEALTH_SECONDS = 0.1


@dataclass(frozen=True)
class LoadCase:
    """Requests of one kind to one container. Those with a body are POST requests."""

    name: str
    container: Container
    path: str
    body: bytes = b""


@dataclass(frozen=True)
class LoadPoint:
    """What was measured with one number of connections. Times are in seconds."""

    connections: int
    throughput: float
    """Responses with a status of 2xx, per second."""
    refused_share: float
    """The share of 503 in all responses."""
    p50: float
    """The median duration of the requests with 2xx."""
    p99: float
    """The 99th percentile of the durations of the requests with 2xx."""
    refusal_p99: float | None
    """The 99th percentile of the durations of the requests with 503, or None without a 503."""
    health_p99: float
    """The 99th percentile of GET /health, which another client sends every 10 ms."""

    @property
    def queue_seconds(self) -> float:
        """How long a request takes if every connection waits for its turn in one queue."""
        return self.connections / self.throughput


LoadCurve = list[LoadPoint]


def measure_load_curves(cases: Sequence[LoadCase]) -> dict[str, LoadCurve]:
    """Measure each case with each number of connections."""
    # The client of /health has its own process, so that it does not wait for the other clients.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        return {
            case.name: [_measure(executor, case, connections) for connections in CONNECTIONS]
            for case in cases
        }


def _measure(executor: ProcessPoolExecutor, case: LoadCase, connections: int) -> LoadPoint:
    seconds = WARM_UP_SECONDS + SECONDS
    url = case.container.url
    load = executor.submit(run_clients, url + case.path, connections, seconds, 0, case.body)
    health = executor.submit(run_clients, f"{url}/health", 1, seconds, HEALTH_PAUSE_SECONDS)
    return load_point(connections, load.result(), health.result())


def load_point(
    connections: int, responses: Sequence[Response], health_responses: Sequence[Response]
) -> LoadPoint:
    """Summarize the responses that were received after the warm-up.

    Raises RuntimeError if a status is neither 2xx nor 503, or if nothing was served.
    """
    served_seconds: list[float] = []
    refused_seconds: list[float] = []
    served_in_time = 0
    for response in _after_warm_up(responses):
        if response.status == 503:
            refused_seconds.append(response.seconds)
        elif response.status // 100 == 2:
            served_seconds.append(response.seconds)
            # Clients that have starved receive their last response after the end.
            served_in_time += response.received_at < WARM_UP_SECONDS + SECONDS
        else:
            raise RuntimeError(f"a response has the status {response.status}")
    if not served_in_time:
        raise RuntimeError("no request was served")
    health = [response.seconds for response in _after_warm_up(health_responses)]
    return LoadPoint(
        connections=connections,
        throughput=served_in_time / SECONDS,
        refused_share=len(refused_seconds) / (len(served_seconds) + len(refused_seconds)),
        p50=median(served_seconds),
        p99=percentile_99(served_seconds),
        refusal_p99=percentile_99(refused_seconds) if refused_seconds else None,
        health_p99=percentile_99(health),
    )


def _after_warm_up(responses: Iterable[Response]) -> Iterator[Response]:
    return (response for response in responses if response.received_at >= WARM_UP_SECONDS)


def percentile_99(values: Sequence[float]) -> float:
    """The 99th percentile; the value itself if there is one."""
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[98]
