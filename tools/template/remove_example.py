"""`make remove-example`: take the items out, and this with them. git brings them back."""

import shutil
import sys
from pathlib import Path

from .checkout import refuse_uncommitted, texts, write
from .marks import left

FOLDER = "src/*/items"
MIGRATIONS = "src/*/migrations/versions"
FILES = (
    f"{FOLDER}/*",
    f"{MIGRATIONS}/0002_items.py",
    "tests/*/test_items*.py",
    "tools/benchmarks/*items*",
    "tools/template/remove_example.py",
    "tests/*/test_remove_example.py",
)


def main() -> None:
    """Remove the files of the example, and what is marked `example` in others."""
    refuse_uncommitted()
    files = texts()
    for path, text in files.items():
        if path.match(f"{MIGRATIONS}/*.py") and 'down_revision = "0002"' in text:
            sys.exit(f"{path} builds on the migration of the items. Nothing was changed.")
    gone = {path for path in files if any(path.match(pattern) for pattern in FILES)}
    less = {path: left(path, text, "example") for path, text in files.items() if path not in gone}
    for path in gone:
        path.unlink()
    write(less)
    for folder in Path().glob(FOLDER):
        shutil.rmtree(folder)  # with its bytecode
    print("The items are gone. `git diff` shows it, `git add --all && git commit` keeps it.")


if __name__ == "__main__":
    main()
