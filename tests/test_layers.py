"""The structure of the library: which package may import which, and which one may write Task rows."""

import ast
import re
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import snappea
from tests.docs.manual import section
from tests.projects import Project

HOME = Path(snappea.__file__).parent
#: A line imports only from itself and from the lines above it.
LINES = {
    # core
    "base": "conf distribution errors log memory signals",
    "queue": "queue models router indexes",
    "tasks": "tasks",
    "schedules": "schedules limits",
    "workers": "workers",
    "foreman": "foreman",
    # around it
    "monitoring": "monitoring health inspect metrics stats checks",
    "admin": "admin templatetags",
    "management": "management",
    "testing": "testing",
    # adapters, which register themselves with the core
    "adapters": "celery django_tasks opentelemetry postgres",
    # what Django, pytest or a project looks for by name
    "entry": "apps backend companion context gunicorn pytest_plugin results",
}
RANK = {name: rank for rank, line in enumerate(LINES.values()) for name in line.split()}
ADAPTERS = LINES["adapters"].split()
#: How many modules `delay()` loads at most, the packages snappea, snappea.queue and snappea.tasks included.
AT_MOST = 26
IMPORT_PATHS = section("Import paths")
#: What the Foreman must not load if the project does not use it.
NOT_FOR_THE_FOREMAN = """
    celery django.contrib django.test django_tasks importlib.metadata numpy psycopg unittest snappea.admin
    snappea.celery snappea.django_tasks snappea.docs snappea.opentelemetry snappea.postgres snappea.stats
    snappea.testing
    """.split()  # noqa: SIM905
#: What projects may import, as the manual lists it: modules with their names.
PUBLIC = [
    f"{module}.{name}"
    for module, names in re.findall(r"^\| `(snappea[\w.]*)` \| (`.*`) \|$", IMPORT_PATHS, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
]


def name_of(path: Path) -> str:
    """Return a module as it is named here: without `snappea.`, a package without `.__init__`."""
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {name_of(path): path for path in HOME.rglob("*.py") if "migrations" not in path.parts}


def imports(name: str) -> set[str]:
    """Return which of our modules a module imports, also inside functions and for type checkers.

    Not what a package imports for type checkers: it loads those names when they are first used.
    """
    found = set()
    here = ("snappea", *MODULES[name].relative_to(HOME).parts[:-1])
    tree = ast.parse(MODULES[name].read_text())
    if MODULES[name].name == "__init__.py":
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("snappea")):
            above = here[: len(here) + 1 - node.level] if node.level else ()
            package = ".".join([*above, *filter(None, [node.module])]).removeprefix("snappea").lstrip(".")
            for alias in node.names:
                whole = f"{package}.{alias.name}".lstrip(".")
                found.add(whole if whole in MODULES else package)
    return found - {"", name}


GRAPH = {name: imports(name) for name in MODULES if name}


def test_each_package_imports_only_from_those_before_it() -> None:
    def package(name: str) -> str:
        return name.partition(".")[0]

    wrong = {
        f"{name} -> {other}"
        for name, others in GRAPH.items()
        for other in others
        if RANK[package(name)] < RANK[package(other)]
        or (package(name) in ADAPTERS and package(other) in {*ADAPTERS} - {package(name)})
    }
    assert not wrong


def test_no_modules_import_each_other() -> None:
    TopologicalSorter(GRAPH).prepare()  # raises CycleError


def test_the_manual_lists_what_projects_import() -> None:
    assert {"snappea.task", "snappea.queue.requeue", "snappea.testing.drain"} <= set(PUBLIC)


@pytest.mark.parametrize("path", PUBLIC)
def test_public_import_paths_stay(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert hasattr(import_module(module), name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    lines = [
        'INSTALLED_APPS = ["snappea", "shop"]',
        'DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]',
        "DATABASES = {}",
        'SQLITE = "django.db.backends.sqlite3"',
        *(
            f'DATABASES["{name}"] = {{"ENGINE": SQLITE, "NAME": "{tmp_path / name}.db"}}'
            for name in ("default", "snappea")
        ),
    ]
    tasks = "import sys\nfrom snappea import task\n\n\n@task\ndef ship(order): print(*sorted(sys.modules))\n"
    files = {"settings.py": "\n".join(lines), "shop/__init__.py": "", "shop/tasks.py": tasks}
    files["enqueue.py"] = (
        "import sys, django\ndjango.setup()\nfrom shop.tasks import ship\nship.delay(1)\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] == 'snappea'))"
    )
    made = Project(tmp_path, files)
    made.run("django", "migrate", "--database=snappea", "--verbosity=0")
    return made


def test_delay_loads_few_modules(project: Project) -> None:
    """A web process that only enqueues stays small."""
    loaded = project.run("enqueue").split()
    assert len(loaded) <= AT_MOST, loaded


def test_the_foreman_loads_only_what_it_uses(project: Project) -> None:
    project.run("enqueue")
    project.wrapper = ["env"]  # or the process would have more loaded when it starts
    loaded = project.shell("python -m django runsnappea --burst -v0").split()
    assert "snappea.foreman.loop" in loaded
    packages = tuple(f"{name}." for name in NOT_FOR_THE_FOREMAN)
    assert [name for name in loaded if f"{name}.".startswith(packages)] == []


def test_nothing_imports_the_foreman_but_its_command() -> None:
    assert [name for name in GRAPH if "foreman.loop" in GRAPH[name]] == ["management.commands.runsnappea"]


def test_only_queue_writes_task_rows() -> None:
    statement = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM)\s+snappea_task", re.IGNORECASE)
    orm = re.compile(
        r"(?<!\bstore)(?<!\boperations)(?<!LogEntry.objects)\.(save|update|bulk_update|bulk_create|create|get_or_create|delete)\("
    )
    for name, path in MODULES.items():
        if name in ("queue.store", "queue.operations", "queue.statements", "postgres.foremen"):
            continue
        text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
        assert not statement.search(text), path
        written = {match[0] for match in orm.finditer(text)}
        assert not written, f"{path}: {written}"


def test_only_queue_knows_the_statements() -> None:
    assert {name for name in GRAPH if "queue.statements" in GRAPH[name]} == {
        "queue.bulk",
        "queue.fair",
        "queue.groups",
        "queue.store",
        "queue.operations",
        "queue.recovery",
        "queue.steps",
        "queue.unique",
    }


def test_no_code_comes_from_data() -> None:
    for path in MODULES.values():
        words = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not words & {"eval", "exec", "compile", "pickle", "marshal", "yaml", "__import__"}, path


def test_the_library_is_readable() -> None:
    """Long functions and files ask to be looked at again. models.py only lists columns."""
    for path in MODULES.values():
        text = path.read_text()
        assert len(text.splitlines()) < (500 if path.name == "models.py" else 400), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                assert node.end_lineno - node.lineno < 45, f"{path}: {node.name}"
