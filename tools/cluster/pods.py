"""Read the state of pods from the objects that kubectl returns."""

from .kubectl import KubernetesObject


def is_ready(pod: KubernetesObject) -> bool:
    """Whether the pod's condition Ready is true, so that its Service sends requests to the pod."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "Ready":
            return bool(condition["status"] == "True")
    return False


def container_statuses(pod: KubernetesObject) -> list[KubernetesObject]:
    """Return the statuses of the init containers and the containers."""
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def api_image(pod: KubernetesObject) -> str:
    """Return the image of the container `api`, of a pod or of a pod template."""
    for container in pod["spec"]["containers"]:
        if container["name"] == "api":
            return str(container["image"])
    raise KeyError("api")
