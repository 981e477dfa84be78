"""What fails under load, and what that costs."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.cluster.place import CLIENTS, Place
from tools.benchmarks.load_generator import Load
from tools.cluster.rollout import is_complete
from tools.dev.servers import wait_until

KILL_WORKERS = """
import os, pathlib, signal
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    pid = int(status.parent.name)
    if pid != os.getpid() and "PPid:\\t1\\n" in status.read_text():
        os.kill(pid, signal.SIGKILL)
        print("killed", pid)
"""


def restarts(service: Place, component: str = "api") -> int:
    """How often the containers of a component were started again."""
    statuses = [
        status
        for pod in service.kubectl.list_pods(component)
        for status in pod["status"].get("containerStatuses", [])
    ]
    return sum(status["restartCount"] for status in statuses)


def span(seen: Load) -> float:
    """Seconds between the first and the last request that was lost."""
    moments = [failure.sent for failure in seen.failures]
    return max(moments, default=0) - min(moments, default=0)


def test_a_deleted_pod_loses_no_request(service: Place) -> None:
    with service.load() as load:
        victim = service.names()[0]
        service.kubectl.run("delete", "pod", victim)
        wait_until(lambda: is_complete(service.kubectl), 60, "another pod")
        assert load.seen().failures == []


def test_a_killed_worker_loses_at_most_what_it_had_in_flight(service: Place) -> None:
    before = restarts(service)
    with service.load() as load:
        victim = service.names()[0]
        kill = ["exec", victim, "--container=api", "--", "python", "-c", KILL_WORKERS]
        assert "killed" in service.kubectl.run(*kill)
        sent = load.seen().sent
        wait_until(lambda: load.seen().sent > sent + 2000, 30, "the load to go on")
        seen = load.seen()
    assert len(seen.failures) <= CLIENTS
    assert span(seen) < 2
    assert restarts(service) == before
    address = service.kubectl.get_existing("pod", victim)["status"]["podIP"]
    assert service.request("GET", f"http://{address}:8000/health")[0] == httpx.codes.OK


def kill(service: Place, pod: str) -> None:
    """Kill all processes of a pod's container, if its node is this machine."""
    status = service.kubectl.get_existing("pod", pod)["status"]["containerStatuses"][0]
    container = status["containerID"].partition("://")[2]
    found = []
    for cgroup in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):  # it has ended meanwhile
            if container in cgroup.read_text():
                found.append(cgroup.parent.name)
    if not found:
        reason = "the node is not this machine, so that its processes cannot be killed from here"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    subprocess.run([*as_root, "kill", "-KILL", *found], check=False)  # some end with the first


def test_a_killed_container_is_back_within_seconds(service: Place) -> None:
    """All its processes at once. Until the Service knows, connections to it are refused."""
    victim = service.names()[0]
    before = restarts(service)
    with service.load() as load:
        kill(service, victim)
        wait_until(
            lambda: restarts(service) > before and is_complete(service.kubectl), 60, "its restart"
        )
        settled = load.seen()
        wait_until(lambda: load.seen().sent > settled.sent + 2000, 30, "the load to go on")
        seen = load.seen()
    assert span(seen) < 5
    assert len(seen.failures) < seen.sent / 10


def test_without_postgresql_pods_are_unready_and_alive(service: Place) -> None:
    before, pods = restarts(service), set(service.names())
    addresses = [pod["status"]["podIP"] for pod in service.kubectl.list_pods()]
    try:
        service.kubectl.run("scale", "statefulset/db", "--replicas=0")
        wait_until(lambda: service.ready() == 0, 60, "all pods to be unready")
        wait_until(lambda: not answers(service), 10, "the Service to lead nowhere")
        for ip in addresses:
            assert service.request("GET", f"http://{ip}:8000/health")[0] == httpx.codes.OK
            status, body = service.request("GET", f"http://{ip}:8000/ready")
            assert (status, json.loads(body)["status"]) == (503, "unready")
    finally:
        service.kubectl.run("scale", "statefulset/db", "--replicas=1")
    wait_until(lambda: is_complete(service.kubectl), 120, "all pods to be ready")
    assert set(service.names()) == pods
    assert restarts(service) == before


def answers(service: Place) -> bool:
    return service.ask("GET", "/version", timeout=2)[0] == httpx.codes.OK
