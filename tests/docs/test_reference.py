"""The manual: what exists is in it, and what is in it exists."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from django.core.management import load_command_class
from django.dispatch import Signal

import snappea
from snappea import checks, errors, pytest_plugin, results, schedules, signals, testing
from snappea.celery import checks as celery_checks
from snappea.conf import Settings
from snappea.django_tasks import backend
from snappea.models import Status
from snappea.queue import operations
from snappea.tasks.context import CurrentTask
from snappea.tasks.options import Options
from tests.docs.manual import FILES, section
from tests.docs.manual import TEXT as README
from tests.site import ROOT

COMMANDS = ROOT / "snappea" / "management" / "commands"


def first_words_of_tables() -> set[str]:
    """Return what stands in backticks at the start of a table's rows."""
    return {
        word
        for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)
        for word in re.findall(r"`(.*?)`", row)
    }


def test_the_first_screen_holds_exactly_the_two_set_up_commands() -> None:
    first_screen = README[: README.index("\n## ")]
    assert first_screen.count("\n") < 30
    blocks = re.findall(r"```\n(.*?)\n```", first_screen, re.DOTALL)
    assert blocks == [
        "python3 -m venv .venv && .venv/bin/pip install -e '.[example]' && .venv/bin/python manage.py demo",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
    ]


def test_each_setting_stands_there_with_its_default() -> None:
    found = re.findall(r"^\| `([A-Z_]+)` \| `(.*?)` \| (.*) \|$", README, re.MULTILINE)
    assert {name for name, _default, _text in found} == set(Settings.__dataclass_fields__)
    for name, default, text in found:
        assert eval(default) == getattr(Settings(), name), name
        expected = Settings.__dataclass_fields__[name].metadata["expected"](object())
        unit = re.search(r"number of (bytes|minutes) from", expected)
        assert not unit or unit[1] in text, name
    assert "seconds" in section("Settings")


def test_each_state_stands_there_with_its_label() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| .* \| (\w+) \|$", README, re.MULTILINE)
    assert dict(rows) == {status.value: status.label for status in Status}


def test_each_option_of_task_stands_there_with_its_default() -> None:
    documented = re.search(r"## Task options\n(.*?)\n##", README, re.DOTALL)
    assert documented
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", documented[1], re.MULTILINE))
    defaults = {field.name: field.default for field in dataclasses.fields(Options)}
    assert rows.keys() == defaults.keys() | {"retry_kwargs"}
    for name in rows.keys() - {"name", "retry_kwargs"}:
        assert ast.literal_eval(rows[name]) == defaults[name], name


def test_each_check_stands_there() -> None:
    source = "".join(Path(str(each.__file__)).read_text() for each in (checks, celery_checks, backend))
    assert set(re.findall(r'id="(snappea\.\w+)"', source)) == set(
        re.findall(r"^\| `(snappea\.[EWI]\d+)`", README, re.M)
    )


def test_each_error_stands_there() -> None:
    ours = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }
    assert ours - {"SnappeaError"} <= first_words_of_tables()
    for name in ours:
        assert name in (errors.__doc__ or ""), "the tree shows all of them"


def test_each_command_stands_there() -> None:
    commands = {path.stem for path in COMMANDS.glob("*.py")} - {"__init__"}
    assert commands == {"migrate", "runsnappea", "snappea"}
    for command in commands:
        assert f"python manage.py {command}" in README


def test_each_subcommand_and_its_options_stand_there() -> None:
    table = dict(re.findall(r"^\| `([a-z]+)(?: [A-Z]+)?` \| (.*) \|$", README, re.MULTILINE))
    parser = load_command_class("snappea", "snappea").create_parser("manage.py", "snappea")
    subcommands: Any = next(action.choices for action in parser._actions if action.dest == "command")
    for name, subparser in subcommands.items():
        options = {text for action in subparser._actions for text in action.option_strings if text[2:3]}
        likewise = name in ("cancel", "delete")
        told = table[name] + table["requeue"] * likewise
        assert not {text for text in options - {"--help"} if text not in told}, name


