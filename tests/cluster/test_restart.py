"""Rolling updates lose no request, run the image that was built, and can be rolled back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from threading import Thread

import pytest

from fastapi_k8s.migrations import newest_revision
from tests.cluster.test_items import create_item  # example
from tools.checkout import run_command
from tools.cluster.ephemeral import EphemeralDeployment, run_python
from tools.cluster.pods import is_ready
from tools.dev.servers import wait_until

MIN_RESTARTS = 5
MIN_REQUESTS = 100_000


def test_restarts_under_load_lose_none_of_100_000_requests(
    deployment: EphemeralDeployment,
) -> None:
    """Half of the clients keep their connections alive. No request is retried."""
    image_ids = {commit: deployment.build_image(commit) for commit in ("second", "first")}
    commits_before = deployment.reported_commits()
    restarts = 0
    with deployment.load() as load:
        for commit in cycle(image_ids):
            image_id = image_ids[commit]
            run_command(["docker", "tag", image_id, f"{deployment.image_name}:latest"])
            output = deployment.make("restart")
            restarts += 1
            tag = image_id.removeprefix("sha256:")[:12]
            assert f"pods run {deployment.image_name}:{tag}" in output
            assert deployment.reported_commits() == {commit}
            statistics = load.read_statistics()
            assert statistics.failures == []
            if restarts >= MIN_RESTARTS and statistics.request_count >= MIN_REQUESTS:
                break
    commits_in_responses = {json.loads(body)["commit"] for body in statistics.responses}
    assert commits_in_responses == commits_before | set(image_ids)


def test_a_restart_without_a_new_image_replaces_the_pods(deployment: EphemeralDeployment) -> None:
    pods_before = set(deployment.pod_names())
    deployment.make("restart")
    assert pods_before.isdisjoint(deployment.pod_names())


def test_a_rollback_returns_to_the_previous_image(deployment: EphemeralDeployment) -> None:
    deployment.build_image("older")
    deployment.make("restart")
    deployment.build_image("newer")
    deployment.make("restart")
    assert json.loads(deployment.send("GET", "/version").body)["commit"] == "newer"
    assert "->" in deployment.make("rollback")
    assert deployment.reported_commits() == {"older"}
    assert json.loads(deployment.send("GET", "/version").body)["commit"] == "older"


def test_an_image_that_does_not_start_leaves_the_old_pods_in_service(
    deployment: EphemeralDeployment,
) -> None:
    """`make restart` fails and prints the log of the pod. `make rollback` recovers."""
    commits_before = deployment.reported_commits()
    anchor = "        async with (\n"
    error = "        raise RuntimeError('broken on purpose')\n"
    with deployment.edited_file("src/fastapi_k8s/main.py", anchor, error + anchor):
        deployment.build_image("broken")
    with deployment.load() as load:
        # Time for two crashes, on a busy machine too.
        process = deployment.try_make("restart", "TIMEOUT=60")
        assert process.returncode != 0
        assert "The rollout did not complete within 60 s." in process.stderr
        assert "RuntimeError: broken on purpose" in process.stderr
        assert "Back-off restarting failed container" in process.stderr
        assert deployment.reported_commits() >= commits_before
        deployment.make("rollback")
        assert load.read_statistics().failures == []
    assert deployment.reported_commits() == commits_before


@contextmanager
def always_unready(deployment: EphemeralDeployment) -> Iterator[None]:
    """Change /ready in the copied checkout to 503 while the block runs."""
    condition = 'if report.status != "ready":'
    with deployment.edited_file("src/fastapi_k8s/health.py", condition, "if True:"):
        yield


@pytest.mark.parametrize("target", ["restart", "deploy"])
def test_a_rollback_skips_an_image_that_failed_to_roll_out(
    deployment: EphemeralDeployment, target: str
) -> None:
    deployment.build_image("good")
    deployment.make("restart")
    with always_unready(deployment):
        deployment.build_image("failed")
    assert deployment.try_make("restart", "TIMEOUT=10").returncode != 0
    deployment.build_image("fixed")
    deployment.make(target)
    assert deployment.reported_commits() == {"fixed"}
    deployment.make("rollback")
    assert deployment.reported_commits() == {"good"}


def test_an_unready_pod_receives_no_request_through_the_service(
    deployment: EphemeralDeployment,
) -> None:
    with always_unready(deployment):
        deployment.build_image("unready")
    with deployment.load() as load:
        assert deployment.try_make("restart", "TIMEOUT=20").returncode != 0
        assert "unready" in deployment.reported_commits(), "the pod responds at its own address"
        statistics = load.read_statistics()
        deployment.make("rollback")
    assert statistics.failures == []
    assert statistics.responses
    assert not any("unready" in body for body in statistics.responses)


def test_a_restart_with_an_image_that_no_node_has_fails_and_names_it(
    deployment: EphemeralDeployment,
) -> None:
    for node in deployment.kubectl.get_all("nodes"):
        runtime = node["status"]["nodeInfo"]["containerRuntimeVersion"]
        if runtime.startswith("docker://"):
            pytest.skip("the node uses the images of the Docker engine")
    deployment.build_image("absent")
    process = deployment.try_make("restart", "IMAGE_LOADER=true")
    assert process.returncode != 0
    assert "ErrImageNeverPull" in process.stderr
    assert f"A node does not have the image {deployment.image_name}:" in process.stderr
    deployment.make("rollback")


def test_a_release_with_a_migration_rolls_out_and_back_without_losing_a_request(
    deployment: EphemeralDeployment,
) -> None:
    """The old pods stay ready on a schema that is newer than theirs."""
    commits_before = deployment.reported_commits()
    old_revision = newest_revision()
    new_revision = f"{int(old_revision) + 1:04}"
    migration = (
        "from alembic import op\n\n"
        f"revision = '{new_revision}'\n"
        f"down_revision = '{old_revision}'\n\n\n"
        "def upgrade() -> None:\n"
        "    op.execute('ALTER TABLE idempotency_keys ADD COLUMN colour text')\n"
        "    op.execute('ALTER TABLE items ADD COLUMN colour text')\n"  # example
    )
    versions = "src/fastapi_k8s/migrations/versions"
    with deployment.added_file(f"{versions}/{new_revision}_colour.py", migration):
        deployment.build_image("migrating")
    path = "/version"
    path = create_item(deployment)  # example
    with deployment.load(path) as load:
        unready_pods = run_make_and_watch(deployment, "restart")
        assert deployment.reported_commits() == {"migrating"}
        unready_pods += run_make_and_watch(deployment, "rollback")
        assert deployment.reported_commits() == commits_before
        assert load.read_statistics().failures == []
    assert unready_pods == []
    revision = run_sql(deployment, "SELECT * FROM alembic_version")
    assert revision.strip() == new_revision


def run_make_and_watch(deployment: EphemeralDeployment, target: str) -> list[str]:
    """Run a make target, and return pods that became unready without being deleted."""
    ready_pods: set[str] = set()
    unready_pods = []
    thread = Thread(target=deployment.make, args=[target])
    thread.start()
    while thread.is_alive():
        for pod in deployment.kubectl.list_pods():
            name = pod["metadata"]["name"]
            if is_ready(pod):
                ready_pods.add(name)
            elif name in ready_pods:
                unready_pods.append(name)
    thread.join()
    return unready_pods


def run_sql(deployment: EphemeralDeployment, statement: str) -> str:
    """Return what psql prints, without headers."""
    return deployment.kubectl.run("exec", "db-0", "--", "psql", "--username=app", "-Atc", statement)


def test_a_changed_setting_rolls_the_pods_and_a_rollback_returns_to_the_old_setting(
    deployment: EphemeralDeployment,
) -> None:
    pods_before = set(deployment.pod_names())
    with deployment.edited_file("k8s.yaml", "LOG_LEVEL: INFO", "LOG_LEVEL: DEBUG"):
        manifest = (deployment.checkout / "k8s.yaml").read_text()
        deployment.make("deploy")
        assert (deployment.checkout / "k8s.yaml").read_text() == manifest
        assert read_log_levels(deployment) == {"DEBUG"}
        assert pods_before.isdisjoint(deployment.pod_names())
    deployment.make("rollback")
    assert read_log_levels(deployment) == {"INFO"}
    deployment.make("deploy")
    assert read_log_levels(deployment) == {"INFO"}


def read_log_levels(deployment: EphemeralDeployment) -> set[str]:
    """Return the values of LOG_LEVEL in the pods."""
    program = "import os; print(os.environ['LOG_LEVEL'])"
    pods = deployment.pod_names()
    return {run_python(deployment.kubectl, pod, program).strip() for pod in pods}


def test_concurrent_migrations_of_several_pods_run_once(deployment: EphemeralDeployment) -> None:
    pod_count = 5
    run_sql(deployment, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    old_pods = deployment.pod_names()
    deployment.set_pod_limits(min_replicas=pod_count, max_replicas=pod_count)
    deployment.kubectl.run("scale", "deployment/api", f"--replicas={pod_count}")
    deployment.kubectl.run("delete", "pod", *old_pods, "--wait=false")
    wait_until(lambda: deployment.count_ready_pods() == pod_count, 120, "five ready pods")
    new_pods = set(deployment.pod_names()) - set(old_pods)
    logs = [deployment.kubectl.run("logs", pod, "--container=migrate") for pod in new_pods]
    assert len(logs) == pod_count
    assert sum("from 0000 to" in log for log in logs) == 1, "one pod has migrated"
