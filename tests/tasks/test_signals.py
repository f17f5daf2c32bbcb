"""Signals, hooks, and aliases."""

import asyncio
import importlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.dispatch import Signal

import tests.playground.lifecycle
from snappea import Retry, current_task, signals, task
from snappea.errors import ConfigurationError, TaskDefinitionError
from snappea.models import Task
from snappea.queue import operations
from snappea.queue.records import Claim
from snappea.signals import task_enqueued
from snappea.tasks.discovery import resolve
from snappea.tasks.function import registry
from snappea.workers import execute
from snappea.workers.event_loop import Slot, execute_on_loop
from snappea.workers.limits import TaskHandle
from tests.playground.lifecycle import (
    add,
    exit_in_context,
    fail_until,
    give,
    loop,
    renamed,
    renamed_twice,
    unique_waiting,
)
from tests.playground.tasks import echo, fail, nap, nap_late, nothing, record, record_async
from tests.site import Made, Process, Site, wait_until

SIX = {name for name, value in vars(signals).items() if isinstance(value, Signal)}

#: Notes each signal of a Foreman: its name, the task, the id, the thread, and what else it is told.
NOTING = """
import threading
from django.core.management import call_command
from snappea import signals
from tests.playground.ledger import note

def listen(name, signal):
    def receiver(sender, id, signal, **facts):
        task = sender.name.rpartition(".")[2] if sender else None
        words = [f"{key}={value!r}".replace(" ", "_") for key, value in sorted(facts.items())]
        note(name, task, id, threading.current_thread().name, *words)
    signal.connect(receiver, weak=False)

for name in ("enqueued", "started", "succeeded", "failed", "retried", "interrupted"):
    listen(name, getattr(signals, f"task_{name}"))
"""


def foreman_that(site: Site, code: str) -> Process:
    """Start a Foreman that runs some code first."""
    foreman = site.program(f"{NOTING}\n{code}\ncall_command('runsnappea')")
    foreman.wait_for_output("tasks ready")
    return foreman


def noted(site: Site, task_id: int) -> list[list[str]]:
    """Return what the receivers recorded: the signal, the task, and the arguments."""
    names = {name.removeprefix("task_") for name in SIX}
    lines = (line for line in site.ledger.lines() if line[0] in names and line[2] == str(task_id))
    return [[line[0], line[1], *line[4:]] for line in lines]


def test_there_are_six() -> None:
    assert {name.removeprefix("task_") for name in SIX} == {
        *("enqueued", "started", "succeeded", "failed", "retried", "interrupted")
    }


# without a Foreman


def test_an_eager_task_tells_what_a_real_run_tells(site: Site, settings: Any, made: Made) -> None:
    told: list[tuple[str, dict[str, Any]]] = []

    def listen(name: str) -> Callable[..., None]:
        def receive(sender: object, signal: object, id: int, **facts: Any) -> None:
            assert sender is attempt and id == 0 and current_task.id == 0 if name != "enqueued" else True
            told.append((name, facts))

        return receive

    @made
    def attempt(failure: str) -> str:
        if failure:
            raise {"failed": KeyError("x"), "retried": Retry(countdown=7, exc=OSError("y"))}[failure]
        return "done"

    receivers = {name: listen(name) for name in ("enqueued", "started", "succeeded", "failed", "retried")}
    for name, receive in receivers.items():
        getattr(signals, f"task_{name}").connect(receive)
    settings.SNAPPEA = site.settings | {"TASK_ALWAYS_EAGER": True}
    try:
        attempt.delay("")
        attempt.delay_many([("",)])
        with pytest.raises(KeyError):
            attempt.delay("failed")
        with pytest.raises(Retry):
            attempt.apply_async(("retried",))
    finally:
        for name, receive in receivers.items():
            getattr(signals, f"task_{name}").disconnect(receive)
    begun = ["enqueued", "started"]
    names = [*begun, "succeeded", *begun, "succeeded", *begun, "failed", *begun, "retried"]
    assert [name for name, _facts in told] == names
    assert told[1][1] == {"attempt": 1} and told[2][1] == {"result": "done"}
    assert isinstance(told[8][1]["exception"], KeyError)
    assert isinstance(told[11][1]["exception"], OSError) and told[11][1]["delay"] == 7


