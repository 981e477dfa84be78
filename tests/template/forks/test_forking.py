"""docs/forking.md, followed step by step: a service takes improvements of the template."""

from pathlib import Path
from uuid import uuid4

from tests.template.forks.repository import Repository, create_repository
from tests.template.pages import read_blocks
from tools.checkout import PROJECT

PAGE = PROJECT / "docs" / "forking.md"
TEMPLATE_URL = "https://example.com/the-template.git"


def improve(template: Repository, word: str) -> None:
    """Change the template: a line, a line next to its name, a new file, and one file less."""
    security = template.folder / "SECURITY.md"
    security.write_text(f"{security.read_text()}\nThis page is {word}.\n")
    project = template.folder / "pyproject.toml"
    project.write_text(project.read_text().replace("\nname = ", f"\n# {word}\nname = ", 1))
    (template.package / f"{word}.py").write_text(f'PACKAGE = "{template.package.name}"\n')
    (template.folder / "CONTRIBUTING.md").unlink(missing_ok=True)
    template.commit()


def take_improvements(template: Repository, service: Repository, words: list[str]) -> None:
    """Rename `service`, change it, and merge one improvement of the template for each word."""
    rename, remove_example, keep_template, add_remote, take = [
        text for info, text in read_blocks(PAGE) if info == "sh"
    ]
    name = f"shop-{uuid4().hex[:8]}"
    for block in (rename, remove_example, keep_template):
        service.run("sh", "-ec", block.replace("orders", name))
    main = service.package / "main.py"
    main.write_text(f"{main.read_text()}\nOWN = True\n")
    service.commit()
    service.run("sh", "-ec", add_remote.replace(TEMPLATE_URL, str(template.folder)))

    # The made-up improvements would not pass the linters.
    take = take.replace("make lint && make test\n", "").replace("orders", name)
    for word in words:
        improve(template, word)
        service.run("sh", "-ec", take)

    files = service.read_files()
    package = main.parent.name
    comments = "".join(f"# {word}\n" for word in words)
    assert f'{comments}name = "{name}"\n' in files["pyproject.toml"]
    for word in words:
        assert f"This page is {word}." in files["SECURITY.md"]
        assert files[f"src/{package}/{word}.py"] == f'PACKAGE = "{package}"\n'
    assert "CONTRIBUTING.md" not in files
    assert "OWN = True" in files[f"src/{package}/main.py"]
    assert [path for path in files if "items" in path] == []
    assert {path.split("/")[1] for path in files if path.startswith("src/")} == {package}


def test_a_fork_takes_two_improvements_and_keeps_its_own_changes(tmp_path: Path) -> None:
    template = create_repository(tmp_path / "template")
    template.run("git", "clone", "--quiet", str(template.folder), str(tmp_path / "service"))
    service = Repository(tmp_path / "service")
    take_improvements(template, service, ["better", "best"])
    service.run("make", "test-unit")


def test_a_copy_without_common_history_takes_an_improvement(tmp_path: Path) -> None:
    template = create_repository(tmp_path / "template")
    service = create_repository(tmp_path / "service")
    take_improvements(template, service, ["better"])
