"""A password is created only if PostgreSQL has never had one."""

import json

import pytest

from tests.unit.cluster.conftest import KIND, FakeCommands
from tools.cluster.kubectl import ClusterError, KubernetesObject
from tools.cluster.secret import ensure_secret

CLAIM = {"metadata": {"creationTimestamp": "2026-11-21T07:00:00Z"}}
WITH_THE_CLAIM, LATER = "2026-11-21T07:00:02Z", "2026-11-21T09:00:00Z"
CREATING = [{"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]
CRASHING = [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]


@pytest.mark.parametrize(
    ("pod_created", "container_statuses", "is_created"),
    [
        (WITH_THE_CLAIM, [], True),
        (WITH_THE_CLAIM, CREATING, True),
        (WITH_THE_CLAIM, CRASHING, False),
        (LATER, CREATING, False),
    ],
)
def test_a_password_is_created_while_the_first_pod_of_postgresql_waits(
    commands: FakeCommands,
    pod_created: str,
    container_statuses: list[KubernetesObject],
    is_created: bool,
) -> None:
    pod = {
        "metadata": {"creationTimestamp": pod_created},
        "status": {"containerStatuses": container_statuses},
    }
    responses = {
        "get secret": "",
        "get pvc": json.dumps(CLAIM),
        "get pod": json.dumps(pod),
        "create --filename=-": "",
    }
    commands.add_responses("kubectl", responses)
    if is_created:
        ensure_secret(KIND)
    else:
        with pytest.raises(ClusterError, match="Secret fastapi-k8s with its password does not"):
            ensure_secret(KIND)
    assert any(" create " in call for call in commands.calls()) is is_created


def test_no_password_is_created_for_existing_data_without_a_pod(commands: FakeCommands) -> None:
    """This is the state after `make undeploy`, if the Secret was deleted too."""
    responses = {"get secret": "", "get pvc": json.dumps(CLAIM), "get pod": ""}
    commands.add_responses("kubectl", responses)
    with pytest.raises(ClusterError, match="Secret fastapi-k8s with its password does not"):
        ensure_secret(KIND)
