"""Strip the symbols from an environment's shared libraries: `python strip.py ENVIRONMENT`.

Needs `strip` (binutils). Sizes and hashes in the packages' RECORD files follow, since scanners
compare them (https://packaging.python.org/specifications/recording-installed-packages/).
"""

import base64
import csv
import hashlib
import subprocess
import sys
from pathlib import Path


def strip(environment: Path) -> None:
    """Strip each library that a RECORD below `environment` lists, and write the RECORD anew."""
    for record in environment.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        with record.open(newline="") as file:
            rows = list(csv.reader(file))
        for row in rows:
            library = record.parent.parent / row[0]
            if ".so" in library.suffixes:
                subprocess.run(["strip", "--strip-unneeded", library], check=True)
                row[1:] = entry(library)
        with record.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def entry(library: Path) -> list[str]:
    """What RECORD says of a file: its hash, and its size in bytes."""
    content = library.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return [f"sha256={digest.decode()}", str(len(content))]


if __name__ == "__main__":
    strip(Path(sys.argv[1]))
