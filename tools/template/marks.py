"""Remove the parts of files that belong only to the example domain or only to the template.

A mark is a comment that consists of the word `example` or `template`. In Markdown it is an HTML
comment.

- At the end of a line, a mark applies to this line. In Python, it applies to the whole statement
  that begins on this line.
- On a line without other text, a mark begins a block. The block ends with the comment
  `end example` or `end template`, and the empty line after the block is removed too.
"""

import ast
import re
import sys
from pathlib import Path


def remove_marked_from_file(path: Path, text: str, mark: str) -> str:
    """Return the text of `path` without its marked parts. Exit with the path if that fails."""
    try:
        return remove_marked(text, mark, is_python=path.suffix == ".py")
    except (SyntaxError, ValueError) as error:
        sys.exit(f"{path}: {error}. Nothing was changed.")


def remove_marked(text: str, mark: str, is_python: bool = False) -> str:
    """Return `text` without the parts that carry `mark`.

    Raises ValueError if a block has no beginning or no end, and SyntaxError if a marked Python
    file cannot be parsed.
    """
    text = _remove_marked_blocks(text, mark)
    lines = text.splitlines(keepends=True)
    mark_at_end = re.compile(f"{_comment_pattern(mark)}$")
    marked_lines = [number for number, line in enumerate(lines) if mark_at_end.search(line)]
    statements: dict[int, range] = {}
    if is_python and marked_lines:
        statements = _find_statements(text)

    removed_lines: set[int] = set()
    for number in marked_lines:
        removed_lines.update(statements.get(number, [number]))
    return "".join(line for number, line in enumerate(lines) if number not in removed_lines)


def _remove_marked_blocks(text: str, mark: str) -> str:
    begin = _comment_pattern(mark)
    end = _comment_pattern(f"end {mark}")
    block = re.compile(rf"^ *{begin}\n.*?^ *{end}\n\n?", re.DOTALL | re.MULTILINE)
    text = block.sub("", text)
    if re.search(rf"^ *({begin}|{end})$", text, re.MULTILINE):
        raise ValueError(f"a block has no `{mark}` or no `end {mark}`")
    return text


def _comment_pattern(words: str) -> str:
    """Return a regular expression for a comment, which in Markdown may end a row of a table."""
    return rf"(?:#|<!--) {words}(?: -->(?: \|)?)?"


def _find_statements(text: str) -> dict[int, range]:
    """Return the lines of each statement, by the number of its first line. Numbers begin at 0.

    The first line of a decorated function is the one with `def`, and its decorators are among its
    lines.
    """
    statements: dict[int, range] = {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.stmt) or node.end_lineno is None:
            continue
        first_line = node.lineno
        for decorator in getattr(node, "decorator_list", []):
            first_line = min(first_line, decorator.lineno)
        statements.setdefault(node.lineno - 1, range(first_line - 1, node.end_lineno))
    return statements
