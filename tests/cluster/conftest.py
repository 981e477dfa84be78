"""One deployment for all tests of this folder, on the cluster that CONTEXT names."""

import os
from collections.abc import Iterator

import pytest

from tools.cluster.diagnostics import print_diagnostics
from tools.cluster.ephemeral import EphemeralDeployment, RunningLoad, ephemeral_deployment
from tools.cluster.rollout import is_complete, is_in_progress
from tools.dev.servers import wait_until


@pytest.fixture(scope="session")
def shared_deployment() -> Iterator[EphemeralDeployment]:
    """The application, deployed into a new namespace, and a client pod."""
    context = os.environ["CONTEXT"]  # `make test-cluster` requires it
    with ephemeral_deployment(context) as deployment:
        deployment.build_image("first")
        deployment.make("deploy")
        deployment.start_client()
        yield deployment


@pytest.fixture
def deployment(
    shared_deployment: EphemeralDeployment, request: pytest.FixtureRequest
) -> EphemeralDeployment:
    """The shared deployment with two ready pods, whatever the test before has left.

    If they do not become ready, this prints why and ends the run: the other tests would wait too.
    """
    if is_in_progress(shared_deployment.kubectl):
        # A test failed before it rolled back. Without this, all later tests would fail too.
        shared_deployment.kubectl.run("rollout", "undo", "deployment/api")
    shared_deployment.set_pod_limits(min_replicas=2, max_replicas=2)
    try:
        wait_until(
            lambda: (
                is_complete(shared_deployment.kubectl) and len(shared_deployment.pod_names()) == 2
            ),
            180,
            "two ready pods",
        )
    except TimeoutError as error:
        print_diagnostics(shared_deployment.kubectl)
        request.session.shouldfail = str(error)
        raise
    return shared_deployment


def wait_until_complete(deployment: EphemeralDeployment, timeout_seconds: float) -> None:
    """Wait until all workloads are rolled out and ready."""
    wait_until(lambda: is_complete(deployment.kubectl), timeout_seconds, "all pods to be ready")


def wait_for_requests(load: RunningLoad, number: int) -> None:
    """Wait until the load has sent this number of requests more."""
    enough = load.read_statistics().request_count + number
    wait_until(lambda: load.read_statistics().request_count > enough, 30, f"{number} more requests")


def skip_unless_ci(reason: str) -> None:
    """Skip the test, or fail it in CI, where every test has to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
