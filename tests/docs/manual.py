"""The manual as one text: README.md, then the pages of snappea/docs in alphabetical order."""

import re
from pathlib import Path

from tests.site import ROOT

PAGES = ROOT / "snappea" / "docs" / "pages"
FILES = [ROOT / "README.md", *sorted(PAGES.rglob("*.md"))]
#: The title of a page becomes a heading of the second level.
TEXT = "\n".join(re.sub(r"\A# (?!Snappea\n)", "## ", file.read_text()) for file in FILES) + "\n## END\n"


def section(heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)^##", TEXT, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def without_blocks(file: Path) -> str:
    """Return the text of a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
