"""Objects that are missing, and objects of another application."""

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
from tools.cluster.kubectl import ClusterError


def test_no_pods_are_an_empty_list(commands: FakeCommands) -> None:
    commands.add_responses("kubectl", {"get pods": to_list([])})
    assert KIND.list_pods() == []


def test_pods_that_are_evicted_or_being_deleted_are_left_out(commands: FakeCommands) -> None:
    """An evicted pod stays in the cluster in the phase Failed."""
    running_pod = make_pod(make_digest("1"))
    starting_pod = make_pod("", ready=False, waiting="ContainerCreating")
    evicted_pod = make_pod(make_digest("1"), ready=False)
    evicted_pod["status"]["phase"] = "Failed"
    deleted_pod = make_pod(make_digest("1"))
    deleted_pod["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    pods = [running_pod, evicted_pod, starting_pod, deleted_pod]
    commands.add_responses("kubectl", {"get pods": to_list(pods)})
    assert KIND.list_pods() == [running_pod, starting_pod]


@pytest.mark.parametrize(
    "output",
    ["", json.dumps(make_deployment(IMAGE, part_of="another"))],
    ids=["missing", "of another application"],
)
def test_a_deployment_that_is_missing_or_foreign_counts_as_not_deployed(
    commands: FakeCommands, output: str
) -> None:
    commands.add_responses("kubectl", {"get deployment": output})
    with pytest.raises(ClusterError, match="Nothing is deployed on kind-demo in fastapi-k8s"):
        KIND.get_application_object()
