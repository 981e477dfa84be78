"""The versions that the Dockerfiles and the installation of uv go by."""

import re
from pathlib import Path

from tests.checkout import PROJECT, inherited, output

PYTHON = """#!/bin/sh
case "$*" in
"-m venv .uv") mkdir -p .uv/bin && cp "$0" .uv/bin/python ;;
"-m pip install "*) echo "$@" ;;
esac
"""
"""A Python that makes environments of itself and says what pip would install."""


def versions(name: str) -> tuple[set[str], set[str]]:
    """The versions of Python and of uv that a Dockerfile names."""
    text = (PROJECT / name).read_text()
    python = re.findall(r"^ARG PYTHON_VERSION=(\S+)$", text, re.MULTILINE)
    return set(python), set(re.findall(r"astral-sh/uv:([\w.]+)", text))


def test_all_dockerfiles_have_the_same_python_and_the_same_uv() -> None:
    assert (
        versions("Dockerfile") == versions("Dockerfile.dev") == versions(".devcontainer/Dockerfile")
    )
    assert [len(each) for each in versions("Dockerfile")] == [1, 1]


def test_the_uv_that_make_installs_is_the_images(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / "Dockerfile").write_bytes((PROJECT / "Dockerfile").read_bytes())
    environment = {**inherited(), "PATH": f"{tmp_path}:{inherited()['PATH']}"}
    script = str(PROJECT / "tools" / "dev" / "install-uv.sh")
    installed = output(["sh", script], cwd=tmp_path, env=environment).split()[-1]
    (version,) = versions("Dockerfile")[1]
    assert installed == f"uv=={version}"
