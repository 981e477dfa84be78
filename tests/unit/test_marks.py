"""What a mark takes out of a file."""

import ast

import pytest

from tests.checkout import PROJECT
from tools.template.checkout import texts
from tools.template.marks import left, without

PYTHON = """
import a  # old
import b

@b.one
@b.two(
    1
)
def gone(  # old
    x
):
    return x

def kept():
    y = [
        1,
        2,  # old
    ]
    # old
    y.clear()
    # end old
    return y  # an old one
"""
LEFT = """
import b


def kept():
    y = [
        1,
    ]
    return y  # an old one
"""
MARKDOWN = """
One.
<!-- old -->
Two.

Three.
<!-- end old -->

Four. <!-- old -->
| five | six <!-- old --> |
| seven | an old one |
"""


def test_in_python_a_marked_line_takes_the_statement_that_begins_there() -> None:
    assert without(PYTHON, "old", python=True) == LEFT


def test_elsewhere_a_mark_takes_its_line_or_what_stands_before_its_end() -> None:
    assert without(MARKDOWN, "old") == "\nOne.\n| seven | an old one |\n"


def test_another_mark_takes_nothing() -> None:
    assert without(PYTHON, "other", python=True) == PYTHON


def test_a_block_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no `end old`"):
        without("a\n# old\nb\n", "old")


def test_every_file_can_do_without_what_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks have ends, and Python is Python."""
    monkeypatch.chdir(PROJECT)
    for path, text in texts().items():
        for mark in ("example", "template"):
            rest = left(path, text, mark)
            if path.suffix == ".py":
                ast.parse(rest)
