"""Why a task waits, and until when."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone, translation

from snappea import limits
from snappea.inspect import Cause, Reason, why
from snappea.models import Limit, Opening, Pause, Stat, Task
from snappea.monitoring import why as module
from snappea.postgres.foremen import use_indexes
from snappea.queue import operations
from snappea.queue.database import adapter, connect, file_of, raw
from snappea.queue.lock import Lock
from tests.admin.test_lists import note_running, put
from tests.playground.gated import two_late
from tests.queue.test_dialects import FILL, plan
from tests.site import Site, wait_until

both = pytest.mark.on_both
NEXT = "It is the next one, and waits for a free worker that serves its queue."


@contextmanager
def attended(queues: tuple[str, ...] = (), strict: bool = False) -> Iterator[None]:
    """Be a Foreman that runs, but claims nothing."""
    if file := file_of(connect()):
        lock = Lock(file)
        lock.tell(workers=4, stuck=[], queues=queues, strict=strict)
        yield
        lock.close()
    else:
        foremen, db = adapter(connect(), "foremen"), raw(connect())
        number = foremen.register(db, 4)
        foremen.renew(db, number, 4, "[]", json.dumps(queues))
        foremen.be_known(db, number)
        yield
        foremen.leave(db, number)


def reason(row: Task) -> Reason:
    """Return why a task waits."""
    found = why(row.pk)
    assert found
    return found


def waits(row: Task) -> str:
    """Return it as a text."""
    return reason(row).text


@both
def test_a_task_waits_for_its_foreman_its_time_and_its_queue(site: Site, settings: Any) -> None:
    row = put("ready")
    assert reason(row) == Reason(Cause.NO_FOREMAN, "No Foreman runs.")
    assert why(put("failed")) is None and why(10**9) is None
    with attended():
        assert reason(row) == Reason(Cause.NEXT, NEXT, before=0)
        due = timezone.now() + timedelta(hours=2)
        later = put("scheduled", run_after=due)
        assert waits(later).startswith("It waits until ") and reason(later).until == due
        Pause.objects.create(queue="default", since=timezone.now())
        found = reason(row)
        assert found.cause == "paused" and found.text.startswith("Its queue has been paused since ")
        assert found.since == Pause.objects.get().since
        settings.SNAPPEA = {**settings.SNAPPEA, "ENGINE": "celery"}
        assert reason(row).cause is Cause.CELERY


@both
def test_a_task_waits_for_those_before_it(site: Site) -> None:
    with attended():
        row = put("ready", queue="b")
        put("ready", queue="a", priority=1)
        assert waits(row) == "1 task of higher priority or an older one is before it."
        put("ready", priority=2), put("ready", priority=-1)
        assert waits(row) == "2 tasks of higher priority or older ones are before it."
        assert reason(row).before == 2 and reason(row).estimate is None
        for minutes in (0, 1):
            minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=minutes)
            Stat.objects.create(minute=minute, done=20, failed=4)
        assert reason(row).estimate == pytest.approx(5.0)
        assert waits(row).endswith("are before it. At the present rate, that takes about 5.0 s.")


@both
@pytest.mark.parametrize("strict", [True, False])
def test_the_queues_that_a_foreman_serves(site: Site, strict: bool) -> None:
    first, second, other = (put("ready", queue=queue) for queue in ("a", "b", "c"))
    with attended(("b", "a"), strict):
        assert reason(other).cause is Cause.NOT_SERVED
        assert waits(other) == "No Foreman serves its queue: see the option --queues."
        in_order = strict and file_of(connect()) is not None
        assert (reason(first).before, reason(second).before) == ((1, 0) if in_order else (0, 1))


@both
def test_a_real_foreman_tells_its_queues(site: Site) -> None:
    row = put("ready")
    site.foreman("--queues", "mail", "--strict")
    wait_until(lambda: reason(row).cause is Cause.NOT_SERVED)


@both
def test_a_task_waits_for_its_group(site: Site) -> None:
    full = {"lane": "a.group", "lane_limit": 2}
    columns = {"claims": 1, **full, **({} if file_of(connect()) else {"foreman_id": 1})}
    running = [Task.objects.create(task_name="some.task", status="running", **columns) for _ in range(2)]
    Task.objects.update(gate=0)
    with attended():
        row = put("ready", **full)
        assert waits(row) == "Its concurrency group is full: it may run 2 at a time."
        assert sorted(reason(row).ids) == [one.pk for one in running]
        Task.objects.filter(pk=row.pk).update(gate=2)
        last = put("ready", **full)
        Task.objects.filter(pk=last.pk).update(gate=2)
        assert waits(last).endswith("at a time. 1 task of its group is before it.")
        Limit.objects.create(lane="a.group", max_concurrency=3)
        assert reason(row).cause is Cause.NEW and reason(last).cause is Cause.GROUP_FULL
        hasty = put("ready", **full, lane_discards=True, queue="other")
        operations.set_limits("some.task", "a.group", 0, None, None)
        assert waits(hasty).endswith("It is about to be discarded, as its option on_limit says.")


@both
def test_a_task_waits_for_its_rate(site: Site) -> None:
    opening = timezone.now() + timedelta(hours=1)
    for lane in ("rated", "some.task:eu"):
        Opening.objects.create(lane=lane, opens_at=opening)
    rated = {"lane": "rated", "lane_interval": 7200}
    with attended():
        row = put("ready", **rated)
        assert waits(row).startswith("Its rate limit allows one start every 2 h. It may start at ")
        until = reason(row).until
        assert until and abs(until - opening) < timedelta(seconds=0.001)
        Task.objects.filter(pk=row.pk).update(gate=2)
        last = put("ready", **rated)
        Task.objects.filter(pk=last.pk).update(gate=2)
        then = reason(last).until
        assert reason(last).before == 1 and then == until + timedelta(hours=2)
        burst = put("ready", lane="some.task:eu", lane_interval=3600, lane_burst=1)
        assert "every 1 h, and 1 at once after a pause. It may start at " in waits(burst)
        assert waits(burst).endswith("at the earliest. The limit is that of the key eu.")
        Task.objects.filter(pk=burst.pk).update(is_sensitive=True)
        assert waits(burst).endswith("at the earliest.")


def test_a_task_waits_for_its_limited_queue(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {**settings.SNAPPEA, "QUEUES": {"default": {"max_concurrency": 2}}}
    running = put("running", claims=1)
    with attended():
        rows = put("ready"), put("ready")
        assert [reason(row).cause for row in rows] == ["next", "queue_full"]
        assert waits(rows[1]) == "Its queue may run 2 at a time." and reason(rows[1]).ids == [running.pk]
        note_running(running, put("running", claims=1))
        assert reason(rows[0]).cause is Cause.QUEUE_FULL


@pytest.mark.on_postgres
def test_a_broadcast_waits_for_its_foreman(site: Site) -> None:
    with attended():
        row = put("ready", foreman_id=7)
        Task.objects.filter(pk=row.pk).update(gate=3)
        assert waits(row) == "Only the Foreman with the number 7 may run it."


def test_the_text_is_in_the_current_language(site: Site) -> None:
    row = put("ready")
    with translation.override("de"):
        assert waits(row) == "Es läuft kein Foreman."


@both
def test_the_command_tells_it(site: Site) -> None:
    two_late.delay_many((f"{number}", "wait") for number in range(3))
    site.foreman(NUM_WORKERS=4)
    limits.set(two_late, max_concurrency=2)
    last = Task.objects.latest("pk")

    def told(*options: str) -> str:
        process = site.manage("snappea", "show", str(last.pk), *options)
        assert process.wait() == 0
        return process.output()

    wait_until(lambda: site.counts() == {"running": 2, "ready": 1})
    first, second = Task.objects.filter(status="running").order_by("pk").values_list("pk", flat=True)
    assert "Why it waits: Its concurrency group is full: it may run 2 at a time. It waits for: #" in told()
    found = json.loads(told("--json"))["why"]
    assert sorted(found.pop("ids")) == [first, second]
    said = "Its concurrency group is full: it may run 2 at a time."
    nothing = dict.fromkeys(("until", "since", "estimate"))
    assert found == {"cause": "group_full", "text": said, "before": 0, **nothing}


@both
def test_each_statement_uses_its_index(site: Site) -> None:
    """So an answer takes milliseconds, even if a million tasks wait."""
    with connections["snappea"].cursor() as cursor:
        cursor.execute(FILL)
        cursor.execute("ANALYZE snappea_task")
    if connect().vendor == "postgresql":
        use_indexes(raw(connect()))
    of = False, "default", 0
    statements: dict[str, tuple[tuple[object, ...], str]] = {
        "_IN_GROUP": (("lane10", 2, None, None, 10), "lane"),
        "_BEFORE": ((*of, 10, *of, 500, 10), "ready"),
        "_TO_YIELD": (("lane10", 5, None, None), "lane"),
        "_WITH_PLACE": (("lane10", 10), "lane"),
    }
    for name, (parameters, index) in statements.items():
        steps = plan(getattr(module, name), parameters)
        assert f"snappea_{index}" in steps, f"{name}: {steps}"
        assert not re.search(r"Seq Scan on snappea_task|SCAN snappea_task(?! USING)", steps), steps
