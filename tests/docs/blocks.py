"""The code blocks of the manual, and how they are marked.

- ```python title="mail/tasks.py": a file of the reader's project. Appended to the file if it exists.
- ```python title="settings.py": appended to the settings of the project.
- ```python title="example_project/...": a file of this repository: test_recipes.
- ```python: typed in `manage.py shell`, while the Foreman runs.
- ```sh: typed in a shell, while the Foreman runs, except for the lines in NOT_RUN.
- ```text right after one of these two: lines that it prints, or that the Foreman logs. All numbers match, and
  `...` matches anything.
- A title that starts with "/" or "$ ", and any other language: see SHOWN in test_blocks.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.docs.manual import FILES, PAGES

#: The beginnings of lines that are not run, and why.
NOT_RUN = {
    "pip install ": "what it installs is here: test_what_is_not_run",
    ".venv/bin/pip install ": "the same",
    "python -m venv ": "the tests have an environment",
    "python3 -m venv ": "the same",
    ". .venv/bin/activate": "the same",
    "source .venv/bin/activate": "the same",
    "python manage.py runsnappea": "it does not end: it runs beside the other blocks",
    "python manage.py runserver": "it does not end",
    "SNAPPEA_FOREMAN=1 python manage.py runserver": "the same; tests/test_companion.py runs it",
    "gunicorn ": "it does not end; test_deploy runs what the units and containers run",
    "celery ": "it does not end; test_celery_runs_the_tasks runs it",
    "sudo ": "needs root: test_deploy tries the files",
    "systemctl ": "needs systemd",
    "journalctl ": "needs systemd",
    "systemd-run ": "needs systemd",
    "docker ": "needs Docker: test_deploy runs the commands of the containers",
    "kubectl ": "needs Kubernetes",
    "createdb ": "needs PostgreSQL: test_postgres_as_the_queue makes a database",
    "psql ": "needs PostgreSQL",
    "pg_dump ": "needs PostgreSQL",
    "curl ": "needs the web server",
    "python -m example_project.": "test_recipes",
    ".venv/bin/python -m example_project.": "the same",
    "python -m tests.": "our own tests: test_what_is_not_run",
    "caddy ": "needs a domain",
    "cd /srv/": "a path on the reader's server",
    "git clone ": "needs the network",
}


class Block(NamedTuple):
    """What stands between three backticks. `heading`: the one above it, "" above the first one of a file."""

    page: str
    heading: str
    language: str
    title: str
    text: str
    line: int

    @property
    def is_file(self) -> bool:
        """Tell whether it is a file of the reader's project."""
        return bool(self.title) and not self.title.startswith(("/", "$ ")) and not self.is_ours

    @property
    def is_ours(self) -> bool:
        """Tell whether it shows a file of this repository."""
        return self.title.startswith("example_project/")

    @property
    def is_typed(self) -> bool:
        """Tell whether it is typed, in a shell or in Python's."""
        return not self.title and self.language in ("sh", "python")

    @property
    def path(self) -> str:
        """Return where the file lies in the reader's project."""
        return "proj/settings.py" if self.title == "settings.py" else self.title


_PATTERN = re.compile(
    r'^##+ (?P<heading>[^\n]*)$|^```(?P<language>\w*)(?: title="(?P<title>[^"\n]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


def name_of(file: Path) -> str:
    """Return the name of a page, as in "how-to/retry.md"."""
    return file.relative_to(PAGES).as_posix() if file.is_relative_to(PAGES) else file.name


def _blocks(file: Path) -> Iterator[Block]:
    text = file.read_text()
    title = re.match(r"# (.*)\n", text)
    heading = title[1] if title and file.name != "README.md" else ""
    for found in _PATTERN.finditer(text):
        if found["text"] is None:
            heading = found["heading"]
        else:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(name_of(file), heading, found["language"], found["title"] or "", found["text"], line)


#: The blocks of each page that has any.
BY_PAGE = {name_of(file): blocks for file in FILES if (blocks := list(_blocks(file)))}
BLOCKS = [block for blocks in BY_PAGE.values() for block in blocks]


def of(heading: str) -> list[str]:
    """Return the blocks below a heading, in their order."""
    return [block.text for block in BLOCKS if block.heading == heading]


def titled(page: str, title: str) -> str:
    """Return the only block of a page that has a title."""
    (found,) = (block.text for block in BY_PAGE[page] if block.title == title)
    return found


def commands(block: str) -> str:
    """Return what can be run of a block for the shell."""
    lines = re.findall(r"(?:.*\\\n)*.*\n?", block)
    return "".join(line for line in lines if not line.startswith(tuple(NOT_RUN))).removesuffix("\n")
