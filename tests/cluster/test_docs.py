"""What docs/kubernetes.md shows is accepted by a cluster."""

import shutil
from pathlib import Path

import yaml

from tests.checkout import PROJECT
from tests.cluster.place import Place


def test_the_overlay_for_a_real_cluster_is_accepted_and_leaves_postgresql_out(
    service: Place, tmp_path: Path
) -> None:
    page = (PROJECT / "docs" / "kubernetes.md").read_text()
    overlay = page.split("# kustomization.yaml\n")[1].split("```")[0]
    shutil.copy(PROJECT / "k8s.yaml", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        overlay.replace("namespace: orders", f"namespace: {service.kubectl.namespace}")
    )
    told = service.kubectl.run(
        "apply", "--dry-run=server", "--output=yaml", "--kustomize", str(tmp_path)
    )
    applied = yaml.safe_load(told)["items"]
    assert not any(each["metadata"]["name"] == "db" for each in applied)
    (api,) = (
        each
        for each in applied
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "api"
    )
    spec = api["spec"]["template"]["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["image"].startswith("registry.example.com/team/fastapi-k8s@sha256:")
        assert container["imagePullPolicy"] == "IfNotPresent"
