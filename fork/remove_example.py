"""`make remove-example`: take the items out, and this with them. git brings them back."""

import shutil
from pathlib import Path

from .checkout import refuse_uncommitted, texts
from .marks import without

FOLDER = "src/*/items"
FILES = (
    f"{FOLDER}/*",
    "src/*/migrations/versions/*_items.py",
    "tests/*/test_items*.py",
    "bench/*items*",
    "fork/remove_example.py",
    "tests/fork/test_remove_example.py",
)


def main() -> None:
    """Remove the files of the example, and what is marked `example` in others."""
    refuse_uncommitted()
    files = texts()
    gone = {path for path in files if any(path.match(pattern) for pattern in FILES)}
    less = {
        path: without(text, "example", python=path.suffix == ".py")
        for path, text in files.items()
        if path not in gone
    }
    for path in gone:
        path.unlink()
    for path, text in less.items():
        path.write_text(text)
    for folder in Path().glob(FOLDER):
        shutil.rmtree(folder)  # with its bytecode
    print("The items are gone. `git diff` shows it, `git add --all && git commit` keeps it.")


if __name__ == "__main__":
    main()
