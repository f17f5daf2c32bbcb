"""A newcomer's project, and what is typed there."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial

from tests.docs.blocks import Block, commands
from tests.projects import Project, Running
from tests.site import wait_until

#: Runs what it reads as Python's interactive shell does: the value of an expression is printed.
TYPED = (
    "import ast, sys; names = {'__name__': '__main__'}; "
    "[exec(compile(ast.Interactive([line]), '<typed>', 'single'), names)"
    " for line in ast.parse(sys.stdin.read()).body]"
)


@contextlib.contextmanager
def foreman(project: Project) -> Iterator[Running]:
    with project.running("python manage.py runsnappea", "tasks ready") as running:
        yield running
    assert running.popen.returncode == 0, running.output()


def is_followed(block: Block) -> bool:
    """Tell whether `follow` has something to do for a block."""
    return block.is_file or (block.is_typed and bool(typed(block)))


def follow(project: Project, blocks: list[Block]) -> None:
    """Do what a page says: write its files, then type the rest while the Foreman runs."""
    for block in blocks:
        if block.is_file:
            put(project, block)
    if not any(block.is_typed and typed(block) for block in blocks):
        project.shell("python manage.py check")  # otherwise the Foreman does: it ends where a check fails
    with contextlib.ExitStack() as stack:
        running = None
        output = ""
        for block in blocks:
            if block.is_typed and typed(block):
                running = running or stack.enter_context(foreman(project))
                output = type_in(project, block)
            elif block.language == "text" and not block.title and running:
                expect(block, running, output)


def typed(block: Block) -> str:
    """Return what is typed of a block."""
    return commands(block.text) if block.language == "sh" else block.text


def put(project: Project, block: Block) -> None:
    """Write a block to its file, or append it."""
    path = project.directory / block.path
    before = path.read_text() if path.exists() else ""
    project.write(block.path, f"{before}\n{block.text}" if before else block.text)


def type_in(project: Project, block: Block) -> str:
    """Type a block, and return what is printed."""
    if block.language == "sh":
        return project.shell(typed(block))
    project.write("typed", block.text)
    return project.shell(f'python manage.py shell -c "{TYPED}" < typed')


def expect(block: Block, running: Running, output: str) -> None:
    """Wait until the lines of a block are in the output of what was typed, or of the Foreman."""
    for line in filter(str.strip, block.text.splitlines()):
        escaped = re.escape(line.strip()).replace(r"\.\.\.", ".*")
        find = re.compile(re.sub(r"\d+", r"\\d+", escaped)).search
        wait_until(partial(_is_found, find, running, output), f"{line!r} in {output}{running.output()}", 60)


def _is_found(find: Callable[[str], object], running: Running, output: str) -> bool:
    return bool(find(output) or find(running.output()))
