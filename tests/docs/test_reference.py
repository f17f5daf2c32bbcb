"""The manual: what exists is in the reference, and what is in the reference exists."""

import argparse
import ast
import dataclasses
import inspect
import itertools
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from django.core.management import load_command_class
from django.dispatch import Signal

import snappea
from snappea import (
    conf,
    errors,
    limits,
    metrics,
    pytest_plugin,
    queue,
    results,
    schedules,
    signals,
    stats,
    testing,
)
from snappea.admin import search
from snappea.admin.actions import VERBS, verbs_of
from snappea.admin.columns import waiting_for
from snappea.admin.schedules import VERBS as VERBS_OF_SCHEDULES
from snappea.conf import Settings
from snappea.context import TaskFilter
from snappea.foreman.loop import STUCK
from snappea.foreman.statistics import SUMS
from snappea.models import MOVES, Gate, Schedule, Status, Task
from snappea.monitoring import inspect as inspected
from snappea.queue.files import QueueFile
from snappea.queue.records import Claim, ForemanInfo, about
from snappea.tasks.bound import BoundTask
from snappea.tasks.context import CurrentTask
from snappea.tasks.function import TaskFunction, declared
from snappea.tasks.options import Options
from snappea.testing.live import LiveForeman
from tests.docs.manual import FILES, PAGES, section, without_blocks
from tests.docs.manual import TEXT as README
from tests.site import ROOT, Site

HOME = ROOT / "snappea"
COMMANDS = HOME / "management" / "commands"
REFERENCE = PAGES / "reference"
SOURCES = {path: path.read_text() for path in sorted(HOME.rglob("*.py")) if "migrations" not in path.parts}


# the tables of a page


class Table(NamedTuple):
    """A table: its header, and its rows as texts."""

    header: list[str]
    rows: list[list[str]]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text: str) -> Iterator[Table]:
    for found in re.finditer(r"^(\|.*\|)\n\|[-|]+\|\n((?:\|.*\|\n)*)", text, re.MULTILINE):
        yield Table(cells(found[1]), [cells(line) for line in found[2].splitlines()])


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text()


def rows(name: str, *header: str) -> list[list[str]]:
    """Return the rows of the tables of a page that begin with this header."""
    found = [
        row for table in tables(page(name)) if table.header[: len(header)] == [*header] for row in table.rows
    ]
    assert found, (name, header)
    return found


