"""A rollout is awaited, its failure is explained, and the running image is verified."""

import json

import pytest

from tests.unit.cluster.conftest import (
    IMAGE,
    KIND,
    FakeCommands,
    make_deployment,
    make_digest,
    make_pod,
    to_list,
)
from tools.cluster import rollout
from tools.cluster.kubectl import ClusterError, Kubectl

REPORTED_IMAGE_IDS = {
    "containerd": make_digest("d"),
    "kind": f"docker.io/library/import-2026-11-21@{make_digest('c')}",
    "cri-dockerd": f"docker://{make_digest('d')}",
}
"""The imageID of a container's status, as recorded from nodes."""


@pytest.mark.parametrize("image_id", REPORTED_IMAGE_IDS.values(), ids=REPORTED_IMAGE_IDS)
def test_a_pod_is_verified_by_any_digest_that_its_node_reports(
    commands: FakeCommands, image_id: str
) -> None:
    commands.add_responses("kubectl", {"get pods": to_list([make_pod(image_id)])})
    assert rollout.verify_image(KIND, IMAGE, {make_digest("c"), make_digest("d")}) == 1


def test_a_pod_that_runs_another_image_is_an_error_that_names_it(commands: FakeCommands) -> None:
    commands.add_responses("kubectl", {"get pods": to_list([make_pod(make_digest("a"))])})
    message = f"Container api of pod api-1 runs {make_digest('a')}"
    with pytest.raises(ClusterError, match=message):
        rollout.verify_image(KIND, IMAGE, {make_digest("d")})


def test_without_a_ready_pod_nothing_is_verified(commands: FakeCommands) -> None:
    commands.add_responses("kubectl", {"get pods": to_list([make_pod("", ready=False)])})
    with pytest.raises(ClusterError, match="No pod is ready"):
        rollout.verify_image(KIND, IMAGE, {make_digest("d")})


def test_the_wait_survives_a_moment_without_the_api_server(
    commands: FakeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = iter(["refused", "incomplete", "complete"])

    def is_complete(_: Kubectl) -> bool:
        attempt = next(attempts)
        if attempt == "refused":
            raise ClusterError(attempt)
        return attempt == "complete"

    responses = {"get deployment": json.dumps(make_deployment(IMAGE)), "get pods": to_list([])}
    commands.add_responses("kubectl", responses)
    monkeypatch.setattr(rollout, "is_complete", is_complete)
    rollout.wait_for_rollout(KIND, 30)
    assert list(attempts) == []


def test_a_wait_that_times_out_prints_why_no_pods_are_created(
    commands: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    message = 'pods "api-1" is forbidden: exceeded quota: team'
    event = {
        "involvedObject": {"kind": "ReplicaSet", "name": "api-1"},
        "message": message,
        "reason": "FailedCreate",
        "type": "Warning",
    }
    responses = {
        "get hpa": "",
        "get deployment": json.dumps(make_deployment(IMAGE)),
        "get pods": to_list([]),
        "get events": to_list([event, event]),
    }
    commands.add_responses("kubectl", responses)
    expected = r"The rollout did not complete within 0 s\. Set TIMEOUT= to wait longer\."
    with pytest.raises(ClusterError, match=expected):
        rollout.wait_for_rollout(KIND, 0)
    printed = capsys.readouterr().err
    assert printed.count(f"Warning FailedCreate (ReplicaSet api-1): {message}") == 1


def test_a_wait_that_times_out_prints_how_a_container_exited(
    commands: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container that exceeds its memory limit leaves nothing in its log."""
    pod = make_pod(make_digest("d"), ready=False, waiting="CrashLoopBackOff")
    (status,) = pod["status"]["containerStatuses"]
    status["lastState"] = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    responses = {
        "get hpa": json.dumps({"spec": {"minReplicas": 2}}),
        "get deployment": json.dumps(make_deployment(IMAGE)),
        "get pods": to_list([pod]),
        "get events": to_list([]),
    }
    commands.add_responses("kubectl", responses)
    with pytest.raises(ClusterError):
        rollout.wait_for_rollout(KIND, 0)
    assert "Container api exited: OOMKilled, exit code 137" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("deployed_image", "is_described"),
    [(IMAGE, True), ("fastapi-k8s:later", False)],
    ids=["newest template", "earlier rollout"],
)
def test_a_missing_image_is_described_only_for_pods_of_the_newest_template(
    commands: FakeCommands, deployed_image: str, is_described: bool
) -> None:
    responses = {
        "get deployment": json.dumps(make_deployment(deployed_image)),
        "get pods": to_list([make_pod("", ready=False, waiting="ErrImageNeverPull")]),
    }
    commands.add_responses("kubectl", responses)
    description = rollout.describe_missing_image(KIND)
    assert ("IMAGE_LOADER=" in description) is is_described
