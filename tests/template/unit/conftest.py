"""Fixtures of the tests that check the template itself."""

import shutil
from pathlib import Path

import pytest

from tools.checkout import copy_checkout, run_command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory of the test. Tests run git in it."""
    if not shutil.which("git"):
        pytest.skip("git is not installed.")
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def repository(folder: Path) -> Path:
    """A copy of this checkout, which may be an archive, as a repository and working directory."""
    copy_checkout(folder)
    run_command(["git", "init", "--quiet"])
    run_command(["git", "add", "."])
    return folder
