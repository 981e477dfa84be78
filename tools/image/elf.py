"""Find shared libraries and programs by their content, in the stages of the image's build.

Names do not identify them: `v0.7.1.some-index.parquet` contains `.so` and is data, and a program
has no suffix. The format is described in elf(5).
"""

import sys
from pathlib import Path

HEADER_LENGTH = 20
ET_DYN = 3
"""The type of shared libraries and of programs that run at any address, as compilers build them."""


def find_elf_files(folder: Path) -> list[Path]:
    """Return the shared libraries and programs in `folder` and below.

    Links are left out, and files for other processors, which some packages contain.
    """
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and is_elf_file(path)
    ]


def is_elf_file(path: Path) -> bool:
    """Return whether the file is a shared library or a program for this interpreter's processor."""
    header = read_header(path)
    own_header = read_header(Path(sys.executable))
    file_type = int.from_bytes(header[16:18], sys.byteorder)
    is_for_this_processor = header[:6] == own_header[:6] and header[18:] == own_header[18:]
    return is_for_this_processor and file_type == ET_DYN


def read_header(path: Path) -> bytes:
    """Return the start of a file: in ELF, magic number, word size, byte order, type, processor."""
    with path.open("rb") as file:
        return file.read(HEADER_LENGTH)
