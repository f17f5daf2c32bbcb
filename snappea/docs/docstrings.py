"""What the API pages show of our docstrings: an extension of Griffe, which mkdocs.yml names.

- A paragraph of `>>>` lines is an example, shown as a block of code, with the output as comments.
- A comment that begins with `#:` is the docstring of the attribute below it.
"""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^|\n\n)(>>>(?:.+\n?)+)")


def _as_block(found: re.Match[str]) -> str:
    lines = [
        re.sub(r"^(>>>|\.\.\.) ?", "", line) if line[:3] in (">>>", "...") else f"# {line}"
        for line in found[1].splitlines()
    ]
    return "\n\n```python\n{}\n```\n".format("\n".join(lines))


class Docstrings(griffe.Extension):
    """Finds each docstring as it was written, and changes it."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Turn examples into blocks."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(_as_block, obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, agent: Any, **kwargs: Any) -> None:
        """Read the comment above."""
        lines = agent.code.splitlines()
        comment: list[str] = []
        at = (attr.lineno or 1) - 2
        while at >= 0 and (found := re.match(r"\s*#: ?(.*)", lines[at])):
            comment.insert(0, found[1])
            at -= 1
        if comment and not attr.docstring:
            attr.docstring = griffe.Docstring("\n".join(comment), parent=attr)
