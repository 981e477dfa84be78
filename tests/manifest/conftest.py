"""The objects of k8s.yaml as the file stands in the checkout."""

import pytest
import yaml

from tools.checkout import PROJECT
from tools.cluster.kubectl import KubernetesObject

OBJECTS: list[KubernetesObject] = list(yaml.safe_load_all((PROJECT / "k8s.yaml").read_text()))


def find_object(kind: str, name: str | None = None) -> KubernetesObject:
    """Return the object of this kind and name. Without a name, there has to be only one."""
    (match,) = (
        each
        for each in OBJECTS
        if each["kind"] == kind and name in {None, each["metadata"]["name"]}
    )
    return match


def pod_templates() -> dict[str, KubernetesObject]:
    """Return the pod templates of all workloads, by the workload's name."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in OBJECTS
        if each["kind"] in {"Deployment", "StatefulSet"}
    }


def api_containers() -> list[KubernetesObject]:
    """Return the API's init container and container."""
    spec = pod_templates()["api"]["spec"]
    return [*spec["initContainers"], *spec["containers"]]


def container_parameters() -> list[object]:
    """Return a pytest parameter with the pod's spec and the container, for every container."""
    parameters: list[object] = []
    for workload, template in pod_templates().items():
        spec = template["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            identifier = f"{workload}-{container['name']}"
            parameters.append(pytest.param(spec, container, id=identifier))
    return parameters
