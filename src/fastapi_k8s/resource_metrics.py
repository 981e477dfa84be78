"""Metrics of the connection pool and the cache. Neither of them imports prometheus_client.

The names of the pool's metrics are those of
https://opentelemetry.io/docs/specs/semconv/db/database-metrics/#connection-pools.
"""

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from .cache import BYPASS, HIT, MISS, Cache
from .connection_pool import WAIT_TIME_BOUNDS, ConnectionPool
from .observability.metrics import REGISTRY


class SampledHistogram(Histogram):
    """A histogram to which a sampler adds many observations at once."""

    def add(self, bucket_counts: Sequence[int], total: float) -> None:
        """Add the number of observations of each bucket, and the sum of their values."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, bucket_counts, strict=True):
            bucket.inc(count)


CONNECTIONS = Gauge(
    "db_client_connection_count",
    "Connections of the pools of all workers, by state.",
    ["db_client_connection_state"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
MAX_CONNECTIONS = Gauge(
    "db_client_connection_max",
    "Connections that the pools of all workers may open.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
PENDING_REQUESTS = Gauge(
    "db_client_connection_pending_requests",
    "Requests that wait for a connection.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
TIMEOUTS = Counter(
    "db_client_connection_timeouts",
    "Requests that got no connection in time.",
    registry=REGISTRY,
)
WAIT_TIME = SampledHistogram(
    "db_client_connection_wait_time_seconds",
    "Time that requests waited until a connection was free.",
    buckets=WAIT_TIME_BOUNDS,
    registry=REGISTRY,
)
CACHE_READS = Counter(
    "cache_reads",
    "Reads by their result: hit, miss, or bypass because Redis had failed.",
    ["result"],
    registry=REGISTRY,
)
CACHE_ERRORS = Counter(
    "cache_errors", "Commands that Redis did not execute, in time or at all.", registry=REGISTRY
)
CACHE_CIRCUIT_OPEN = Gauge(
    "cache_circuit_open",
    "Workers that skip Redis at the moment because it failed.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)


def sample_pool(pool: ConnectionPool) -> None:
    """Write the state of the pool, and what has happened since the last call."""
    statistics = pool.take_statistics()
    CONNECTIONS.labels("used").set(statistics.used)
    CONNECTIONS.labels("idle").set(statistics.idle)
    MAX_CONNECTIONS.set(statistics.size)
    PENDING_REQUESTS.set(statistics.pending_requests)
    TIMEOUTS.inc(statistics.waits.timeouts)
    WAIT_TIME.add(statistics.waits.bucket_counts, statistics.waits.seconds)


def sample_cache(cache: Cache) -> None:
    """Write the state of the circuit, and what has happened since the last call."""
    statistics = cache.take_statistics()
    for result in (HIT, MISS, BYPASS):
        CACHE_READS.labels(result).inc(statistics.reads[result])
    CACHE_ERRORS.inc(statistics.errors)
    CACHE_CIRCUIT_OPEN.set(int(statistics.circuit_is_open))
