"""Which names a service may have."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from keyword import iskeyword
from pathlib import Path

MAX_LENGTH = 63 - len("-test-01234567-client")
"""Kubernetes allows 63 characters for a namespace (RFC 1123). The tests add the longest suffix."""

PATTERN = re.compile("[a-z][a-z0-9]*(-[a-z0-9]+)*")

STANDARD_LIBRARY = sys.stdlib_module_names | {"annotationlib", "compression", "profiling", "test"}
"""Python 3.14 adds `annotationlib` and `compression`, 3.15 `profiling`. The list omits `test`."""

PROGRAMS = {
    "cp",
    "docker",
    "env",
    "find",
    "git",
    "go",
    "kubectl",
    "make",
    "mkdir",
    "ps",
    "python",
    "python3",
    "rm",
    "sed",
    "sh",
    "touch",
    "uv",
    "wrk",
}
"""Programs that make targets and tests run. A command with such a name in the virtual environment
would replace the program, because the environment comes first in PATH."""

FOLDERS_IGNORED_BY_LINTERS = {"build", "dist", "node_modules", "venv"}
YAML_KEYWORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def to_package(name: str) -> str:
    """Return the import name of the service `name`."""
    return name.replace("-", "_")


def find_problem(name: str) -> str:
    """Return the reason why a service cannot be called `name`, or an empty string."""
    package = to_package(name)
    problems = [
        (
            not PATTERN.fullmatch(name),
            "a name consists of words of the characters a-z and 0-9, joined by hyphens",
        ),
        (len(name) > MAX_LENGTH, f"it has more than the {MAX_LENGTH} characters that are allowed"),
        (iskeyword(package), "it is a Python keyword"),
        (package in STANDARD_LIBRARY, "it is a module of Python's standard library"),
        (package in read_dependencies(), "a dependency has this name"),
        (package in FOLDERS_IGNORED_BY_LINTERS, "linters ignore folders with this name"),
        (is_used_by_project(package), "a folder of this project has this name"),
        (name in PROGRAMS, "it is a program that this project runs"),
        (name in YAML_KEYWORDS, "it is a keyword in YAML"),
        (name == "postgres", "the image of the database has this name"),
        (
            name == "default" or name.startswith("kube-"),
            "Kubernetes reserves this name for its own namespaces",
        ),
    ]
    for applies, reason in problems:
        if applies:
            return reason
    return ""


def is_used_by_project(package: str) -> bool:
    """Whether a folder at the top level or a package in `src` is called `package`."""
    if Path(package).exists():
        return True
    # A folder that contains only bytecode is left over from another branch.
    return any(Path("src", package).rglob("*.py"))


def read_dependencies() -> set[str]:
    """Return the names of all dependencies: those of distributions and those of import packages."""
    lock = tomllib.loads(Path("uv.lock").read_text())
    distributions = {to_package(package["name"]) for package in lock["package"]}
    return distributions | packages_distributions().keys()
