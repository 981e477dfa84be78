"""Repositories that are made from this checkout."""

from pathlib import Path

import pytest

from tests.template.forks.repository import Repository, create_repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository for one test."""
    return create_repository(tmp_path / "service")


@pytest.fixture(scope="module")
def unchanged_repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository for the tests in which a command refuses to change anything."""
    return create_repository(tmp_path_factory.mktemp("unchanged"))