def test_each_package_of_the_library_stands_there() -> None:
    home = ROOT / "snappea"
    packages = {path.parent.relative_to(home).as_posix() for path in home.rglob("*.py")} - {"."}
    told = set(re.findall(r"^\| `(\S+)/` \|", section("Layers and packages"), re.MULTILINE))
    assert told == {name for name in packages if name not in ("migrations", "templatetags")}


def public(namespace: Any) -> set[str]:
    """Return the public functions and classes that a module or class defines itself."""
    home = getattr(namespace, "__module__", None) or namespace.__name__
    return {
        name
        for name, value in vars(namespace).items()
        if not name.startswith("_")
        and (isinstance(value, property) or (callable(value) and getattr(value, "__module__", home) == home))
    }


def words(text: str) -> set[str]:
    """Return the words of what stands in backticks."""
    return {word for code in re.findall(r"`(.*?)`", text) for word in re.findall(r"\w+", code)}


def test_each_signal_stands_there_with_what_it_tells() -> None:
    rows = re.findall(r"^\| `(task_\w+)` \| .* \| (.*) \|$", section("Signals and hooks"), re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", facts)) for name, facts in rows}
    assert documented.keys() == {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    told: dict[str, set[str]] = {}
    for path in (ROOT / "snappea").rglob("*.py"):
        for name, facts in re.findall(
            r"\btell\((?:signals\.)?(task_\w+), [^=]*?, (\w+=.*)\)\n", path.read_text()
        ):
            told.setdefault(name, set()).update(re.findall(r"(\w+)=", facts))
    assert told == documented


def test_each_name_that_one_may_use_stands_there() -> None:
    told = README.replace(section("Import paths"), "")  # which names all of them, and explains none
    missing = set(snappea.__all__) - words(told) - {"Signature", "SnappeaError", "TaskFunction"}
    assert not missing
    assert "SnappeaError" in section("Errors")


def test_results_and_the_current_task() -> None:
    assert public(results.AsyncResult) | {"id"} <= words(section("AsyncResult"))
    assert public(CurrentTask) <= words(section("current_task"))


def test_what_tests_may_use() -> None:
    told = section("Tests of your project")
    assert public(testing) - {"Enqueued"} <= words(told)
    assert set(testing.Enqueued._fields) <= words(told)
    assert {name for name in vars(pytest_plugin) if name.startswith("snappea_")} <= words(told)


def test_what_people_decide() -> None:
    table = section("States")
    for name in public(operations) - {"hand_over"}:
        assert f"queue.{name}(" in table, name
    assert {"pause", "resume", "fire"} <= public(schedules) & words(
        section("Again and again: periodic tasks")
    )


def test_each_option_of_the_foreman_stands_there() -> None:
    parser = load_command_class("snappea", "runsnappea").create_parser("manage.py", "runsnappea")
    djangos = {"--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback"}
    djangos |= {"--no-color", "--force-color", "--skip-checks"}
    options = {text for action in parser._actions for text in action.option_strings if text.startswith("--")}
    for option in options - djangos:
        assert f"`{option}" in section("The Foreman") or f" {option}" in section("The Foreman"), option


def test_each_metric_stands_there() -> None:
    source = (ROOT / "snappea" / "metrics.py").read_text()
    names = set(re.findall(r'_family\("(\w+)"', source)) | {"run_seconds", "wait_seconds"}
    assert len(names) > 8 and names <= words(section("Health and metrics"))


def test_each_state_is_in_the_picture_which_is_for_light_and_for_dark() -> None:
    picture = (ROOT / ".readme" / "way-of-a-task.svg").read_text()
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
            assert not fragment or fragment in anchors(there), target


def without_blocks(file: Path) -> str:
    return re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)


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


@pytest.mark.parametrize("call", ["delay", "delay_on_commit", "adelay", "delay_many", "apply_async", "s"])
def test_each_call_stands_there(call: str) -> None:
    assert f"send_mail.{call}(" in README


def test_the_top_level_holds_what_was_agreed_and_nothing_else() -> None:
    agreed = {"snappea", "tests", "example_project", "manage.py", "pyproject.toml", "README.md", "LICENSE"}
    generated = {"django_snappea.egg-info", "snappea.egg-info", "build", "dist"}
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - generated == agreed
