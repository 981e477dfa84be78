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

from fastapi_k8s import NAME
from tests.cluster.place import Place
from tests.container.conftest import answers
from tools.cluster.kubectl import Kubectl
from tools.cluster.manifest import render, to_json
from tools.cluster.rollout import deployed_image, is_complete
from tools.dev.servers import free_port, wait_until


def test_a_second_deploy_keeps_the_secret_and_tells_the_address(service: Place) -> None:
    secret = service.kubectl.get("secret", NAME)
    told = service.done("deploy")
    assert service.kubectl.get("secret", NAME) == secret
    assert f"http://api.{service.kubectl.namespace}" in told
    assert f"make port-forward CONTEXT={service.kubectl.context}" in told
    assert is_complete(service.kubectl)


def test_the_pods_log_who_they_are(service: Place) -> None:
    pod = service.kubectl.list_pods()[0]
    line = service.kubectl.run("logs", pod["metadata"]["name"], "--container=api").splitlines()[0]
    told = json.loads(line)
    assert told["pod_name"] == pod["metadata"]["name"]
    assert told["pod_namespace"] == service.kubectl.namespace
    assert told["node_name"] == pod["spec"]["nodeName"]


def test_scale_sets_the_autoscaler_s_minimum_and_refuses_more_than_its_maximum(
    service: Place,
) -> None:
    service.autoscale(least=2, most=6)
    assert "minimum is 3" in service.done("scale", "N=3")
    assert len(service.kubectl.list_pods()) >= 3
    for wrong in ("N=7", "N=0", "N=two", "N="):
        made = service.make("scale", wrong)
        assert made.returncode != 0
        assert "N must be a number from 1 to 6" in made.stderr
    service.done("scale", "N=2")


def test_status_shows_workloads_pods_and_images(service: Place) -> None:
    told = service.done("status")
    for word in ("deployment.apps/api", "statefulset.apps/db", "Deployment/api", service.image):
        assert word in told


@contextmanager
def started(service: Place, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """A make target that does not end by itself, ended as by Ctrl-C."""
    place = [f"CONTEXT={service.kubectl.context}", f"NAMESPACE={service.kubectl.namespace}"]
    with subprocess.Popen(
        ["make", *arguments, *place],
        cwd=service.checkout,
        env={**os.environ, "UV_NO_SYNC": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            os.killpg(running.pid, signal.SIGINT)
            running.communicate(timeout=30)


def test_logs_are_of_all_pods(service: Place) -> None:
    wanted = {*service.names(), "db-0"}
    with started(service, "logs") as running:
        assert running.stdout
        for line in running.stdout:
            wanted = {pod for pod in wanted if f"[pod/{pod}/" not in line}
            if not wanted:
                break
    assert wanted == set()


def test_forward_brings_the_service_to_a_port_here(service: Place) -> None:
    port = free_port()
    with (
        started(service, "port-forward", f"PORT={port}"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        wait_until(lambda: answers(client, "/ready"), 30, "the forwarded port")


def test_a_shell_beside_the_service_sees_its_processes_and_files(service: Place) -> None:
    """In a container that Pod Security admits, from an image that the node has."""
    ask = "tr '\\0' ' ' </proc/1/cmdline; ls /proc/1/root/app; id -u; echo end\n"
    told = ""
    with started(service, "k8s-shell") as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write(ask)
        running.stdin.flush()
        for line in running.stdout:
            told += line
            if line == "end\n":
                break
    assert "gunicorn -c python:fastapi_k8s.server" in told
    assert "healthcheck.py" in told
    assert "10001" in told


@pytest.fixture
def bare(service: Place) -> Iterator[Place]:
    """A namespace without the Secret, to which k8s.yaml alone was applied."""
    service.build("first")
    namespace = f"{service.image}-bare"
    kubectl = Kubectl(service.kubectl.context, namespace)
    objects = render(namespace, deployed_image(service.kubectl), service.checkout)
    kubectl.run("apply", "--filename=-", stdin=to_json(objects))
    yield replace(service, kubectl=kubectl)
    kubectl.run("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")


def test_from_the_manifest_alone_to_a_service_and_to_nothing_again(bare: Place) -> None:
    """Pods wait for the Secret, which `deploy` makes; `undeploy` keeps the data until `destroy`."""
    wait_until(
        lambda: f'secret "{NAME}" not found' in events(bare), 60, "an event about the Secret"
    )
    bare.done("deploy")
    sql(bare, "CREATE TABLE kept ()")
    bare.done("undeploy")
    assert bare.kubectl.get("deployment", "api") is None
    assert "Nothing is deployed" in bare.make("restart").stderr
    bare.done("deploy")
    assert "kept" in sql(bare, "\\dt")
    refused = bare.make("destroy", given="yes\n")
    assert refused.returncode != 0
    assert "Nothing was deleted." in refused.stderr
    assert "kept" in sql(bare, "\\dt")
    bare.kubectl.run("delete", "secret", NAME)
    assert "its password does not" in bare.make("deploy").stderr
    bare.done("destroy", given=f"{bare.kubectl.namespace}\n")
    assert bare.kubectl.get("namespace", bare.kubectl.namespace) is None


def sql(place: Place, statement: str) -> str:
    """What psql prints, on the place's database."""
    return place.kubectl.run("exec", "db-0", "--", "psql", "--username=app", "--command", statement)


def events(place: Place) -> str:
    found = place.kubectl.get_all("events")
    return "\n".join(event.get("message", "") for event in found)


@pytest.mark.parametrize("target", ["deploy", "destroy"])
def test_a_namespace_of_somebody_else_is_left_alone(service: Place, target: str) -> None:
    other = replace(service, kubectl=Kubectl(service.kubectl.context, service.client.namespace))
    made = other.make(target, given=f"{other.kubectl.namespace}\n")
    assert made.returncode != 0
    assert f"does not belong to {NAME}" in made.stderr
    assert other.kubectl.get("pod", "client")


@pytest.mark.parametrize("target", ["restart", "rollback", "scale", "undeploy"])
def test_a_deployment_of_somebody_else_is_left_alone(service: Place, target: str) -> None:
    """One that is called `api` too."""
    client = service.client
    if client.get("deployment", "api") is None:
        client.run("create", "deployment", "api", "--image=nothing", "--replicas=0")
    before = client.get_existing("deployment", "api")["metadata"]["generation"]
    made = replace(service, kubectl=client).make(target, "N=1")
    assert made.returncode != 0
    assert "Nothing is deployed" in made.stderr
    assert client.get_existing("deployment", "api")["metadata"]["generation"] == before
