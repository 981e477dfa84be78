"""What becomes of items while what they are stored in fails."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from tests.cluster.place import Place
from tests.cluster.test_faults import kill, restarts
from tools.cluster.rollout import is_complete
from tools.dev.servers import wait_until

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


@contextmanager
def writing(service: Place) -> Iterator[None]:
    """Write items while the block runs. In the end each that was acknowledged must be there."""
    address = service.url.removeprefix("http://")
    command = ["exec", "--stdin", "client", "--", "python", "-c", WRITE, address]
    with subprocess.Popen(
        service.client.command_line(*command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield
        began = monotonic()
        wait_until(lambda: monotonic() > began + 1, 5, "a second of writing")
        told, _ = process.communicate()
    written, lost = json.loads(told)
    assert written > 10
    assert lost == []


def test_without_postgresql_no_acknowledged_write_is_lost(service: Place) -> None:
    with writing(service):
        try:
            service.kubectl.run("scale", "statefulset/db", "--replicas=0")
            wait_until(lambda: service.ready() == 0, 60, "all pods to be unready")
        finally:
            service.kubectl.run("scale", "statefulset/db", "--replicas=1")
        wait_until(lambda: is_complete(service.kubectl), 120, "all pods to be ready")


def test_a_killed_postgresql_loses_no_acknowledged_write(service: Place) -> None:
    before = restarts(service, "database")
    with writing(service):
        kill(service, "db-0")
        wait_until(lambda: restarts(service, "database") > before, 60, "its restart")
        wait_until(lambda: is_complete(service.kubectl), 120, "all pods to be ready")


def test_a_deleted_redis_is_not_noticed(service: Place) -> None:
    with service.load(service.add_item()) as load:
        (victim,) = service.kubectl.list_pods("cache")
        service.kubectl.run("delete", "pod", victim["metadata"]["name"])
        wait_until(lambda: is_complete(service.kubectl), 60, "another Redis")
        sent = load.seen().sent
        wait_until(lambda: load.seen().sent > sent + 1000, 30, "the load to go on")
        assert load.seen().failures == []
