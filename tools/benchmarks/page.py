"""The tables in docs/benchmarks.md.

Each is a section between `<!-- bench NAME -->` and `<!-- end bench NAME -->`.
"""

import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

PAGE = Path("docs/benchmarks.md")


def require_sections(names: Collection[str]) -> None:
    """Exit with a message if the page lacks one of the sections."""
    text = PAGE.read_text()
    for name in names:
        if not _section_pattern(name).search(text):
            sys.exit(f"bench: {PAGE} has no <!-- bench {name} --> that ends")


def write_sections(sections: Mapping[str, str]) -> None:
    """Replace the text of the sections of the page."""
    PAGE.write_text(replace_sections(PAGE.read_text(), sections))


def replace_sections(text: str, sections: Mapping[str, str]) -> str:
    """Replace in `text` what is between the comments of each section by its new text."""
    for name, section in sections.items():
        comments = f"<!-- bench {name} -->\n{section}\n<!-- end bench {name} -->"
        text = _section_pattern(name).sub(comments.replace("\\", r"\\"), text)
    return text


def _section_pattern(name: str) -> re.Pattern[str]:
    return re.compile(f"<!-- bench {name} -->\n.*?<!-- end bench {name} -->", re.DOTALL)
