"""`make remove-example`: remove the items and this command. With git you can undo it."""

import shutil
import sys
from pathlib import Path

from .marks import remove_marked_from_file
from .tracked_files import read_texts, require_clean_checkout, write_texts

DOMAIN_FOLDER = "src/*/items"
MIGRATIONS_FOLDER = "src/*/migrations/versions"
EXAMPLE_FILES = (
    f"{DOMAIN_FOLDER}/*",
    f"{MIGRATIONS_FOLDER}/0002_items.py",
    "tests/*/test_items*.py",
    "tools/benchmarks/*items*",
    "tools/benchmarks/overload/*",
    "docs/dashboard.svg",
    "docs/load-curve.svg",
    "tools/template/remove_example.py",
    "tests/template/*/test_remove_example.py",
)


def main() -> None:
    """Remove the files of the example, and the parts of other files that are marked `example`."""
    require_clean_checkout()
    texts = read_texts()
    require_no_dependent_migration(texts)
    example_files = [path for path in texts if is_example(path)]
    remaining_texts: dict[Path, str] = {}
    for path, text in texts.items():
        if path not in example_files:
            remaining_texts[path] = remove_marked_from_file(path, text, "example")

    for path in example_files:
        path.unlink()
    for folder in Path().glob(DOMAIN_FOLDER):
        shutil.rmtree(folder)  # It may still contain bytecode.
    write_texts(remaining_texts)
    print("The items are removed. Review with `git diff`, keep with `git add --all && git commit`.")


def is_example(path: Path) -> bool:
    """Whether the whole file belongs to the example."""
    return any(path.match(pattern) for pattern in EXAMPLE_FILES)


def require_no_dependent_migration(texts: dict[Path, str]) -> None:
    """Exit if a migration builds on the one of the items, because it cannot run without it."""
    for path, text in texts.items():
        if path.match(f"{MIGRATIONS_FOLDER}/*.py") and 'down_revision = "0002"' in text:
            sys.exit(f"{path} builds on the migration of the items. Nothing was changed.")


if __name__ == "__main__":
    main()
