"""All Dockerfiles and make use the same versions of Python and uv."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tools.checkout import PROJECT, get_docker_environment, run_command

FAKE_PYTHON = """#!/bin/sh
case "$*" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip install "*) echo "$@" ;;
esac
"""
"""A program that copies itself where a virtual environment has its Python, and prints what pip
would install."""


def read_python_versions(dockerfile: str) -> set[str]:
    """Return the versions of Python that a Dockerfile uses."""
    text = (PROJECT / dockerfile).read_text()
    return set(re.findall(r"^FROM python:([\d.]+)", text, re.MULTILINE))


def read_uv_versions(dockerfile: str) -> set[str]:
    """Return the versions of uv that a Dockerfile uses."""
    text = (PROJECT / dockerfile).read_text()
    return set(re.findall(r"astral-sh/uv:([\w.]+)", text))


def test_all_dockerfiles_use_the_same_python_and_the_same_uv() -> None:
    python_versions = read_python_versions("Dockerfile")
    uv_versions = read_uv_versions("Dockerfile")
    assert len(python_versions) == 1
    assert len(uv_versions) == 1
    for dockerfile in ("Dockerfile.dev", ".devcontainer/Dockerfile"):
        assert read_python_versions(dockerfile) == python_versions
        assert read_uv_versions(dockerfile) == uv_versions


def test_pyproject_allows_the_uv_of_the_dockerfile() -> None:
    """Otherwise it would refuse to run, or download another version of itself as build backend."""
    [uv_version] = read_uv_versions("Dockerfile")
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    [build_backend] = pyproject["build-system"]["requires"]
    assert uv_version in Requirement(build_backend).specifier
    assert uv_version in SpecifierSet(pyproject["tool"]["uv"]["required-version"])


def test_make_installs_the_uv_version_of_the_dockerfile(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    (tmp_path / "Dockerfile").write_bytes((PROJECT / "Dockerfile").read_bytes())
    environment = get_docker_environment()
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    script = PROJECT / "tools" / "dev" / "install-uv.sh"
    pip_arguments = run_command(["sh", str(script)], cwd=tmp_path, env=environment).split()
    [version] = read_uv_versions("Dockerfile")
    assert pip_arguments[-1] == f"uv=={version}"


@pytest.mark.parametrize(
    ("installed_version", "uv"),
    [("0.9.30", ".uv/bin/uv"), ("0.13.0", "uv"), ("1.0.0", "uv"), (None, ".uv/bin/uv")],
)
def test_make_uses_an_installed_uv_only_if_it_is_new_enough(
    tmp_path: Path, installed_version: str | None, uv: str
) -> None:
    for program in ("cut", "head", "make", "sed", "sh", "sort"):
        (tmp_path / program).symlink_to(shutil.which(program) or "/nowhere")
    if installed_version:
        (tmp_path / "uv").write_text(f"#!/bin/sh\necho 'uv {installed_version} (x86_64-linux)'\n")
        (tmp_path / "uv").chmod(0o755)
    command = ["make", "--dry-run", "lint-python"]
    output = run_command(command, cwd=PROJECT, env={"PATH": str(tmp_path)})
    assert f"{uv} lock --check --quiet" in output.splitlines()
