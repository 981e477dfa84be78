"""Which names a service may have."""

import os
import subprocess
from pathlib import Path

import pytest

from fastapi_k8s import NAME
from tools.checkout import PROJECT
from tools.template.names import MAX_LENGTH, find_problem
from tools.template.rename import require_possible_rename


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("class", "keyword"),
        ("json", "standard library"),
        ("annotationlib", "standard library"),
        ("profiling", "standard library"),
        ("test", "standard library"),
        ("fastapi", "dependency"),
        ("pydantic-core", "dependency"),
        ("yaml", "dependency"),
        ("tests", "folder"),
        ("tools", "folder"),
        ("Orders", "a-z"),
        ("orders_service", "a-z"),
        ("orders service", "a-z"),
        ("-orders", "a-z"),
        ("orders--eu", "a-z"),
        ("7orders", "a-z"),
        ("", "a-z"),
        ("o" * 43, "42 characters"),
        ("default", "Kubernetes"),
        ("kube-system", "Kubernetes"),
        ("git", "program"),
        ("python", "program"),
        ("dist", "linters"),
        ("node-modules", "linters"),
        ("null", "YAML"),
        ("y", "YAML"),
        ("postgres", "image"),
    ],
)
def test_a_name_that_would_break_something_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.chdir(PROJECT)
    assert reason in find_problem(name)


@pytest.mark.parametrize(
    "name", ["q", "q-7", "q" * MAX_LENGTH, "bench", "cluster", "dev", "fork", "image"]
)
def test_every_other_name_is_allowed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Among them the names of the folders in tools/, which the service does not share."""
    monkeypatch.chdir(PROJECT)
    assert find_problem(name) == ""


def test_the_present_name_is_refused() -> None:
    with pytest.raises(SystemExit, match=f"called {NAME} already"):
        require_possible_rename(NAME)


def test_the_name_of_another_package_in_src_is_refused_unless_only_bytecode_is_left(
    folder: Path,
) -> None:
    (folder / "uv.lock").write_text((PROJECT / "uv.lock").read_text())
    (folder / "src" / "old" / "__pycache__").mkdir(parents=True)
    (folder / "src" / "old" / "__pycache__" / "main.cpython-311.pyc").touch()
    (folder / "src" / "shop").mkdir()
    (folder / "src" / "shop" / "main.py").touch()
    assert "folder" in find_problem("shop")
    assert find_problem("old") == ""


def test_make_passes_the_name_on_without_running_it_as_shell_code(tmp_path: Path) -> None:
    injected_file = tmp_path / "injected"
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\nfor last; do :; done\necho "$last"\nexit 1\n')
    uv.chmod(0o755)
    (tmp_path / ".venv").mkdir()
    name = f'"; touch {injected_file}; "'
    process = subprocess.run(
        ["make", "--file", str(PROJECT / "Makefile"), "UV=uv", "rename", f"NAME={name}"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout == f"{name}\n"
    assert not injected_file.exists()
