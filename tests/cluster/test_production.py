"""deploy/production on a cluster, edited as docs/production.md describes.

The image comes by its digest from a registry. PostgreSQL is outside of the application's namespace
and requires a verified certificate.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from fastapi_k8s import NAME
from tests.cluster.postgresql import create_secret, start_postgresql
from tests.cluster.registry import build_registry_image, push_image, start_registry
from tests.gateway_api import http_route_crd
from tools.checkout import PROJECT
from tools.cluster.ephemeral import EphemeralDeployment, run_python
from tools.cluster.kubectl import ClusterError, Kubectl
from tools.cluster.rollout import is_complete
from tools.dev.servers import wait_until

DEPLOY = PROJECT / "deploy"
LIMIT_RANGE = DEPLOY / "components" / "cpu-limits" / "limit-range.yaml"
HTTP_ROUTE = "httproutes.gateway.networking.k8s.io"
CONNECT_TO_ADDRESS = """
import asyncio, asyncpg, sys
from pathlib import Path

url = Path("/run/secrets/DATABASE_URL").read_text().replace(sys.argv[1], sys.argv[2])
try:
    asyncio.run(asyncpg.connect(url, timeout=5))
except OSError as error:
    print(error)
"""
"""Connects to PostgreSQL under another name than the one in its certificate."""

CONNECT = """
import socket, sys

try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("connected")
except OSError as error:
    print(error)
