"""A cluster accepts what docs/kubernetes.md shows."""

import shutil
from pathlib import Path

import yaml

from tools.checkout import PROJECT
from tools.cluster.ephemeral import EphemeralDeployment
from tools.cluster.kubectl import KubernetesObject


def test_the_overlay_for_a_real_cluster_is_accepted(
    deployment: EphemeralDeployment, tmp_path: Path
) -> None:
    objects = apply_documented_overlay(deployment, tmp_path)
    names = {each["metadata"]["name"] for each in objects}
    assert "db" not in names, "the overlay removes PostgreSQL"
    (settings_name,) = (name for name in names if name.startswith("production-"))
    spec = find_api_deployment(objects)["spec"]["template"]["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["image"].startswith("registry.example.com/team/fastapi-k8s@sha256:")
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert container["envFrom"] == [
            {"configMapRef": {"name": "api"}},
            {"configMapRef": {"name": settings_name}},
        ]


def apply_documented_overlay(
    deployment: EphemeralDeployment, folder: Path
) -> list[KubernetesObject]:
    """Apply the overlay as a dry run on the server, and return the objects."""
    page = (PROJECT / "docs" / "kubernetes.md").read_text()
    overlay = page.split("# orders-production/kustomization.yaml\n")[1].split("```")[0]
    overlay = overlay.replace("namespace: orders", f"namespace: {deployment.kubectl.namespace}")
    base = folder / "orders"
    base.mkdir()
    for name in ("k8s.yaml", "kustomization.yaml"):
        shutil.copy(PROJECT / name, base)
    production = folder / "orders-production"
    production.mkdir()
    (production / "kustomization.yaml").write_text(overlay)
    output = deployment.kubectl.run(
        "apply", "--dry-run=server", "--output=yaml", "--kustomize", str(production)
    )
    objects: list[KubernetesObject] = yaml.safe_load(output)["items"]
    return objects


def find_api_deployment(objects: list[KubernetesObject]) -> KubernetesObject:
    for each in objects:
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "api":
            return each
    raise LookupError("Deployment api")
