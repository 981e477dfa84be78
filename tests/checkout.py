"""This checkout: a copy of it, and programs that run as from a terminal."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]


def copy_checkout(target: Path) -> Path:
    """Copy the files that git tracks, or would, to `target`."""
    listed = output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=PROJECT)
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():  # no submodule
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target / name)
    return target


def inherited() -> dict[str, str]:
    """Of this process' environment what Docker needs, and none of the developer's settings."""
    kept = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT")
    return {name: os.environ[name] for name in kept if name in os.environ}


def output(command: list[str], **options: Any) -> str:
    """What a program prints on standard output."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options)
    return str(done.stdout)
