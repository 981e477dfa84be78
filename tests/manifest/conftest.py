"""k8s.yaml as it stands in the checkout."""

from typing import Any

import pytest
import yaml

from tests.checkout import PROJECT

MANIFEST = PROJECT / "k8s.yaml"
DOCUMENTS: list[Any] = list(yaml.safe_load_all(MANIFEST.read_text()))


def find(kind: str, name: str | None = None) -> Any:
    """The only object of a kind, or the one of that name."""
    (found,) = (
        each
        for each in DOCUMENTS
        if each["kind"] == kind and name in {None, each["metadata"]["name"]}
    )
    return found


def pods() -> dict[str, Any]:
    """The pod templates by the name of their workload."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in DOCUMENTS
        if each["kind"] in {"Deployment", "StatefulSet"}
    }


def containers() -> list[Any]:
    """All containers, those for initialisation among them, as pytest parameters with a name."""
    return [
        pytest.param(template["spec"], container, id=f"{name}-{container['name']}")
        for name, template in pods().items()
        for group in ("initContainers", "containers")
        for container in template["spec"].get(group, [])
    ]
