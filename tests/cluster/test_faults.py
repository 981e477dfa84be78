"""Pods, workers, containers and PostgreSQL fail under load, and few requests are lost."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx

from tests.cluster.conftest import skip_unless_ci, wait_for_requests, wait_until_complete
from tools.benchmarks.load_generator import Load
from tools.cluster.ephemeral import LOAD_CLIENTS, EphemeralDeployment
from tools.cluster.rollout import is_complete
from tools.dev.servers import wait_until

KILL_WORKERS = """
import os, pathlib, signal

for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    pid = int(status.parent.name)
    is_child_of_gunicorn = "PPid:\\t1\\n" in status.read_text()
    if is_child_of_gunicorn and pid != os.getpid():
        os.kill(pid, signal.SIGKILL)
        print("killed", pid)
"""


def test_a_deleted_pod_loses_no_request(deployment: EphemeralDeployment) -> None:
    with deployment.load() as load:
        deployment.kubectl.run("delete", "pod", deployment.pod_names()[0])
        wait_until_complete(deployment, 60)
        assert load.read_statistics().failures == []


def test_a_failed_pod_is_replaced_and_not_counted(deployment: EphemeralDeployment) -> None:
    """A pod whose deadline is over fails and stays in the cluster, as an evicted one does."""
    failed_pod = deployment.pod_names()[0]
    deadline = {"spec": {"activeDeadlineSeconds": 1}}
    deployment.kubectl.run("patch", "pod", failed_pod, f"--patch={json.dumps(deadline)}")
    try:
        wait_until(lambda: has_failed(deployment, failed_pod), 60, "the pod to fail")
        wait_until_complete(deployment, 60)
        assert failed_pod not in deployment.pod_names()
        assert len(deployment.pod_names()) == 2
        assert has_failed(deployment, failed_pod)
    finally:
        deployment.kubectl.run("delete", "pod", failed_pod)


def test_a_killed_worker_loses_at_most_the_requests_in_flight(
    deployment: EphemeralDeployment,
) -> None:
    restarts_before = count_restarts(deployment)
    with deployment.load() as load:
        pod = deployment.pod_names()[0]
        output = deployment.kubectl.run(
            "exec", pod, "--container=api", "--", "python", "-c", KILL_WORKERS
        )
        assert "killed" in output
        wait_for_requests(load, 2000)
        statistics = load.read_statistics()
    assert len(statistics.failures) <= LOAD_CLIENTS
    assert failure_span_seconds(statistics) < 2
    assert count_restarts(deployment) == restarts_before
    ip = deployment.kubectl.get_existing("pod", pod)["status"]["podIP"]
    assert deployment.send_to("GET", f"http://{ip}:8000/health").status == httpx.codes.OK


def test_a_killed_container_costs_a_few_seconds_of_failures(
    deployment: EphemeralDeployment,
) -> None:
    """Until the Service's endpoints are updated, connections to the pod are refused."""
    pod = deployment.pod_names()[0]
    restarts_before = count_restarts(deployment)
    with deployment.load() as load:
        kill_container(deployment, pod)
        wait_until(
            lambda: (
                count_restarts(deployment) > restarts_before and is_complete(deployment.kubectl)
            ),
            60,
            "the restart of the container",
        )
        wait_for_requests(load, 2000)
        statistics = load.read_statistics()
    assert failure_span_seconds(statistics) < 5
    assert len(statistics.failures) < statistics.request_count / 10


def test_without_postgresql_pods_are_unready_but_alive(deployment: EphemeralDeployment) -> None:
    restarts_before = count_restarts(deployment)
    pods_before = set(deployment.pod_names())
    ips = [pod["status"]["podIP"] for pod in deployment.kubectl.list_pods()]
    try:
        deployment.kubectl.run("scale", "statefulset/db", "--replicas=0")
        wait_until(lambda: deployment.count_ready_pods() == 0, 60, "all pods to be unready")
        wait_until(lambda: not responds(deployment), 10, "the Service to have no endpoints")
        for ip in ips:
            assert deployment.send_to("GET", f"http://{ip}:8000/health").status == httpx.codes.OK
            readiness = deployment.send_to("GET", f"http://{ip}:8000/ready")
            assert readiness.status == httpx.codes.SERVICE_UNAVAILABLE
            assert json.loads(readiness.body)["status"] == "unready"
    finally:
        deployment.kubectl.run("scale", "statefulset/db", "--replicas=1")
    wait_until_complete(deployment, 120)
    assert set(deployment.pod_names()) == pods_before
    assert count_restarts(deployment) == restarts_before


def has_failed(deployment: EphemeralDeployment, pod: str) -> bool:
    """Whether the pod is still in the cluster, in the phase Failed."""
    phase: str = deployment.kubectl.get_existing("pod", pod)["status"]["phase"]
    return phase == "Failed"


def responds(deployment: EphemeralDeployment) -> bool:
    """Whether a request to the Service succeeds."""
    return deployment.send("GET", "/version", timeout_seconds=2).status == httpx.codes.OK


def count_restarts(deployment: EphemeralDeployment, component: str = "api") -> int:
    """Return how often the containers of a component were restarted in their pods."""
    count = 0
    for pod in deployment.kubectl.list_pods(component):
        for status in pod["status"].get("containerStatuses", []):
            count += status["restartCount"]
    return count


def failure_span_seconds(statistics: Load) -> float:
    """Return the seconds between the first and the last request that was lost."""
    times = [failure.sent_at_seconds for failure in statistics.failures]
    if not times:
        return 0
    return max(times) - min(times)


def kill_container(deployment: EphemeralDeployment, pod: str) -> None:
    """Kill all processes of a pod's container. Skips the test if its node is another machine."""
    (status,) = deployment.kubectl.get_existing("pod", pod)["status"]["containerStatuses"]
    container_id = status["containerID"].partition("://")[2]
    process_ids = find_processes(container_id)
    if not process_ids:
        skip_unless_ci("the node is another machine, so its processes cannot be killed from here")
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    # Some processes have ended with the first one, so that kill fails for them.
    subprocess.run([*as_root, "kill", "-KILL", *process_ids], check=False)


def find_processes(container_id: str) -> list[str]:
    """Return the IDs of this machine's processes that are in the container's cgroup."""
    process_ids = []
    for cgroup in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):  # the process has ended in the meantime
            if container_id in cgroup.read_text():
                process_ids.append(cgroup.parent.name)
    return process_ids
