"""The house: who may import whom, and who may write."""

import ast
import re
from pathlib import Path

import snappea

HOME = Path(snappea.__file__).parent
#: Downwards: each file imports only from files above it.
ORDER = """
    distribution errors foreign signals memory conf log sync_only indexes
    queue.files queue.states foreman.systemd outbox models router
    queue.connection postgres.connection queue.database queue.availability
    queue.wakeup queue.records queue.logbook queue.lock
    tasks.memory_engine queue.statements queue.operations queue.store tasks.engine
    postgres.foremen tasks.options tasks.callables tasks.context tasks.results tasks.signature
    tasks.arguments tasks.calls tasks.discovery tasks.function
    django_tasks.framework django_tasks.results django_tasks.function django_tasks.backend tasks.registry
    schedules.triggers schedules workers.limits workers.cleanup workers.execute queue.quarantine
    monitoring.inspect stats
    workers.dispatcher workers.event_loop workers.processes.child workers.processes.fork_server
    workers.processes.supervisor workers.threads
    foreman.in_flight foreman.scheduler foreman.prefetch foreman.admission foreman.process_signals
    foreman.maintenance foreman.reports foreman.restart foreman.autoreload foreman.shutdown foreman.host
    postgres.host foreman.loop
    monitoring.ping celery.handover celery.translation celery.beat celery.task celery.engine
    monitoring.permissions monitoring.formatting health metrics
    checks monitoring.diagnostics apps
    admin.guarded admin.charts admin.actions admin.dashboard admin.filters
    admin.tasks admin.schedules admin management.console
    testing.live testing pytest_plugin backend results context
""".split()  # noqa: SIM905  (a line for each floor)


#: Packages whose own file has code.
FULL = {"schedules.__init__", "testing.__init__", "admin.__init__"}


def house() -> dict[str, Path]:
    """Return our modules by name, as it stands in ORDER."""
    paths = [
        path for path in HOME.rglob("*.py") if not {"migrations", "commands", "templatetags"} & {*path.parts}
    ]
    names = {".".join(path.relative_to(HOME).with_suffix("").parts): path for path in paths}
    packages = {name for name in names if name.endswith("__init__")} - FULL
    return {name.removesuffix(".__init__"): names[name] for name in names.keys() - packages}


def imports(path: Path) -> set[str]:
    """Return which of our modules a file imports, anywhere in it."""
    found, modules = set(), house().keys()
    here = ("snappea", *path.relative_to(HOME).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("snappea")):
            above = here[: len(here) + 1 - node.level] if node.level else ()
            whole = ".".join([*above, *filter(None, [node.module])]).removeprefix("snappea").lstrip(".")
            named = {f"{whole}.{alias.name}".lstrip(".") for alias in node.names}
            found |= named & modules or {whole}
    return found & modules


def test_each_file_imports_only_from_files_above_it() -> None:
    assert house().keys() == set(ORDER)
    for position, module in enumerate(ORDER):
        below = imports(house()[module]) - set(ORDER[:position])
        assert not below, f"{module} imports {below}"


def test_nothing_imports_the_foreman_but_its_command() -> None:
    users = [path.stem for path in HOME.rglob("*.py") if "foreman.loop" in imports(path)]
    assert users == ["runsnappea"]


def test_only_queue_writes_task_rows() -> None:
    statement = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM)\s+snappea_task", re.IGNORECASE)
    orm = re.compile(
        r"(?<!\bstore)(?<!LogEntry.objects)\.(save|update|bulk_update|bulk_create|create|get_or_create|delete)\("
    )
    for path in HOME.rglob("*.py"):
        if "migrations" in path.parts or path.name in (
            "store.py",
            "operations.py",
            "statements.py",
            "foremen.py",
        ):
            continue
        text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
        assert not statement.search(text), path
        written = {match[0] for match in orm.finditer(text)}
        assert not written, f"{path}: {written}"


def test_only_queue_knows_the_statements() -> None:
    """And what stands before it: what people decide."""
    users = {path.stem for path in HOME.rglob("*.py") if "queue.statements" in imports(path)}
    assert users == {"store", "operations"}


def test_no_code_comes_from_data() -> None:
    for path in HOME.rglob("*.py"):
        words = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not words & {"eval", "exec", "compile", "pickle", "marshal", "yaml", "__import__"}, path


def test_the_foreman_is_readable() -> None:
    """Long functions and files ask to be looked at again."""
    for path in HOME.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) < 402, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                assert node.end_lineno - node.lineno < 45, f"{path}: {node.name}"
