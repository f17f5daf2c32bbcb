"""What MkDocs does with links that lead out of the pages (see mkdocs.yml), and with the search."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]
PAGES = "snappea/docs/pages"
#: How much the search prefers pages, by the beginning of their path: a guide answers more than a docstring.
BOOST = {
    "how-to/one-at-a-time": 8,  # "a" and "at" match every page
    "how-to/faq": 0.5,
    "how-to/migrate": 1,
    "how-to/recipes": 1,
    "how-to/": 4,
    "reference/api/": 0.02,
    "": 1,
}
LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)\s#]*)(#[^)\s]*)?\)")


def repository(config: Any) -> str:
    """Return the address of the repository on the web, or ""."""
    return str(config.extra.get("repository") or "").removesuffix("/").removesuffix(".git")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Point links to files of the repository to where they are on the web, and rank pages for the search."""
    boost = next(boost for start, boost in BOOST.items() if page.file.src_uri.startswith(start))
    page.meta.setdefault("search", {"boost": boost})
    home = repository(config)
    if home and not page.file.generated_by:
        page.edit_url = f"{home}/edit/main/{PAGES}/{page.file.src_uri}"
    folder = posixpath.dirname(f"{PAGES}/{page.file.src_uri}")

    def replaced(found: re.Match[str]) -> str:
        text, target, fragment = found.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith(f"{PAGES}/"):
            return found[0]
        there = ROOT / path
        if not there.exists():
            raise PluginError(f"{page.file.src_uri}: there is no {path}")
        return (
            f"[{text}]({home}/{'tree' if there.is_dir() else 'blob'}/main/{path}{fragment or ''})"
            if home
            else text
        )

    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(block if block.startswith("```") else LINK.sub(replaced, block) for block in blocks)
