"""Verify the finished image as the last step of its build.

The build fails if the application cannot be imported and created, or if a program or a shared
library needs a library that is not in the image. Without this check such an image would be
published and would fail at the first request that uses the missing part.
"""

import importlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from tools.image.elf import find_elf_files

OPTIONAL_LIBRARIES = (
    "libcuda.so.1",
    "libgomp.so.1.0.0",
    "libtbb.so.12",
)
"""Libraries that may be missing, because the packages that link them work without them.

`libcuda.so.1` is part of a graphics driver, which the engine mounts into containers. The others are
linked by optional parts of numba.
"""

MISSING_LIBRARY = """\
{library} is missing. {package} needs it: {file}
    Install the Debian package that contains it (https://packages.debian.org/file:{library}) in the
    stage `dependencies` of the Dockerfile, for example next to `binutils`. If the application does
    not use this file, add the library to OPTIONAL_LIBRARIES in tools/image/verify.py."""


def import_application() -> None:
    """Import what the image's commands import, and create the application.

    Nothing connects to the database here, but settings without a URL would be refused.
    """
    os.environ["DATABASE_URL"] = "postgresql://user@db/name"
    importlib.import_module("fastapi_k8s.server")
    importlib.import_module("fastapi_k8s.cli")
    importlib.import_module("fastapi_k8s.main").create_app_from_environment()


def verify_shared_libraries() -> None:
    """Exit with a message if a shared library or a program in the image lacks a library.

    Nothing is loaded: outside of an import of its package, a library may crash, because the package
    prepares something before.
    """
    environment = Path(sys.prefix)
    files = [*find_elf_files(environment), *find_elf_files(Path(sysconfig.get_path("stdlib")))]
    # A package can load a library from its own folder before the library that links it.
    available_libraries = {file.name for file in files} | set(OPTIONAL_LIBRARIES)
    problems = [problem for file in files for problem in find_problems(file, available_libraries)]
    if problems:
        sys.exit("\n".join(problems))


def find_problems(file: Path, available_libraries: set[str]) -> Iterator[str]:
    """Yield what is wrong with the libraries that `file` links, as the dynamic loader reports it.

    These are missing libraries, except for `available_libraries`, and versions of a library that do
    not have a symbol.
    """
    # With this variable the loader lists libraries, and continues after one that is missing.
    environment = {"LD_TRACE_LOADED_OBJECTS": "1"}
    command = [find_loader(), str(file)]
    loader = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    missing_libraries = set(re.findall(r"^\t(\S+) => not found$", loader.stdout, re.MULTILINE))
    for library in sorted(missing_libraries - available_libraries):
        yield MISSING_LIBRARY.format(library=library, package=find_package(file), file=file)
    if loader.returncode != 0 or loader.stderr:
        yield f"{find_package(file)} cannot be loaded: {file}\n    {loader.stderr}"


@cache
def find_loader() -> str:
    """Return the path of the dynamic loader, which this process has loaded too."""
    match = re.search(r"/\S*/ld-\S+", Path("/proc/self/maps").read_text())
    assert match is not None
    return match[0]


def find_package(file: Path) -> str:
    """Return the name of the Python package that installed the file, or "Python"."""
    for distribution in distributions():
        if any(file == distribution.locate_file(path) for path in distribution.files or ()):
            return distribution.name
    return "Python"


if __name__ == "__main__":
    import_application()
    verify_shared_libraries()
