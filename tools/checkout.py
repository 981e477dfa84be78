"""This checkout: how to copy it, and how to run programs in it as from a new terminal."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]


def copy_checkout(target: Path) -> Path:
    """Copy all files except those that `.gitignore` names to `target`.

    This works without git, as in an archive of the project. Each pattern of `.gitignore` applies to
    the names of files and folders at every level.
    """
    lines = (PROJECT / ".gitignore").read_text().splitlines()
    patterns = [line.strip("/") for line in lines if not line.startswith(("#", "!"))]
    ignore = shutil.ignore_patterns(".git", *patterns)
    shutil.copytree(PROJECT, target, ignore=ignore, symlinks=True, dirs_exist_ok=True)
    return target


def get_docker_environment() -> dict[str, str]:
    """Return the variables that Docker needs, without other settings of the developer's shell."""
    names = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT")
    return {name: os.environ[name] for name in names if name in os.environ}


def run_command(command: list[str], **options: Any) -> str:
    """Run a program and return its standard output. Raises CalledProcessError if it fails."""
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options)
    return str(process.stdout)
