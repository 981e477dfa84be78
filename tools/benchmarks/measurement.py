"""CPU time per request, measured in interleaved rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .containers import Container
from .wrk import count_requests

ROUNDS = 7
ROUND_SECONDS = 3
WARM_UP_SECONDS = 1

Samples = dict[str, list[float]]
"""CPU time per request in microseconds, one sample for each round, by the name of the case."""


@dataclass(frozen=True)
class Comparison:
    """The case with which another one is compared, and the least share that is acceptable.

    A share is the CPU time per request of the case `name` divided by that of the other: 0.5 means
    that the other needs twice the CPU time, so that one core serves half as many requests.
    """

    name: str
    target: float | None = None


@dataclass(frozen=True)
class Case:
    """Requests of one kind to one container. Without a wrk script they are GET requests."""

    name: str
    container: Container
    path: str = ""
    comparison: Comparison | None = None
    script: Path | None = None
    script_arguments: tuple[str, ...] = ()

    def measure(self, seconds: int) -> float:
        """CPU time per request in microseconds, under load for `seconds`."""
        before = self.container.cpu_seconds()
        url = self.container.url + self.path
        requests = count_requests(url, seconds, self.script, self.script_arguments)
        return (self.container.cpu_seconds() - before) / requests * 1e6


def measure_in_rounds(cases: Sequence[Case]) -> Samples:
    """Measure all cases once in each round, after a warm-up.

    Rounds are interleaved, so that a change in the machine's speed affects all cases alike.
    """
    for case in cases:
        case.measure(WARM_UP_SECONDS)
    samples: Samples = {case.name: [] for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            samples[case.name].append(case.measure(ROUND_SECONDS))
    return samples


def shares(samples: Samples, name: str, baseline: str) -> list[float]:
    """The share of each round: see `Comparison`."""
    pairs = zip(samples[baseline], samples[name], strict=True)
    return [baseline_time / time for baseline_time, time in pairs]
