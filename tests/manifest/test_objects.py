"""The objects are valid and refer to each other correctly."""

import re
import tomllib

import pytest
from kubernetes_validate.utils import latest_version, validate

from tests.manifest.conftest import LOCAL, Manifest, each_manifest, object_parameters
from tools.checkout import PROJECT
from tools.cluster.kubectl import KubernetesObject

OLDEST_VERSION = "1.35"
"""The oldest release of Kubernetes that is maintained (https://kubernetes.io/releases/)."""
NEWEST_VERSION = latest_version()
LABEL_PREFIX = "app.kubernetes.io"

each_object = pytest.mark.parametrize(("manifest", "kubernetes_object"), object_parameters())


@each_object
@pytest.mark.parametrize("version", [OLDEST_VERSION, NEWEST_VERSION])
def test_every_object_matches_the_schema_of_the_supported_releases(
    manifest: Manifest, kubernetes_object: KubernetesObject, version: str
) -> None:
    del manifest
    if kubernetes_object["kind"] != "HTTPRoute":  # test_http_route.py has the schema of this kind
        validate(kubernetes_object, version, strict=True)


@each_object
def test_every_object_has_the_recommended_labels_and_the_namespace(
    manifest: Manifest, kubernetes_object: KubernetesObject
) -> None:
    metadata = kubernetes_object["metadata"]
    is_namespace = kubernetes_object["kind"] == "Namespace"
    namespace = metadata["name"] if is_namespace else metadata["namespace"]
    assert namespace == manifest.find("Namespace")["metadata"]["name"]
    assert_recommended_labels(metadata["labels"])


@each_manifest
def test_every_pod_and_volume_claim_has_the_recommended_labels(manifest: Manifest) -> None:
    for template in manifest.pod_templates().values():
        assert_recommended_labels(template["metadata"]["labels"])
    for stateful_set in manifest.find_all("StatefulSet"):
        for claim in stateful_set["spec"]["volumeClaimTemplates"]:
            # Volume claim templates are immutable, so they have no version.
            labels = claim["metadata"]["labels"]
            assert_recommended_labels({f"{LABEL_PREFIX}/version": "", **labels})


def assert_recommended_labels(labels: dict[str, str]) -> None:
    expected = {f"{LABEL_PREFIX}/{name}" for name in ("name", "instance", "version", "part-of")}
    assert expected <= labels.keys()
    assert labels[f"{LABEL_PREFIX}/part-of"] == "fastapi-k8s"
    assert labels[f"{LABEL_PREFIX}/instance"] == "fastapi-k8s"
    assert all(isinstance(value, str) for value in labels.values())


@each_object
def test_the_version_label_of_the_application_is_that_of_the_project(
    manifest: Manifest, kubernetes_object: KubernetesObject
) -> None:
    del manifest
    labels = kubernetes_object["metadata"]["labels"]
    if labels[f"{LABEL_PREFIX}/name"] == "fastapi-k8s":
        assert labels[f"{LABEL_PREFIX}/version"] == read_project_version()


def read_project_version() -> str:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def test_the_version_labels_of_the_pods_are_those_of_the_project_and_of_the_images() -> None:
    for name, template in LOCAL.pod_templates().items():
        (container,) = template["spec"]["containers"]
        image_version = container["image"].partition(":")[2].partition("-")[0]
        expected = read_project_version() if name == "api" else image_version
        assert template["metadata"]["labels"][f"{LABEL_PREFIX}/version"] == expected


@each_manifest
def test_the_namespace_enforces_the_restricted_standard_of_the_oldest_release(
    manifest: Manifest,
) -> None:
    labels = manifest.find("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["pod-security.kubernetes.io/enforce-version"] == f"v{OLDEST_VERSION}"


@each_manifest
def test_the_namespace_comes_first_and_the_file_contains_no_secret(manifest: Manifest) -> None:
    kinds = [each["kind"] for each in manifest.objects]
    assert kinds[0] == "Namespace"
    assert "Secret" not in kinds


def test_k8s_yaml_is_the_file_of_the_base() -> None:
    """An editor that replaces the symbolic link would leave the overlays with the old content."""
    assert (PROJECT / "k8s.yaml").resolve() == PROJECT / "deploy" / "base" / "k8s.yaml"
    for folder in (PROJECT, PROJECT / "deploy" / "base"):
        assert "resources: [k8s.yaml]" in (folder / "kustomization.yaml").read_text()


@each_manifest
def test_every_selector_selects_the_pods_of_the_object_s_own_name_only(manifest: Manifest) -> None:
    for each in manifest.objects:
        selector = each.get("spec", {}).get("selector")
        if selector:
            labels = selector.get("matchLabels", selector)
            assert selected_workloads(manifest, labels) == {each["metadata"]["name"]}
    (constraint,) = manifest.pod_templates()["api"]["spec"]["topologySpreadConstraints"]
    assert selected_workloads(manifest, constraint["labelSelector"]["matchLabels"]) == {"api"}


def selected_workloads(manifest: Manifest, labels: dict[str, str]) -> set[str]:
    """Return the workloads whose pods have these labels."""
    return {
        name
        for name, template in manifest.pod_templates().items()
        if labels.items() <= template["metadata"]["labels"].items()
    }


@each_manifest
def test_every_service_leads_to_a_port_of_its_container(manifest: Manifest) -> None:
    for name, template in manifest.pod_templates().items():
        (service_port,) = manifest.find("Service", name)["spec"]["ports"]
        (container,) = template["spec"]["containers"]
        (container_port,) = container["ports"]
        assert service_port["targetPort"] == container_port["name"]
        expected = 80 if name == "api" else container_port["containerPort"]
        assert service_port["port"] == expected


def test_the_image_is_the_one_that_make_builds_and_is_never_pulled() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    image_name = re.search(r"^IMAGE_NAME := (.*)$", makefile, re.MULTILINE)
    assert image_name
    for container in LOCAL.api_containers():
        assert container["image"] == f"{image_name[1]}:latest"
        assert container["imagePullPolicy"] == "Never"


def test_postgresql_and_redis_have_the_images_of_the_compose_stack() -> None:
    compose = (PROJECT / "docker-compose.yml").read_text()
    for name in ("db", "redis"):
        (container,) = LOCAL.pod_templates()[name]["spec"]["containers"]
        assert f"image: {container['image']}\n" in compose


@each_manifest
def test_only_the_autoscaler_sets_the_number_of_pods(manifest: Manifest) -> None:
    deployment = manifest.find("Deployment", "api")
    autoscaler = manifest.find("HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in deployment["spec"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}
    assert autoscaler["scaleTargetRef"] == target
    assert 2 <= autoscaler["minReplicas"] < autoscaler["maxReplicas"]
    (metric,) = autoscaler["metrics"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert metric["resource"]["name"] in container["resources"]["requests"]


@each_manifest
def test_a_node_drain_evicts_one_pod_at_a_time_and_unready_pods_always(manifest: Manifest) -> None:
    budget = manifest.find("PodDisruptionBudget")["spec"]
    min_replicas = manifest.find("HorizontalPodAutoscaler")["spec"]["minReplicas"]
    assert budget["maxUnavailable"] == 1
    assert budget["maxUnavailable"] < min_replicas
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@each_manifest
def test_a_rolling_update_never_has_fewer_ready_pods(manifest: Manifest) -> None:
    strategy = manifest.find("Deployment", "api")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
