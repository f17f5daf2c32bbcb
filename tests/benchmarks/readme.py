"""Where the figures stand in the README: between two marks, and in a directory beside it."""

from pathlib import Path

from .figures import Results
from .table import report

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / ".readme"
PAGE = ROOT / "snappea" / "docs" / "pages" / "explanation" / "benchmarks.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def figures(text: str) -> str:
    """Return what stands between the marks."""
    return text.partition(BEGIN)[2].partition(END)[0]


def renewed(text: str, results: Results) -> str:
    """Return a text with these results between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "the README has lost its marks"
    return f"{before}{begin}\n{chr(10).join(report(results))}\n\n{end}{after}"


def renew(results: Results) -> None:
    """Put results into the manual."""
    PAGE.write_text(renewed(PAGE.read_text(), results))
