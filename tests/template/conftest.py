"""A repository made from this checkout, for each test one of its own."""

from pathlib import Path

import pytest

from tests.template.repository import Fork, fork


@pytest.fixture
def repository(tmp_path: Path) -> Fork:
    """As it is after the first clone."""
    return fork(tmp_path / "service")
