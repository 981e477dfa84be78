"""deploy/production and its components, as far as they differ from k8s.yaml."""

import os
import re
import shutil
from pathlib import Path

import pytest

from fastapi_k8s.settings import Settings
from tests.manifest.conftest import LOCAL, OVERLAYS, Manifest, max_connections_of_pods, render
from tools.checkout import PROJECT

IMAGE = re.compile(r"registry\.example\.com/team/fastapi-k8s@sha256:[0-9a-f]{64}")
DATABASE_URL = (
    "postgresql://app:0123456789@db.example.com/app?sslmode=verify-full&sslrootcert=system"
)
SECRETS = {
    "DATABASE_URL": DATABASE_URL,
    "REDIS_URL": "rediss://:0123456789@redis.example.com:6379/0",
}
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=str)


def require_kubectl() -> None:
    """Skip the test if kubectl is missing, or fail it in CI, where every test has to run."""
    if shutil.which("kubectl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("kubectl is not installed")
        pytest.skip("kubectl is not installed")


def test_kubectl_renders_the_overlay() -> None:
    """The other tests get what kubectl has rendered. Without kubectl there would be none."""
    require_kubectl()
    assert len(OVERLAYS) == 2


@each_overlay
def test_no_annotation_is_the_text_null(overlay: Manifest) -> None:
    """kustomize does not remove an annotation that a patch sets to null."""
    for document in overlay.objects:
        assert "null" not in document["metadata"].get("annotations", {}).values()


@each_overlay
def test_the_image_has_a_digest_and_is_pulled_once(overlay: Manifest) -> None:
    for container in overlay.api_containers():
        assert IMAGE.fullmatch(container["image"])
        assert container["imagePullPolicy"] == "IfNotPresent"


@each_overlay
def test_everything_but_the_database_and_the_settings_stays(overlay: Manifest) -> None:
    replaced = {"db"}
    if "components" in overlay.name:
        replaced |= {"redis"}
    assert names_of(LOCAL) - names_of(overlay) == {
        *((kind, name) for kind, name in names_of(LOCAL) if name in replaced),
        ("ConfigMap", "api"),
    }
    (settings,) = overlay.find_all("ConfigMap")
    assert settings["immutable"] is True
    for container in overlay.api_containers():
        assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]


def names_of(manifest: Manifest) -> set[tuple[str, str]]:
    """Return the kind and the name of each object."""
    return {(each["kind"], each["metadata"]["name"]) for each in manifest.objects}


@each_overlay
def test_the_settings_and_the_secret_are_complete_and_valid(
    overlay: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No setting of k8s.yaml is missing, and each variable that is not a setting is documented."""
    (settings_map,) = overlay.find_all("ConfigMap")
    config = settings_map["data"]
    (secret,) = (
        volume["secret"]
        for volume in overlay.pod_templates()["api"]["spec"]["volumes"]
        if volume["name"] == "secret"
    )
    paths = {item["path"] for item in secret["items"]} - {"database-ca.crt"}
    assert LOCAL.find("ConfigMap")["data"].keys() <= config.keys() | paths
    for name, value in config.items():
        monkeypatch.setenv(name, value)
    for name in paths:
        (tmp_path / name).write_text(SECRETS[name])
    settings = Settings(_env_file=None, _secrets_dir=tmp_path)
    assert settings.environment == "production"
    assert settings.model_fields_set >= {name.lower() for name in paths}
    page = (PROJECT / "docs" / "configuration.md").read_text()
    for name in config:
        assert name.lower() in settings.model_fields_set or f"`{name}" in page


def test_a_changed_setting_changes_the_pods(tmp_path: Path) -> None:
    require_kubectl()
    (before, _) = OVERLAYS
    shutil.copytree(PROJECT / "deploy", tmp_path, dirs_exist_ok=True)
    settings = tmp_path / "production" / "settings.env"
    settings.write_text(settings.read_text().replace("LOG_LEVEL=INFO", "LOG_LEVEL=DEBUG"))
    after = Manifest("changed", render(tmp_path / "production"))
    assert after.find("ConfigMap")["data"]["LOG_LEVEL"] == "DEBUG"
    assert after.pod_templates()["api"] != before.pod_templates()["api"]
    assert after.pod_templates()["redis"] == before.pod_templates()["redis"]


@each_overlay
def test_more_pods_run_than_locally_and_their_connections_are_documented(
    overlay: Manifest,
) -> None:
    local = LOCAL.find("HorizontalPodAutoscaler")["spec"]
    production = overlay.find("HorizontalPodAutoscaler")["spec"]
    assert production["minReplicas"] > local["minReplicas"]
    assert production["maxReplicas"] > local["maxReplicas"]
    connections = max_connections_of_pods(overlay, production["maxReplicas"])
    patch = (PROJECT / "deploy" / "production" / "autoscaler.yaml").read_text()
    assert f"opens up to {connections} connections" in patch


def test_all_components_give_every_pod_strict_groups_and_the_namespace_a_cpu_limit() -> None:
    require_kubectl()
    (_, complete) = OVERLAYS
    for template in complete.pod_templates().values():
        assert template["spec"]["securityContext"]["supplementalGroupsPolicy"] == "Strict"
    (limit,) = complete.find("LimitRange")["spec"]["limits"]
    assert limit == {"type": "Container", "default": {"cpu": "2"}}
