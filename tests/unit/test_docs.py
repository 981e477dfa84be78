"""The documents tell what the code does."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from fastapi_k8s.main import create_app
from fastapi_k8s.settings import Settings
from tests.checkout import PROJECT
from tests.conftest import MakeSettings

PAGES = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+?)(?:#[^)]*)?\)")
ELSEWHERE = re.compile(r"\w+://|\.\./\.\./actions/")  # the latter is the forge's, of any owner
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \|", re.MULTILINE)


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


def test_the_readme_names_make_targets_that_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z0-9-]+)", (PROJECT / "README.md").read_text()))
    assert named <= targets


def test_every_make_target_has_a_line_of_help() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    declared = set(re.findall(r"^\.PHONY: ([a-z0-9-]+)$", makefile, re.MULTILINE))
    helped = set(re.findall(r"^([a-z0-9-]+):.*## \S", makefile, re.MULTILINE))
    assert declared == helped


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_to_a_file_resolves(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if not ELSEWHERE.match(link)]
    assert [link for link in links if not (page.parent / link).exists()] == []
