"""The house: who may import whom, and who may write."""

import ast
import re
from pathlib import Path

import snappea

HOME = Path(snappea.__file__).parent
#: Downwards: each file imports only from files above it.
ORDER = """
    distribution errors foreign signals memory conf log sync_only
    files indexes states systemd outbox models router link postgres database availability
    wakeup records logbook lock
    collected statements decisions queue engine
    sharing options callables context results signature
    arguments calls modules function
    djangotasks.framework djangotasks.results djangotasks.function backend tasks
    ticks schedules limits leftovers worker sieve survey stats
    crew.herald crew.loop crew.child crew.nursery crew.guardian crew.threads
    office.accounts office.timetable office.pace office.gatekeeper office.attention office.caretaker
    office.reports office.renewal office.reload office.departure office.workshop office.remote
    foreman
    ping celery.handover celery.translation celery.beat celery.task celery.engine
    health metrics
    checks examination apps
    panel.rights panel.guarded panel.wording panel.charts panel.verdicts panel.dashboard panel.filters
    panel.task_admin panel.schedule_admin admin console
    live testing pytest_plugin
""".split()  # noqa: SIM905  (a line for each floor)


ROOMS = ("djangotasks", "crew", "office", "celery", "panel")


def house() -> dict[str, Path]:
    """Return our modules by name, as it stands in ORDER."""
    paths = [*HOME.glob("*.py"), *(path for room in ROOMS for path in (HOME / room).glob("*.py"))]
    names = {".".join(path.relative_to(HOME).with_suffix("").parts): path for path in paths}
    return {name: path for name, path in names.items() if not name.endswith("__init__")}


def imports(path: Path) -> set[str]:
    """Return which of our modules a file imports, anywhere in it."""
    found = set()
    here = ("snappea", *path.relative_to(HOME).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("snappea")):
            above = here[: len(here) + 1 - node.level] if node.level else ()
            whole = ".".join([*above, *filter(None, [node.module])]).removeprefix("snappea").lstrip(".")
            found |= {whole, *(f"{whole}.{alias.name}".lstrip(".") for alias in node.names)}
    return found & house().keys()


def test_each_file_imports_only_from_files_above_it() -> None:
    assert house().keys() == set(ORDER)
    for position, module in enumerate(ORDER):
        below = imports(house()[module]) - set(ORDER[:position])
        assert not below, f"{module} imports {below}"


def test_nothing_imports_the_foreman_but_its_command() -> None:
    users = [path.stem for path in HOME.rglob("*.py") if "foreman" in imports(path)]
    assert users == ["runsnappea"]


def test_only_queue_writes_task_rows() -> None:
    statement = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM)\s+snappea_task", re.IGNORECASE)
    orm = re.compile(
        r"(?<!\bqueue)(?<!LogEntry.objects)\.(save|update|bulk_update|bulk_create|create|get_or_create|delete)\("
    )
    for path in HOME.rglob("*.py"):
        if "migrations" in path.parts or path.name in (
            "queue.py",
            "decisions.py",
            "statements.py",
            "sharing.py",
        ):
            continue
        text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
        assert not statement.search(text), path
        written = {match[0] for match in orm.finditer(text)}
        assert not written, f"{path}: {written}"


def test_only_queue_knows_the_statements() -> None:
    """And what stands before it: what people decide."""
    users = {path.stem for path in HOME.rglob("*.py") if "statements" in imports(path)}
    assert users == {"queue", "decisions"}


def test_no_code_comes_from_data() -> None:
    for path in HOME.rglob("*.py"):
        words = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not words & {"eval", "exec", "compile", "pickle", "marshal", "yaml", "__import__"}, path


def test_the_foreman_is_readable() -> None:
    """Long functions and files ask to be looked at again."""
    for path in HOME.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) < 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                assert node.end_lineno - node.lineno < 45, f"{path}: {node.name}"
