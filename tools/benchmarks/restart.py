"""`make bench-restart`: count the requests that rolling restarts lose, with and without the drain.

Both cases run on the same cluster. Half of the load uses kept-alive connections, and no request is
retried. Prints a Markdown table for docs/benchmarks.md.
"""

import os
import sys
from statistics import median
from time import monotonic

from tools.cluster.ephemeral import (
    LOAD_CLIENTS,
    LOAD_PAUSE_SECONDS,
    EphemeralDeployment,
    ephemeral_deployment,
)
from tools.cluster.kubectl import ClusterError

MIN_RESTARTS = 5
MIN_REQUESTS = 100_000
MANIFEST_DRAIN_SECONDS = "5"
DRAIN_SECONDS_CASES = ("0", MANIFEST_DRAIN_SECONDS)

COLUMNS = (
    "`DRAIN_SECONDS`",
    "Restarts",
    "Requests",
    "Lost on new connections",
    "Lost on keep-alive connections",
    "Slowest request, s",
    "One restart, s",
)


def main() -> None:
    """Measure and print the table. Exits with a message if the cluster fails."""
    context = os.environ["CONTEXT"]
    try:
        with ephemeral_deployment(context) as deployment:
            rows = [measure_restarts(deployment, seconds) for seconds in DRAIN_SECONDS_CASES]
    except ClusterError as error:
        sys.exit(f"bench: {error}")
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"|{'---|' * len(COLUMNS)}")
    print(*rows, sep="\n")
    print(f"\n{LOAD_CLIENTS} clients, each pausing {LOAD_PAUSE_SECONDS} s after a response.")


def measure_restarts(deployment: EphemeralDeployment, drain_seconds: str) -> str:
    """Restart under load until there are enough restarts and requests, and return a table row."""
    print(f"bench: DRAIN_SECONDS={drain_seconds}, takes a few minutes", file=sys.stderr, flush=True)
    setting = f'DRAIN_SECONDS: "{MANIFEST_DRAIN_SECONDS}"'
    changed_setting = f'DRAIN_SECONDS: "{drain_seconds}"'
    restart_seconds: list[float] = []
    with deployment.edited_file("k8s.yaml", setting, changed_setting):
        deployment.build_image("bench")
        deployment.make("deploy")
        if not deployment.client_kubectl.get("pod", "client"):
            deployment.start_client()
        deployment.set_pod_limits(min_replicas=2, max_replicas=2)
        with deployment.load() as load:
            statistics = load.read_statistics()
            while len(restart_seconds) < MIN_RESTARTS or statistics.request_count < MIN_REQUESTS:
                start_time = monotonic()
                deployment.make("restart")
                restart_seconds.append(monotonic() - start_time)
                statistics = load.read_statistics()
    lost_kept_alive = sum(failure.kept_alive for failure in statistics.failures)
    lost_new = len(statistics.failures) - lost_kept_alive
    cells = [
        drain_seconds,
        str(len(restart_seconds)),
        f"{statistics.request_count:,}",
        str(lost_new),
        str(lost_kept_alive),
        f"{statistics.longest_seconds:.2f}",
        f"{median(restart_seconds):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
