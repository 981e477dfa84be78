"""Collect the files that a Python environment needs at run time into the image's root folder.

Usage: `python runtime.py ENVIRONMENT ROOT`, on Debian, with the interpreter that the environment
was created with.

No path is hard-coded to an architecture or to a version of Python: the interpreter reports where
its files are, `ldd` lists the shared libraries that are linked, and `dpkg` maps files to packages.
"""

import compileall
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode

from tools.image.elf import find_elf_files

EXCLUDED_MODULES = (
    "test",
    "_test*",
    "_ctypes_test*",
    "_xx*",
    "xxlimited*",
    "idlelib",
    "tkinter",
    "_tkinter.*",
    "turtle.*",
    "turtledemo",
    "ensurepip",
    "config-*",
    "site-packages",
    "__pycache__",
)
"""File name patterns of the standard library that are left out, because no package uses them.

They are tests, IDLE, Tk, the installer of pip, and files for C compilers. Everything else may be
imported by a package: scikit-learn imports `doctest`, which imports `pdb` and thereby `_pyrepl`.
Bytecode is compiled again below.
"""

DLOPENED_LIBRARIES = ("libgcc_s.so.1",)
"""Libraries that are opened by name at run time, so that `ldd` does not list them.

glibc opens `libgcc_s.so.1` when a thread ends or is cancelled. Without it the process aborts.
"""

CONFIGURATION_FILES = (
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/lib/ssl/openssl.cnf",
    "/etc/nsswitch.conf",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/os-release",
    "/etc/debian_version",
)
"""Files that the libraries and scanners read. Those that do not exist are skipped."""

USER_ID = 10001


def build_root(environment: Path, root: Path) -> None:
    """Fill the folder `root` with everything but the environment itself."""
    link_top_level_folders(root)
    interpreter = copy_interpreter(root)
    standard_library = copy_standard_library(root)
    copy_linked_libraries([interpreter, *find_elf_files(standard_library)], environment, root)
    for name in CONFIGURATION_FILES:
        copy_path(Path(name), root)
    write_loader_cache(root)
    write_package_records(root)
    create_user(root)
    create_tmp(root)
    compile_bytecode(standard_library, root)


