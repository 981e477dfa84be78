"""The documents tell what the code does."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from fastapi_k8s.main import create_app
from fastapi_k8s.settings import Settings
from tests.checkout import PROJECT
from tests.conftest import MakeSettings
from tests.docs import PAGES, blocks, prose

LINK = re.compile(r"\[[^\]]*\]\(([^)#]*)(?:#([^)]*))?\)")
ELSEWHERE = re.compile(r"\w+://|\.\./\.\./actions/")  # the latter is the forge's, of any owner
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \|", re.MULTILINE)

FOLLOWED = {
    ("README.md", "sh"): ["integration/test_run.py", "integration/test_docs.py"],
    ("README.md", "sh docker"): ["container/test_docs.py"],
    ("docs/compose.md", "sh docker"): ["container/test_docs.py"],
    ("docs/configuration.md", "sh"): ["integration/test_docs.py"],
    ("docs/dockerfile.md", "sh docker"): ["container/test_docs.py"],
    ("docs/domain.md", "sh"): ["template/test_documents.py"],
    ("docs/forking.md", "sh"): ["template/test_documents.py"],
}
"""The tests that run a page's commands, by what these need."""
UNTESTED = {"sh cluster", "sh registry"}
OTHERS = {"", "diff", "json", "mermaid", "python", "yaml"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


def shown(default: object) -> str:
    """A default as docs/configuration.md writes it."""
    text = default.get_secret_value() if isinstance(default, SecretStr) else str(default)
    return f"`{text}`" if text else "empty"


def test_every_setting_is_in_the_table_with_its_default_and_no_other_is() -> None:
    page = (PROJECT / "docs" / "configuration.md").read_text()
    documented = dict(ROW.findall(page.split("## Read by the servers")[0]))
    assert documented == {
        name.upper(): "none" if field.is_required() else shown(field.default)
        for name, field in Settings.model_fields.items()
    }


def test_the_readme_lists_the_routes_of_the_service(make_settings: MakeSettings) -> None:
    paths = create_app(make_settings()).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    readme = (PROJECT / "README.md").read_text().split("\n## Endpoints\n")[1].split("\n## ")[0]
    assert dict(ROW.findall(readme)).keys() - {"GET /docs"} == served


@each_page
def test_a_page_names_make_targets_that_exist(page: Path) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= targets | {"remove-example"}  # which takes itself out


def test_every_make_target_has_a_line_of_help() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    declared = set(re.findall(r"^\.PHONY: ([a-z0-9-]+)$", makefile, re.MULTILINE))
    helped = set(re.findall(r"^([a-z0-9-]+):.*## \S", makefile, re.MULTILINE))
    assert declared == helped


def test_every_shell_block_is_followed_by_a_test_or_says_that_it_needs_more() -> None:
    found = {(str(page.relative_to(PROJECT)), info) for page in PAGES for info, _ in blocks(page)}
    assert not [page for page in PAGES if "```" in prose(page)]  # a fence of another form
    assert {each for each in found if each[1] not in OTHERS | UNTESTED} == FOLLOWED.keys()
    for (page, _), tests in FOLLOWED.items():
        for test in tests:
            assert Path(page).stem in (PROJECT / "tests" / test).read_text(), (page, test)


@each_page
def test_what_is_said_to_need_a_cluster_asks_one(page: Path) -> None:
    for info, text in blocks(page):
        if info == "sh cluster":
            assert re.match(r"(make|kubectl|curl) |\w+=", text), text
        elif info.startswith("sh"):
            assert "kubectl" not in text


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to a page's headings."""
    made: list[str] = []
    found: set[str] = set()
    for heading in HEADING.findall(prose(page)):
        slug = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        earlier = made.count(slug)
        made.append(slug)
        found.add(f"{slug}-{earlier}" if earlier else slug)
    return found


@each_page
def test_every_internal_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link, anchor in LINK.findall(prose(page)):
        target = (page.parent / link) if link else page
        if not ELSEWHERE.match(link):
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), f"{link}#{anchor}"
