"""Collect what an environment needs to run into a folder, which becomes the image's root.

`python runtime.py ENVIRONMENT ROOT`, on Debian, as the interpreter that the environment uses.
Nothing is at a path known beforehand: Python tells where it lives, `ldd` what it links, and `dpkg`
which package a file is from.
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

NEVER_LOADED = (
    # other programs: tests, an editor, a terminal's user interface, an installer, a C compiler's
    *("test", "idlelib", "tkinter", "_tkinter.*", "turtle*", "curses", "_curses*", "readline.*"),
    *("ensurepip", "pydoc_data", "_pyrepl", "config-*", "_test*", "_xx*", "xxlimited*"),
    *("dbm", "_dbm.*", "_gdbm.*", "site-packages", "__pycache__"),
)
"""What a server does not import of the standard library, as patterns of names."""

LOADED_LATER = ("libgcc_s.so.1",)
"""Libraries that no file names: glibc opens this one when a thread ends."""

CONFIGURATION = (
    *("/etc/ssl/openssl.cnf", "/etc/ssl/certs/ca-certificates.crt", "/usr/lib/ssl/openssl.cnf"),
    *("/etc/nsswitch.conf", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/os-release"),
    *("/etc/debian_version",),
)


def collect(environment: Path, root: Path) -> None:
    """Fill `root`. Raises `LookupError` if a shared library is missing."""
    for link in ("bin", "lib", "lib64", "sbin"):  # in Debian all are links into /usr
        if (source := Path("/", link)).is_symlink():
            root.mkdir(exist_ok=True)
            (root / link).symlink_to(source.readlink())
    interpreter, standard_library = copy_interpreter(root)
    elves = [interpreter, *libraries(root / standard_library.relative_to("/"))]
    linked = sorted({*linked_by([*elves, *libraries(environment)]), *loaded_later()})
    openssl = [path.parent / "ossl-modules" for path in linked if path.name.startswith("libcrypto")]
    packaged = [path for path in linked if not path.is_relative_to(environment)]
    for path in (*packaged, *openssl, *map(Path, CONFIGURATION)):
        copy(path, root)
    subprocess.run(["ldconfig", "-X", "-r", root], check=True)
    shutil.rmtree(root / "var/cache/ldconfig", ignore_errors=True)
    keep_package_records(root)
    add_user(root)
    compileall.compile_dir(
        root / standard_library.relative_to("/"),
        stripdir=str(root),
        quiet=1,
        workers=0,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )


def copy_interpreter(root: Path) -> tuple[Path, Path]:
    """Copy Python and its standard library. Gives the paths of both."""
    interpreter = Path(sys.executable).resolve()
    for name in ("python", "python3", interpreter.name):
        copy(interpreter.parent / name, root)
    standard_library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        standard_library,
        root / standard_library.relative_to("/"),
        ignore=shutil.ignore_patterns(*NEVER_LOADED),
        symlinks=True,
    )
    return interpreter, standard_library


def libraries(folder: Path) -> list[Path]:
    """The shared libraries below `folder`."""
    return sorted(path for path in folder.rglob("*.so*") if path.is_file())


def linked_by(elves: Iterable[Path]) -> set[Path]:
    """The shared libraries that these files link, the dynamic loader among them."""
    found: set[Path] = set()
    for elf in elves:
        told = subprocess.run(["ldd", elf], capture_output=True, text=True, check=False).stdout
        if "not found" in told:
            raise LookupError(f"{elf} links a library that is missing:\n{told}")
        found.update(Path(path) for path in re.findall(r"(/\S+) \(0x", told))
    return found


def loaded_later() -> set[Path]:
    """Where the dynamic loader finds the libraries that no file names."""
    told = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"^\t(\S+) .* => (\S+)$", told, re.MULTILINE))
    return {Path(found[name]) for name in LOADED_LATER}


def copy(path: Path, root: Path) -> None:
    """Copy a file, a folder or a link with what it points to; parents that are links stay so."""
    if not path.exists():
        return
    path = path.parent.resolve() / path.name
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        if not target.is_symlink():
            target.symlink_to(path.readlink())
        copy(path.parent / path.readlink(), root)
    elif path.is_dir():
        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(path, target)


def keep_package_records(root: Path) -> None:
    """Write a record per Debian package that a file is from, as scanners read it.

    Without the other packages' records and without files that were left out, in the form that
    images without a package manager have: /var/lib/dpkg/status.d/PACKAGE and PACKAGE.md5sums.
    """
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    names = {f"/{path.relative_to(root)}": path for path in files}
    told = subprocess.run(["dpkg", "-S", *names], capture_output=True, text=True, check=False)
    owned = defaultdict(list)
    for line in told.stdout.splitlines():
        owner, _, name = line.rpartition(": ")
        owned[owner.split(", ")[0]].append(name)
    records = root / "var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    for package, owned_names in owned.items():
        status = subprocess.run(["dpkg", "-s", package], capture_output=True, check=True).stdout
        sums = subprocess.run(
            ["md5sum", *[name.lstrip("/") for name in sorted(owned_names)]],
            capture_output=True,
            cwd=root,
            check=True,
        ).stdout
        record = records / package.partition(":")[0]
        record.write_bytes(status)
        record.with_name(f"{record.name}.md5sums").write_bytes(sums)
        copy(Path("/usr/share/doc", record.name, "copyright"), root)


def add_user(root: Path) -> None:
    """The user of the service, without a password, a shell or a home; a /tmp for it."""
    (root / "etc/passwd").write_text("app:x:10001:10001::/nonexistent:/usr/sbin/nologin\n")
    (root / "etc/group").write_text("app:x:10001:\n")
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)


if __name__ == "__main__":
    collect(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
