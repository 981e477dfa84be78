"""Print why pods do not become ready: events, exit codes and the last lines of their logs."""

import sys
from collections.abc import Iterator

from .kubectl import PART_OF_SELECTOR, ClusterError, Kubectl, KubernetesObject
from .pods import container_statuses, is_ready

LOG_LINES = 15


def print_diagnostics(kubectl: Kubectl) -> None:
    """Print the diagnostics to standard error. An API server that fails is reported, not raised."""
    try:
        for line in _diagnostics(kubectl):
            print(line, file=sys.stderr)
    except ClusterError as error:
        print(error, file=sys.stderr)


def _diagnostics(kubectl: Kubectl) -> Iterator[str]:
    # For example a ReplicaSet that may not create pods. The autoscaler's warnings are normal at
    # the start, before there are metrics.
    yield from _events(
        kubectl,
        "type=Warning,involvedObject.kind!=Pod,involvedObject.kind!=HorizontalPodAutoscaler",
    )
    for pod in kubectl.get_all("pods", f"--selector={PART_OF_SELECTOR}"):
        if not is_ready(pod):
            yield from _describe_pod(kubectl, pod)


def _describe_pod(kubectl: Kubectl, pod: KubernetesObject) -> Iterator[str]:
    name = pod["metadata"]["name"]
    yield f"--- Pod {name}: {pod['status']['phase']}"
    yield from _events(kubectl, f"involvedObject.name={name}")
    for status in container_statuses(pod):
        yield from _terminations(status)
        has_started = status["restartCount"] > 0 or "waiting" not in status["state"]
        if has_started:
            yield from _last_log_lines(kubectl, name, status["name"])


def _events(kubectl: Kubectl, field_selector: str) -> Iterator[str]:
    """Yield the latest event of each reason and object."""
    latest: dict[str, str] = {}
    for event in kubectl.get_all("events", f"--field-selector={field_selector}"):
        involved_object = event["involvedObject"]
        subject = f"{involved_object['kind']} {involved_object['name']}"
        latest[f"{event.get('type')} {event.get('reason')} ({subject})"] = event.get("message", "")
    for title, message in latest.items():
        yield f"{title}: {message}"


def _terminations(status: KubernetesObject) -> Iterator[str]:
    """Yield how the container ended, now and the time before."""
    for state in (status["state"], status.get("lastState", {})):
        if "terminated" in state:
            termination = state["terminated"]
            yield (
                f"Container {status['name']} exited: {termination.get('reason')},"
                f" exit code {termination['exitCode']}"
            )


def _last_log_lines(kubectl: Kubectl, pod: str, container: str) -> list[str]:
    try:
        output = kubectl.run(
            "logs", pod, f"--container={container}", f"--tail={LOG_LINES}", "--prefix"
        )
    except ClusterError as error:
        output = str(error)
    return output.splitlines()
