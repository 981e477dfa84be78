"""The files of this checkout, as git knows them."""

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def git(*arguments: str) -> str:
    """What git prints. Leaves with its message if it fails."""
    if not shutil.which("git"):
        sys.exit("git is missing, which is the way back. Nothing was changed.")
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr.strip()}\nNothing was changed.")
    return done.stdout


def refuse_uncommitted() -> None:
    """Leave, unless git could bring every file back."""
    if not tracked():  # as in a folder that the repository above it ignores
        sys.exit("git tracks no file here. Commit them first. Nothing was changed.")
    if git("status", "--porcelain", "--untracked-files"):  # whatever the configuration says
        sys.exit(
            "There are changes that are not committed. Commit them first. Nothing was changed."
        )


def tracked() -> list[Path]:
    """What git tracks: files, links and submodules."""
    return [Path(name) for name in git("ls-files", "-z").split("\0") if name]


def texts() -> dict[Path, str]:
    """Every tracked file that is text in UTF-8, by its path. Ends of lines stay what they are."""
    found: dict[Path, str] = {}
    for path in tracked():
        if path.is_file() and not path.is_symlink():  # which may lead out of the checkout
            with suppress(UnicodeDecodeError):
                found[path] = path.read_bytes().decode()
    return found


def write(changed: dict[Path, str]) -> None:
    """Write the texts of files that `texts` has read."""
    for path, text in changed.items():
        path.write_bytes(text.encode())
