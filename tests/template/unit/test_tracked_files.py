"""Which files `make rename` and `make remove-example` change, and when they refuse to."""

import subprocess
from pathlib import Path

import pytest

from tools.template.tracked_files import (
    list_tracked_paths,
    read_texts,
    require_clean_checkout,
    write_texts,
)


def run_git(*arguments: str) -> None:
    """Run git with the name and address that a commit needs."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *author, *arguments], check=True)


def track(*paths: str) -> None:
    """Make the working directory a repository that tracks these paths."""
    run_git("init", "--quiet")
    run_git("add", "--", *paths)


def test_only_regular_utf_8_files_are_read(folder: Path) -> None:
    """Images, other encodings, symbolic links and submodules are left alone."""
    (folder / "own.md").write_text("own")
    (folder / "logo.png").write_bytes(b"\x89PNG\xff\x00")
    (folder / "latin").write_bytes("café".encode("latin-1"))
    (folder / "to-folder").symlink_to("sub")
    (folder / "to-nowhere").symlink_to("nowhere")
    (folder / "to-outside").symlink_to("../outside")
    (folder.parent / "outside").write_text("not ours")
    run_git("init", "--quiet", "sub")
    run_git("-C", "sub", "commit", "--quiet", "--allow-empty", "--message", "One")
    track(".")
    assert len(list_tracked_paths()) == 7
    assert read_texts() == {Path("own.md"): "own"}


def test_line_endings_are_kept(folder: Path) -> None:
    (folder / "run.bat").write_bytes(b"one\r\ntwo\n")
    track("run.bat")
    write_texts(read_texts())
    assert (folder / "run.bat").read_bytes() == b"one\r\ntwo\n"


def test_a_new_file_is_refused_even_if_git_is_configured_not_to_show_it(folder: Path) -> None:
    (folder / "old.txt").touch()
    track("old.txt")
    run_git("commit", "--quiet", "--message", "One")
    run_git("config", "status.showUntrackedFiles", "no")
    require_clean_checkout()
    (folder / "new.txt").touch()
    with pytest.raises(SystemExit, match="uncommitted changes"):
        require_clean_checkout()


def test_a_folder_that_an_outer_repository_ignores_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".gitignore").write_text("*\n")
    track()
    (folder / "service").mkdir()
    (folder / "service" / "main.py").touch()
    monkeypatch.chdir(folder / "service")
    with pytest.raises(SystemExit, match="tracks no files"):
        require_clean_checkout()


def test_the_command_is_refused_if_git_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(SystemExit, match="git is not installed"):
        require_clean_checkout()
