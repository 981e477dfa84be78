"""A cluster accepts what docs/kubernetes.md shows."""

import json
import shutil
from pathlib import Path

import yaml

from tools.checkout import PROJECT
from tools.cluster.ephemeral import EphemeralDeployment
from tools.cluster.kubectl import ClusterError, Kubectl, KubernetesObject
from tools.dev.servers import wait_until


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


def test_the_policy_for_a_mesh_is_accepted(deployment: EphemeralDeployment, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(read_documented_file("mesh.yaml"))
    deployment.kubectl.run("apply", "--dry-run=server", f"--filename={tmp_path}/mesh.yaml")


def test_a_quota_of_cpu_limits_is_met_with_the_documented_default(
    deployment: EphemeralDeployment, tmp_path: Path
) -> None:
    """A pod is created as a dry run, so that the running ones are not replaced."""
    kubectl = deployment.kubectl
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "quota"},
        "spec": kubectl.get_existing("deployment", "api")["spec"]["template"]["spec"],
    }
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    (tmp_path / "limits.yaml").write_text(read_documented_file("limits.yaml"))
    create_pod = ("create", "--dry-run=server", f"--filename={tmp_path}/pod.json")
    kubectl.run("create", "quota", "compute", "--hard=limits.cpu=100")
    try:
        wait_until(lambda: is_refused(kubectl, create_pod), 30, "the quota")
        kubectl.run("apply", f"--filename={tmp_path}/limits.yaml")
        wait_until(lambda: not is_refused(kubectl, create_pod), 30, "the default limit")
    finally:
        kubectl.run("delete", "quota", "compute")
        kubectl.run("delete", "--ignore-not-found", f"--filename={tmp_path}/limits.yaml")


def is_refused(kubectl: Kubectl, command: tuple[str, ...]) -> bool:
    """Whether the quota refuses the pod with the message that docs/operations.md names."""
    try:
        kubectl.run(*command)
    except ClusterError as error:
        return "failed quota: compute: must specify limits.cpu for: api,migrate" in str(error)
    return False


def read_documented_file(name: str) -> str:
    """Return the content of a file of the overlay, as the page shows it."""
    page = (PROJECT / "docs" / "kubernetes.md").read_text()
    return page.split(f"# orders-production/{name}\n")[1].split("```")[0]


def apply_documented_overlay(
    deployment: EphemeralDeployment, folder: Path
) -> list[KubernetesObject]:
    """Apply the overlay as a dry run on the server, and return the objects."""
    overlay = read_documented_file("kustomization.yaml")
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
