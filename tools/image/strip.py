"""Strip debug symbols from the shared libraries of a Python environment.

Usage: `python strip.py ENVIRONMENT`. It needs the program `strip` (Debian package `binutils`).

Stripping changes the size and the hash of a library. Both are also listed in the `RECORD` file of
its package, which scanners compare with the files, so the entries are updated. The format is
described in https://packaging.python.org/specifications/recording-installed-packages/.
"""

import base64
import csv
import hashlib
import subprocess
import sys
from pathlib import Path

from tools.image.elf import is_elf_file


def strip_environment(environment: Path) -> None:
    """Strip the libraries of every package that is installed in `environment`."""
    for record in environment.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        strip_package(record)


def strip_package(record: Path) -> None:
    """Strip each shared library that a `RECORD` file lists, and update its entry there."""
    site_packages = record.parent.parent
    with record.open(newline="") as file:
        rows = list(csv.reader(file))
    for row in rows:
        path = site_packages / row[0]
        # Programs stay as they are: some have data behind their end, which `strip` would remove.
        if ".so" in path.suffixes and is_elf_file(path):
            subprocess.run(["strip", "--strip-unneeded", path], check=True)
            row[1:] = [record_hash(path), str(path.stat().st_size)]
    with record.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def record_hash(path: Path) -> str:
    """Return the hash of a file's content as `RECORD` writes it: `sha256=` and unpadded Base64."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    encoded_digest = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return f"sha256={encoded_digest}"


if __name__ == "__main__":
    strip_environment(Path(sys.argv[1]))
