"""This checkout: how to copy it, and how to run programs in it as from a new terminal."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]


def copy_checkout(target: Path) -> Path:
    """Copy the files that git tracks, and new files that it does not ignore, to `target`."""
    names = run_command(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=PROJECT)
    for name in names.split("\0"):
        source = PROJECT / name
        if source.is_file():  # The list ends with an empty name and may contain submodules.
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def get_docker_environment() -> dict[str, str]:
    """Return the variables that Docker needs, without other settings of the developer's shell."""
    names = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT")
    return {name: os.environ[name] for name in names if name in os.environ}


def run_command(command: list[str], **options: Any) -> str:
    """Run a program and return its standard output. Raises CalledProcessError if it fails."""
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options)
    return str(process.stdout)
