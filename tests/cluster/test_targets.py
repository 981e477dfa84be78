"""The make targets around a deployment."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from cluster.kubectl import Kubectl
from cluster.manifest import render
from dev.servers import free_port, wait_until
from fastapi_k8s import NAME
from tests.cluster.conftest import whole
from tests.cluster.place import Place
from tests.container.conftest import answers


def test_a_second_deploy_keeps_the_secret_and_tells_the_address(service: Place) -> None:
    secret = service.kubectl.get("secret", NAME)
    told = service.done("deploy")
    assert service.kubectl.get("secret", NAME) == secret
    assert f"http://api.{service.kubectl.namespace}" in told
    assert f"make forward CONTEXT={service.kubectl.context}" in told
    assert whole(service)


def test_the_pods_log_who_they_are(service: Place) -> None:
    pod = service.kubectl.pods()[0]
    line = service.kubectl("logs", pod["metadata"]["name"], "--container=api").splitlines()[0]
    told = json.loads(line)
    assert told["pod_name"] == pod["metadata"]["name"]
    assert told["pod_namespace"] == service.kubectl.namespace
    assert told["node_name"] == pod["spec"]["nodeName"]


def test_scale_sets_the_autoscaler_s_minimum_and_refuses_more_than_its_maximum(
    service: Place,
) -> None:
    assert "at least 3" in service.done("scale", "N=3")
    assert len(service.kubectl.pods()) >= 3
    for wrong in ("N=7", "N=0", "N=two", "N="):
        made = service.make("scale", wrong)
        assert made.returncode != 0
        assert "N must be a number from 1 to 6" in made.stderr
    service.done("scale", "N=2")


def test_status_shows_workloads_pods_and_images(service: Place) -> None:
    told = service.done("status")
    for word in ("deployment.apps/api", "statefulset.apps/db", "Deployment/api", service.image):
        assert word in told


def started(service: Place, *arguments: str) -> "subprocess.Popen[str]":
    """A make target that does not end by itself."""
    place = [f"CONTEXT={service.kubectl.context}", f"NAMESPACE={service.kubectl.namespace}"]
    return subprocess.Popen(
        ["make", *arguments, *place],
        cwd=service.checkout,
        env={**os.environ, "UV_NO_SYNC": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(running: "subprocess.Popen[str]") -> str:
    """End a make target as Ctrl-C does. What it has printed."""
    os.killpg(running.pid, signal.SIGINT)
    return running.communicate(timeout=30)[0]


def test_logs_are_of_all_pods(service: Place) -> None:
    running = started(service, "logs")
    wanted = {pod["metadata"]["name"] for pod in service.kubectl.pods()} | {"db-0"}
    assert running.stdout
    for line in running.stdout:
        wanted = {pod for pod in wanted if f"[pod/{pod}/" not in line}
        if not wanted:
            break
    end(running)
    assert wanted == set()


def test_forward_brings_the_service_to_a_port_here(service: Place) -> None:
    port = free_port()
    running = started(service, "forward", f"PORT={port}")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: answers(client, "/ready"), 30, "the forwarded port")
    finally:
        end(running)


def test_a_shell_beside_the_service_sees_its_processes_and_files(service: Place) -> None:
    """In a container that Pod Security admits, from an image that the node has."""
    running = started(service, "k8s-shell")
    assert running.stdin
    assert running.stdout
    running.stdin.write("tr '\\0' ' ' </proc/1/cmdline; ls /proc/1/root/app; id -u; echo end\n")
    running.stdin.flush()
    told = ""
    for line in running.stdout:
        told += line
        if line == "end\n":
            break
    end(running)
    assert "gunicorn -c python:fastapi_k8s.server" in told
    assert "healthcheck.py" in told
    assert "10001" in told


@pytest.fixture
def bare(service: Place) -> Iterator[Place]:
    """A namespace without the Secret, to which k8s.yaml alone was applied."""
    service.build("first")
    namespace = f"{service.image}-bare"
    kubectl = Kubectl(service.kubectl.context, namespace)
    (container,) = service.kubectl.get("deployment", "api")["spec"]["template"]["spec"][
        "containers"
    ]
    manifest = service.checkout / "k8s.yaml"
    kubectl("apply", "--filename=-", given=render(namespace, container["image"], manifest))
    yield replace(service, kubectl=kubectl)
    kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")


def test_from_the_manifest_alone_to_a_service_and_to_nothing_again(bare: Place) -> None:
    """Pods wait for the Secret, which `deploy` makes; `undeploy` keeps the data until `destroy`."""
    wait_until(
        lambda: f'secret "{NAME}" not found' in events(bare), 60, "an event about the Secret"
    )
    bare.done("deploy")
    _, item = bare.ask("POST", "/items", '{"name": "Lamp"}')
    path = f"/items/{json.loads(item)['id']}"
    bare.done("undeploy")
    assert bare.kubectl.get("deployment", "api") is None
    assert "Nothing is deployed" in bare.make("restart").stderr
    bare.done("deploy")
    assert bare.ask("GET", path) == (200, item)
    refused = bare.make("destroy", given="yes\n")
    assert refused.returncode != 0
    assert "Nothing was removed." in refused.stderr
    assert bare.ask("GET", path)[0] == 200
    bare.kubectl("delete", "secret", NAME)
    assert "its password is gone" in bare.make("deploy").stderr
    bare.done("destroy", given=f"{bare.kubectl.namespace}\n")
    assert bare.kubectl.get("namespace", bare.kubectl.namespace) is None


def events(place: Place) -> str:
    found = place.kubectl.get("events")["items"]
    return "\n".join(event.get("message", "") for event in found)


@pytest.mark.parametrize("target", ["deploy", "destroy"])
def test_a_namespace_of_somebody_else_is_left_alone(service: Place, target: str) -> None:
    other = replace(service, kubectl=Kubectl(service.kubectl.context, service.client.namespace))
    made = other.make(target, given=f"{other.kubectl.namespace}\n")
    assert made.returncode != 0
    assert f"is not {NAME}'s" in made.stderr
    assert other.kubectl.get("pod", "client")
