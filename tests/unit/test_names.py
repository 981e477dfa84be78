"""What a service may be called."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.checkout import PROJECT
from tools.template.names import fault


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("default", "Kubernetes"),
        ("kube-system", "Kubernetes"),
        ("test", "standard library"),
        ("git", "program"),
        ("python", "program"),
        ("dist", "linters"),
        ("node-modules", "linters"),
        ("null", "YAML"),
        ("y", "YAML"),
        ("postgres", "image"),
    ],
)
def test_a_name_that_means_something_elsewhere_is_refused(name: str, reason: str) -> None:
    assert reason in fault(name)


@pytest.mark.parametrize("name", ["q", "q-7", "q" * 42])
def test_other_names_will_do(name: str) -> None:
    assert fault(name) == ""


def test_the_name_of_another_package_here_is_refused(folder: Path) -> None:
    (folder / "uv.lock").write_text((PROJECT / "uv.lock").read_text())
    (folder / "src" / "old" / "__pycache__").mkdir(parents=True)
    (folder / "src" / "old" / "__pycache__" / "main.cpython-311.pyc").touch()
    (folder / "src" / "shop").mkdir()
    (folder / "src" / "shop" / "main.py").touch()
    assert "folder" in fault("shop")
    assert fault("old") == ""


def test_a_name_is_no_command_to_the_shell(tmp_path: Path) -> None:
    """`make` hands it on as it is."""
    made = tmp_path / "made"
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\nfor last; do :; done\necho "$last"\nexit 1\n')
    uv.chmod(0o755)
    (tmp_path / ".venv").mkdir()
    name = f'"; touch {made}; "'
    told = subprocess.run(
        ["make", "--file", str(PROJECT / "Makefile"), "rename", f"NAME={name}"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout == f"{name}\n"
    assert not made.exists()
