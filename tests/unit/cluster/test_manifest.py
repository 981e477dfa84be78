"""k8s.yaml is rendered for one namespace and one image, without a change to the file."""

import os
import shutil
from pathlib import Path

import pytest

from tests.unit.cluster.conftest import IMAGE
from tools.checkout import PROJECT
from tools.cluster.kubectl import ClusterError, KubernetesObject
from tools.cluster.manifest import build_overlay, hash_settings, render


def test_the_hash_depends_on_the_settings_and_not_on_their_order() -> None:
    settings = {"DRAIN_SECONDS": "5", "LOG_LEVEL": "INFO"}
    reordered = {"LOG_LEVEL": "INFO", "DRAIN_SECONDS": "5"}
    assert hash_settings(settings) == hash_settings(reordered)
    assert hash_settings(settings) != hash_settings({**settings, "LOG_LEVEL": "DEBUG"})


def test_the_overlay_keeps_a_registry_with_a_port_in_the_image_name() -> None:
    overlay = build_overlay("orders", "localhost:5000/team/orders:0123456789ab", {})
    (image,) = overlay["images"]
    assert image["newName"] == "localhost:5000/team/orders"
    assert image["newTag"] == "0123456789ab"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the two files that are rendered. Needs kubectl, which contains kustomize."""
    if shutil.which("kubectl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("kubectl is not installed")
        pytest.skip("kubectl is not installed")
    for name in ("k8s.yaml", "kustomization.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    return tmp_path


def find_api(objects: list[KubernetesObject], kind: str) -> KubernetesObject:
    for kubernetes_object in objects:
        name = kubernetes_object["metadata"]["name"]
        if kubernetes_object["kind"] == kind and name.partition("-")[0] == "api":
            return kubernetes_object
    raise LookupError(kind)


def containers_of_api(objects: list[KubernetesObject]) -> list[KubernetesObject]:
    spec = find_api(objects, "Deployment")["spec"]["template"]["spec"]
    return [*spec["initContainers"], *spec["containers"]]


def test_every_object_is_in_the_namespace_and_the_namespace_comes_first(project: Path) -> None:
    namespace, *objects = render("orders", IMAGE, project)
    assert (namespace["kind"], namespace["metadata"]["name"]) == ("Namespace", "orders")
    assert {each["metadata"]["namespace"] for each in objects} == {"orders"}


def test_every_container_of_the_api_runs_the_image(project: Path) -> None:
    containers = containers_of_api(render("orders", IMAGE, project))
    assert [container["image"] for container in containers] == [IMAGE, IMAGE]


def test_the_settings_are_in_an_immutable_config_map_that_is_named_by_their_hash(
    project: Path,
) -> None:
    objects = render("orders", IMAGE, project)
    config_map = find_api(objects, "ConfigMap")
    assert config_map["immutable"] is True
    assert config_map["metadata"]["name"] == f"api-{hash_settings(config_map['data'])}"
    for container in containers_of_api(objects):
        name = config_map["metadata"]["name"]
        assert container["envFrom"] == [{"configMapRef": {"name": name}}]


def test_a_changed_setting_changes_the_pod_template_and_no_file(project: Path) -> None:
    before = render("orders", IMAGE, project)
    manifest = project / "k8s.yaml"
    edited = manifest.read_text().replace("LOG_LEVEL: INFO", "LOG_LEVEL: DEBUG")
    manifest.write_text(edited)
    after = render("orders", IMAGE, project)
    assert find_api(after, "ConfigMap")["data"]["LOG_LEVEL"] == "DEBUG"
    assert find_api(before, "Deployment") != find_api(after, "Deployment")
    assert find_api(before, "ConfigMap")["metadata"] != find_api(after, "ConfigMap")["metadata"]
    assert manifest.read_text() == edited
    assert {file.name for file in project.iterdir()} == {"k8s.yaml", "kustomization.yaml"}


def test_other_changes_keep_the_config_map(project: Path) -> None:
    before = render("orders", IMAGE, project)
    after = render("orders", "fastapi-k8s:ba9876543210", project)
    assert find_api(before, "ConfigMap") == find_api(after, "ConfigMap")


def test_a_project_without_the_config_map_is_an_error(project: Path) -> None:
    manifest = project / "k8s.yaml"
    manifest.write_text(manifest.read_text().replace("kind: ConfigMap", "kind: Secret"))
    with pytest.raises(ClusterError, match="There is no ConfigMap api"):
        render("orders", IMAGE, project)
