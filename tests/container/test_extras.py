"""The image with all optional dependencies of pyproject.toml."""

import pytest
from python_on_whales import DockerClient

from tests.container.conftest import RunApplication, application_environment

FIND_DISTRIBUTIONS = """
from importlib.metadata import distributions
print(*[distribution.name for distribution in distributions()])
"""


def find_distributions(docker: DockerClient, tag: str) -> set[str]:
    """Return the names of the Python packages in an image."""
    return set(str(docker.run(tag, ["python", "-c", FIND_DISTRIBUTIONS], remove=True)).split())


def test_an_image_contains_the_extras_that_the_build_argument_names(
    docker: DockerClient, image: str, image_with_extras: str
) -> None:
    extra_distributions = find_distributions(docker, image_with_extras) - find_distributions(
        docker, image
    )
    assert {"PyJWT", "cryptography", "opentelemetry-sdk"} <= extra_distributions


@pytest.mark.usefixtures("postgres", "redis")
def test_an_image_with_all_extras_serves(
    run_application: RunApplication, image_with_extras: str
) -> None:
    with run_application(application_environment(), tag=image_with_extras) as application:
        assert application.client.get("/ready").json()["status"] == "ready"
