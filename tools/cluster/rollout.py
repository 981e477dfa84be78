"""Wait until a rollout is through, and prove it; or show why it is not."""

import re
import sys
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any

from .kubectl import PART_OF, ClusterError, Kubectl

LOG_LINES = 15
PATIENCE = 20.0
"""Seconds that a node may take to look again for an image that it has just been given."""
OPTIONAL = ("statefulset/db", "deployment/redis")
"""What a service on servers from elsewhere does without."""


def wait(kubectl: Kubectl, limit: float) -> None:
    """Wait for a whole deployment, `limit` s at most.

    Raises ClusterError, after printing what the pods say.
    """
    began = monotonic()
    while True:
        try:
            if whole(kubectl):
                return
            missing, trouble = not_on_the_node(kubectl), f"The rollout: not in {limit:g} s."
        except ClusterError as error:  # the API server may be back in a moment
            missing, trouble = "", str(error)
        if monotonic() > began + min(limit, PATIENCE if missing else limit):
            _print_symptoms(kubectl)
            raise ClusterError(missing or f"{trouble} TIMEOUT= gives more time.")
        sleep(0.5)


def whole(kubectl: Kubectl) -> bool:
    """Whether everything runs its newest template, in the numbers that are wanted."""
    autoscaler = kubectl.get("hpa", "api")
    least = autoscaler["spec"]["minReplicas"] if autoscaler else 1
    return len(kubectl.pods()) >= least and all(
        rolled_out(kubectl, workload) for workload in ("deployment/api", *OPTIONAL)
    )


def rolled_out(kubectl: Kubectl, workload: str) -> bool:
    """Whether a Deployment's or StatefulSet's pods are all of its newest template, and ready."""
    found = kubectl.get(workload)
    if found is None:
        return workload in OPTIONAL
    wanted, status = found["spec"]["replicas"], found["status"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")}
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    return seen and counts == {wanted}


def under_way(kubectl: Kubectl) -> bool:
    """Whether pods of an older template are still there: a rollout goes on, or has failed."""
    status = kubectl.deployed()["status"]
    return bool(status.get("updatedReplicas", 0) < status.get("replicas", 0))


def image_of(kubectl: Kubectl) -> str:
    """The image of the service's newest template."""
    return _image(kubectl.deployed()["spec"]["template"])


def running(kubectl: Kubectl, image: str) -> list[Any]:
    """The ready pods that are to run `image`."""
    return [pod for pod in kubectl.pods() if is_ready(pod) and _image(pod) == image]


def prove(kubectl: Kubectl, image: str, digests: set[str]) -> int:
    """How many pods run an image with one of these digests. Raises ClusterError if any does not."""
    pods = [pod for pod in kubectl.pods() if is_ready(pod)]
    for pod in pods:
        for status in _statuses(pod):
            if status["name"] not in {"api", "migrate"}:
                continue  # a service mesh's
            if not digests.intersection(re.findall("sha256:[0-9a-f]{64}", status["imageID"])):
                raise ClusterError(
                    f"Pod {pod['metadata']['name']}, container {status['name']}, runs"
                    f" {status['imageID']}, which is not {image} ({', '.join(sorted(digests))})."
                )
    if not pods:
        raise ClusterError("No pod is ready, so there is none to prove anything by.")
    return len(pods)


def not_on_the_node(kubectl: Kubectl) -> str:
    """What to do if a node lacks the newest template's image, which waiting does not mend."""
    wanted = image_of(kubectl)
    for pod in kubectl.pods():
        for status in _statuses(pod):
            reason = status["state"].get("waiting", {}).get("reason")
            if reason == "ErrImageNeverPull" and _image(pod) == wanted:
                return (
                    f"A node has no image {wanted}: it was not handed over, or is gone again."
                    " `make restart` hands it over; if the cluster is of a kind that is not known,"
                    ' with IMAGE_LOADER="a command", which is called with the image\'s name.'
                )
    return ""


def is_ready(pod: Any) -> bool:
    """Whether a pod is ready to be sent requests."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _print_symptoms(kubectl: Kubectl) -> None:
    try:
        print(*_symptoms(kubectl), sep="\n", file=sys.stderr)
    except ClusterError as error:
        print(error, file=sys.stderr)


def _symptoms(kubectl: Kubectl) -> Iterator[str]:
    """Events and last log lines of the pods that are not ready, and what keeps pods from being."""
    others = "type=Warning,involvedObject.kind!=Pod,involvedObject.kind!=HorizontalPodAutoscaler"
    yield from _events(kubectl, others)
    for pod in kubectl.items("pods", f"--selector={PART_OF}"):
        if is_ready(pod):
            continue
        name = pod["metadata"]["name"]
        yield f"--- Pod {name}: {pod['status']['phase']}"
        yield from _events(kubectl, f"involvedObject.name={name}")
        for status in _statuses(pod):
            for state in (status["state"], status.get("lastState", {})):
                if ended := state.get("terminated"):
                    yield f"{status['name']} ended: {ended.get('reason')}, code {ended['exitCode']}"
            if status["restartCount"] or "waiting" not in status["state"]:
                yield from _last_lines(kubectl, name, status["name"])


def _events(kubectl: Kubectl, fields: str) -> Iterator[str]:
    """The last event of each reason and object."""
    last = {}
    for event in kubectl.items("events", f"--field-selector={fields}"):
        about = event["involvedObject"]
        what = f"{event.get('type')} {event.get('reason')} ({about['kind']} {about['name']})"
        last[what] = event.get("message")
    yield from (f"{what}: {message}" for what, message in last.items())


def _last_lines(kubectl: Kubectl, pod: str, container: str) -> list[str]:
    try:
        told = kubectl("logs", pod, f"--container={container}", f"--tail={LOG_LINES}", "--prefix")
    except ClusterError as error:
        told = str(error)
    return told.splitlines()


def _statuses(pod: Any) -> list[Any]:
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _image(pod: Any) -> str:
    """Of a pod or a template: the image of the container `api`."""
    (image,) = (each["image"] for each in pod["spec"]["containers"] if each["name"] == "api")
    return str(image)
