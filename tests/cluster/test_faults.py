"""What fails under load, and what that costs."""

import json
import os
import signal
import subprocess
from pathlib import Path
from time import monotonic

import httpx
import pytest

from dev.servers import wait_until
from tests.cluster.conftest import whole
from tests.cluster.place import CLIENTS, Place

KILL_WORKERS = """
import os, pathlib, signal
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    pid = int(status.parent.name)
    if pid != os.getpid() and "PPid:\\t1\\n" in status.read_text():
        os.kill(pid, signal.SIGKILL)
"""
WRITE = """
import http.client, json, sys, threading
address, seconds = sys.argv[1], 10
ids, done = [], threading.Event()

def ask(method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=seconds)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()

def write():
    while not done.is_set():
        status, body = ask("POST", "/items", b'{"name": "Lamp"}')
        if status == 201:
            ids.append(json.loads(body)["id"])
        else:
            done.wait(0.05)

writers = [threading.Thread(target=write) for _ in range(4)]
for writer in writers:
    writer.start()
sys.stdin.read()
done.set()
for writer in writers:
    writer.join()
lost = [each for each in ids if ask("GET", f"/items/{each}")[0] != 200]
print(json.dumps([len(ids), lost]))
"""


def pod_names(service: Place) -> list[str]:
    return [pod["metadata"]["name"] for pod in service.kubectl.pods()]


def restarts(service: Place) -> int:
    """How often the service's containers were started again."""
    statuses = [pod["status"]["containerStatuses"][0] for pod in service.kubectl.pods()]
    return sum(status["restartCount"] for status in statuses)


def test_a_deleted_pod_loses_no_request(service: Place) -> None:
    with service.load() as load:
        victim = pod_names(service)[0]
        service.kubectl("delete", "pod", victim)
        wait_until(lambda: whole(service), 60, "another pod")
        assert load.seen().failures == []


def test_a_killed_worker_loses_at_most_what_it_had_in_flight(service: Place) -> None:
    before = restarts(service)
    with service.load() as load:
        victim = pod_names(service)[0]
        kill = ["exec", victim, "--container=api", "--", "python", "-c", KILL_WORKERS]
        service.kubectl(*kill)
        sent = load.seen().sent
        wait_until(lambda: load.seen().sent > sent + 2000, 30, "the load to go on")
        seen = load.seen()
    assert len(seen.failures) <= CLIENTS
    assert max((f.sent for f in seen.failures), default=0) < min(
        (f.sent + 2 for f in seen.failures), default=1
    )
    assert restarts(service) == before


def processes(service: Place, pod: str) -> list[int]:
    """The processes of a pod's container as this machine counts them; none if it is elsewhere."""
    status = service.kubectl.get("pod", pod)["status"]["containerStatuses"][0]
    container = status["containerID"].partition("://")[2]
    found = []
    for cgroup in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if container in cgroup.read_text():
                found.append(int(cgroup.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def test_a_killed_container_is_back_within_seconds(service: Place) -> None:
    """All its processes at once. Until the Service knows, connections to it are refused."""
    victim = pod_names(service)[0]
    pids = processes(service, victim)
    if not pids:
        pytest.skip(
            "the node is not this machine, so that its processes cannot be killed from here"
        )
    before = restarts(service)
    with service.load() as load:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: restarts(service) > before and whole(service), 60, "its restart")
        settled = load.seen()
        wait_until(lambda: load.seen().sent > settled.sent + 2000, 30, "the load to go on")
        seen = load.seen()
    moments = [failure.sent for failure in seen.failures]
    assert max(moments, default=0) - min(moments, default=0) < 5
    assert len(moments) < seen.sent / 10


def test_without_postgresql_pods_are_unready_and_alive_and_no_acknowledged_write_is_lost(
    service: Place,
) -> None:
    before = restarts(service)
    pods = set(pod_names(service))
    address = service.url.removeprefix("http://")
    command = ["exec", "--stdin", "client", "--", "python", "-c", WRITE, address]
    with subprocess.Popen(
        service.client.command(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writing:
        try:
            service.kubectl("scale", "statefulset/db", "--replicas=0")
            wait_until(lambda: ready_pods(service) == 0, 60, "all pods to be unready")
            wait_until(lambda: not answers(service), 10, "the Service to lead nowhere")
        finally:
            service.kubectl("scale", "statefulset/db", "--replicas=1")
        wait_until(lambda: whole(service), 120, "all pods to be ready")
        began = monotonic()
        wait_until(lambda: monotonic() > began + 1, 5, "a second of writing")
        told, _ = writing.communicate()
    written, lost = json.loads(told)
    assert written > 10
    assert lost == []
    assert set(pod_names(service)) == pods
    assert restarts(service) == before


def answers(service: Place) -> bool:
    return service.ask("GET", "/version", timeout=2)[0] == httpx.codes.OK


def ready_pods(service: Place) -> int:
    found = service.kubectl.get("deployment", "api")["status"]
    number: int = found.get("readyReplicas", 0)
    return number


def test_a_deleted_redis_is_not_noticed(service: Place) -> None:
    _, item = service.ask("POST", "/items", '{"name": "Lamp"}')
    with service.load(f"/items/{json.loads(item)['id']}") as load:
        (victim,) = service.kubectl.pods("cache")
        service.kubectl("delete", "pod", victim["metadata"]["name"])
        wait_until(lambda: whole(service), 60, "another Redis")
        sent = load.seen().sent
        wait_until(lambda: load.seen().sent > sent + 1000, 30, "the load to go on")
        assert load.seen().failures == []