# task_enqueued


@pytest.fixture
def enqueued() -> Iterator[list[tuple[object, int]]]:
    """Return what a receiver of task_enqueued got: the sender and the id."""
    told: list[tuple[object, int]] = []

    def receive(sender: object, id: int, **facts: Any) -> None:
        told.append((sender, id))

    task_enqueued.connect(receive)
    yield told
    task_enqueued.disconnect(receive)


def test_enqueued(site: Site, enqueued: list[tuple[object, int]]) -> None:
    record.delay("x")
    record.delay_many([("y",), ("z",)])
    add.apply_async((1, 2), countdown=3600)
    record.s("s").delay()
    assert enqueued == [(record, 1), (record, 2), (record, 3), (add, 4), (record, 5)]
    assert list(Task.objects.order_by("id").values_list("id", flat=True)) == [1, 2, 3, 4, 5]


def test_enqueued_on_commit(site: Site, enqueued: list[tuple[object, int]]) -> None:
    with transaction.atomic():
        record.delay_on_commit("x")
        assert enqueued == []
    assert enqueued == [(record, 1)]


def test_what_was_enqueued_before_is_not_told_again(site: Site, enqueued: list[tuple[object, int]]) -> None:
    assert unique_waiting.delay("x") == unique_waiting.delay("x")
    unique_waiting.delay_many([("x",), ("y",), ("y",)])
    assert [sender for sender, _id in enqueued] == [unique_waiting] * 2
    assert {task_id for _sender, task_id in enqueued} == set(Task.objects.values_list("id", flat=True))


def test_what_was_refused_is_not_told(site: Site, enqueued: list[tuple[object, int]]) -> None:
    with pytest.raises(TypeError):
        echo.delay({1, 2})
    site.sql("DROP TABLE snappea_task")
    with pytest.raises(Exception, match="it has no table snappea_task"):
        record.delay("x")
    assert enqueued == []


def test_one_may_listen_to_one_task_only(site: Site) -> None:
    told = []

    def receive(id: int, **facts: Any) -> None:
        told.append(id)

    task_enqueued.connect(receive, sender=record)
    try:
        nothing.delay()
        record.delay("x")
    finally:
        task_enqueued.disconnect(receive, sender=record)
    assert told == [2]


