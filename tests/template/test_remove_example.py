"""`make remove-example`."""

from uuid import uuid4

import pytest

from tests.template.repository import Fork, images_of

KEPT = {"/health", "/ready", "/version", "/metrics"}


def test_a_service_without_the_example_is_whole(repository: Fork) -> None:
    """Linters and all tests pass, the coverage gate holds, its image is built, `make run` serves.

    Under a name of one word, which the service, its package and its image share.
    """
    name = f"orders{uuid4().hex[:8]}"
    repository.rename(name)
    repository.done("make", "remove-example")
    repository.commit()
    files = repository.files()
    assert not [path for path in files if "item" in path]
    assert not [path for path, text in files.items() if "/items" in text and path != "CHANGELOG.md"]
    with images_of(name):
        repository.passes()
        repository.done("make", "docker-build")
    with repository.running() as client:
        assert client.get("/version").json()["name"] == name
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
