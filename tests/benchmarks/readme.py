"""Where the figures are in the manual: between two marks of a page, and among its images."""

from .figures import Results
from .systems.base import ROOT
from .table import report

PAGES = ROOT / "snappea" / "docs" / "pages"
DIRECTORY = PAGES / "images"
PAGE = PAGES / "explanation" / "benchmarks.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def figures(text: str) -> str:
    """Return the text between the marks."""
    return text.partition(BEGIN)[2].partition(END)[0]


def renewed(text: str, results: Results) -> str:
    """Return a text with these results between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "the page has lost its marks"
    return f"{before}{begin}\n{chr(10).join(report(results))}\n\n{end}{after}"


def renew(results: Results) -> None:
    """Write results into the manual."""
    PAGE.write_text(renewed(PAGE.read_text(), results))
