"""docs/forking.md, followed step by step: a service takes improvements of the template."""

from pathlib import Path
from uuid import uuid4

from tests.template.forks.repository import Repository, create_repository
from tests.template.pages import read_blocks
from tools.checkout import PROJECT

PAGE = PROJECT / "docs" / "forking.md"
TEMPLATE_URL = "https://example.com/the-template.git"
RENAME, REMOVE_EXAMPLE, UPDATE = [text for info, text in read_blocks(PAGE) if info == "sh"]


def improve(template: Repository, word: str) -> None:
    """Change the template: a line, a line next to its name, a new file, and one file less."""
    security = template.folder / "SECURITY.md"
    security.write_text(f"{security.read_text()}\nThis page is {word}.\n")
    project = template.folder / "pyproject.toml"
    project.write_text(project.read_text().replace("\nname = ", f"\n# {word}\nname = ", 1))
    (template.package / f"{word}.py").write_text(f'PACKAGE = "{template.package.name}"\n')
    (template.folder / "CONTRIBUTING.md").unlink(missing_ok=True)
    template.commit()


def rename_and_remove_example(service: Repository, name: str) -> None:
    """Run the first commands of the page."""
    for block in (RENAME, REMOVE_EXAMPLE):
        service.run("sh", "-ec", block.replace("orders", name))


def make_own_service(service: Repository) -> None:
    """Rename a fork, remove the example, and add a line of its own."""
    rename_and_remove_example(service, f"shop-{uuid4().hex[:8]}")
    main = service.package / "main.py"
    main.write_text(f"{main.read_text()}\nOWN = True\n")
    service.commit()


def update(service: Repository, template: Repository) -> None:
    """Run the command of the page."""
    service.run("sh", "-ec", UPDATE.replace(TEMPLATE_URL, str(template.folder)))


def assert_has_improvements(service: Repository, words: list[str]) -> None:
    """Assert that a service has its own changes and these improvements, under its own name."""
    assert service.run("git", "status", "--porcelain") == ""
    files = service.read_files()
    package = service.package.name
    comments = "".join(f"# {word}\n" for word in words)
    assert f'{comments}name = "{package.replace("_", "-")}"\n' in files["pyproject.toml"]
    for word in words:
        assert f"This page is {word}." in files["SECURITY.md"]
        assert files[f"src/{package}/{word}.py"] == f'PACKAGE = "{package}"\n'
    assert "CONTRIBUTING.md" not in files
    assert "OWN = True" in files[f"src/{package}/main.py"]
    assert [path for path in files if "items" in path] == []
    assert {path.split("/")[1] for path in files if path.startswith("src/")} == {package}


def test_a_fork_takes_two_improvements_and_leaves_conflicts_to_git(tmp_path: Path) -> None:
    template = create_repository(tmp_path / "template")
    template.run("git", "clone", "--quiet", str(template.folder), str(tmp_path / "service"))
    service = Repository(tmp_path / "service")
    make_own_service(service)

    improve(template, "better")
    update(service, template)
    assert_has_improvements(service, ["better"])
    assert service.run("git", "log", "--format=%s", "-1").startswith("Update to the template of ")
    assert "newest version of the template already" in service.run(
        "make", "update", f"TEMPLATE={template.folder}"
    )

    improve(template, "best")
    security = service.folder / "SECURITY.md"
    security.write_text(f"{security.read_text()}\nThis page is ours.\n")
    service.commit()
    service.run("git", "remote", "add", "template", str(template.folder))
    process = service.try_run("make", "update")
    assert process.returncode != 0
    assert "git cherry-pick --continue" in process.stderr
    assert service.run("git", "diff", "--name-only", "--diff-filter=U") == "SECURITY.md\n"
    assert "<<<<<<<" in security.read_text()
    security.write_text("This page is better.\nThis page is best.\n")
    service.run("sh", "-ec", "git add --all && git -c core.editor=true cherry-pick --continue")
    assert_has_improvements(service, ["better", "best"])
    assert len(service.run("git", "worktree", "list").splitlines()) == 1


def test_a_copy_without_common_history_becomes_a_fork_of_the_new_version(tmp_path: Path) -> None:
    """Except for its own line, it has the same files as a fork that is made after the update."""
    template = create_repository(tmp_path / "template")
    service = create_repository(tmp_path / "service")
    make_own_service(service)
    improve(template, "better")
    update(service, template)
    assert_has_improvements(service, ["better"])

    new_fork = Repository(tmp_path / "new")
    template.run("git", "clone", "--quiet", str(template.folder), str(new_fork.folder))
    rename_and_remove_example(new_fork, service.package.name.replace("_", "-"))
    service.run("git", "fetch", "--quiet", str(new_fork.folder), "main")
    different_files = service.run("git", "diff", "--name-only", "FETCH_HEAD").splitlines()
    assert different_files == [".template-version", f"src/{service.package.name}/main.py"]
