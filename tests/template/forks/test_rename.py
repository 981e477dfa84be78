"""`make rename`: a service under another name is complete, and changes nobody expects are refused.

All tests run in the service with the long name. Those of the image run in no other service.
"""

import json
import re
import tomllib
from pathlib import Path
from uuid import uuid4

import pytest

from fastapi_k8s import NAME
from tests.template.forks.repository import Repository, create_repository, remove_images_afterwards
from tests.template.pages import find_broken_links, find_pages, find_unknown_targets
from tools.template.names import MAX_LENGTH, to_package
from tools.template.rename import TEMPLATE_ONLY

CHANGELOG = "CHANGELOG.md"
ID = uuid4().hex[:8]
LONG_NAME = f"a-service-for-all-kinds-of-orders-{ID}"
"""The longest name that is allowed, in several words: lines grow, imports change their order, and
the names of the package and the image differ."""

ENDPOINT = """
    @app.get("/greeting", include_in_schema=False)
    async def read_greeting(name: str = "") -> str:
        if name:
            return f"Hello {name}"
        return "Hello"

"""
"""No test sends a name. But some tests request every route without parameters, and the fuzz test
requests each operation of the OpenAPI document."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A service with a long name."""
    repository = create_repository(tmp_path_factory.mktemp("renamed") / "service")
    repository.rename(LONG_NAME)
    return repository


def find_occurrences(repository: Repository, name: str) -> list[str]:
    """Return the paths and the lines that contain a name. The changelog may contain old names."""
    spellings = (name, to_package(name))
    occurrences: list[str] = []
    for path, text in repository.read_files().items():
        if any(spelling in path for spelling in spellings):
            occurrences.append(path)
        if path == CHANGELOG:
            continue
        occurrences.extend(
            f"{path}: {line}"
            for line in text.splitlines()
            if any(spelling in line.lower() for spelling in spellings)
        )
    return occurrences


def test_only_the_last_line_of_the_readme_contains_the_old_name(service: Repository) -> None:
    assert len(LONG_NAME) == MAX_LENGTH
    [origin] = find_occurrences(service, NAME)
    assert origin.startswith(f"README.md: Made from the template {NAME} ")
    assert (service.folder / "src" / to_package(LONG_NAME) / "main.py").exists()


def test_the_lock_file_is_sorted_by_the_new_name(service: Repository) -> None:
    packages = tomllib.loads(service.read_files()["uv.lock"])["package"]
    names = [package["name"] for package in packages]
    assert LONG_NAME in names
    assert names == sorted(names)


def test_what_serves_only_the_template_is_removed(service: Repository) -> None:
    assert TEMPLATE_ONLY
    for pattern in TEMPLATE_ONLY:
        assert list(service.folder.glob(pattern)) == []
    files = service.read_files()
    del files[CHANGELOG]
    mark = re.compile(r"(#|<!--) (end )?template( -->)?( \|)?$", re.MULTILINE)
    assert [path for path, text in files.items() if mark.search(text)] == []
    assert [path for path, text in files.items() if "test-template" in text] == []
    assert "\nfail_under = 90\n" in files["pyproject.toml"]


def test_the_pages_link_to_existing_pages_and_name_existing_make_targets(
    service: Repository,
) -> None:
    for page in find_pages(service.folder):
        assert find_broken_links(page) == [], page
        assert find_unknown_targets(page, service.folder) == set(), page


def test_the_image_is_built_and_labeled_with_the_name(service: Repository) -> None:
    with remove_images_afterwards(LONG_NAME):
        service.run("make", "docker-build")
        label_format = "--format={{json .Config.Labels}}"
        labels = service.run("docker", "image", "inspect", label_format, f"{LONG_NAME}:latest")
    assert json.loads(labels)["org.opencontainers.image.title"] == LONG_NAME


def test_make_run_serves_under_the_name(service: Repository) -> None:
    with service.serve() as client:
        assert client.get("/version").json()["name"] == LONG_NAME


def test_linters_pass(service: Repository) -> None:
    service.run("make", "lint")


def test_make_test_passes_after_an_edit_of_the_readme_and_an_endpoint_without_tests(
    service: Repository,
) -> None:
    """The first day of a team. All tests run, and the endpoint lowers the coverage below 100 %."""
    (service.folder / "README.md").write_text("# Orders\n\nA service for orders.\n")
    main = service.package / "main.py"
    [before, after] = main.read_text().rsplit("    return app\n", 1)
    main.write_text(f"{before}{ENDPOINT}    return app\n{after}")
    with remove_images_afterwards(LONG_NAME):
        report = service.run("make", "test")
    [total] = re.findall(r"^TOTAL .* (\d+)%$", report, re.MULTILINE)
    assert 90 <= int(total) < 100


def test_a_second_rename_replaces_the_first_and_removes_nothing_of_the_service(
    repository: Repository,
) -> None:
    """The service has tests in a folder called `template` and its own coverage gate."""
    first_name, second_name = f"orders-{ID}", f"invoices-{ID}"
    repository.rename(first_name)
    own_test = Path("tests", "template", "test_letters.py")
    (repository.folder / own_test).parent.mkdir()
    (repository.folder / own_test).write_text("def test_letters() -> None:\n    pass\n")
    project = repository.folder / "pyproject.toml"
    project.write_text(project.read_text().replace("fail_under = 90", "fail_under = 100"))
    repository.commit()

    same_name = repository.try_run("make", "rename", f"NAME={first_name}")
    assert same_name.returncode != 0
    assert f"called {first_name} already" in same_name.stderr

    repository.rename(second_name)
    assert find_occurrences(repository, first_name) == []
    [origin] = find_occurrences(repository, NAME)
    assert origin.startswith("README.md: ")
    assert (repository.folder / own_test).exists()
    assert "fail_under = 100" in project.read_text()
    repository.run("make", "test-unit")


def test_a_name_that_is_not_allowed_changes_nothing(unchanged_repository: Repository) -> None:
    refusal = unchanged_repository.try_run("make", "rename", "NAME=fastapi")
    assert refusal.returncode != 0
    assert "a dependency has this name. Nothing was changed." in refusal.stderr
    assert unchanged_repository.run("git", "status", "--porcelain") == ""


def test_make_rename_without_a_name_shows_how_to_call_it(unchanged_repository: Repository) -> None:
    refusal = unchanged_repository.try_run("make", "rename")
    assert refusal.returncode != 0
    assert "make rename NAME=orders" in refusal.stderr


@pytest.mark.parametrize("target", ["rename", "remove-example"])
@pytest.mark.parametrize("file", ["README.md", "new.txt"])
def test_uncommitted_changes_are_refused_and_kept(
    unchanged_repository: Repository, target: str, file: str
) -> None:
    changed_file = unchanged_repository.folder / file
    changed_file.write_text("mine")
    status = unchanged_repository.run("git", "status", "--porcelain")
    try:
        refusal = unchanged_repository.try_run("make", target, "NAME=orders")
        assert refusal.returncode != 0
        assert "uncommitted changes" in refusal.stderr
        assert changed_file.read_text() == "mine"
        assert unchanged_repository.run("git", "status", "--porcelain") == status
    finally:
        unchanged_repository.run("git", "checkout", "--quiet", ".")
        unchanged_repository.run("git", "clean", "--quiet", "--force")
