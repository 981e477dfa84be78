"""`make bench-restart`: what rolling restarts under load lose, as a Markdown table.

The same deployment with the drain and without, in one run; half of the load is on connections that
are kept alive. Nothing is retried.
"""

import os
import sys
from statistics import median
from time import monotonic

from tests.cluster.place import CLIENTS, PAUSE, Place, place
from tools.cluster.kubectl import ClusterError

RESTARTS, REQUESTS = 5, 100_000
DRAINS = ("0", "5")
"""DRAIN_SECONDS of the cases; the second is k8s.yaml's."""

HEAD = """\
| `DRAIN_SECONDS` | Restarts | Requests | Lost, new | Lost, kept | Slowest, s | A restart, s |
|---|---|---|---|---|---|---|"""


def main() -> None:
    """Print the table. Leaves with a message, and another code than 0, if that is impossible."""
    try:
        with place(os.environ["CONTEXT"]) as here:  # as make gives it
            rows = [_measure(here, drain) for drain in DRAINS]
    except ClusterError as error:
        sys.exit(f"bench: {error}")
    print(HEAD, *rows, sep="\n")
    print(f"\n{CLIENTS} clients, each {PAUSE} s after its last answer.")


def _measure(here: Place, drain: str) -> str:
    print(f"bench: DRAIN_SECONDS={drain}, some minutes", file=sys.stderr, flush=True)
    seconds: list[float] = []
    with here.edited("k8s.yaml", 'DRAIN_SECONDS: "5"', f'DRAIN_SECONDS: "{drain}"'):
        here.build("bench")
        here.done("deploy")
        if not here.client.get("namespace", here.client.namespace):
            here.start_client()
        here.autoscale(least=2, most=2)
        with here.load() as load:
            while len(seconds) < RESTARTS or load.seen().sent < REQUESTS:
                began = monotonic()
                here.done("restart")
                seconds.append(monotonic() - began)
            seen = load.seen()
    kept = sum(failure.kept_alive for failure in seen.failures)
    return (
        f"| {drain} | {len(seconds)} | {seen.sent:,} | {len(seen.failures) - kept} | {kept}"
        f" | {seen.longest_seconds:.2f} | {median(seconds):.0f} |"
    )


if __name__ == "__main__":
    main()
