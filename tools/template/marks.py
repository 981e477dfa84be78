"""Parts of files that are marked to go: with the example domain, or with the template's name.

A mark is a comment that says `example` or `template`, in Markdown an HTML comment. At the end of a
line it marks the line, and in Python the statement that begins there. Alone on a line it marks a
block, which ends with a line that says `end example` or `end template`, and goes with the empty
line behind it.
"""

import ast
import re
import sys
from pathlib import Path


def left(path: Path, text: str, mark: str) -> str:
    """What is left of a file without what carries `mark`. Leaves with its path if that fails."""
    try:
        return without(text, mark, python=path.suffix == ".py")
    except (SyntaxError, ValueError) as error:
        sys.exit(f"{path}: {error}. Nothing was changed.")


def without(text: str, mark: str, python: bool = False) -> str:
    """`text` less what carries `mark`. Raises ValueError if a marked block has no end."""
    begin, end = _comment(mark), _comment(f"end {mark}")
    text = re.sub(rf"^ *{begin}\n.*?^ *{end}\n\n?", "", text, flags=re.DOTALL | re.MULTILINE)
    if re.search(rf"^ *({begin}|{end})$", text, re.MULTILINE):
        raise ValueError(f"a block has no `{mark}` or no `end {mark}`")
    lines = text.splitlines(keepends=True)
    marked = [number for number, line in enumerate(lines) if re.search(f"{begin}$", line)]
    statements = _statements(text) if python and marked else {}
    gone: set[int] = set()
    for number in marked:
        first, last = statements.get(number, (number, number))
        gone.update(range(first, last + 1))
    return "".join(line for number, line in enumerate(lines) if number not in gone)


def _comment(words: str) -> str:
    return rf"(?:#|<!--) {words}(?: -->(?: \|)?)?"


def _statements(text: str) -> dict[int, tuple[int, int]]:
    """First and last line of each statement, by the line on which it is named, from 0."""
    found: dict[int, tuple[int, int]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and node.end_lineno:
            first = min(
                [node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))]
            )
            found.setdefault(node.lineno - 1, (first - 1, node.end_lineno - 1))
    return found
