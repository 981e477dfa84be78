"""What a service may be called."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from keyword import iskeyword
from pathlib import Path

LIMIT = 63 - len("-test-01234567-client")
"""Characters. Kubernetes allows 63 for a namespace (RFC 1123); the tests' own are the longest."""

WORDS = re.compile("[a-z][a-z0-9]*(-[a-z0-9]+)*")
MODULES = sys.stdlib_module_names | {"annotationlib", "compression", "test"}
"""With two that 3.14 has and 3.11 not, and one that Python leaves out of its list."""

PROGRAMS = {
    *("cp", "docker", "env", "find", "git", "go", "kubectl", "make", "mkdir"),
    *("ps", "python", "python3", "rm", "sed", "sh", "touch", "uv", "wrk"),
}
"""What is called while the environment, where the command `name` is, comes first in the PATH."""

SKIPPED = {"build", "dist", "node_modules", "venv"}
YAML = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def package(name: str) -> str:
    """The import name of the service `name`."""
    return name.replace("-", "_")


def fault(name: str) -> str:
    """Why no service can have this name, or an empty string."""
    module = package(name)
    faults = {
        "only words of a-z and 0-9 will do, joined by hyphens": not WORDS.fullmatch(name),
        f"it is longer than the {LIMIT} characters that Kubernetes leaves": len(name) > LIMIT,
        "it is a keyword of Python": iskeyword(module),
        "it is a module of Python's standard library": module in MODULES,
        "a dependency has that name": module in dependencies(),
        "a folder of this project has that name": Path(module).exists()
        or any(Path("src", module).rglob("*.py")),
        "it is a program that is needed here": name in PROGRAMS,
        "linters pass over folders of that name": module in SKIPPED,
        "YAML has a meaning for it": name in YAML,
        "the database's image has that name": name == "postgres",
        "Kubernetes keeps that namespace for itself": name == "default" or name.startswith("kube-"),
    }
    return next((reason for reason, applies in faults.items() if applies), "")


def dependencies() -> set[str]:
    """The names that dependencies have, as distributions and as packages to import."""
    locked = tomllib.loads(Path("uv.lock").read_text())["package"]
    return {package(each["name"]) for each in locked} | packages_distributions().keys()
