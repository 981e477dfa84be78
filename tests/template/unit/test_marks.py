"""Which parts of a file `remove_marked` removes."""

import ast
from pathlib import Path

import pytest

from tools.template.marks import remove_marked, remove_marked_from_file
from tools.template.tracked_files import read_texts

PYTHON = """
import a  # old
import b

@b.one
@b.two(
    1
)
def removed(  # old
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
PYTHON_WITHOUT_MARKED_PARTS = """
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


def test_in_python_a_mark_removes_the_statement_that_begins_on_its_line() -> None:
    assert remove_marked(PYTHON, "old", is_python=True) == PYTHON_WITHOUT_MARKED_PARTS


def test_in_other_files_a_mark_removes_its_line_or_its_block() -> None:
    assert remove_marked(MARKDOWN, "old") == "\nOne.\n| seven | an old one |\n"


def test_another_mark_removes_nothing() -> None:
    assert remove_marked(PYTHON, "other", is_python=True) == PYTHON


def test_a_block_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="no `end old`"):
        remove_marked("a\n# old\nb\n", "old")


def test_the_error_message_names_the_file_of_a_block_without_an_end() -> None:
    with pytest.raises(SystemExit, match=r"own\.md: a block has no"):
        remove_marked_from_file(Path("own.md"), "# example\n", "example")


def test_python_without_marks_need_not_be_valid_for_the_running_python() -> None:
    """A file may be written for a newer Python than the one that runs the command."""
    text = "try = 1\n"
    assert remove_marked_from_file(Path("new.py"), text, "example") == text


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("mark", ["example", "template"])
def test_every_block_of_this_checkout_has_an_end_and_python_stays_valid(mark: str) -> None:
    for path, text in read_texts().items():
        remaining_text = remove_marked_from_file(path, text, mark)
        if path.suffix == ".py":
            ast.parse(remaining_text)
