"""No acknowledged item is lost while PostgreSQL or Redis fails."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep

from tests.cluster.conftest import wait_for_requests, wait_until_complete
from tests.cluster.test_faults import count_restarts, kill_container
from tools.cluster.ephemeral import EphemeralDeployment
from tools.dev.servers import wait_until

WRITER_PROGRAM = """
import http.client, json, sys, threading

ADDRESS = sys.argv[1]
TIMEOUT_SECONDS = 10
created_ids = []
stopped = threading.Event()


def send(method, path, body=None):
    connection = http.client.HTTPConnection(ADDRESS, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def create_items():
    while not stopped.is_set():
        status, body = send("POST", "/items", b'{"name": "Lamp"}')
        if status == 201:
            created_ids.append(json.loads(body)["id"])
        else:
            stopped.wait(0.05)


threads = [threading.Thread(target=create_items) for _ in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
stopped.set()
for thread in threads:
    thread.join()
lost_ids = [id for id in created_ids if send("GET", f"/items/{id}")[0] != 200]
print(json.dumps({"created": len(created_ids), "lost": lost_ids}))
"""
"""Runs in the client pod. Creates items until its standard input ends, and then reads them all."""


def create_item(deployment: EphemeralDeployment) -> str:
    """Create an item and return its path."""
    response = deployment.send("POST", "/items", '{"name": "Lamp"}')
    return f"/items/{json.loads(response.body)['id']}"


@contextmanager
def continuous_writes(deployment: EphemeralDeployment) -> Iterator[None]:
    """Create items while the block runs. Fails if an acknowledged item is missing afterwards."""
    address = deployment.url.removeprefix("http://")
    command = deployment.client_kubectl.command_line(
        "exec", "--stdin", "client", "--", "python", "-c", WRITER_PROGRAM, address
    )
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield
        sleep(1)  # some writes after the recovery
        output, _ = process.communicate()
    result = json.loads(output)
    assert result["created"] > 10
    assert result["lost"] == []


def test_no_acknowledged_write_is_lost_when_postgresql_is_stopped(
    deployment: EphemeralDeployment,
) -> None:
    with continuous_writes(deployment):
        try:
            deployment.kubectl.run("scale", "statefulset/db", "--replicas=0")
            wait_until(lambda: deployment.count_ready_pods() == 0, 60, "all pods to be unready")
        finally:
            deployment.kubectl.run("scale", "statefulset/db", "--replicas=1")
        wait_until_complete(deployment, 120)


def test_no_acknowledged_write_is_lost_when_postgresql_is_killed(
    deployment: EphemeralDeployment,
) -> None:
    restarts_before = count_restarts(deployment, "database")
    with continuous_writes(deployment):
        kill_container(deployment, "db-0")
        wait_until(
            lambda: count_restarts(deployment, "database") > restarts_before,
            60,
            "the restart of PostgreSQL",
        )
        wait_until_complete(deployment, 120)


def test_no_read_fails_when_redis_is_deleted(deployment: EphemeralDeployment) -> None:
    with deployment.load(create_item(deployment)) as load:
        (redis,) = deployment.kubectl.list_pods("cache")
        deployment.kubectl.run("delete", "pod", redis["metadata"]["name"])
        wait_until_complete(deployment, 60)
        wait_for_requests(load, 1000)
        assert load.read_statistics().failures == []
