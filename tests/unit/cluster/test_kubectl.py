"""Objects that are missing, and objects of another application."""

import json

import pytest

from tests.unit.cluster.conftest import IMAGE, KIND, FakeCommands, make_deployment, to_list
from tools.cluster.kubectl import ClusterError


def test_no_pods_are_an_empty_list(commands: FakeCommands) -> None:
    commands.add_responses("kubectl", {"get pods": to_list([])})
    assert KIND.list_pods() == []


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
