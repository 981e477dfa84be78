"""Copies of this checkout, in which tests and benchmarks build and run it."""

from pathlib import Path

import pytest

from tools.checkout import copy_checkout


def test_a_copy_needs_no_git_and_has_no_ignored_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project may be an archive, on a machine without git."""
    monkeypatch.setenv("PATH", "/nowhere")
    copy = copy_checkout(tmp_path)
    names = {path.name for path in copy.iterdir()}
    assert names >= {"Makefile", "uv.lock", "src", ".github", ".vscode"}
    assert names & {".git", ".venv", ".uv", ".local", ".ruff_cache"} == set()
    assert list(copy.rglob("__pycache__")) == []