def link_top_level_folders(root: Path) -> None:
    """Recreate Debian's links such as `/lib`, which point into `/usr`."""
    root.mkdir(exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        source = Path("/", name)
        if source.is_symlink():
            (root / name).symlink_to(source.readlink())


def copy_interpreter(root: Path) -> Path:
    """Copy the Python interpreter and its usual links. Return the path of the interpreter."""
    interpreter = Path(sys.executable).resolve()
    for name in ("python", "python3", interpreter.name):
        copy_path(interpreter.parent / name, root)
    return interpreter


def copy_standard_library(root: Path) -> Path:
    """Copy the standard library without `EXCLUDED_MODULES`. Return the path of the copy."""
    source = Path(sysconfig.get_path("stdlib"))
    target = root / source.relative_to("/")
    ignore_excluded = shutil.ignore_patterns(*EXCLUDED_MODULES)
    shutil.copytree(source, target, ignore=ignore_excluded, symlinks=True)
    return target


def copy_linked_libraries(files: Iterable[Path], environment: Path, root: Path) -> None:
    """Copy the system libraries that these files and the environment's libraries need.

    Libraries in the environment are not copied: the image copies the environment as a whole.
    """
    linked_paths = linked_libraries([*files, *find_elf_files(environment)])
    for library in sorted(linked_paths | dlopened_libraries()):
        if not library.is_relative_to(environment):
            copy_path(library, root)
        if library.name.startswith("libcrypto"):
            # OpenSSL opens its providers at run time, so that `ldd` does not list them.
            copy_path(library.parent / "ossl-modules", root)


def linked_libraries(files: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that these files link, including the dynamic loader.

    Libraries that are not installed are left out. `verify.py` reports them in the finished image.
    """
    # The exit code is not checked: `ldd` also fails for files that are not dynamic.
    ldd = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False)
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", ldd.stdout)}


def dlopened_libraries() -> set[Path]:
    """Return the paths where the dynamic loader finds `DLOPENED_LIBRARIES`.

    Raises `KeyError` if one of them is not installed.
    """
    ldconfig = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True)
    path_of = dict(re.findall(r"^\t(\S+) .* => (\S+)$", ldconfig.stdout, re.MULTILINE))
    return {Path(path_of[name]) for name in DLOPENED_LIBRARIES}


def copy_path(path: Path, root: Path) -> None:
    """Copy a file, a folder or a link to the same path below `root`.

    A link stays a link, and its target is copied too. A path that does not exist is skipped.
    """
    if not path.exists():
        return
    # Parent folders that are links, such as /lib, are resolved, since `root` has the same links.
    path = path.parent.resolve() / path.name
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        if not target.is_symlink():
            target.symlink_to(path.readlink())
        copy_path(path.parent / path.readlink(), root)
    elif path.is_dir():
        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(path, target)


def write_loader_cache(root: Path) -> None:
    """Write `/etc/ld.so.cache`, by which the dynamic loader finds the copied libraries."""
    subprocess.run(["ldconfig", "-X", "-r", root], check=True)
    shutil.rmtree(root / "var/cache/ldconfig", ignore_errors=True)


def write_package_records(root: Path) -> None:
    """Record each Debian package that has files in `root`, in the form that scanners read.

    Images without a package manager have `/var/lib/dpkg/status.d/PACKAGE` and `PACKAGE.md5sums`.
    Only packages and files that are in `root` are recorded, together with the package's copyright.
    """
    records = root / "var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    for qualified_name, files in files_by_package(root).items():
        package = qualified_name.partition(":")[0]  # without the architecture
        status = subprocess.run(["dpkg", "-s", qualified_name], capture_output=True, check=True)
        (records / package).write_bytes(status.stdout)
        relative_paths = [file.lstrip("/") for file in sorted(files)]
        sums = subprocess.run(
            ["md5sum", *relative_paths], capture_output=True, cwd=root, check=True
        )
        (records / f"{package}.md5sums").write_bytes(sums.stdout)
        copy_path(Path("/usr/share/doc", package, "copyright"), root)


def files_by_package(root: Path) -> dict[str, list[str]]:
    """Return the files in `root` as absolute paths, grouped by the Debian package they are from.

    The keys are names such as `libssl3t64:amd64`. Files that no package owns are left out.
    """
    paths = [
        f"/{path.relative_to(root)}"
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    # The exit code is not checked: it is 1 because no package owns the files of Python.
    dpkg = subprocess.run(["dpkg", "-S", *paths], capture_output=True, text=True, check=False)
    files: dict[str, list[str]] = defaultdict(list)
    for line in dpkg.stdout.splitlines():
        # A line is `PACKAGE[, PACKAGE]...: FILE`.
        packages, _, file = line.rpartition(": ")
        first_package = packages.split(", ")[0]
        files[first_package].append(file)
    return files


def create_user(root: Path) -> None:
    """Create the user that the application runs as, without password, shell and home folder."""
    passwd = f"app:x:{USER_ID}:{USER_ID}::/nonexistent:/usr/sbin/nologin\n"
    (root / "etc/passwd").write_text(passwd)
    (root / "etc/group").write_text(f"app:x:{USER_ID}:\n")


def create_tmp(root: Path) -> None:
    """Create `/tmp`, writable for everybody."""
    tmp = root / "tmp"
    tmp.mkdir()
    tmp.chmod(0o1777)  # mkdir(mode=...) would be reduced by the umask


def compile_bytecode(standard_library: Path, root: Path) -> None:
    """Compile the copied standard library, since nothing can be written when the image runs.

    The bytecode carries hashes instead of times, so that two builds give the same files.
    """
    compileall.compile_dir(
        standard_library,
        stripdir=str(root),
        quiet=1,
        workers=0,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )


if __name__ == "__main__":
    build_root(environment=Path(sys.argv[1]).resolve(), root=Path(sys.argv[2]))