def test_a_receiver_that_raises_does_not_lose_the_call(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def receive(**facts: Any) -> None:
        raise ValueError("in a receiver")

    task_enqueued.connect(receive)
    try:
        assert record.delay("x").id == 1
    finally:
        task_enqueued.disconnect(receive)
    assert "in a receiver" in caplog.text and caplog.records[0].levelno == logging.ERROR
    assert Task.objects.count() == 1


# in the Foreman


def test_around_a_task(site: Site) -> None:
    foreman_that(site, "")
    add.delay(2, 3)
    record_async.delay("x")
    wait_until(lambda: len(noted(site, 1)) == len(noted(site, 2)) == 2)
    assert noted(site, 1) == [["started", "add", "attempt=1"], ["succeeded", "add", "result=5.0"]] or noted(
        site, 1
    ) == [["started", "add", "attempt=1"], ["succeeded", "add", "result=5"]]
    assert noted(site, 2) == [
        ["started", "record_async", "attempt=1"],
        ["succeeded", "record_async", "result=None"],
    ]
    told = [line for line in site.ledger.lines() if line[0] in ("started", "succeeded")]
    assert {(name, thread) for _signal, name, _id, thread, *_ in told} == {
        ("add", "snappea-worker"),
        ("record_async", "snappea-loop"),
    }
    words = [
        line[0] for line in site.ledger.lines() if line[0] in ("start", "end") or line[1] == "record_async"
    ]
    assert words == ["started", "start", "end", "succeeded"], "around the task, not within it"


def test_around_a_task_that_fails(site: Site) -> None:
    foreman_that(site, "")
    fail_until.delay("x", 9)
    fail.delay("y")
    give.delay("set")
    wait_until(lambda: site.counts() == {"failed": 3})
    error = "exception=ValueError('not_yet:_{}')"
    assert noted(site, 1) == [
        ["started", "fail_until", "attempt=1"],
        ["retried", "fail_until", "delay=0.05", error.format(1)],
        ["started", "fail_until", "attempt=2"],
        ["retried", "fail_until", "delay=0.05", error.format(2)],
        ["started", "fail_until", "attempt=3"],
        ["failed", "fail_until", error.format(3)],
    ]
    assert noted(site, 2) == [
        ["started", "fail", "attempt=1"],
        ["failed", "fail", "exception=ValueError('no_luck_with_y')"],
    ]
    assert [line[0] for line in noted(site, 3)] == ["started", "failed"], "what it returned is not JSON"


def test_a_retry_tells_of_its_cause(site: Site) -> None:
    from tests.playground.lifecycle import ask_again

    foreman_that(site, "")
    ask_again.delay("exc")
    wait_until(lambda: site.counts() == {"failed": 1})
    exceptions = [line[-1] for line in noted(site, 1) if line[0] in ("retried", "failed")]
    assert exceptions == ["exception=LookupError('the_cause')"] * 3


def test_what_a_task_enqueues_is_told_there(site: Site) -> None:
    from tests.playground.tasks import enqueue_more

    foreman_that(site, "")
    enqueue_more.delay("x", 2)
    for child in (2, 3):  # told after it was written, and so perhaps after it has run
        wait_until(lambda child=child: ["enqueued", "record"] in noted(site, child))  # type: ignore[misc]


def test_what_was_cut_off(site: Site) -> None:
    """After a kill the next Foreman sends the signal; when it stops, the Foreman itself does."""
    foreman = foreman_that(site, "")
    nap.delay("once", 60)
    nap_late.delay("again", 60)
    Task.objects.create(task_name="no.such.task", status="running", claims=1)
    wait_until(lambda: len(site.ledger.keys("start")) == 2)
    foreman.kill()
    site.settings["GRACEFUL_TIMEOUT"] = 0
    foreman = foreman_that(site, "")
    wait_until(lambda: len(noted(site, 2)) == 3)
    assert noted(site, 1) == [["started", "nap", "attempt=1"], ["interrupted", "nap", "status='interrupted'"]]
    assert noted(site, 2)[1:] == [
        ["interrupted", "nap_late", "status='ready'"],
        ["started", "nap_late", "attempt=2"],
    ]
    assert noted(site, 3) == [["interrupted", "None", "status='interrupted'"]], "it may have begun"
    wait_until(lambda: site.ledger.count("start", "again") == 2)
    assert foreman.stop() == 0
    assert noted(site, 2)[3:] == [["interrupted", "nap_late", "status='ready'"]]
    foreman.wait_for_output("Interrupted .*nap_late #2")


def test_a_name_that_no_task_has_any_more(site: Site) -> None:
    """Without the logbook, every claimed task may have begun."""
    Task.objects.create(task_name="no.such.task", status="running", claims=1)
    foreman_that(site, "")
    wait_until(lambda: noted(site, 1))
    assert noted(site, 1) == [["interrupted", "None", "status='interrupted'"]]


def test_a_terminated_task_has_not_failed(site: Site) -> None:
    foreman_that(site, "")
    result = loop.delay("x")
    wait_until(lambda: site.ledger.count("start", "x"))
    result.revoke(terminate=True)
    wait_until(lambda: result.status == "cancelled")
    assert len(noted(site, 1)) == 1, "it was started, and that is all"


@pytest.mark.parametrize("error", ["ValueError('in a receiver')", "SystemExit(3)"])
@pytest.mark.parametrize("name", ["started", "succeeded", "failed", "retried"])
def test_receivers_that_raise_harm_nothing(site: Site, name: str, error: str) -> None:
    """Not even with a BaseException: at worst the task fails."""
    foreman = foreman_that(
        site,
        f"def harm(**facts):\n    raise {error}\n"
        f"signals.task_{name}.connect(harm)\n"
        "import logging\ndispatch = logging.getLogger('django.dispatch')\n"
        "dispatch.addHandler(logging.StreamHandler())\ndispatch.propagate = False",
    )
    record.delay("x")
    fail_until.delay("y", 9)
    fail.delay("z")
    is_exit = error.startswith("SystemExit") and name in ("started", "succeeded")
    wait_until(lambda: site.counts() == {"failed": 3 if is_exit else 2})
    assert foreman.popen.poll() is None
    foreman.wait_for_output(error.partition("(")[0])
    if not is_exit:
        assert site.ledger.count("end", "x") == 1
        assert [line[-1] for line in site.ledger.lines() if line[:2] == ["start", "y"]] == ["1", "2", "3"]
    assert foreman.stop() == 0


def test_a_receiver_that_raises_when_a_task_was_cut_off(site: Site) -> None:
    Task.objects.create(task_name=nap.name, status="running", claims=1)
    foreman = foreman_that(
        site,
        "def harm(**facts):\n    raise ValueError('in a receiver')\nsignals.task_interrupted.connect(harm)",
    )
    record.delay("x")
    wait_until(lambda: site.ledger.count("end", "x"))
    assert site.counts().get("interrupted") == 1 and foreman.stop() == 0


# hooks


def test_hooks(site: Site, settings: Any) -> None:
    hooks: dict[str, Any] = {
        "HOOK_ADD_TASK_KWARGS": "tests.playground.lifecycle.add_kwargs",
        "HOOK_RUN_TASK_CONTEXT": "tests.playground.lifecycle.run_context",
    }
    settings.SNAPPEA = site.settings | hooks
    record.delay("x")
    echo.delay(1, two=2)
    record.delay_many([("many",)])
    record_async.apply_async(kwargs={"key": "async"}, countdown=3600)
    assert [
        json.loads(kwargs) for kwargs in Task.objects.order_by("id").values_list("kwargs", flat=True)
    ] == [
        {"_caller": "alice"},
        {"two": 2, "_caller": "alice"},
        {"_caller": "alice"},
        {"key": "async", "_caller": "alice"},
    ]
    site.sql("UPDATE snappea_task SET kwargs = '{}' WHERE id = 3")  # from before there was a hook
    site.foreman(NUM_WORKERS=1, **hooks)
    wait_until(lambda: site.counts() == {"scheduled": 1})
    operations.requeue(Task.objects.all())  # after the others
    wait_until(lambda: site.counts() == {})
    assert site.ledger.lines() == [
        *(["enter", "alice"], ["start", "x"], ["end", "x"], ["leave", "alice"]),
        *(["enter", "alice"], ["echo", "((1,),{'two':2})"], ["leave", "alice"]),
        *(["enter", "nobody"], ["start", "many"], ["end", "many"], ["leave", "nobody"]),
        *(["enter", "alice"], ["start", "async"], ["end", "async"], ["leave", "alice"]),
    ]


IN_THREAD = "tests.playground.lifecycle.InThread"


@pytest.mark.parametrize("name", ["see_tenant", "see_tenant_on_loop", "see_tenant_apart"])
def test_a_hook_is_entered_in_the_thread_of_the_connections(site: Site, settings: Any, name: str) -> None:
    hooks: dict[str, Any] = {
        "HOOK_ADD_TASK_KWARGS": "tests.playground.lifecycle.add_kwargs",
        "HOOK_RUN_TASK_CONTEXT": IN_THREAD,
    }
    settings.SNAPPEA = site.settings | hooks
    call = getattr(tests.playground.lifecycle, name).delay()
    site.foreman(**hooks)
    site.wait_until_empty()
    assert site.ledger.lines() == [
        ["enter", "alice", name, str(call.id), "thread"],
        ["tenant", "alice"],
        ["leave", "alice"],
    ]


def test_a_hook_with_a_task_of_django(site: Site, settings: Any) -> None:
    from tests.playground.djangotasks import add as django_add

    hooks: dict[str, Any] = {
        "HOOK_ADD_TASK_KWARGS": "tests.playground.lifecycle.add_kwargs",
        "HOOK_RUN_TASK_CONTEXT": IN_THREAD,
    }
    settings.SNAPPEA = site.settings | hooks
    django_add.enqueue(1, b=2)
    site.foreman(**hooks)
    wait_until(lambda: site.counts() == {"successful": 1})
    lines = [line[:3] for line in site.ledger.lines() if line[0] in ("enter", "leave")]
    assert lines == [["enter", "alice", "add"], ["leave", "alice"]]


class Raising:
    """A hook that raises before or after the task, or suppresses what the task raises."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __enter__(self) -> None:
        if self.how == "before":
            raise KeyError(self.how)

    def __exit__(self, *failure: object) -> bool:
        if self.how == "after":
            raise KeyError(self.how)
        return self.how == "suppress"


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    ("how", "ran", "reason"),
    [("before", 0, "KeyError: 'before'"), ("after", 1, "KeyError: 'after'"), ("suppress", 1, "")],
)
def test_a_hook_that_raises(
    site: Site, settings: Any, made: Made, kind: str, how: str, ran: int, reason: str
) -> None:
    calls: list[str] = []

    def work() -> None:
        calls.append(how)
        raise ValueError

    async def work_on_loop() -> None:
        work()

    settings.SNAPPEA = site.settings | {"HOOK_RUN_TASK_CONTEXT": lambda kwargs: Raising(how)}
    claim = Claim(0, 1, 1, made(work if kind == "def" else work_on_loop).name, "[]", "{}")
    if kind == "def":
        outcome = execute.execute(claim, TaskHandle())
    else:
        outcome = asyncio.run(execute_on_loop(Slot(claim)))
    assert (len(calls), outcome.reason) == (ran, reason)


def test_the_context_is_left_when_the_task_raises(site: Site) -> None:
    site.foreman(HOOK_RUN_TASK_CONTEXT="tests.playground.lifecycle.run_context")
    exit_in_context.delay("x")
    wait_until(lambda: site.counts() == {"failed": 1})
    assert site.ledger.lines() == [["enter", "nobody"], ["start", "x"], ["leave", "nobody"]]


def test_hooks_of_an_eager_task(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {
        "TASK_ALWAYS_EAGER": True,
        "HOOK_ADD_TASK_KWARGS": lambda: {"_caller": "bob"},
        "HOOK_RUN_TASK_CONTEXT": tests.playground.lifecycle.run_context,
    }
    record.delay("x")
    assert [line[1] for line in site.ledger.lines()] == ["bob", "x", "x", "bob"]


def test_a_unique_call_stays_so_whatever_a_hook_adds(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"HOOK_ADD_TASK_KWARGS": lambda: {"_at": time.monotonic()}}
    assert unique_waiting.delay("x") == unique_waiting.delay("x") != unique_waiting.delay("y")


def test_what_a_hook_adds_must_be_json_as_well(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"HOOK_ADD_TASK_KWARGS": lambda: {"_user": object()}}
    with pytest.raises(TypeError, match=r"record\(\): argument\['_user'\] is a object, which is not JSON"):
        record.delay("x")
    assert Task.objects.count() == 0


@pytest.mark.parametrize("path", ["no.such.hook", "nonsense", "tests.playground.lifecycle.nonsense"])
def test_a_hook_that_is_not_there(site: Site, settings: Any, path: str) -> None:
    settings.SNAPPEA = {"HOOK_ADD_TASK_KWARGS": path}
    with pytest.raises(ConfigurationError, match=rf"SNAPPEA\['HOOK_ADD_TASK_KWARGS'\] is '{path}': "):
        record.delay("x")
    assert Task.objects.count() == 0
    settings.SNAPPEA = {"TASK_ALWAYS_EAGER": True, "HOOK_RUN_TASK_CONTEXT": path}
    with pytest.raises(ConfigurationError, match=rf"SNAPPEA\['HOOK_RUN_TASK_CONTEXT'\] is '{path}': "):
        record.delay("x")
    assert site.ledger.lines() == []


def test_the_foreman_refuses_to_start_with_a_hook_that_is_not_there(site: Site) -> None:
    foreman = site.manage("runsnappea", HOOK_RUN_TASK_CONTEXT="no.such.hook")
    assert foreman.wait() == 1
    assert "The Foreman cannot start. SNAPPEA['HOOK_RUN_TASK_CONTEXT'] is 'no.such.hook'" in foreman.output()


def test_a_hook_that_is_none_at_all(settings: Any) -> None:
    settings.SNAPPEA = {"HOOK_ADD_TASK_KWARGS": 3}
    with pytest.raises(ConfigurationError, match="It must be a function, or its path"):
        record.delay("x")


# names from before


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("tests.playground.lifecycle.old_name", renamed),
        ("older", renamed_twice),
    ],
)
def test_rows_under_an_old_name_run(site: Site, name: str, new: Any) -> None:
    assert resolve(name) is new
    foreman = foreman_that(site, "import tests.playground.lifecycle")
    Task.objects.create(task_name=name, args=["x"])
    wait_until(lambda: site.ledger.count("end", "x"))
    foreman.wait_for_output(rf"Finished {name} #1")
    new.delay("y")
    assert Task.objects.filter(task_name=name).count() == 0
    wait_until(lambda: site.ledger.count("end", "y"))
    assert noted(site, 1)[0][:2] == ["started", new.name.rpartition(".")[2]], "the sender is the task"


def test_an_old_name_in_a_module_that_was_not_imported_yet(site: Site) -> None:
    site.foreman()
    Task.objects.create(task_name="tests.playground.lifecycle.old_name", args=["x"])
    wait_until(lambda: site.ledger.count("end", "x"))


def _make(**options: Any) -> Callable[[], Any]:
    def made() -> None: ...

    return lambda: task(**options)(made)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "tests.new", "aliases": [record.name]},
        {"name": "tests.new", "aliases": ["tests.playground.lifecycle.old_name"]},
        {"name": "tests.playground.lifecycle.old_name"},
    ],
)
def test_an_old_name_that_is_another_tasks(options: dict[str, Any]) -> None:
    before = dict(registry)
    with pytest.raises(TaskDefinitionError, match=r"Two tasks are named .*: at .*:\d+ and at .*:\d+"):
        _make(**options)()
    assert registry == before, "nothing is left of it"


@pytest.mark.parametrize("aliases", ["old", [3], "tests.old"])
def test_old_names_are_a_list_of_names(aliases: Any) -> None:
    before = dict(registry)
    with pytest.raises(TaskDefinitionError, match="must be a list of names"):
        _make(name="tests.new", aliases=aliases)()
    assert registry == before


def test_a_module_with_old_names_may_be_reloaded() -> None:
    before = dict(registry)
    try:
        importlib.reload(tests.playground.lifecycle)
        assert registry["older"] is registry[renamed_twice.name]
    finally:
        registry.update(before)
