"""Fixtures of the tests of faults: the containers of one pytest process."""

from collections.abc import Iterator

import pytest
from python_on_whales import DockerClient

from tests.faults.stack import Stack, run_stack


@pytest.fixture(scope="session")
def stack(docker: DockerClient, image: str) -> Iterator[Stack]:
    """The application and its servers. A test leaves them as they were."""
    with run_stack(docker, image) as stack:
        yield stack