def code(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]*)`", cell)


def first(name: str, *header: str) -> list[str]:
    """Return the words in backticks with which the rows begin, up to a bracket, each once."""
    found = [re.split(r"[( ]", code(row[0])[0])[0] for row in rows(name, *header)]
    assert len(set(found)) == len(found), found
    return found


def words(text: str) -> set[str]:
    """Return the words of what stands in backticks."""
    return {word for found in code(text) for word in re.findall(r"\w+", found)}


def public(namespace: Any) -> set[str]:
    """Return the public functions and classes that a module or class defines itself."""
    home = getattr(namespace, "__module__", None) or namespace.__name__
    return {
        name
        for name, value in vars(namespace).items()
        if not name.startswith("_")
        and (isinstance(value, property) or (callable(value) and getattr(value, "__module__", home) == home))
    }


def parameters(function: Any) -> dict[str, Any]:
    """Return the parameters of a function, and their defaults."""
    found = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in found if each.name != "self"}


def with_labels(states: tuple[str, ...]) -> list[str]:
    return ["deleted" if state == "deleted" else f"`{state}` ({Status(state).label})" for state in states]


# calls


def test_calls() -> None:
    calls = [re.search(r"\.(\w+)\(", row[0]) for row in rows("calls", "call")]
    names = {found[1] for found in calls if found}
    told = "delay delay_on_commit adelay delay_many apply_async broadcast s si apply"
    assert names == {*told.split()}
    assert names <= public(TaskFunction) | public(BoundTask)


def test_options_of_apply_async() -> None:
    assert first("calls", "option") == [*parameters(TaskFunction.apply_async)][:-1], "without **unknown"


def test_results_and_the_current_task() -> None:
    assert {*first("calls", "member", "returns")} == public(results.AsyncResult) | {"id"}
    assert {*first("calls", "member", "type")} == public(CurrentTask)
    for row in rows("calls", "member"):
        name, _, written = code(row[0])[0].partition("(")
        for owner in (results.AsyncResult, CurrentTask):
            if written and name in vars(owner):
                given = [part.partition("=") for part in written.rstrip(")").split(", ") if part]
                defaults = {what: ast.literal_eval(value) for what, _, value in given if value}
                assert [what for what, _, _ in given] == [*parameters(vars(owner)[name])], name
                assert defaults == {
                    key: value
                    for key, value in parameters(vars(owner)[name]).items()
                    if value is not inspect.Parameter.empty
                }, name


def test_options_of_task() -> None:
    found = rows("task-options", "option", "default", "value", "meaning")
    defaults = {field.name: field.default for field in dataclasses.fields(Options)} | {"retry_kwargs": None}
    assert {*first("task-options", "option")} == defaults.keys()
    for option, default, _value, _meaning in found:
        if option != "`name`":
            assert ast.literal_eval(default.strip("`")) == defaults[option.strip("`")], option


# settings


def test_settings() -> None:
    found = rows("settings", "key", "default", "value", "restart", "meaning")
    assert {key.strip("`") for key, *_ in found} == set(Settings.__dataclass_fields__)
    assert len(found) == len(Settings.__dataclass_fields__)
    for key, default, value, restart, _meaning in found:
        field = Settings.__dataclass_fields__[key.strip("`")]
        assert ast.literal_eval(default.strip("`")) == field.default, key
        assert restart in ("Foreman", "web", "both", "tests"), key
        expected = field.metadata["expected"](object())
        for word in re.findall(r"bytes|minutes|seconds|True or False", expected):
            assert word.replace("True or False", "bool") in value, key
        for bound in re.findall(r"from ([\d.]+) to ([\d,]+)", expected):
            numbers = {number.strip(",") for number in bound} - {"1,000,000,000"}
            assert all(number in value for number in numbers), key
        for choice in re.findall(r"'(\w+)'", expected) if " or " in expected else ():
            assert f'`"{choice}"`' in value, key


def test_which_restart_a_setting_needs() -> None:
    foreman = ("foreman", "workers", "runsnappea.py")
    for key, _default, _value, restart, _meaning in rows("settings", "key", "default", "value", "restart"):
        name = key.strip("`")
        users = [
            path.relative_to(HOME).as_posix()
            for path, source in SOURCES.items()
            if re.search(rf"\.{name}\b", source) and path.name != "conf.py"
        ]
        if users and all(any(part in path for part in foreman) for path in users):
            assert restart == "Foreman", (name, users)
        if restart == "Foreman":
            assert not any(path.startswith(("admin", "monitoring")) for path in users), (name, users)


def test_keys_of_queues_and_schedules() -> None:
    for key in first("settings", "key", "value"):
        assert not conf.problems({"QUEUES": {"mail": {key: 1}}}), key
    assert first("settings", "key", "default", "value", "meaning") == [
        *sorted(conf._IN_SCHEDULES, key=first("settings", "key", "default", "value", "meaning").index)
    ]


def test_entries_of_alert() -> None:
    found = rows("settings", "entry", "default", "value", "meaning")
    assert {row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in found} == conf.ALERT


def test_environment_variables() -> None:
    source = "\n".join(SOURCES.values())
    read = set(re.findall(r'environ\.(?:get|pop)\("(\w+)"', source))
    read |= set(re.findall(r'^_HANDED_ON = "(\w+)"', source, re.MULTILINE)) | {"DJANGO_SETTINGS_MODULE"}
    assert "environ[ENVIRONMENT_VARIABLE]" in source, "that is DJANGO_SETTINGS_MODULE"
    assert {*first("environment", "variable")} == read


