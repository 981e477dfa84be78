"""docs/forking.md and docs/domain.md, followed step by step."""

import re
from pathlib import Path
from uuid import uuid4

from tests.checkout import PROJECT
from tests.docs import blocks
from tests.template.repository import Fork, fork

FILE = re.compile(r"`(\S+)`:\n\n```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
FORKING = PROJECT / "docs" / "forking.md"


def shell(repository: Fork, block: str, **replaced: str) -> None:
    """Run a block, with other words in place of some."""
    for old, new in replaced.items():
        block = block.replace(old, new)
    repository.done("sh", "-ec", block)


def insert(text: str, diff: str) -> str:
    """`text` with the lines that a diff adds behind its first one, which must stand there once."""
    lines = diff.splitlines(keepends=True)
    place = lines[0][1:]
    assert text.count(place) == 1, place
    return text.replace(place, place + "".join(line.removeprefix("+") for line in lines[1:]))


def test_a_domain_is_added_as_the_document_says(repository: Fork) -> None:
    """To a renamed service without the example. Lint and tests pass, with the coverage gate."""
    repository.rename(f"orders{uuid4().hex[:8]}")
    repository.done("make", "remove-example")
    repository.commit()
    page = repository.folder / "docs" / "domain.md"
    package = next((repository.folder / "src").glob("*/main.py")).parent
    begin, check = (text for language, text in blocks(page) if language == "sh")
    shell(repository, begin)
    for name, text in FILE.findall(page.read_text()):
        (repository.folder / name).write_text(text)
    edits = [text for language, text in blocks(page) if language == "diff"]
    edited = (
        package / "main.py",
        package / "main.py",
        repository.folder / "pyproject.toml",
        repository.folder / "README.md",
    )
    for file, edit in zip(edited, edits, strict=True):
        file.write_text(insert(file.read_text(), edit))
    assert check == "make lint\nmake test\n"
    repository.passes("FLAGS=--deselect=tests/container")


def improve(upstream: Fork, word: str) -> None:
    """Change the template: a line, a line beside its name, a new file, and one less."""
    package = next((upstream.folder / "src").glob("*/main.py")).parent
    health = package / "health.py"
    health.write_text(
        re.sub("Liveness: .* Touches", f"Liveness: {word}. Touches", health.read_text())
    )
    makefile = upstream.folder / "Makefile"
    makefile.write_text(
        makefile.read_text().replace("\nIMAGE_NAME :=", f"\n# {word}\nIMAGE_NAME :=")
    )
    (package / f"{word}.py").write_text(f'WHERE = "{package.name}"\n')
    (upstream.folder / "CONTRIBUTING.md").unlink(missing_ok=True)
    upstream.commit()


def test_improvements_of_the_template_are_taken_as_the_document_says(tmp_path: Path) -> None:
    """Twice, into a service with changes of its own, whose history begins with the fork."""
    follow(tmp_path, copied=False)


def test_improvements_reach_a_copy_that_has_no_history_in_common(tmp_path: Path) -> None:
    follow(tmp_path, copied=True)


def follow(folder: Path, copied: bool) -> None:
    upstream = fork(folder / "upstream")
    if copied:
        ours = fork(folder / "ours")
    else:
        upstream.done("git", "clone", "--quiet", str(upstream.folder), str(folder / "ours"))
        ours = Fork(folder / "ours")
    rename, remove, keep, remote, take = [
        text for language, text in blocks(FORKING) if language == "sh"
    ]
    name = f"shop-{uuid4().hex[:8]}"
    for block in (rename, remove, keep):
        shell(ours, block, orders=name)
    main = next((ours.folder / "src").glob("*/main.py"))
    main.write_text(main.read_text() + "\nOWN = True\n")
    ours.commit()
    shell(ours, remote, **{"https://example.com/the-template.git": str(upstream.folder)})
    take = take.replace("make lint && make test\n", "")  # they are for improvements that are good
    for word in ("better", "best"):
        improve(upstream, word)
        shell(ours, take, orders=name)
    files = ours.files()
    package = main.parent.name
    assert "Liveness: best." in files[f"src/{package}/health.py"]
    assert f"# better\n# best\nIMAGE_NAME := {name}\n" in files["Makefile"]
    assert files[f"src/{package}/best.py"] == f'WHERE = "{package}"\n'
    assert "OWN = True" in files[f"src/{package}/main.py"]
    assert "CONTRIBUTING.md" not in files
    assert not [path for path in files if "items" in path]
    assert {path.split("/")[1] for path in files if path.startswith("src/")} == {package}
    ours.done("make", "test-unit")
