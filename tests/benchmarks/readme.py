"""Where the figures are in the manual: between two marks of two pages, and among the images."""

from collections.abc import Iterable

from .figures import Results
from .systems.base import ROOT
from .table import report, scales

PAGES = ROOT / "snappea" / "docs" / "pages"
DIRECTORY = PAGES / "images"
PAGE = PAGES / "explanation" / "benchmarks.md"
SCALING = PAGES / "explanation" / "scaling.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def figures(text: str) -> str:
    """Return the text between the marks."""
    return text.partition(BEGIN)[2].partition(END)[0]


def renewed(text: str, lines: Iterable[str]) -> str:
    """Return a text with these lines between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "the page has lost its marks"
    return f"{before}{begin}\n{chr(10).join(lines)}\n\n{end}{after}"


def renew(results: Results) -> None:
    """Write results into the manual."""
    for page, lines in ((PAGE, report(results)), (SCALING, scales(results))):
        page.write_text(renewed(page.read_text(), lines))
