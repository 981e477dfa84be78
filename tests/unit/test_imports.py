"""What importing the package does, seen in processes that do nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_k8s import __path__ as places
from fastapi_k8s.settings import Settings

PACKAGE = Path(places[0])
WATCHED = """
import importlib, json, os, sys

touched = []

def watch(event, arguments):
    if event.startswith(("open", "os.", "tempfile.", "socket.", "subprocess.")):
        touched.append((event, str(arguments[0]) if arguments else ""))

class Watched(type(os.environ)):
    def __getitem__(self, name):
        touched.append(("environment", name))
        return super().__getitem__(name)

for again in (False, True):
    if again:  # with what it depends on in memory: only its own doings are seen
        for name in [*sys.modules]:
            if f"{name}.".startswith("fastapi_k8s."):
                del sys.modules[name]
        os.environ.__class__ = Watched
        sys.addaudithook(watch)
    for name in sys.argv[1:]:
        importlib.import_module(name)
print(json.dumps(touched))
"""


def in_a_process(folder: Path, script: str, *arguments: str) -> str:
    """Run a script in `folder`, warnings being errors; give what it printed."""
    command = [sys.executable, "-P", "-W", "error", "-c", script, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def modules() -> list[str]:
    """Every module of the package, but those that Alembic runs."""
    paths = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return sorted(n for n in names if ".versions." not in n and not n.endswith(".migrations.env"))


def test_importing_reads_no_setting_and_does_no_io_but_for_code(tmp_path: Path) -> None:
    assert {"fastapi_k8s.main", "fastapi_k8s.cli", "fastapi_k8s.server"} <= {*modules()}
    settings = {name.upper() for name in Settings.model_fields}
    for action, what in json.loads(in_a_process(tmp_path, WATCHED, *modules())):
        if action == "environment":
            assert what not in settings
        else:
            assert action == "open"
            assert what.startswith(str(PACKAGE))


@pytest.mark.parametrize("module", ["fastapi_k8s.main", "fastapi_k8s.server"])
def test_serving_loads_nothing_that_only_migrations_need(module: str, tmp_path: Path) -> None:
    loaded = set(in_a_process(tmp_path, f"import sys, {module}; print(*sys.modules)").split())
    assert module in loaded
    assert not {"sqlalchemy", "alembic"} & loaded
