"""`make remove-example`: a service without the items is complete, and docs/domain.md works in it.

The service is called `image`, like a folder in tools/: one word, which the package and the image
share.
"""

from uuid import uuid4

import pytest

from tests.template.forks.repository import Repository, create_repository, remove_images_afterwards
from tests.template.pages import (
    find_broken_links,
    find_pages,
    find_unknown_targets,
    insert_lines,
    read_blocks,
    read_python_files,
)

NAME = "image"
FAULT_TEST = "test_responses_are_those_of_the_page_and_the_application_recovers"
INDEPENDENT_OF_THE_EXAMPLE = (
    "tests/container",
    f"tests/faults/test_faults.py::{FAULT_TEST}[Redis",
    "tests/faults/test_recovery.py",
    "tests/integration/test_run.py",
)
"""Slow tests that run in the service of test_rename.py. Here, one test builds the image and another
calls `make run`."""

REMAINING_ENDPOINTS = {"/health", "/ready", "/version", "/metrics"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A service without the example."""
    repository = create_repository(tmp_path_factory.mktemp("without-example") / "service")
    repository.rename(NAME)
    repository.remove_example()
    return repository


def test_no_file_mentions_the_items(service: Repository) -> None:
    files = service.read_files()
    del files["CHANGELOG.md"]
    assert [path for path in files if "item" in path] == []
    for path, text in files.items():
        # `items` is also a field of Kubernetes' SecretVolumeSource.
        assert "/items" not in text.replace("/secret/items/", ""), path


def test_the_pages_link_to_existing_pages_and_name_existing_make_targets(
    service: Repository,
) -> None:
    for page in find_pages(service.folder):
        assert find_broken_links(page) == [], page
        assert find_unknown_targets(page, service.folder) <= {"remove-example"}, page


def test_python_linters_and_tests_without_servers_pass(service: Repository) -> None:
    service.run("make", "lint-python")
    service.run("make", "test-unit")


def test_the_image_is_built(service: Repository) -> None:
    image_name = f"without-example-{uuid4().hex[:8]}"
    with remove_images_afterwards(image_name):
        service.run("make", "docker-build", f"IMAGE_NAME={image_name}")


def test_make_run_serves_only_the_operational_endpoints(service: Repository) -> None:
    with service.serve() as client:
        assert client.get("/version").json()["name"] == NAME
        assert client.get("/openapi.json").json()["paths"].keys() == REMAINING_ENDPOINTS
        assert client.get("/items").status_code == 404


def test_a_domain_is_added_as_the_page_says(service: Repository) -> None:
    """The commands, files and edits of docs/domain.md lead to a service that passes all checks."""
    page = service.folder / "docs" / "domain.md"
    shell_blocks = [text for info, text in read_blocks(page) if info == "sh"]
    diffs = [text for info, text in read_blocks(page) if info == "diff"]
    create_folder, check = shell_blocks

    service.run("sh", "-ec", create_folder)
    for path, text in read_python_files(page):
        (service.folder / path).write_text(text)
    main = service.package / "main.py"
    project = service.folder / "pyproject.toml"
    http_route = service.folder / "deploy" / "components" / "gateway" / "http-route.yaml"
    for file, diff in zip([main, main, project, http_route], diffs, strict=True):
        insert_lines(file, diff)

    assert check == "make openapi\nmake lint\nmake test\n"
    service.run("make", "openapi")
    service.run("make", "lint")
    flags = " ".join(f"--deselect={path}" for path in INDEPENDENT_OF_THE_EXAMPLE)
    report = service.run("make", "test", f"FLAGS={flags}")
    assert "Required test coverage of 90.0% reached. Total coverage: 100.00%" in report
