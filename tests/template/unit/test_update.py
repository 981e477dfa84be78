"""`make update`: which version a service is based on, and when nothing is changed."""

from pathlib import Path

import pytest

from tools.checkout import run_command
from tools.template import update
from tools.template.update import BASE_FILE, find_base


def commit(file: str, text: str) -> str:
    """Commit a file in the working directory, and return the id of the commit."""
    Path(file).write_text(text)
    run_command(["git", "add", "--all"])
    run_command(["git", "commit", "--quiet", "--message", f"Write {text}"])
    return run_command(["git", "rev-parse", "HEAD"]).strip()


@pytest.fixture
def versions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commits of a template. The working directory is a service without a common history.

    The files of its only commit are those of the second commit of the template.
    """
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.com")
    template = folder.parent / "template"
    run_command(["git", "init", "--quiet", str(template)])
    monkeypatch.chdir(template)
    Path("pyproject.toml").write_text('[project]\nname = "the-template"\n')
    Path("Makefile").write_text("rename:\n\tfalse\n")
    versions = [commit("README.md", text) for text in ("one", "two", "three")]
    monkeypatch.chdir(folder)
    run_command(["git", "init", "--quiet"])
    run_command(["git", "fetch", "--quiet", str(template), "HEAD"])
    run_command(["git", "checkout", versions[1], "--", "."])
    commit("README.md", "two")
    monkeypatch.setenv("TEMPLATE", str(template))
    return versions


def test_a_service_is_based_on_the_version_with_the_files_of_one_of_its_commits(
    versions: list[str],
) -> None:
    commit("README.md", "own")
    assert find_base(versions[-1]) == versions[1]


def test_a_service_is_based_on_the_version_that_its_file_names(versions: list[str]) -> None:
    commit(str(BASE_FILE), f"{versions[0]}\n")
    assert find_base(versions[-1]) == versions[0]


def test_a_commit_that_the_template_does_not_have_is_refused(versions: list[str]) -> None:
    own = commit("README.md", "own")
    commit(str(BASE_FILE), own)
    with pytest.raises(SystemExit, match=f"has no commit '{own}'.* Nothing was changed."):
        find_base(versions[-1])


def test_a_service_with_other_files_than_every_version_is_refused(versions: list[str]) -> None:
    run_command(["git", "checkout", "--quiet", "--orphan", "other"])  # with a history of its own
    commit("README.md", "other")
    with pytest.raises(SystemExit, match=r"Write the id .* Nothing was changed\."):
        find_base(versions[-1])


@pytest.mark.usefixtures("versions")
def test_uncommitted_changes_are_refused() -> None:
    Path("new.txt").touch()
    with pytest.raises(SystemExit, match="uncommitted changes"):
        update.main()


@pytest.mark.usefixtures("versions")
def test_an_unknown_template_is_refused_with_the_command_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TEMPLATE")
    with pytest.raises(SystemExit, match=r"make update TEMPLATE=.* Nothing was changed\."):
        update.main()


@pytest.mark.usefixtures("versions")
def test_a_template_that_cannot_be_reached_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLATE", "nowhere")
    with pytest.raises(SystemExit, match=r"'nowhere' does not appear[^\0]*Nothing was changed\."):
        update.main()


@pytest.mark.usefixtures("versions")
def test_a_command_that_fails_in_the_template_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV", "uv")
    head = run_command(["git", "rev-parse", "HEAD"])
    with pytest.raises(SystemExit, match=r"`make rename NAME=.*` fails .* Nothing was changed\."):
        update.main()
    assert run_command(["git", "rev-parse", "HEAD"]) == head
    assert run_command(["git", "status", "--porcelain"]) == ""
    assert len(run_command(["git", "worktree", "list"]).splitlines()) == 1
