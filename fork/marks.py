"""Parts of files that are marked to go: with the example domain, or with the template's name.

A mark is a comment that says `example` or `template`, in Markdown an HTML comment. At the end of a
line it marks the line, and in Python the statement that begins there. Alone on a line it marks all
lines up to one that says `end example` or `end template`.
"""

import ast
import re


def without(text: str, mark: str, python: bool = False) -> str:
    """`text` less what carries `mark`. Raises ValueError if a marked block has no end."""
    lines = text.splitlines(keepends=True)
    gone: set[int] = set()
    ends = _statements(text) if python else {}
    begun = None
    for number, line in enumerate(lines):
        if begun is not None:
            gone.add(number)
            if _comment(f"end {mark}").search(line):
                begun = None
        elif found := _comment(mark).search(line):
            first, last = ends.get(number, (number, number))
            gone.update(range(first, last + 1))
            begun = None if line[: found.start()].strip() else number
    if begun is not None:
        raise ValueError(f"the block that begins in line {begun + 1} has no `end {mark}`")
    return "".join(line for number, line in enumerate(lines) if number not in gone)


def _comment(words: str) -> re.Pattern[str]:
    return re.compile(rf"(#|//|--|<!--) {words}( -->( \|)?)?$")


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
