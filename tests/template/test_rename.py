"""`make rename`: what it refuses, and the service under another name."""

import json
import tomllib
from uuid import uuid4

import pytest

from fastapi_k8s import NAME
from tests.template.repository import Fork, fork, images_of
from tools.template.names import package

HISTORY = "CHANGELOG.md"
ID = uuid4().hex[:8]


def traces(repository: Fork, name: str) -> list[str]:
    """Where a name stands: files, and lines in files."""
    spellings = (name, package(name))
    files = repository.files()
    paths = [path for path in files if any(each in path for each in spellings)]
    return paths + [
        f"{path}: {line}"
        for path, text in files.items()
        for line in text.splitlines()
        if path != HISTORY and any(each in line.lower() for each in spellings)
    ]


def test_a_renamed_service_is_whole(repository: Fork) -> None:
    """Linters and all tests pass, its image is built, `make run` serves, the old name is gone.

    The name is as long as may be and of several words: lines grow, imports change their order, and
    package and image differ.
    """
    name = f"a-service-for-all-kinds-of-orders-{ID}"
    repository.rename(name)
    [origin] = traces(repository, NAME)
    assert origin.startswith(f"README.md: Made from the template {NAME} ")
    assert (repository.folder / "src" / package(name) / "main.py").exists()
    packages = tomllib.loads(repository.files()["uv.lock"])["package"]
    assert [each["name"] for each in packages] == sorted(each["name"] for each in packages)
    with images_of(name):
        repository.passes()
        repository.done("make", "docker-build")
        labels = repository.done(
            "docker", "image", "inspect", "--format={{json .Config.Labels}}", f"{name}:latest"
        )
        assert json.loads(labels)["org.opencontainers.image.title"] == name
    with repository.running() as client:
        assert client.get("/version").json()["name"] == name


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Fork:
    """A repository that no test changes."""
    return fork(tmp_path_factory.mktemp("untouched"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("class", "keyword"),
        ("json", "standard library"),
        ("annotationlib", "standard library"),
        ("fastapi", "dependency"),
        ("pydantic-core", "dependency"),
        ("yaml", "dependency"),
        ("tests", "folder"),
        ("Orders", "a-z"),
        ("orders_service", "a-z"),
        ("orders service", "a-z"),
        ("-orders", "a-z"),
        ("orders--eu", "a-z"),
        ("7orders", "a-z"),
        ("", "a-z"),
        ("o" * 43, "characters"),
        (NAME, "called"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_changes(
    untouched: Fork, name: str, reason: str
) -> None:
    refused = untouched.run("make", "rename", f"NAME={name}")
    assert refused.returncode != 0
    assert reason in refused.stderr
    assert "Nothing was changed." in refused.stderr
    assert untouched.done("git", "status", "--porcelain") == ""


def test_without_a_name_it_asks_for_one(untouched: Fork) -> None:
    refused = untouched.run("make", "rename")
    assert refused.returncode != 0
    assert "make rename NAME=orders" in refused.stderr


@pytest.mark.parametrize("file", ["README.md", "new.txt"])
def test_uncommitted_changes_are_left_as_they_are(repository: Fork, file: str) -> None:
    (repository.folder / file).write_text("mine")
    before = repository.done("git", "status", "--porcelain")
    refused = repository.run("make", "rename", "NAME=orders")
    assert refused.returncode != 0
    assert "not committed" in refused.stderr
    assert (repository.folder / file).read_text() == "mine"
    assert repository.done("git", "status", "--porcelain") == before


def test_the_same_name_twice_is_refused_and_another_is_taken(repository: Fork) -> None:
    first, second = f"orders-{ID}", f"invoices-{ID}"
    repository.rename(first)
    again = repository.run("make", "rename", f"NAME={first}")
    assert again.returncode != 0
    assert f"called {first} already" in again.stderr
    repository.rename(second)
    assert traces(repository, first) == []
    [origin] = traces(repository, NAME)
    assert origin.startswith("README.md: ")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("settings", "orders", "a word of the code"),
        (f"orders{ID}", "order-service", "the package's name"),
    ],
)
def test_a_name_that_cannot_be_told_from_other_words_is_not_replaced(
    repository: Fork, first: str, second: str, reason: str
) -> None:
    repository.rename(first)
    refused = repository.run("make", "rename", f"NAME={second}")
    assert refused.returncode != 0
    assert reason in refused.stderr
    assert "Nothing was changed." in refused.stderr
    assert repository.done("git", "status", "--porcelain") == ""
