"""Rollouts under load: nothing is lost, and what runs is what was built."""

import json
from itertools import cycle
from threading import Thread
from typing import Any

import pytest

from fastapi_k8s.migrations import newest_revision
from tests.checkout import output
from tests.cluster.place import Place
from tools.cluster.pods import is_ready
from tools.dev.servers import wait_until

RESTARTS, REQUESTS = 5, 100_000


def test_restarts_under_load_lose_none_of_100_000_requests(service: Place) -> None:
    """Half on kept-alive connections, through the Service's own address, without a retry."""
    images = {commit: service.build(commit) for commit in ("second", "first")}
    restarts = 0
    with service.load() as load:
        for commit in cycle(images):
            output(["docker", "tag", images[commit], f"{service.image}:latest"])
            told = service.done("restart")
            restarts += 1
            assert f"pods run {service.image}:{images[commit][7:19]}" in told
            assert service.commits() == {commit}
            seen = load.seen()
            assert seen.failures == []
            if restarts >= RESTARTS and seen.sent >= REQUESTS:
                break
    assert {json.loads(answer)["commit"] for answer in seen.responses} == set(images)


def test_without_a_new_image_the_pods_are_replaced_all_the_same(service: Place) -> None:
    before = set(service.names())
    service.done("restart")
    assert not before & set(service.names())


def test_a_rollback_is_seen_in_the_answer(service: Place) -> None:
    service.build("older")
    service.done("restart")
    service.build("newer")
    service.done("restart")
    assert json.loads(service.ask("GET", "/version")[1])["commit"] == "newer"
    assert "->" in service.done("rollback")
    assert service.commits() == {"older"}
    assert json.loads(service.ask("GET", "/version")[1])["commit"] == "older"


def test_an_image_that_does_not_start_never_takes_the_old_pods_out(service: Place) -> None:
    """`make restart` fails, and shows what the pod logged; `make rollback` ends it."""
    before = service.commits()
    opened = "        # Opened in this order"
    broken = "        raise RuntimeError('broken on purpose')\n"
    with service.edited("src/fastapi_k8s/main.py", opened, broken + opened):
        service.build("broken")
    with service.load() as load:
        made = service.make("restart", "TIMEOUT=20")
        assert made.returncode != 0
        assert "The rollout did not complete within 20 s." in made.stderr
        assert "RuntimeError: broken on purpose" in made.stderr
        assert "Back-off restarting failed container" in made.stderr
        assert service.commits() >= before
        service.done("rollback")
        assert load.seen().failures == []
    assert service.commits() == before


@pytest.mark.parametrize("target", ["restart", "deploy"])
def test_what_follows_a_failed_restart_can_be_rolled_back(service: Place, target: str) -> None:
    """To what ran before both of them, and not to what failed."""
    service.build("good")
    service.done("restart")
    line = 'response.status_code = 200 if report.status == "ready" else 503'
    with service.edited("src/fastapi_k8s/health.py", line, "response.status_code = 503"):
        service.build("failed")
    assert service.make("restart", "TIMEOUT=10").returncode != 0
    service.build("mended")
    service.done(target)
    assert service.commits() == {"mended"}
    service.done("rollback")
    assert service.commits() == {"good"}


def test_a_pod_that_is_not_ready_gets_no_request(service: Place) -> None:
    """It answers by its own address, and the Service does not lead to it."""
    line = 'response.status_code = 200 if report.status == "ready" else 503'
    with service.edited("src/fastapi_k8s/health.py", line, "response.status_code = 503"):
        service.build("unready")
    with service.load() as load:
        assert service.make("restart", "TIMEOUT=20").returncode != 0
        assert "unready" in service.commits()
        seen = load.seen()
        service.done("rollback")
    assert seen.failures == []
    assert seen.responses
    assert not any("unready" in answer for answer in seen.responses)


def test_an_image_that_is_not_on_the_node_fails_the_restart_and_is_named(service: Place) -> None:
    runtimes = [each["status"]["nodeInfo"] for each in service.kubectl.get_all("nodes")]
    if any(each["containerRuntimeVersion"].startswith("docker://") for each in runtimes):
        pytest.skip("a node may use the Docker engine's own images")
    service.build("absent")
    made = service.make("restart", "IMAGE_LOADER=true")
    assert made.returncode != 0
    assert "ErrImageNeverPull" in made.stderr
    assert f"A node does not have the image {service.image}:" in made.stderr
    service.done("rollback")


def test_a_release_with_a_migration_rolls_out_and_back_under_load(service: Place) -> None:
    """Nothing is lost, and the old pods stay ready on a schema that is ahead of them."""
    before = service.commits()
    known = newest_revision()
    new = f"{int(known) + 1:04}"
    migration = (
        f"from alembic import op\n\nrevision = '{new}'\ndown_revision = '{known}'\n\n\n"
        "def upgrade() -> None:\n"
        "    op.execute('ALTER TABLE idempotency_keys ADD COLUMN colour text')\n"
        "    op.execute('ALTER TABLE items ADD COLUMN colour text')\n"  # example
    )
    versions = "src/fastapi_k8s/migrations/versions"
    with service.edited(f"{versions}/{new}_colour.py", "", migration):
        service.build("migrating")
    path = "/version"
    path = service.add_item()  # example
    with service.load(path) as load:
        unready = during(service, "restart")
        assert service.commits() == {"migrating"}
        unready += during(service, "rollback")
        assert service.commits() == before
        assert load.seen().failures == []
    assert unready == []
    found = service.kubectl.run(
        "exec", "db-0", "--", "psql", "--username=app", "-Atc", "SELECT * FROM alembic_version"
    )
    assert found.strip() == new


def during(service: Place, target: str) -> list[Any]:
    """Pods that lost their readiness, without being on their way out, while a target ran."""
    once_ready: set[str] = set()
    lost = []
    running = Thread(target=service.done, args=[target])
    running.start()
    while running.is_alive():
        for pod in service.kubectl.list_pods():
            name = pod["metadata"]["name"]
            if is_ready(pod):
                once_ready.add(name)
            elif name in once_ready:
                lost.append(name)
    running.join()
    return lost


def test_a_changed_setting_reaches_the_pods_and_a_rollback_takes_it_back(service: Place) -> None:
    with service.edited("k8s.yaml", "LOG_LEVEL: INFO", "LOG_LEVEL: DEBUG"):
        service.done("deploy")
        assert levels(service) == {"DEBUG"}
    service.done("rollback")
    assert levels(service) == {"INFO"}
    service.done("deploy")
    assert levels(service) == {"INFO"}


def levels(service: Place) -> set[str]:
    """LOG_LEVEL as the pods have it."""
    program = "import os; print(os.environ['LOG_LEVEL'])"
    return {
        service.kubectl.run("exec", pod, "--container=api", "--", "python", "-c", program).strip()
        for pod in service.names()
    }


def test_migrations_that_several_pods_race_are_made_once(service: Place) -> None:
    """Five pods at once on an empty database."""
    number = 5
    begin_anew = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
    service.kubectl.run("exec", "db-0", "--", "psql", "--username=app", "--command", begin_anew)
    old = service.names()
    service.autoscale(least=number, most=number)
    service.kubectl.run("scale", "deployment/api", f"--replicas={number}")
    service.kubectl.run("delete", "pod", *old, "--wait=false")
    wait_until(lambda: service.ready() == number, 120, "five ready pods")
    new = set(service.names()) - set(old)
    logs = [service.kubectl.run("logs", name, "--container=migrate") for name in new]
    assert len(logs) == number
    assert sum("schema brought from 0000" in log for log in logs) == 1
