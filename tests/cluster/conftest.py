"""One deployment for all tests of this folder, on the cluster that CONTEXT names."""

import os
from collections.abc import Iterator

import pytest

from cluster.actions import WORKLOADS
from cluster.rollout import rolled_out
from dev.servers import wait_until
from tests.cluster.place import Place, place


@pytest.fixture(scope="session")
def deployment() -> Iterator[Place]:
    """The service, deployed from nothing, and a client beside it."""
    context = os.environ.get("CONTEXT")
    if not context:
        pytest.fail("Name the cluster: make test-cluster CONTEXT=kind-kind")
    with place(context) as here:
        here.build("first")
        here.done("deploy")
        here.start_client()
        yield here


@pytest.fixture
def service(deployment: Place) -> Place:
    """The deployment, whole: as every test finds it, whatever the one before has done."""
    wait_until(lambda: whole(deployment), 180, "a whole deployment")
    return deployment


def whole(here: Place) -> bool:
    """Whether all pods are ready, and as many as the autoscaler wants at least."""
    least = here.kubectl.get("hpa", "api")["spec"]["minReplicas"]
    return len(here.kubectl.pods()) >= least and all(
        rolled_out(here.kubectl, workload) for workload in WORKLOADS
    )
