"""The language: none of the words that make a technical text hard to read.

The manual, the code, its messages and comments are plain, modern English. A program is "it", and a person who
reads is "you".
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.site import ROOT

#: As whole words, in any case.
WORST = (
    "he|him|his|himself|she|who|whose|whom|whoever|whomever|somebody|nobody|anybody|everybody|anew|thereby|hereby|"
    "therein|herein|thereof|thereupon|hitherto|whilst|amongst|albeit|lest|whence|thence"
)
FOUND = re.compile(rf"\b({WORST})\b", re.IGNORECASE)
#: Where one of these words is right: the file's path, and parts of the lines.
EXCEPTIONS: dict[str, tuple[str, ...]] = {}
PATTERNS = (
    *(f"snappea/**/*.{kind}" for kind in ("py", "html", "js", "css", "md", "yml")),
    *(f"example_project/**/*.{kind}" for kind in ("py", "html", "md", "service", "yaml")),
    "README.md",
    ".readme/*.md",
    ".ci/*",
    "manage.py",
    "pyproject.toml",
    "tests/**/*.py",
)


def _is_left_out(path: Path) -> bool:
    return any(part in ("__pycache__", "site", ".cache") for part in path.parts)


FILES = sorted(
    {
        path.relative_to(ROOT)
        for pattern in PATTERNS
        for path in ROOT.glob(pattern)
        if path.is_file() and not _is_left_out(path.relative_to(ROOT))
    }
    - {Path("tests/test_language.py")}
)


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines to look at, with their numbers: of a test only its comments and docstrings."""
    text = (ROOT / file).read_text()
    if file.parts[0] == "tests":
        yield from _comments(text)
        yield from _docstrings(text)
    else:
        yield from enumerate(text.splitlines(), 1)


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _docstrings(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found = node.body[0] if node.body else None
            if ast.get_docstring(node) and isinstance(found, ast.Expr):
                yield from enumerate(str(ast.get_docstring(node, clean=False)).splitlines(), found.lineno)


def worst(file: Path) -> list[str]:
    """Return the lines of a file that have one of the words without a reason."""
    fine = EXCEPTIONS.get(file.as_posix(), ())
    return [
        f"{file}:{number}: {line.strip()}"
        for number, line in lines(file)
        if FOUND.search(line) and not any(part in line for part in fine)
    ]


def test_none_of_the_worst_words() -> None:
    found = [line for file in FILES for line in worst(file)]
    assert not found, "\n".join(found)


def test_each_exception_is_needed() -> None:
    for name, parts in EXCEPTIONS.items():
        text = [line for _number, line in lines(Path(name))]
        for part in parts:
            assert any(part in line and FOUND.search(line) for line in text), (name, part)
