"""The files of this checkout, as git knows them."""

import subprocess
import sys
from pathlib import Path


def git(*arguments: str) -> str:
    """What git prints. Leaves with its message if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr.strip()}\nNothing was changed.")
    return done.stdout


def refuse_uncommitted() -> None:
    """Leave, unless git could bring every file back."""
    if git("status", "--porcelain"):
        sys.exit(
            "There are changes that are not committed. Commit them first. Nothing was changed."
        )


def texts() -> dict[Path, str]:
    """Every file that git tracks, by its path."""
    return {
        Path(name): Path(name).read_text() for name in git("ls-files", "-z").split("\0") if name
    }
