"""What importing the package does, seen in processes that do nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastapi_k8s
from fastapi_k8s.settings import Settings

SCRIPT = """
import importlib, json, os, pkgutil, sys

touched = []

def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "tempfile.mkdtemp", "tempfile.mkstemp"):
        touched.append(f"{event} {arguments[0]}")
    elif event.startswith(("socket.", "subprocess.", "os.posix_spawn", "os.fork")):
        touched.append(event)

class Watched(type(os.environ)):
    def __getitem__(self, name):
        touched.append(f"environment {name}")
        return super().__getitem__(name)

os.environ.__class__ = Watched
sys.addaudithook(watch)
import fastapi_k8s
importlib.import_module(sys.argv[1])
print(json.dumps([sorted(sys.modules), touched]))
"""


def modules() -> list[str]:
    """Every module of the package, but those that Alembic runs."""
    root = Path(fastapi_k8s.__path__[0])
    paths = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return sorted(n for n in names if ".versions." not in n and not n.endswith(".migrations.env"))


def importing(name: str, folder: Path) -> tuple[set[str], list[str]]:
    """Import a module in a process of its own; give what was loaded, and what was touched."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, name]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env={**os.environ}
    )
    loaded, touched = json.loads(done.stdout)
    return set(loaded), touched


@pytest.mark.parametrize("name", modules())
def test_importing_a_module_does_no_io_and_reads_no_setting(name: str, tmp_path: Path) -> None:
    code = tuple({sys.prefix, sys.base_prefix, str(Path(fastapi_k8s.__path__[0]))})
    settings = {f"environment {field.upper()}" for field in Settings.model_fields}
    _, touched = importing(name, tmp_path)
    for each in touched:
        action, _, what = each.partition(" ")
        if action == "environment":
            assert each not in settings
        else:
            assert action == "open"
            assert what.startswith(code)


def test_the_service_loads_nothing_that_only_migrations_need(tmp_path: Path) -> None:
    loaded, _ = importing("fastapi_k8s.server", tmp_path)
    assert "fastapi_k8s.main" in loaded
    assert not {"sqlalchemy", "alembic", "fastapi_k8s.migrations.migrate"} & loaded
