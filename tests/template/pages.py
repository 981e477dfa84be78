"""The Markdown pages of a checkout: fenced blocks, links and the make targets that they name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.checkout import PROJECT

FENCED_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PYTHON_FILE = re.compile(r"`(\S+)`:\n\n```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
"""A file that a page shows: its path and its text."""

HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#]*)(?:#([^)]*))?\)")
EXTERNAL_LINK = re.compile(r"\w+://|\.\./\.\./actions/")
"""The last form leads to GitHub's own page of a repository's workflows."""


def find_pages(project: Path = PROJECT) -> list[Path]:
    """Return the Markdown files of a checkout, without those of its virtual environment."""
    return sorted([*project.glob("*.md"), *project.glob("docs/**/*.md")])


def read_blocks(page: Path) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page as info strings, such as `sh docker`, and texts."""
    matches = FENCED_BLOCK.findall(page.read_text())
    return [(str(info), str(text)) for info, text in matches]


def read_python_files(page: Path) -> list[tuple[str, str]]:
    """Return the paths and texts of the Python files that a page shows."""
    return [(str(path), str(text)) for path, text in PYTHON_FILE.findall(page.read_text())]


def insert_lines(file: Path, diff: str) -> None:
    """Insert the lines that a diff adds after its first line, which the file must contain once."""
    context, *added_lines = diff.splitlines(keepends=True)
    context = context.removeprefix(" ")
    text = file.read_text()
    assert text.count(context) == 1, f"{file} does not contain this line once: {context}"
    addition = "".join(line.removeprefix("+") for line in added_lines)
    file.write_text(text.replace(context, context + addition))


@contextmanager
def documented_events(checkout: Path) -> Iterator[None]:
    """Let the source of a checkout be as docs/streams.md says while the block runs.

    The edit of pyproject.toml is left out: only a linter needs it, and an image with another file
    would install all packages again.
    """
    page = checkout / "docs" / "streams.md"
    main = checkout / "src" / "fastapi_k8s" / "main.py"
    original = main.read_text()
    import_diff, router_diff, _ = (text for info, text in read_blocks(page) if info == "diff")
    [(module, text)] = read_python_files(page)
    try:
        (checkout / module).write_text(text)
        insert_lines(main, import_diff)
        insert_lines(main, router_diff)
        yield
    finally:
        (checkout / module).unlink()
        main.write_text(original)


def read_prose(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return FENCED_BLOCK.sub("", page.read_text())


def find_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    anchors: set[str] = set()
    slugs: list[str] = []
    for heading in HEADING.findall(read_prose(page)):
        slug = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        repetitions = slugs.count(slug)
        slugs.append(slug)
        anchors.add(f"{slug}-{repetitions}" if repetitions else slug)
    return anchors


def find_broken_links(page: Path) -> list[str]:
    """Return the internal links of a page whose file or heading does not exist."""
    broken_links: list[str] = []
    for link, anchor in LINK.findall(read_prose(page)):
        if EXTERNAL_LINK.match(link):
            continue
        target = page.parent / link if link else page
        if not target.exists() or (anchor and anchor not in find_anchors(target)):
            broken_links.append(f"{link}#{anchor}")
    return broken_links


def find_unknown_targets(page: Path, project: Path = PROJECT) -> set[str]:
    """Return the make targets that a page names although the Makefile does not define them."""
    named_targets = re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(), re.MULTILINE)
    return set(named_targets) - read_targets(project)


def read_targets(project: Path = PROJECT) -> set[str]:
    """Return the targets that the checkout's Makefile defines."""
    makefile = (project / "Makefile").read_text()
    return set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
