"""The pages agree with the code, the Makefile and each other."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from fastapi_k8s.main import create_app
from fastapi_k8s.settings import Settings
from tests.conftest import MakeSettings
from tests.template.pages import (
    find_broken_links,
    find_pages,
    find_unknown_targets,
    read_blocks,
    read_prose,
    read_targets,
)
from tools.checkout import PROJECT

TABLE_ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \|", re.MULTILINE)
"""A row whose first cell is code: the code, and the text of the second cell."""

TESTED_BLOCKS = {
    ("README.md", "sh"): ["integration/test_run.py", "integration/test_docs.py"],
    ("README.md", "sh docker"): ["container/test_docs.py"],
    ("docs/compose.md", "sh docker"): ["container/test_docs.py"],
    ("docs/configuration.md", "sh"): ["integration/test_docs.py"],
    ("docs/dockerfile.md", "sh docker"): ["container/test_docs.py"],
    ("docs/domain.md", "sh"): ["template/forks/test_remove_example.py"],
    ("docs/forking.md", "sh"): ["template/forks/test_forking.py"],
}
"""The tests that run a page's shell blocks, by the page and the info string of the blocks."""

UNTESTED_BLOCKS = {"sh cluster", "sh registry"}
"""Shell blocks that need more than a test has."""

OTHER_BLOCKS = {"", "diff", "json", "make", "mermaid", "python", "toml", "yaml"}


def name_of(page: Path) -> str:
    """The path of a page in the checkout."""
    return str(page.relative_to(PROJECT))


each_page = pytest.mark.parametrize("page", find_pages(), ids=name_of)


def format_default(default: object) -> str:
    """Format a default as docs/configuration.md does."""
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    text = ", ".join(default) if isinstance(default, tuple) else str(default)
    return f"`{text}`" if text else "empty"


def test_the_table_of_settings_lists_every_setting_with_its_default() -> None:
    page = (PROJECT / "docs" / "configuration.md").read_text()
    documented_defaults = dict(TABLE_ROW.findall(page.split("## Read by the servers")[0]))
    defaults: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        if field.default_factory is not None:
            defaults[name.upper()] = "depends on `ENVIRONMENT`"
        else:
            defaults[name.upper()] = (
                "none" if field.is_required() else format_default(field.default)
            )
    assert documented_defaults == defaults


def test_the_readme_lists_every_endpoint(make_settings: MakeSettings) -> None:
    endpoints: set[str] = set()
    for path, methods in create_app(make_settings()).openapi()["paths"].items():
        endpoints.update(f"{method.upper()} {path}" for method in methods)
    readme = (PROJECT / "README.md").read_text()
    section = readme.split("\n## Endpoints\n")[1].split("\n## ")[0]
    documented_endpoints = dict(TABLE_ROW.findall(section)).keys()
    assert documented_endpoints - {"GET /docs"} == endpoints


@each_page
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    # `make remove-example` removes itself from the Makefile.
    assert find_unknown_targets(page) - {"remove-example"} == set()


def test_make_help_describes_every_target() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: ([a-z0-9-]+)$", makefile, re.MULTILINE))
    described_targets = set(re.findall(r"^([a-z0-9-]+):.*## \S", makefile, re.MULTILINE))
    assert targets == described_targets
    assert targets <= read_targets()


def test_every_shell_block_is_run_by_a_test_or_declares_what_it_needs() -> None:
    blocks: set[tuple[str, str]] = set()
    for page in find_pages():
        assert "```" not in read_prose(page), f"{page} has a fence of another form"
        blocks.update((name_of(page), info) for info, _ in read_blocks(page))
    blocks_to_test = {
        (page, info) for page, info in blocks if info not in OTHER_BLOCKS | UNTESTED_BLOCKS
    }
    assert blocks_to_test == TESTED_BLOCKS.keys()


@pytest.mark.parametrize(("page", "info"), TESTED_BLOCKS)
def test_the_tests_that_run_a_page_name_it(page: str, info: str) -> None:
    for test in TESTED_BLOCKS[page, info]:
        assert Path(page).stem in (PROJECT / "tests" / test).read_text(), test


@each_page
def test_only_blocks_that_declare_a_cluster_use_one(page: Path) -> None:
    for info, text in read_blocks(page):
        if info == "sh cluster":
            assert re.match(r"(make|kubectl|curl) |\w+=", text), text
        elif info.startswith("sh"):
            assert "kubectl" not in text


@each_page
def test_every_internal_link_leads_to_an_existing_file_and_heading(page: Path) -> None:
    assert find_broken_links(page) == []
