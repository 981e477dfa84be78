"""Wait until a rollout is through, and prove it; or show why it is not."""

import re
import sys
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

from .kubectl import ClusterError, Kubectl

LOG_LINES = 15
NOT_ON_THE_NODE = "ErrImageNeverPull"


def wait(kubectl: Kubectl, what: str, done: Callable[[], bool], limit: float) -> None:
    """Wait for `done`, `limit` s at most. Raises ClusterError, after printing what the pods say."""
    deadline = monotonic() + limit
    while not done():
        missing = not_on_the_node(kubectl)
        if missing or monotonic() > deadline:
            print(*symptoms(kubectl), sep="\n", file=sys.stderr)
            raise ClusterError(missing or f"{what}: not in {limit:g} s (TIMEOUT= gives more).")
        sleep(0.5)


def rolled_out(kubectl: Kubectl, workload: str) -> bool:
    """Whether a Deployment's or StatefulSet's pods are all of its newest template, and ready."""
    found = kubectl.get(workload)
    wanted, status = found["spec"]["replicas"], found["status"]
    counts = {status.get(f"{state}eplicas", 0) for state in ("r", "updatedR", "readyR")}
    return counts == {wanted} and status["observedGeneration"] == found["metadata"]["generation"]


def not_on_the_node(kubectl: Kubectl) -> str:
    """What to do if a node lacks the newest template's image, which waiting does not mend."""
    (wanted,) = kubectl.get("deployment", "api")["spec"]["template"]["spec"]["containers"]
    for pod in kubectl.pods():
        for status in _statuses(pod):
            reason = status["state"].get("waiting", {}).get("reason")
            if reason == NOT_ON_THE_NODE and wanted["image"] in _images(pod):
                return (
                    f"A node has no image {wanted['image']}: this cluster does not see those of the"
                    " Docker engine. Give LOAD= a command that hands one over; it is called with"
                    ' the image\'s name, for example LOAD="kind load docker-image".'
                )
    return ""


def prove(kubectl: Kubectl, image: str, digests: set[str]) -> int:
    """How many pods run an image with one of these digests. Raises ClusterError if any does not."""
    ready = [pod for pod in kubectl.pods() if is_ready(pod)]
    for pod in ready:
        for status in _statuses(pod):
            if not digests.intersection(re.findall("sha256:[0-9a-f]{64}", status["imageID"])):
                raise ClusterError(
                    f"Pod {pod['metadata']['name']}, container {status['name']}, runs"
                    f" {status['imageID']}, which is not {image} ({', '.join(sorted(digests))})."
                )
    if not ready:
        raise ClusterError("No pod is ready, so there is none to prove anything by.")
    return len(ready)


def symptoms(kubectl: Kubectl) -> Iterator[str]:
    """Events and last log lines of the pods that are not ready."""
    pods = kubectl.get("pods", "--selector=app.kubernetes.io/part-of")["items"]
    for pod in pods:
        if is_ready(pod):
            continue
        name = pod["metadata"]["name"]
        yield f"--- {name}: {pod['status']['phase']}"
        found = kubectl.get("events", f"--field-selector=involvedObject.name={name}")["items"]
        for event in found:
            yield f"{event['type']} {event['reason']}: {event.get('message', '')}"
        for status in _statuses(pod):
            if status["restartCount"] or "waiting" not in status["state"]:
                yield from _last_lines(kubectl, name, status["name"])


def _last_lines(kubectl: Kubectl, pod: str, container: str) -> list[str]:
    try:
        told = kubectl("logs", pod, f"--container={container}", f"--tail={LOG_LINES}", "--prefix")
    except ClusterError as error:
        told = str(error)
    return told.splitlines()


def _statuses(pod: Any) -> list[Any]:
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _images(pod: Any) -> set[str]:
    return {container["image"] for container in pod["spec"]["containers"]}


def is_ready(pod: Any) -> bool:
    """Whether a pod is ready to be sent requests."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"
