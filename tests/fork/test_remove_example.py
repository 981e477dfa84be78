"""`make remove-example`."""

import pytest

from tests.fork.repository import Fork

KEPT = {"/health", "/ready", "/version", "/metrics"}


def test_without_the_example_the_rest_is_whole(repository: Fork) -> None:
    """Linters and all tests pass, the coverage gate holds, and nothing speaks of items."""
    repository.done("make", "remove-example")
    repository.commit()
    files = repository.files()
    assert not [path for path in files if "item" in path]
    assert not [path for path, text in files.items() if "/items" in text and path != "CHANGELOG.md"]
    repository.passes()
    with repository.running() as client:
        assert client.get("/openapi.json").json()["paths"].keys() == KEPT
        assert client.get("/items").status_code == 404


@pytest.mark.parametrize("file", ["README.md", "new.txt"])
def test_uncommitted_changes_are_left_as_they_are(repository: Fork, file: str) -> None:
    (repository.folder / file).write_text("mine")
    refused = repository.run("make", "remove-example")
    assert refused.returncode != 0
    assert "not committed" in refused.stderr
    assert (repository.folder / file).read_text() == "mine"
    assert "pyproject.toml" not in repository.done("git", "status", "--porcelain")
