"""Read and write the files that git tracks in this checkout, after a check that it is clean."""

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def run_git(*arguments: str) -> str:
    """Return what git prints. Exit with git's error message if the command fails."""
    if not shutil.which("git"):
        sys.exit(
            "git is not installed. Install it first: with git you can undo what this command does."
            " Nothing was changed."
        )
    # Otherwise `git log` could print signatures between the lines of its format.
    command = ["git", "-c", "log.showSignature=false", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        sys.exit(f"{process.stderr.strip()}\nNothing was changed.")
    return process.stdout


def require_clean_checkout() -> None:
    """Exit unless every file is committed, so that git can restore each of them."""
    if not list_tracked_paths():  # for example in a folder that an outer repository ignores
        sys.exit("git tracks no files here. Commit them first. Nothing was changed.")
    # `--untracked-files` overrides a configuration that hides new files.
    if run_git("status", "--porcelain", "--untracked-files"):
        sys.exit("There are uncommitted changes. Commit them first. Nothing was changed.")


def list_tracked_paths() -> list[Path]:
    """Return the paths of the files, symbolic links and submodules that git tracks."""
    output = run_git("ls-files", "-z")
    return [Path(name) for name in output.split("\0") if name]


def read_texts() -> dict[Path, str]:
    """Return the text of every tracked UTF-8 file by its path, with line endings unchanged."""
    texts: dict[Path, str] = {}
    for path in list_tracked_paths():
        # The target of a symbolic link may be outside the checkout.
        if path.is_file() and not path.is_symlink():
            with suppress(UnicodeDecodeError):
                texts[path] = path.read_bytes().decode()
    return texts


def write_texts(texts: dict[Path, str]) -> None:
    """Write each text to its path, with line endings unchanged."""
    for path, text in texts.items():
        path.write_bytes(text.encode())
