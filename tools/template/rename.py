"""`make rename NAME=orders`: give the service another name, everywhere. git brings the old back."""

import ast
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi_k8s import NAME

from .checkout import refuse_uncommitted, texts, tracked, write
from .marks import left
from .names import fault, package

HISTORY = Path("CHANGELOG.md")  # tells what happened, under the name of that time
LOCK, PROJECT, README = Path("uv.lock"), Path("pyproject.toml"), Path("README.md")
TEMPLATE = "template"  # what is marked so speaks of the template, and not of what is made from it
ORIGIN = "Made from the template {name} {version}."


def main() -> None:
    """Rename to the name on the command line. Leaves with a message if nothing can be changed."""
    name = sys.argv[1]
    refuse(name)
    changed = {path: renamed(path, text, name) for path, text in texts().items() if path != HISTORY}
    changed[README] = with_origin(changed[README])
    changed[LOCK] = locked(changed[PROJECT], changed[LOCK])
    write(changed)
    folder = Path("src", package(name))
    shutil.rmtree(folder, ignore_errors=True)  # bytecode, of a branch that has this name
    Path("src", package(NAME)).rename(folder)
    print(f"{NAME} is {name} now. `git diff` shows it, `git add --all && git commit` keeps it.")


def refuse(name: str) -> None:
    """Leave, having changed nothing, if the service cannot be renamed to `name`."""
    if name == NAME:
        sys.exit(f"The service is called {name} already. Nothing was changed.")
    if reason := fault(name):
        sys.exit(f"The service cannot be called {name!r}: {reason}. Nothing was changed.")
    refuse_uncommitted()
    if other := other_meaning(name):
        sys.exit(
            f"{NAME} is also {other}: the two cannot be told apart. Go back to before the service"
            " was renamed first (git revert), and rename it from there. Nothing was changed."
        )
    if paths := named():
        sys.exit(f"Move what has the name in its path: {', '.join(paths)}. Nothing was changed.")


def other_meaning(name: str) -> str:
    """What the present name means besides the service, so that text alone cannot replace it."""
    if package(NAME) in identifiers():
        return "a word of the code"
    if package(NAME) == NAME and package(name) != name:
        return "the package's name, and of the new one the two differ"
    return ""


def identifiers() -> set[str]:
    """The names in the Python files, but for those of imported modules."""
    found: set[str] = set()
    for text in (text for path, text in texts().items() if path.suffix == ".py"):
        with suppress(SyntaxError):  # it may be newer than this Python
            for node in ast.walk(ast.parse(text)):
                if not isinstance(node, ast.alias):
                    keys = ("id", "name", "attr", "arg")
                    found.update(str(getattr(node, key, "")) for key in keys)
    return found


def named() -> list[str]:
    """The paths of files that have the present name in them, besides that of the package."""
    folder = f"src/{package(NAME)}/"
    inner = {str(path): str(path).removeprefix(folder) for path in tracked()}
    return [path for path, rest in inner.items() if replaced(rest, "") != rest]


def renamed(path: Path, text: str, name: str) -> str:
    """A file's text with the new name, less what speaks of the template."""
    return replaced(left(path, text, TEMPLATE), name)


def replaced(text: str, name: str) -> str:
    """A text with the new name in the old one's places."""
    for old, new in ((NAME, name), (package(NAME), package(name))):
        text = re.sub(rf"(?<![A-Za-z0-9]){old}(?![A-Za-z0-9])", new, text)
    return text


def with_origin(readme: str) -> str:
    """The README with a last line on where it comes from, which the first renaming adds."""
    if re.search(ORIGIN.format(name=".*", version=".*"), readme):
        return readme
    return f"{readme}\n{ORIGIN.format(name=NAME, version=version(NAME))}\n"


def locked(project: str, lock: str) -> str:
    """The lock file as uv would write it for `project`: packages are sorted by their names."""
    head, *packages = lock.split("\n[[package]]\n")
    with TemporaryDirectory() as folder:
        Path(folder, PROJECT).write_text(project)
        Path(folder, LOCK).write_text("\n[[package]]\n".join([head, *sorted(packages)]))
        done = subprocess.run(
            [os.environ["UV"], "lock", "--quiet", "--directory", folder],  # of `uv run`
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{done.stderr.strip()}\nuv cannot lock it. Nothing was changed.")
        return Path(folder, LOCK).read_text()


if __name__ == "__main__":
    main()
