"""Wait until a rollout is complete, and verify which image the pods run."""

import re
from time import monotonic, sleep

from .diagnostics import print_diagnostics
from .kubectl import ClusterError, Kubectl, KubernetesObject
from .pods import api_image, container_statuses, is_ready

POLL_SECONDS = 0.5
MISSING_IMAGE_TIMEOUT_SECONDS = 20.0
"""How long a node may take to find an image that has just been loaded.

A wait for an image that no node has would otherwise last for the full timeout.
"""
OPTIONAL_WORKLOADS = ("statefulset/db", "deployment/redis")
"""Missing if the database and the cache run outside the cluster."""
APPLICATION_CONTAINERS = ("migrate", "api")
"""The containers that run the application's image. A service mesh adds others."""


def wait_for_rollout(kubectl: Kubectl, timeout_seconds: float) -> None:
    """Wait until all workloads are rolled out.

    Raises ClusterError after `timeout_seconds`, and prints events and logs first.
    """
    start_time = monotonic()
    while True:
        limit_seconds = timeout_seconds
        try:
            if is_complete(kubectl):
                return
            failure = describe_missing_image(kubectl)
            if failure:
                limit_seconds = min(timeout_seconds, MISSING_IMAGE_TIMEOUT_SECONDS)
            else:
                failure = (
                    f"The rollout did not complete within {timeout_seconds:g} s."
                    " Set TIMEOUT= to wait longer."
                )
        except ClusterError as error:
            # The API server may be unavailable for a moment, so the wait goes on.
            failure = str(error)
        if monotonic() > start_time + limit_seconds:
            print_diagnostics(kubectl)
            raise ClusterError(failure)
        sleep(POLL_SECONDS)


def is_complete(kubectl: Kubectl) -> bool:
    """Whether every workload runs its newest template, with the autoscaler's minimum of pods."""
    autoscaler = kubectl.get("hpa", "api")
    min_replicas = autoscaler["spec"]["minReplicas"] if autoscaler else 1
    if len(kubectl.list_pods()) < min_replicas:
        return False
    workloads = ("deployment/api", *OPTIONAL_WORKLOADS)
    return all(is_rolled_out(kubectl, workload) for workload in workloads)


def is_rolled_out(kubectl: Kubectl, workload: str) -> bool:
    """Whether all pods of a Deployment or StatefulSet have its newest template and are ready."""
    kubernetes_object = kubectl.get(workload)
    if kubernetes_object is None:
        return workload in OPTIONAL_WORKLOADS
    status = kubernetes_object["status"]
    if status.get("observedGeneration") != kubernetes_object["metadata"]["generation"]:
        return False  # the status describes an older template
    replicas = kubernetes_object["spec"]["replicas"]
    counts = ("replicas", "updatedReplicas", "readyReplicas")
    return all(status.get(count, 0) == replicas for count in counts)


def is_in_progress(kubectl: Kubectl) -> bool:
    """Whether pods with an older template are left: the rollout is not complete, or it failed."""
    status = kubectl.get_application_object()["status"]
    return bool(status.get("updatedReplicas", 0) < status.get("replicas", 0))


def get_deployed_image(kubectl: Kubectl) -> str:
    """Return the image in the Deployment's template. Raises ClusterError."""
    return api_image(kubectl.get_application_object()["spec"]["template"])


def list_ready_pods(kubectl: Kubectl) -> list[KubernetesObject]:
    """Return the pods of the API that are ready. Raises ClusterError."""
    return [pod for pod in kubectl.list_pods() if is_ready(pod)]


def verify_image(kubectl: Kubectl, image: str, digests: set[str]) -> int:
    """Return the number of ready pods, all of which run an image with one of these digests.

    Raises ClusterError if a pod runs another image, or if no pod is ready.
    """
    pods = list_ready_pods(kubectl)
    if not pods:
        raise ClusterError(f"No pod is ready, so nothing runs {image}.")
    for pod in pods:
        for status in container_statuses(pod):
            if status["name"] in APPLICATION_CONTAINERS:
                _verify_container(pod, status, image, digests)
    return len(pods)


def _verify_container(
    pod: KubernetesObject, status: KubernetesObject, image: str, digests: set[str]
) -> None:
    reported_digests = re.findall("sha256:[0-9a-f]{64}", status["imageID"])
    if digests.isdisjoint(reported_digests):
        raise ClusterError(
            f"Container {status['name']} of pod {pod['metadata']['name']} runs"
            f" {status['imageID']}, which is not {image} ({', '.join(sorted(digests))})."
        )


def describe_missing_image(kubectl: Kubectl) -> str:
    """Return what to do if a node lacks the newest template's image, or an empty string."""
    image = get_deployed_image(kubectl)
    for pod in kubectl.list_pods():
        if api_image(pod) != image:
            continue  # left over from an earlier rollout
        for status in container_statuses(pod):
            if status["state"].get("waiting", {}).get("reason") == "ErrImageNeverPull":
                return (
                    f"A node does not have the image {image}: it was not loaded, or it has been"
                    " removed since. `make restart` loads it. On a cluster of an unknown type, set"
                    ' IMAGE_LOADER="command"; the command is called with the image\'s name.'
                )
    return ""