"""


class Production(NamedTuple):
    """The applied overlay. `deployment` runs make targets and requests on it."""

    deployment: EphemeralDeployment
    folder: Path
    image: str

    @property
    def kubectl(self) -> Kubectl:
        return self.deployment.kubectl

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text that a file of the overlay contains once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, old
        path.write_text(text.replace(old, new))

    def apply(self) -> None:
        self.kubectl.run("apply", "--kustomize", str(self.folder / "production"))


@pytest.fixture(scope="module")
def http_routes(shared_deployment: EphemeralDeployment) -> Iterator[None]:
    """HTTPRoutes exist in the cluster. They are removed again if they did not exist before."""
    kubectl = shared_deployment.kubectl
    if kubectl.get("crd", HTTP_ROUTE):
        yield
        return
    crd = http_route_crd()
    kubectl.run("create", f"--filename={crd}")
    try:
        kubectl.run("wait", "--for=condition=Established", f"crd/{HTTP_ROUTE}", "--timeout=30s")
        yield
    finally:
        kubectl.run("delete", f"--filename={crd}")


@pytest.fixture(scope="module")
def production(
    shared_deployment: EphemeralDeployment,
    tmp_path_factory: pytest.TempPathFactory,
    http_routes: None,
) -> Iterator[Production]:
    """The overlay in its own namespace, and with its own image."""
    del http_routes
    external = shared_deployment.client_kubectl
    namespace = f"{shared_deployment.image_name}-production"
    kubectl = Kubectl(external.context, namespace)
    deployment = replace(shared_deployment, image_name=namespace, kubectl=kubectl)
    try:
        # Not the image of the other tests: a kubelet that has pulled an image from a registry does
        # not start one with the same ID and `imagePullPolicy: Never` any more.
        deployment.build_image("production")
        build_registry_image(f"{namespace}:registry")
        start_registry(external, f"{namespace}:registry")
        name, digest = push_image(external, f"{namespace}:latest", f"team/{NAME}")
        database = shared_deployment.kubectl.get_existing("statefulset", "db")
        (container,) = database["spec"]["template"]["spec"]["containers"]
        secret = start_postgresql(external, container["image"])
        kubectl.run("create", "namespace", namespace)
        create_secret(kubectl, NAME, secret)
        production = Production(
            deployment, folder=tmp_path_factory.mktemp("deploy"), image=f"{name}@{digest}"
        )
        edit_overlay(production)
        production.apply()
        wait_until(lambda: is_complete(kubectl), 120, "all pods to be ready")
        yield production
    finally:
        # The shared deployment waits for the end of the namespace.
        kubectl.run("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
        deployment.delete_images()


def edit_overlay(production: Production) -> None:
    """Copy the overlay, and edit what docs/production.md names."""
    shutil.copytree(DEPLOY, production.folder, dirs_exist_ok=True)
    name, _, digest = production.image.partition("@")
    namespace = production.kubectl.namespace
    kustomization = "production/kustomization.yaml"
    production.edit(kustomization, f"registry.example.com/team/{NAME}", name)
    production.edit(kustomization, f"sha256:{64 * '0'}", digest)
    production.edit(kustomization, f"namespace: {NAME} #", f"namespace: {namespace} #")
    production.edit(kustomization, "# - ../components/gateway", "- ../components/gateway")
    cidr = f"{pod_ip(production.deployment.client_kubectl, 'postgresql')}/32"
    production.edit("production/network-policy.yaml", "10.20.0.0/24", cidr)


def pod_ip(kubectl: Kubectl, name: str) -> str:
    ip: str = kubectl.get_existing("pod", name)["status"]["podIP"]
    return ip


def test_the_pods_run_the_digest_and_are_ready(production: Production) -> None:
    pods = production.kubectl.list_pods()
    assert len(pods) == 3
    for pod in pods:
        statuses = pod["status"]["initContainerStatuses"] + pod["status"]["containerStatuses"]
        for status in statuses:
            assert status["imageID"].endswith(production.image.partition("@")[2])
        assert {container["image"] for container in pod["spec"]["containers"]} == {production.image}
    response = production.deployment.send("GET", "/ready")
    assert response.status == 200
    assert json.loads(response.body)["checks"] == {"database": "ok", "cache": "ok"}
    assert production.kubectl.get("statefulset", "db") is None
    assert production.kubectl.get(HTTP_ROUTE, "api")


def test_every_connection_to_postgresql_has_a_verified_certificate(production: Production) -> None:
    external = production.deployment.client_kubectl
    query = (
        "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl"
        " JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL"
    )
    psql = ("psql", "--username=app", "--tuples-only", "--no-align", f"--command={query}")
    assert external.run("exec", "postgresql", "--", *psql).strip() == "t"

    pod = production.deployment.pod_names()[0]
    host = f"postgresql.{external.namespace}.svc"
    address = pod_ip(external, "postgresql")
    output = run_python(production.kubectl, pod, CONNECT_TO_ADDRESS, host, address)
    assert "certificate verify failed: IP address mismatch" in output


def test_the_pods_reach_only_the_network_of_postgresql(production: Production) -> None:
    external = production.deployment.client_kubectl
    pod = production.deployment.pod_names()[0]
    targets = {"postgresql": "5432", "registry": "5000"}
    connected = {
        name
        for name, port in targets.items()
        if "connected" in run_python(production.kubectl, pod, CONNECT, pod_ip(external, name), port)
    }
    assert connected == {"postgresql"}


def test_a_changed_setting_rolls_the_pods_and_a_rollback_restores_it(
    production: Production,
) -> None:
    """The Deployment refers to another ConfigMap then. The test does not wait for the pods."""
    assert read_settings(production)["LOG_LEVEL"] == "INFO"
    production.edit("production/settings.env", "LOG_LEVEL=INFO", "LOG_LEVEL=WARNING")
    production.apply()
    assert read_settings(production)["LOG_LEVEL"] == "WARNING"
    production.kubectl.run("rollout", "undo", "deployment/api")
    assert read_settings(production)["LOG_LEVEL"] == "INFO"


def read_settings(production: Production) -> dict[str, str]:
    """Return the data of the ConfigMap that new pods get."""
    template = production.kubectl.get_application_object()["spec"]["template"]
    (source,) = template["spec"]["containers"][0]["envFrom"]
    name = source["configMapRef"]["name"]
    data: dict[str, str] = production.kubectl.get_existing("configmap", name)["data"]
    return data


def test_a_quota_of_cpu_limits_is_met_with_the_default_of_the_component(
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
    create_pod = ("create", "--dry-run=server", f"--filename={tmp_path}/pod.json")
    kubectl.run("create", "quota", "compute", "--hard=limits.cpu=100")
    try:
        wait_until(lambda: is_refused(kubectl, create_pod), 30, "the quota")
        kubectl.run("apply", f"--filename={LIMIT_RANGE}")
        wait_until(lambda: not is_refused(kubectl, create_pod), 30, "the default limit")
    finally:
        kubectl.run("delete", "quota", "compute")
        kubectl.run("delete", "--ignore-not-found", f"--filename={LIMIT_RANGE}")


def is_refused(kubectl: Kubectl, command: tuple[str, ...]) -> bool:
    """Whether the quota refuses the pod with the message that docs/operations.md names."""
    try:
        kubectl.run(*command)
    except ClusterError as error:
        return "failed quota: compute: must specify limits.cpu for: api,migrate" in str(error)
    return False