# commands


def own_options(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the options of a parser that are not Django's, and their defaults."""
    djangos = load_command_class("django.core", "check").create_parser("manage.py", "check")
    known = {text for action in djangos._actions for text in action.option_strings}
    known |= {"--skip-checks"}
    known -= {"--database", "--deploy", "--tag", "--list-tags", "--fail-level"}
    return {
        text: action.default
        for action in parser._actions
        for text in action.option_strings
        if text not in known and text.startswith("--")
    }


def test_commands() -> None:
    commands = {path.stem for path in COMMANDS.glob("*.py")} - {"__init__"}
    assert commands == set(re.findall(r"^## (.*)$", page("commands"), re.MULTILINE))
    for command in commands:
        assert f"`python manage.py {command}" in page("commands")


def test_options_of_migrate_and_runsnappea() -> None:
    runsnappea, migrate = (
        load_command_class("snappea", name).create_parser("manage.py", name)
        for name in ("runsnappea", "migrate")
    )
    theirs = load_command_class("django.core", "migrate").create_parser("manage.py", "migrate")
    told = {code(row[0])[0].split()[0] for row in rows("commands", "option", "default", "meaning")}
    ours = own_options(migrate).keys() - own_options(theirs).keys()
    assert told == own_options(runsnappea).keys() | ours | {"-v"}


def test_subcommands_and_their_options() -> None:
    parser = load_command_class("snappea", "snappea").create_parser("manage.py", "snappea")
    subcommands: Any = next(action.choices for action in parser._actions if action.dest == "command")
    found = {
        code(table.header[0])[0].split()[0]: table
        for table in tables(page("commands"))
        if table.header[0].startswith("`")
    }
    assert found.keys() == subcommands.keys()
    for name, subparser in subcommands.items():
        takes = [action.metavar for action in subparser._actions if not action.option_strings]
        assert [
            word.strip("[]") for word in code(found[name].header[0])[0].split()[1:] if word != "...]"
        ] == takes
        told = {code(row[0])[0].split()[0]: row[1] for row in found[name].rows if row[0]}
        defaults = own_options(subparser)
        assert told.keys() == defaults.keys(), name
        for option, default in defaults.items():
            if isinstance(default, (int, float)) and not isinstance(default, bool):
                assert told[option] == f"`{default}`", (name, option)


def test_exit_codes() -> None:
    assert {row[0] for row in rows("commands", "exit code")} == {"`0`", "`1`", "`2`", f"`{STUCK}`"}


def test_files() -> None:
    file = QueueFile("", 0, 0)
    told = [name for row in rows("foreman", "file") for name in code(row[0]) if name.startswith("-")]
    assert told == ["-wal", "-shm", file.wakeup, file.lock, file.logbook]


# checks and errors


def test_checks() -> None:
    levels = {}
    for path, source in SOURCES.items():
        if "snappea." not in source or not re.search(r'id="snappea\.', source):
            continue
        for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
            for keyword in call.keywords:
                if keyword.arg == "id" and isinstance(keyword.value, ast.Constant):
                    assert isinstance(call.func, ast.Name), path
                    levels[keyword.value.value] = call.func.id.lower()
    found = rows("checks", "id", "level", "meaning", "cure")
    assert {name.strip("`"): level for name, level, *_ in found} == levels
    assert len(found) == len(levels) and all(cell for row in found for cell in row)


def test_errors() -> None:
    ours = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }
    found = [row for table in tables(page("errors")) for row in table.rows]
    assert {name.strip("`"): code(base) for name, base, *_ in found} == {
        name: [base.__name__ for base in kind.__bases__] for name, kind in ours.items()
    }
    assert len(found) == len(ours)
    for name in ours:
        assert name in (errors.__doc__ or ""), "the tree shows all of them"


