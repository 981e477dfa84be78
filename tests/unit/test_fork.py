"""Which files are changed when the service becomes somebody's own."""

import subprocess
from pathlib import Path

import pytest

from fastapi_k8s import NAME
from tools.template import checkout, rename
from tools.template.marks import left
from tools.template.names import package


def git(*arguments: str) -> None:
    """Run it, as somebody who commits."""
    own = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *own, *arguments], check=True)


def track(*paths: str) -> None:
    """Let git track files, in the working directory."""
    git("init", "--quiet")
    git("add", "--", *paths)


def test_files_that_are_no_text_of_their_own_are_left_alone(folder: Path) -> None:
    """A picture, another encoding, links that lead out, to a folder or nowhere, a submodule."""
    (folder / "own.md").write_text("own")
    (folder / "logo.png").write_bytes(b"\x89PNG\xff\x00")
    (folder / "latin").write_bytes("café".encode("latin-1"))
    for link in ("secrets", "nowhere", "../outside"):
        (folder / f"to-{Path(link).name}").symlink_to(link)
    (folder.parent / "outside").write_text("not ours")
    git("init", "--quiet", "sub")
    git("-C", "sub", "commit", "--quiet", "--allow-empty", "--message", "One")
    track(".")
    assert len(checkout.tracked()) == 7
    assert checkout.texts() == {Path("own.md"): "own"}


def test_ends_of_lines_are_kept(folder: Path) -> None:
    (folder / "run.bat").write_bytes(b"one\r\ntwo\n")
    track("run.bat")
    checkout.write(checkout.texts())
    assert (folder / "run.bat").read_bytes() == b"one\r\ntwo\n"


def test_a_new_file_counts_even_if_git_is_told_not_to_show_it(folder: Path) -> None:
    (folder / "old.txt").touch()
    track("old.txt")
    git("commit", "--quiet", "--message", "One")
    git("config", "status.showUntrackedFiles", "no")
    checkout.refuse_uncommitted()
    (folder / "new.txt").touch()
    with pytest.raises(SystemExit, match="not committed"):
        checkout.refuse_uncommitted()


def test_what_a_repository_above_ignores_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".gitignore").write_text("*\n")
    track()
    (folder / "service").mkdir()
    (folder / "service" / "main.py").touch()
    monkeypatch.chdir(folder / "service")
    with pytest.raises(SystemExit, match="tracks no file"):
        checkout.refuse_uncommitted()


def test_without_git_nothing_is_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(SystemExit, match="git is missing"):
        checkout.refuse_uncommitted()


def test_a_file_with_a_mark_that_has_no_end_is_named() -> None:
    with pytest.raises(SystemExit, match=r"own\.md: a block has no"):
        left(Path("own.md"), "# example\n", "example")


def test_python_without_a_mark_need_not_be_understood() -> None:
    """It may be newer than what reads it here."""
    assert left(Path("new.py"), "try = 1\n", "example") == "try = 1\n"


def test_words_of_the_code_are_found_beside_python_that_is_not_understood(folder: Path) -> None:
    (folder / "new.py").write_text("try = 1\n")
    (folder / "old.py").write_text("word = 1\n")
    track(".")
    assert "word" in rename.identifiers()


def test_a_path_with_the_name_in_it_is_found(folder: Path) -> None:
    paths = [
        f"docs/{NAME}.md",
        f"src/{package(NAME)}/main.py",
        f"src/{package(NAME)}/{package(NAME)}.py",
        f"src/{package(NAME)}s/main.py",
    ]
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    track(".")
    assert sorted(rename.named()) == [paths[0], paths[2]]
