"""The objects are valid, complete, and fit together."""

import re
import tomllib
from typing import Any

import pytest
from kubernetes_validate.utils import latest_version, validate

from tests.checkout import PROJECT
from tests.manifest.conftest import DOCUMENTS, find, pods

OLDEST = "1.35"
"""The oldest release of Kubernetes that is maintained (https://kubernetes.io/releases/)."""
NEWEST = latest_version()
PREFIX = "app.kubernetes.io"
EACH = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}"
)


@EACH
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_fits_the_schema_of_supported_releases(document: Any, version: str) -> None:
    validate(document, version, strict=True)


@EACH
def test_every_object_has_the_recommended_labels_and_the_namespace(document: Any) -> None:
    metadata = document["metadata"]
    namespace = metadata["name"] if document["kind"] == "Namespace" else metadata["namespace"]
    assert namespace == find("Namespace")["metadata"]["name"]
    assert_labelled(metadata["labels"])


def test_every_pod_and_every_volume_claim_has_the_recommended_labels() -> None:
    for template in pods().values():
        assert_labelled(template["metadata"]["labels"])
    for claim in find("StatefulSet")["spec"]["volumeClaimTemplates"]:
        assert_labelled({f"{PREFIX}/version": "unchangeable", **claim["metadata"]["labels"]})


def assert_labelled(labels: dict[str, str]) -> None:
    expected = {f"{PREFIX}/{name}" for name in ("name", "instance", "version", "part-of")}
    assert expected <= labels.keys()
    assert labels[f"{PREFIX}/part-of"] == labels[f"{PREFIX}/instance"] == "fastapi-k8s"
    assert all(isinstance(value, str) for value in labels.values())


def test_the_versions_in_labels_are_the_project_s_and_the_images() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    for name, template in pods().items():
        (container,) = template["spec"]["containers"]
        tag = container["image"].partition(":")[2].partition("-")[0]
        expected = version if name == "api" else tag
        assert template["metadata"]["labels"][f"{PREFIX}/version"] == expected


def test_the_namespace_enforces_restricted_as_the_oldest_supported_release_has_it() -> None:
    labels = find("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["pod-security.kubernetes.io/enforce-version"] == f"v{OLDEST}"


def test_the_namespace_comes_first_and_no_secret_is_in_the_file() -> None:
    kinds = [document["kind"] for document in DOCUMENTS]
    assert kinds[0] == "Namespace"
    assert "Secret" not in kinds


def test_every_selector_selects_the_pods_that_it_means() -> None:
    """Its own workload's, or those of the workload of its name; and nobody else's."""
    for document in DOCUMENTS:
        selector = document["spec"].get("selector") if "spec" in document else None
        if selector:
            assert selected(selector.get("matchLabels", selector)) == {document["metadata"]["name"]}
    (spread,) = pods()["api"]["spec"]["topologySpreadConstraints"]
    assert selected(spread["labelSelector"]["matchLabels"]) == {"api"}


def selected(labels: dict[str, str]) -> set[str]:
    """The workloads whose pods have these labels."""
    return {
        name
        for name, template in pods().items()
        if labels.items() <= template["metadata"]["labels"].items()
    }


def test_services_lead_to_ports_that_containers_have() -> None:
    for name in pods():
        (service,) = find("Service", name)["spec"]["ports"]
        (container,) = pods()[name]["spec"]["containers"]
        (port,) = container["ports"]
        assert service["targetPort"] == port["name"]
        assert service["port"] == (80 if name == "api" else port["containerPort"])


def test_the_image_is_the_one_that_docker_build_tags_and_is_never_pulled() -> None:
    name = re.search(r"^IMAGE_NAME := (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert name
    spec = pods()["api"]["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["image"] == f"{name[1]}:latest"
        assert container["imagePullPolicy"] == "Never"


def test_the_images_of_the_servers_are_those_of_the_compose_stack() -> None:
    compose = (PROJECT / "docker-compose.yml").read_text()
    for name in ("db", "redis"):
        (container,) = pods()[name]["spec"]["containers"]
        assert f"image: {container['image']}\n" in compose


def test_the_autoscaler_alone_says_how_many_pods_there_are() -> None:
    deployment, autoscaler = find("Deployment", "api"), find("HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in deployment["spec"]
    target = autoscaler["scaleTargetRef"]
    assert [target[key] for key in ("apiVersion", "kind", "name")] == [
        "apps/v1",
        "Deployment",
        "api",
    ]
    assert 2 <= autoscaler["minReplicas"] < autoscaler["maxReplicas"]
    (metric,) = autoscaler["metrics"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert metric["resource"]["name"] in container["resources"]["requests"]


def test_a_node_can_be_drained_while_the_service_goes_on() -> None:
    """One pod at a time, of two or more; and pods that are not ready do not hold it up."""
    budget = find("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] < find("HorizontalPodAutoscaler")["spec"]["minReplicas"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_rollout_never_has_fewer_pods() -> None:
    strategy = find("Deployment", "api")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
