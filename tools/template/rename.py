"""`make rename NAME=orders`: give the service another name in every file. With git you can undo it.

The first rename also turns the template into a service: what serves only the template is removed,
and the coverage gate goes down from 100 % to 90 %.
"""

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

from .marks import remove_marked_from_file
from .names import find_problem, to_package
from .tracked_files import list_tracked_paths, read_texts, require_clean_checkout, write_texts

CHANGELOG = Path("CHANGELOG.md")
LOCK_FILE = Path("uv.lock")
PROJECT_FILE = Path("pyproject.toml")
README = Path("README.md")

TEMPLATE_ONLY: tuple[str, ...] = (
    "docs/comparison.md",  # template
    "tests/*/test_docs.py",  # template
    "tests/container/test_wheels.py",  # template
    "tests/template",  # template
)
"""Files and folders that serve only the template. The first rename removes them, and empties this
list: a later rename does not remove a file of the service that happens to have such a path."""

ORIGIN = "Made from the template {name} {version}."


def main() -> None:
    """Rename the service to the name on the command line, or exit with the reason why not."""
    name = sys.argv[1]
    require_possible_rename(name)
    template_only = find_template_only()
    texts: dict[Path, str] = {}
    for path, text in read_texts().items():
        # The changelog describes what happened under the old name.
        if path != CHANGELOG and not is_inside(path, template_only):
            text_of_service = remove_marked_from_file(path, text, "template")
            texts[path] = replace_name(text_of_service, name)
    texts[PROJECT_FILE] = lower_coverage_gate(texts[PROJECT_FILE])  # template
    texts[README] = add_origin(texts[README])
    texts[LOCK_FILE] = lock_dependencies(texts[PROJECT_FILE], texts[LOCK_FILE])

    write_texts(texts)
    for path in template_only:
        remove(path)
    folder = Path("src", to_package(name))
    shutil.rmtree(folder, ignore_errors=True)  # It may contain bytecode of another branch.
    Path("src", to_package(NAME)).rename(folder)
    print(
        f"{NAME} is called {name} now."
        " Review with `git diff`, keep with `git add --all && git commit`."
    )


def require_possible_rename(name: str) -> None:
    """Exit without a change if the service cannot be renamed to `name`."""
    if name == NAME:
        sys.exit(f"The service is called {name} already. Nothing was changed.")
    problem = find_problem(name)
    if problem:
        sys.exit(f"The service cannot be called {name!r}: {problem}. Nothing was changed.")
    require_clean_checkout()
    ambiguity = find_ambiguity(name)
    if ambiguity:
        sys.exit(
            f"{NAME} is also {ambiguity}, so it cannot be replaced as text."
            " Use git to go back to the commit before the service was first renamed, and rename it"
            " from there. Nothing was changed."
        )
    paths = find_paths_with_name()
    if paths:
        sys.exit(
            f"These paths contain the name of the service: {', '.join(paths)}."
            " Move them first. Nothing was changed."
        )


def find_ambiguity(name: str) -> str:
    """Return what else the present name stands for, or an empty string.

    If it stands for something else, replacing it as text would be wrong in some places.
    """
    if to_package(NAME) in find_identifiers():
        return "an identifier in the code"
    if to_package(NAME) == NAME and to_package(name) != name:
        return "the name of the package, which has to be spelled differently from now on"
    return ""


def find_identifiers() -> set[str]:
    """Return the identifiers in all Python files, except the names of imported modules."""
    identifiers: set[str] = set()
    for path, text in read_texts().items():
        if path.suffix == ".py":
            with suppress(SyntaxError):  # The file may be written for a newer Python.
                identifiers.update(find_identifiers_in(ast.parse(text)))
    return identifiers


def find_identifiers_in(module: ast.Module) -> set[str]:
    """Return the identifiers in one Python file, except the names of imported modules."""
    identifiers: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.alias):
            continue
        for attribute in ("id", "name", "attr", "arg"):
            identifiers.add(str(getattr(node, attribute, "")))
    return identifiers


def find_paths_with_name() -> list[str]:
    """Return the paths that contain the present name below or outside the package's folder."""
    package_folder = f"src/{to_package(NAME)}/"
    paths: list[str] = []
    for path in list_tracked_paths():
        inner_path = str(path).removeprefix(package_folder)
        if replace_name(inner_path, "") != inner_path:
            paths.append(str(path))
    return paths


def find_template_only() -> list[Path]:
    """Return the files and folders that serve only the template."""
    paths: list[Path] = []
    for pattern in TEMPLATE_ONLY:
        paths.extend(Path().glob(pattern))
    return paths


def is_inside(path: Path, folders: list[Path]) -> bool:
    """Whether `path` is one of these paths, or in a folder that is one of them."""
    return any(path.is_relative_to(folder) for folder in folders)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it contains."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def replace_name(text: str, name: str) -> str:
    """Return `text` with `name` in each place of the present name."""
    for old, new in ((NAME, name), (to_package(NAME), to_package(name))):
        text = re.sub(rf"(?<![A-Za-z0-9]){old}(?![A-Za-z0-9])", new, text)
    return text


def lower_coverage_gate(project: str) -> str:  # template
    """Return pyproject.toml with the coverage gate of a service: 90 % instead of 100 %."""
    return project.replace("\nfail_under = 100\n", "\nfail_under = 90\n")


def add_origin(readme: str) -> str:
    """Return the README with a last line that names the template of the service.

    The first rename adds the line. Later renames keep it.
    """
    if re.search(ORIGIN.format(name=".*", version=".*"), readme):
        return readme
    return f"{readme}\n{ORIGIN.format(name=NAME, version=version(NAME))}\n"


def lock_dependencies(project: str, lock: str) -> str:
    """Return the lock file as uv writes it for `project`. uv sorts packages by their names."""
    head, *packages = lock.split("\n[[package]]\n")
    with TemporaryDirectory() as folder:
        Path(folder, PROJECT_FILE).write_text(project)
        lock_path = Path(folder, LOCK_FILE)
        lock_path.write_text("\n[[package]]\n".join([head, *sorted(packages)]))
        uv = os.environ["UV"]  # `uv run` sets it.
        process = subprocess.run(
            [uv, "lock", "--quiet", "--directory", folder],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if process.returncode != 0:
            error = process.stderr.strip()
            sys.exit(f"{error}\nuv cannot lock the dependencies. Nothing was changed.")
        return lock_path.read_text()


if __name__ == "__main__":
    main()
