"""docs/architecture.md describes the modules as they are."""

import re
import tomllib

from fastapi_k8s import NAME
from tests.template.pages import read_blocks
from tools.checkout import PROJECT

PAGE = PROJECT / "docs" / "architecture.md"
PACKAGE = PROJECT / "src" / NAME.replace("-", "_")
LAYER = re.compile(r'\["([^"]+)"\]')
MODULE = re.compile(r"^    (\w+)(?:\.py|/) ", re.MULTILINE)
DOMAIN = "items"


def test_the_diagram_of_the_layers_has_those_that_import_linter_checks() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    (diagram,) = (text for info, text in read_blocks(PAGE) if info == "mermaid" and "cli[" in text)
    in_diagram = LAYER.findall(diagram)
    assert [layer for layer in in_diagram if layer != "domains"] == [
        layer for layer in layers if layer != DOMAIN
    ]


def test_the_tree_of_modules_lists_every_module() -> None:
    modules = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    (tree,) = (text for info, text in read_blocks(PAGE) if not info and "main.py" in text)
    assert set(MODULE.findall(tree)) == modules
