"""The make targets around a deployment."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
import yaml

from fastapi_k8s import NAME
from tools.cluster.ephemeral import EphemeralDeployment
from tools.cluster.kubectl import Kubectl, KubernetesObject
from tools.cluster.rollout import get_deployed_image, is_complete
from tools.dev.servers import free_port, wait_until


def test_a_second_deploy_keeps_the_secret_and_prints_the_address(
    deployment: EphemeralDeployment,
) -> None:
    secret_before = deployment.kubectl.get("secret", NAME)
    output = deployment.make("deploy")
    assert deployment.kubectl.get("secret", NAME) == secret_before
    assert f"http://api.{deployment.kubectl.namespace}" in output
    assert f"make port-forward CONTEXT={deployment.kubectl.context}" in output
    assert is_complete(deployment.kubectl)


def test_log_lines_contain_the_pod_its_namespace_and_its_node(
    deployment: EphemeralDeployment,
) -> None:
    pod = deployment.kubectl.list_pods()[0]
    name = pod["metadata"]["name"]
    first_line = deployment.kubectl.run("logs", name, "--container=api").splitlines()[0]
    fields = json.loads(first_line)
    assert fields["pod_name"] == name
    assert fields["pod_namespace"] == deployment.kubectl.namespace
    assert fields["node_name"] == pod["spec"]["nodeName"]


def test_scale_sets_the_minimum_and_refuses_values_above_the_maximum(
    deployment: EphemeralDeployment,
) -> None:
    deployment.set_pod_limits(min_replicas=2, max_replicas=6)
    assert "The minimum is 3." in deployment.make("scale", "N=3")
    assert len(deployment.kubectl.list_pods()) >= 3
    for invalid in ("N=7", "N=0", "N=two", "N="):
        process = deployment.try_make("scale", invalid)
        assert process.returncode != 0
        assert "N must be a number from 1 to 6" in process.stderr
    deployment.make("scale", "N=2")


def test_status_shows_workloads_pods_and_images(deployment: EphemeralDeployment) -> None:
    output = deployment.make("status")
    assert "deployment.apps/api" in output
    assert "statefulset.apps/db" in output
    assert "Deployment/api" in output
    assert deployment.image_name in output


@contextmanager
def running_make(
    deployment: EphemeralDeployment, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a make target that runs until Ctrl-C, and stop it with Ctrl-C's signal."""
    variables = [
        f"CONTEXT={deployment.kubectl.context}",
        f"NAMESPACE={deployment.kubectl.namespace}",
    ]
    with subprocess.Popen(
        ["make", *arguments, *variables],
        cwd=deployment.checkout,
        env={**os.environ, "UV_NO_SYNC": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=30)


def test_logs_follows_all_pods(deployment: EphemeralDeployment) -> None:
    missing_pods = {*deployment.pod_names(), "db-0"}
    with running_make(deployment, "logs") as process:
        assert process.stdout
        for line in process.stdout:
            missing_pods = {pod for pod in missing_pods if f"[pod/{pod}/" not in line}
            if not missing_pods:
                break
    assert missing_pods == set()


def test_port_forward_makes_the_api_available_on_a_local_port(
    deployment: EphemeralDeployment,
) -> None:
    port = free_port()
    with running_make(deployment, "port-forward", f"PORT={port}"):
        url = f"http://127.0.0.1:{port}/ready"
        wait_until(lambda: responds(url), 30, "the forwarded port")


def responds(url: str) -> bool:
    """Whether a GET request gets a 200."""
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def test_k8s_shell_shows_the_processes_and_files_of_the_api(
    deployment: EphemeralDeployment,
) -> None:
    """Pod Security admits the ephemeral container, and the node has its image."""
    script = "tr '\\0' ' ' </proc/1/cmdline; ls /proc/1/root/app; id -u; echo end\n"
    output = ""
    with running_make(deployment, "k8s-shell") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(script)
        process.stdin.flush()
        for line in process.stdout:
            output += line
            if line == "end\n":
                break
    assert "gunicorn -c python:fastapi_k8s.server" in output
    assert "healthcheck.py" in output
    assert "10001" in output


@pytest.fixture
def plain_deployment(deployment: EphemeralDeployment) -> Iterator[EphemeralDeployment]:
    """A namespace to which k8s.yaml was applied without make. Its pods wait for the Secret."""
    deployment.build_image("first")
    namespace = f"{deployment.image_name}-plain"
    kubectl = Kubectl(deployment.kubectl.context, namespace)
    manifest = (deployment.checkout / "k8s.yaml").read_text()
    # The file names one namespace and one image, which other deployments of this cluster may use.
    image = get_deployed_image(deployment.kubectl)
    manifest = manifest.replace(f"namespace: {NAME}\n", f"namespace: {namespace}\n")
    manifest = manifest.replace(
        f"kind: Namespace\nmetadata:\n  name: {NAME}\n",
        f"kind: Namespace\nmetadata:\n  name: {namespace}\n",
    )
    manifest = manifest.replace(f"image: {NAME}:latest", f"image: {image}")
    kubectl.run("apply", "--filename=-", stdin=manifest)
    wait_until(lambda: has_event(kubectl, f'secret "{NAME}" not found'), 60, "the event")
    yield replace(deployment, kubectl=kubectl)
    kubectl.run("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")


def test_the_plain_manifest_starts_as_soon_as_the_secret_exists(
    plain_deployment: EphemeralDeployment,
) -> None:
    """As in docs/kubernetes.md. A second `kubectl apply` accepts a changed setting."""
    kubectl = plain_deployment.kubectl
    password = "0123456789abcdef"
    kubectl.run(
        "create",
        "secret",
        "generic",
        NAME,
        f"--from-literal=POSTGRES_PASSWORD={password}",
        f"--from-literal=DATABASE_URL=postgresql://app:{password}@db:5432/app",
    )
    wait_until(lambda: is_complete(kubectl), 180, "all pods to be ready")
    config_map = kubectl.get_existing("configmap", "api")
    config_map["data"]["LOG_LEVEL"] = "DEBUG"
    changed = {key: config_map[key] for key in ("apiVersion", "kind", "data")}
    changed["metadata"] = {"name": "api", "labels": config_map["metadata"]["labels"]}
    kubectl.run("apply", "--filename=-", stdin=yaml.safe_dump(changed))
    assert kubectl.get_existing("configmap", "api")["data"]["LOG_LEVEL"] == "DEBUG"


def test_undeploy_keeps_the_data_and_destroy_deletes_it(
    plain_deployment: EphemeralDeployment,
) -> None:
    """`make deploy` takes over what `kubectl apply` has created."""
    kubectl = plain_deployment.kubectl
    plain_deployment.make("deploy")
    with plain_deployment.edited_file("k8s.yaml", "LOG_LEVEL: INFO", "LOG_LEVEL: DEBUG"):
        plain_deployment.make("deploy")
    assert len(own_config_maps(kubectl)) == 3, "one of kubectl apply, one of each deploy"
    run_sql(kubectl, "CREATE TABLE kept ()")

    plain_deployment.make("undeploy")
    assert kubectl.get("deployment", "api") is None
    assert own_config_maps(kubectl) == []
    assert "Nothing is deployed" in plain_deployment.try_make("restart").stderr

    plain_deployment.make("deploy")
    assert "kept" in run_sql(kubectl, "\\dt")

    process = plain_deployment.try_make("destroy", stdin="yes\n")
    assert process.returncode != 0
    assert "Nothing was deleted." in process.stderr
    assert "kept" in run_sql(kubectl, "\\dt")

    kubectl.run("delete", "secret", NAME)
    process = plain_deployment.try_make("deploy")
    assert f"Secret {NAME} with its password does not" in process.stderr
    plain_deployment.make("destroy", stdin=f"{kubectl.namespace}\n")
    assert kubectl.get("namespace", kubectl.namespace) is None


def own_config_maps(kubectl: Kubectl) -> list[KubernetesObject]:
    return kubectl.get_all("configmaps", "--selector=app.kubernetes.io/component=api")


def run_sql(kubectl: Kubectl, statement: str) -> str:
    """Return what psql prints."""
    return kubectl.run("exec", "db-0", "--", "psql", "--username=app", "--command", statement)


def has_event(kubectl: Kubectl, text: str) -> bool:
    """Whether the message of an event in the namespace contains the text."""
    return any(text in event.get("message", "") for event in kubectl.get_all("events"))


@pytest.mark.parametrize("target", ["deploy", "destroy"])
def test_a_foreign_namespace_is_not_changed(deployment: EphemeralDeployment, target: str) -> None:
    foreign = replace(deployment, kubectl=deployment.client_kubectl)
    process = foreign.try_make(target, stdin=f"{foreign.kubectl.namespace}\n")
    assert process.returncode != 0
    assert f"does not belong to {NAME}" in process.stderr
    assert foreign.kubectl.get("pod", "client")


@pytest.mark.parametrize("target", ["restart", "rollback", "scale", "undeploy"])
def test_a_foreign_deployment_with_the_same_name_is_not_changed(
    deployment: EphemeralDeployment, target: str
) -> None:
    kubectl = deployment.client_kubectl
    if kubectl.get("deployment", "api") is None:
        kubectl.run("create", "deployment", "api", "--image=nothing", "--replicas=0")
    generation = kubectl.get_existing("deployment", "api")["metadata"]["generation"]
    process = replace(deployment, kubectl=kubectl).try_make(target, "N=1")
    assert process.returncode != 0
    assert "Nothing is deployed" in process.stderr
    assert kubectl.get_existing("deployment", "api")["metadata"]["generation"] == generation