# states


def test_states() -> None:
    found = rows("states", "status", "admin", "meaning")
    assert {status.strip("`"): label for status, label, _meaning in found} == {
        status.value: str(status.label) for status in Status
    }


def test_what_a_held_task_waits_for() -> None:
    held = Task(gate=Gate.BLOCKED)
    vars(held)["is_paused"] = False
    assert f'"{waiting_for(held)}"' in " ".join(page("states").split())


def test_transitions() -> None:
    found = {verb.strip("`"): (origins, targets) for verb, origins, targets, _by in rows("states", "verb")}
    assert found == {
        verb: (
            ", ".join(with_labels(move.origins)),
            "; ".join(
                [
                    ", ".join(with_labels(move.targets)),
                    *(f"{each} if revoked" for each in with_labels(move.revoked)),
                ]
            ),
        )
        for verb, move in MOVES.items()
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_table_of_states_has_the_names_of_the_admin(file: Path) -> None:
    for table in tables(file.read_text()):
        for row in table.rows:
            for status in Status:
                if row[0] == f"`{status}`" and not table.header[0].startswith("option"):
                    assert re.search(rf"\b{status.label}\b", " ".join(row)), row


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_page_says_what_the_admin_calls_a_state(file: Path) -> None:
    if file.stem == "metrics":  # these words are labels of metrics, too
        return
    text = re.sub(r"^#.*$", "", without_blocks(file), flags=re.MULTILINE)
    for status in Status:
        lines = [found[0] for found in re.finditer(rf"^.*`{status}`.*\n?.*$", text, re.MULTILINE)]
        assert not lines or any(str(status.label) in line for line in lines), (status, lines)


def test_operations() -> None:
    told = {row[0].split("(")[0].strip("`") for row in rows("states", "function", "returns")}
    of_schedules = {"pause", "resume", "fire", "change", "reset", "add", "remove"}
    assert {*queue.__all__, *of_schedules, *public(limits)} == told
    assert of_schedules <= public(schedules)


def test_fields_of_the_models() -> None:
    for model in (Task, Schedule):
        text = page("models").partition(f"\n## {model.__name__}\n")[2].partition("\n## ")[0]
        fields, methods = tables(text)
        assert [code(row[0])[0] for row in fields.rows] == [
            field.attname for field in model._meta.concrete_fields
        ]
        own = {name for name, value in vars(model).items() if inspect.isfunction(value) and name[0] != "_"}
        told = {code(row[0])[0].removesuffix("()") for row in methods.rows}
        assert told == {name for name in own if not name.startswith("get_")}


# signals


def test_signals() -> None:
    documented = {code(name)[0]: set(code(facts)) for name, _when, facts, _by in rows("signals", "signal")}
    assert documented.keys() == {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    told: dict[str, set[str]] = {}
    for source in SOURCES.values():
        for name, facts in re.findall(r"\btell\((?:signals\.)?(task_\w+), [^=]*?, (\w+=.*)\)\n", source):
            told.setdefault(name, set()).update(re.findall(r"(\w+)=", facts))
    assert told == documented
    assert {*first("signals", "argument")} == set.union(*documented.values()) | {"sender"}


def test_hooks() -> None:
    assert first("signals", "setting") == list(conf.HOOKS)


# health and metrics


def test_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    info = ForemanInfo(1, "here", datetime.now(UTC), 4, [], True, None)
    queue = inspected.QueueState("default", 0, 0, 0, None, None, None)
    monkeypatch.setattr(metrics, "foremen_at_work", lambda: [info])
    for name, value in (("in_flight", {}), ("running", []), ("counts", {"ready": 1}), ("queues", [queue])):
        monkeypatch.setattr(inspected, name, lambda *args, value=value: value)
    total = dict.fromkeys((*SUMS, "runs"), 1.0)
    monkeypatch.setattr(stats, "totals", lambda: {"mail.tasks.send_mail": total})
    text = "".join(metrics._families())
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for name, given in re.findall(
        r"^(snappea\w+?)(?:_sum|_count)?(?:{(.*)})? [\d.e+-]+$", text, re.MULTILINE
    ):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', given))
    found = rows("metrics", "metric", "type", "labels", "unit", "meaning")
    assert {code(name)[0]: kind for name, kind, *_ in found} == kinds
    assert {code(name)[0]: set(code(given)) for name, _kind, given, *_ in found} == labels
    meanings = {code(row[0])[0]: row[-1] for row in found}
    for name, label in (("snappea_queue_tasks", "state"), ("snappea_ended_total", "how")):
        assert set(re.findall(rf'{label}="(\w+)"', text)) == set(code(meanings[name])) - {label}


def test_health() -> None:
    source = SOURCES[HOME / "health.py"]
    assert {*first("metrics", "key", "type")} == set(re.findall(r'^ +"(\w+)": ', source, re.MULTILINE))
    facts = {*ForemanInfo._fields} - {"is_here"} | {"memory"}
    assert {*first("metrics", "key of a Foreman")} == facts


# admin


def test_lists_of_the_admin() -> None:
    found = rows("admin", "status", "admin", "order", "actions")
    assert [status.strip("`") for status, *_ in found] == [status.value for status in Status]
    for name, label, order, actions in found:
        status = Status(name.strip("`"))
        column = search.Search(f"state:{status}").column
        assert (
            label,
            {"number": "pk", "due": "run_after", "ended": "finished_at"}[order.split()[0].rstrip(",")],
        ) == (
            str(status.label),
            column,
        )
        assert actions.split(", ") == [verb.label for verb in verbs_of(status)], name


def test_search_of_the_admin(site: Site) -> None:
    """Each key is in the table, and each example is a search."""
    found = rows("admin", "term", "example", "finds")
    keys = {term.strip("`").rstrip(":") for term, _example, _finds in found if term.endswith(":`")}
    assert keys - {"state", "args.NAME"} == {*search.CONDITIONS, *search.AGES} - {""}
    for term, example, _finds in found:
        terms = [text for text in code(example) for text, _ in search.Search(text).terms]
        assert term[0] != "`" or {term.strip("`").split(":")[0].split(".")[0]} == {
            text.split(".")[0] for text in terms
        }


def test_actions_of_the_admin() -> None:
    found = rows("admin", "action", "permission", "effect")
    ours = [(verb.label, verb.permission) for verb in VERBS.values()]
    assert [(label, permission) for label, permission, _effect in found] == ours


def test_actions_on_schedules() -> None:
    labels = [row[0] for row in rows("admin", "action of a schedule")]
    found = {label.split()[0].lower(): label for label in labels}
    html = (HOME / "templates" / "snappea" / "schedule.html").read_text()
    assert {*found} == {*VERBS_OF_SCHEDULES}
    assert all(f"'{label}'" in html for label in found.values())


def test_tasks_of_our_own() -> None:
    for name in ("admin.bulk", "monitoring.ping"):
        import_module(f"snappea.{name}")
    found = {made.name for made in declared() if made.name.startswith("snappea.")}
    assert {row[0].strip("`") for row in rows("task-discovery", "task", "what enqueues it")} == found


def test_buttons_of_the_dashboard() -> None:
    pages = (
        HOME / "templates" / "snappea" / f"{name}.html" for name in ("queues", "slots", "failure_groups")
    )
    html = "".join(page.read_text() for page in pages)
    told = [row[0] for row in rows("admin", "button")]
    labels = re.findall(r"formaction=.*?{% translate '([\w ]+)'", html)
    assert sorted(told) == sorted({*labels, "Pause", "Resume", "Requeue all"})
    assert all(f"'{label}'" in html for label in told)


# logging


def test_loggers() -> None:
    used = {
        name for source in SOURCES.values() for name in re.findall(r'getLogger\("(snappea[\w.]*)"\)', source)
    }
    assert {*first("logging", "logger")} == used


def test_levels_of_the_lines_about_a_task() -> None:
    told = {word: row[0] for row in rows("logging", "level") for word in code(row[1])}
    found = {"Failed": "ERROR"}  # logged with the traceback, by say_failure()
    for source in SOURCES.values():
        for level, word in re.findall(r'say\((\w+), "(\w+) %s #%d(?! ?\.|:)', source):
            found[word] = level
    found = {word: level for word, level in found.items() if word != "After"}
    assert told == found


def test_extra_fields() -> None:
    record = logging.LogRecord("snappea", logging.INFO, "", 0, "", (), None)
    before = set(vars(record))
    TaskFilter().filter(record)
    assert {*first("logging", "field")} == set(vars(record)) - before
    assert {*first("logging", "field")} == set(about(Claim(0, 1, 1, "shop.tasks.ship", "[]", "{}"), 1.0))


# testing


def test_what_tests_may_use() -> None:
    assert {*first("testing", "member")} == public(testing) - {"Enqueued"}
    assert first("testing", "field of `Enqueued`") == list(testing.Enqueued._fields)
    assert {*first("testing", "member of `LiveForeman`")} == public(LiveForeman)
    assert first("testing", "argument of `drain()`") == [*parameters(testing.drain)]
    crashes = [name for name in parameters(testing.crash_everywhere) if not name.endswith("args")]
    assert first("testing", "argument of `crash_everywhere()`") == crashes
    fixtures = {name for name in vars(pytest_plugin) if name.startswith("snappea_")}
    assert {*first("testing", "fixture for pytest")} == fixtures


# the public names

PUBLIC = [
    f"{module}.{name}"
    for module, names in re.findall(
        r"^\| `(snappea[\w.]*)` \| (`.*`) \|$", section("Import paths"), re.MULTILINE
    )
    for name in code(names)
]
#: What the API pages show, by the path that is written there.
SHOWN = [
    name
    for file in sorted((REFERENCE / "api").glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", file.read_text(), re.MULTILINE)
]


def imported(path: str) -> Any:
    try:
        return import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(import_module(module), name)


@pytest.mark.parametrize("path", SHOWN)
def test_what_the_api_pages_show_has_a_docstring(path: str) -> None:
    found = imported(path)
    assert inspect.getdoc(found), path
    for name, member in vars(found).items() if inspect.isclass(found) else ():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"{path}.{name}"


def test_the_api_pages_show_each_public_name() -> None:
    shown = [imported(path) for path in SHOWN]
    for path in PUBLIC:
        found = imported(path)
        is_signal = path.startswith("snappea.signals.")
        assert any(found is each or type(found) is each for each in shown) or is_signal, path
    assert signals in shown and len(set(SHOWN)) == len(SHOWN)


def test_each_public_name_is_explained() -> None:
    told = "".join(file.read_text() for file in REFERENCE.glob("*.md") if file.stem != "import-paths")
    missing = set(snappea.__all__) - words(told)
    assert not missing


# glossary


def test_glossary() -> None:
    terms = [row[0] for row in rows("glossary", "word")]
    assert terms == sorted(terms, key=str.lower)
    assert {str(status.label) for status in Status} <= {*terms}
    assert {"Foreman", "queue", "claim", "attempt", "logbook", "fence", "wakeup", "held", "round"} <= {*terms}
    meanings = {row[0]: row[1] for row in rows("glossary", "word")}
    for status in Status:
        assert f"`{status}`" in meanings[str(status.label)]


def test_the_overview_leads_to_each_page() -> None:
    links = re.findall(r"\]\(([\w/-]+\.md)\)", page("index"))
    assert sorted(links) == sorted(
        file.relative_to(REFERENCE).as_posix() for file in REFERENCE.rglob("*.md") if file.name != "index.md"
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_page_says_what_the_foreman_is(file: Path) -> None:
    text = without_blocks(file)
    if re.search(r"\bForeman\b", text):
        assert re.search(r"worker\s+process", text)


# the rest of the manual


def test_the_first_screen_holds_exactly_the_two_set_up_commands() -> None:
    first_screen = README[: README.index("\n## ")]
    assert first_screen.count("\n") < 30 and (ROOT / "README.md").read_text().count("\n") <= 300
    blocks = re.findall(r"```sh\n(.*?)\n```", first_screen, re.DOTALL)
    assert blocks == [
        "python3 -m venv .venv && .venv/bin/pip install -e '.[example]' && .venv/bin/python manage.py demo",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
    ]


def test_the_map_leads_to_each_page() -> None:
    targets = re.findall(r"\]\(snappea/docs/pages/([\w/-]+\.md)\)", section("The manual"))
    pages = {file.relative_to(PAGES).as_posix() for file in PAGES.rglob("*.md")}
    assert pages - {*targets} == {name for name in pages if name.startswith("reference/api/")} | {"index.md"}
    assert len({*targets}) == len(targets)


def test_each_package_of_the_library_stands_there() -> None:
    home = ROOT / "snappea"
    packages = {path.parent.relative_to(home).as_posix() for path in home.rglob("*.py")} - {"."}
    told = set(re.findall(r"^\| `(\S+)/` \|", section("Layers and packages"), re.MULTILINE))
    assert told == {name for name in packages if name not in ("docs", "migrations", "templatetags")}


def test_each_state_is_in_the_picture_which_is_for_light_and_for_dark() -> None:
    picture = (PAGES / "images" / "way-of-a-task.svg").read_text()
    texts = {element.text for element in ElementTree.fromstring(picture).iter() if element.text}
    assert {status.value for status in Status} <= texts
    assert "prefers-color-scheme: dark" in picture


def anchor(heading: str) -> str:
    """Return what GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_link_leads_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", without_blocks(file)):
        path, _, fragment = target.partition("#")
        if not path.startswith("https://"):
            there = file.parent / path if path else file
            assert there.exists(), target
            assert not fragment or there.suffix == ".png" or fragment in anchors(there), target


def anchors(file: Path) -> list[str]:
    found = [anchor(heading) for heading in re.findall(r"^#+ (.*)$", without_blocks(file), re.MULTILINE)]
    assert len(set(found)) == len(found)
    return found


def test_what_a_package_index_shows_stands_on_its_own() -> None:
    description = (ROOT / ".readme" / "description.md").read_text()
    targets = re.findall(r"""\]\(([^)]+)\)|(?:src|href)=["']?([^"'>\s]+)""", description)
    assert all(target.startswith(("https://", "#")) for pair in targets for target in pair if target)
    blocks = re.findall(r"```.*?```", description, re.DOTALL)
    assert len(blocks) == 4 and all(block in README for block in blocks)


def test_the_top_level_holds_what_was_agreed_and_nothing_else() -> None:
    agreed = {"snappea", "tests", "example_project", "manage.py", "pyproject.toml", "README.md", "LICENSE"}
    generated = {"django_snappea.egg-info", "snappea.egg-info", "build", "dist"}
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - generated == agreed


def test_each_page_is_in_the_navigation_of_the_site_and_each_entry_exists() -> None:
    navigation = (PAGES.parent / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    entries = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", navigation, re.MULTILINE)
    assert len(set(entries)) == len(entries)
    assert set(entries) == {page.relative_to(PAGES).as_posix() for page in PAGES.rglob("*.md")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_lists_and_tables_begin_after_an_empty_line(file: Path) -> None:
    """Or the site, unlike GitHub, shows them as text."""
    lines = without_blocks(file).splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"(- |\* |\d+\. |\|)", line) and not re.match(r"(- |\* |\d+\. |\|| {2,}|$)", before):
            pytest.fail(f"{before}\n{line}")
