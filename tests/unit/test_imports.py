"""Importing the package has no side effects, and the server does not import Alembic."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_k8s import __path__ as package_path
from fastapi_k8s.settings import Settings

PACKAGE = Path(package_path[0])
RECORD_SIDE_EFFECTS_OF_IMPORTS = """
import importlib, json, os, sys

PREFIXES = ("open", "os.", "tempfile.", "socket.", "subprocess.")
events = []

def record_event(event, arguments):
    if event.startswith(PREFIXES):
        events.append((event, str(arguments[0]) if arguments else ""))

class RecordingEnvironment(type(os.environ)):
    def __getitem__(self, name):
        events.append(("environment", name))
        return super().__getitem__(name)

def import_modules():
    for name in sys.argv[1:]:
        importlib.import_module(name)

# The second import records only the package: its dependencies are in memory already.
import_modules()
for name in list(sys.modules):
    if f"{name}.".startswith("fastapi_k8s."):
        del sys.modules[name]
os.environ.__class__ = RecordingEnvironment
sys.addaudithook(record_event)
import_modules()
print(json.dumps(events))
"""


def run_script(folder: Path, script: str, *arguments: str) -> str:
    """Run a Python script in `folder`, with warnings as errors, and return its output."""
    command = [sys.executable, "-P", "-W", "error", "-c", script, *arguments]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return process.stdout


def find_modules() -> list[str]:
    """The modules of the package, without those that only Alembic can import."""
    modules = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        if ".versions." not in module and not module.endswith(".migrations.env"):
            modules.append(module)
    return sorted(modules)


def test_importing_reads_no_settings_and_opens_only_files_of_the_package(tmp_path: Path) -> None:
    modules = find_modules()
    assert {"fastapi_k8s.main", "fastapi_k8s.cli", "fastapi_k8s.server"} <= set(modules)
    output = run_script(tmp_path, RECORD_SIDE_EFFECTS_OF_IMPORTS, *modules)
    settings = {name.upper() for name in Settings.model_fields}
    for event, argument in json.loads(output):
        if event == "environment":
            assert argument not in settings
        else:
            assert event == "open"
            assert argument.startswith(str(PACKAGE))


def test_serving_does_not_import_what_only_migrations_need(tmp_path: Path) -> None:
    lines = (
        "import sys",
        "import fastapi_k8s.main",
        "import fastapi_k8s.server",
        "print(*sys.modules)",
    )
    imported_modules = set(run_script(tmp_path, "\n".join(lines)).split())
    assert {"fastapi_k8s.main", "fastapi_k8s.server"} <= imported_modules
    assert not {"sqlalchemy", "alembic", "mako"} & imported_modules


@pytest.mark.parametrize("issuer", ["", "https://issuer.example"])
def test_only_an_application_with_an_issuer_imports_what_verifies_tokens(
    tmp_path: Path, issuer: str
) -> None:
    """It does so before its lifespan begins, and so before the workers are forked."""
    lines = (
        "import sys",
        "from fastapi_k8s.main import create_app",
        "from fastapi_k8s.settings import Settings",
        "issuer = sys.argv[1]",
        "audience = 'api' if issuer else ''",
        "url = 'postgresql://user@host/name'",
        "create_app(Settings(database_url=url, jwt_issuer=issuer, jwt_audience=audience))",
        "print(*sys.modules)",
    )
    imported_modules = set(run_script(tmp_path, "\n".join(lines), issuer).split())
    assert imported_modules >= {"fastapi_k8s.auth"}
    names = {"jwt", "fastapi_k8s.access_tokens", "fastapi_k8s.signing_keys"}
    assert imported_modules & names == (names if issuer else set())


def test_the_event_loop_is_imported_before_the_workers_are_forked(tmp_path: Path) -> None:
    """What a worker imports itself takes memory in each worker."""
    script = "import sys, fastapi_k8s.server; print(*sys.modules)"
    assert "uvloop" in run_script(tmp_path, script).split()
