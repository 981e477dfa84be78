"""One deployment for all tests of this folder, on the cluster that CONTEXT names."""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.place import Place, place
from tools.cluster.rollout import is_complete
from tools.dev.servers import wait_until


@pytest.fixture(scope="session")
def deployment() -> Iterator[Place]:
    """The service, deployed from nothing, and a client beside it."""
    with place(os.environ["CONTEXT"]) as here:  # as make test-cluster gives it
        here.build("first")
        here.done("deploy")
        here.start_client()
        yield here


@pytest.fixture
def service(deployment: Place) -> Place:
    """The deployment with two pods, whole, whatever the test before has done."""
    deployment.autoscale(least=2, most=2)
    wait_until(
        lambda: is_complete(deployment.kubectl) and len(deployment.names()) == 2, 180, "two pods"
    )
    return deployment
