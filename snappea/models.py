"""The tables: tasks, schedules, pauses, Foremen, and statistics."""

import json
from typing import Any, cast

from django.apps import apps
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.base import ModelBase
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .errors import ConfigurationError
from .queue.states import MOVES as MOVES
from .queue.states import WAITING as WAITING
from .queue.states import Gate as Gate
from .queue.states import Status as Status

if apps.models_ready and not apps.is_installed("snappea"):
    raise ConfigurationError('snappea is used, but not installed. Add it: INSTALLED_APPS = [..., "snappea"]')


class InOrder(models.Index):
    """An index that orders equal rows by their ids, as SQLite always does."""

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        """Return the statement that creates the index."""
        index = models.Index(*self.expressions, fields=self.fields, name=self.name, condition=self.condition)
        if schema_editor.connection.vendor != "sqlite" and self.expressions:
            index.expressions = (*self.expressions, F(model._meta.pk.name))
        elif schema_editor.connection.vendor != "sqlite":
            index.fields_orders = [*self.fields_orders, (model._meta.pk.name, "")]
        return index.create_sql(model, schema_editor, using, **kwargs)


class JSONText(models.TextField):  # type: ignore[type-arg]  # not subscriptable at run time
    """JSON as text, so that a row with invalid JSON can still be shown."""

    _pyi_private_set_type: Any  # for django-stubs: the types that may be assigned

    def get_prep_value(self, value: Any) -> Any:
        """Encode a value unless it is text, so that `Task.objects.create(task_name=..., args=[42])` works."""
        if isinstance(value, str) or (value is None and self.null):
            return value
        return json.dumps(value, allow_nan=False)

    def deconstruct(self) -> Any:
        """Be a plain TextField in migrations, so that they do not need this class."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs


def read_errors(errors: str) -> list[dict[str, Any]]:
    """Parse the lines of a task's `errors`."""
    found = []
    for line in errors.splitlines():
        try:
            error = json.loads(line)
        except (ValueError, RecursionError):
            continue  # truncated to limit the column, or written by hand
        if isinstance(error, dict):
            found.append(error)
    return found


class Task(models.Model):
    """One call of a task function, from `delay()` to its end.

    `Task.objects.create(task_name="mail.tasks.send_mail", args=[42])` also enqueues a call.
    """

    task_name = models.CharField(max_length=255)
    args = JSONText(default="[]", db_default="[]")
    kwargs = JSONText(default="{}", db_default="{}")
    queue = models.CharField(max_length=100, default="default", db_default="default")
    priority = models.SmallIntegerField(default=0, db_default=0)
    acks_late = models.BooleanField(default=False, db_default=False)
    #: Whether it runs on the event loop instead of in a thread.
    is_async = models.BooleanField(default=False, db_default=False)

    status = models.CharField(
        max_length=11, choices=Status.choices, default=Status.READY, db_default=Status.READY.value
    )
    enqueued_at = models.DateTimeField(default=timezone.now)
    run_after = models.DateTimeField(null=True, blank=True)
    #: When it was last started, and, after a retry, when it was first started.
    started_at = models.DateTimeField(null=True, blank=True)
    first_started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    #: How often it was started since it was last requeued.
    attempts = models.IntegerField(default=0, db_default=0)
    #: How often it was claimed. Never reset, so that a late outcome of an earlier claim is refused.
    claims = models.IntegerField(default=0, db_default=0)
    interruptions = models.IntegerField(default=0, db_default=0)
    #: How many of them do not count, because it has finished a step since.
    interruptions_forgiven = models.IntegerField(default=0, db_default=0)
    #: The results of its finished steps, by name, as a JSON object; its cursor is named "".
    steps = models.TextField(default="", db_default="", blank=True)
    #: Why the last attempt failed or was interrupted, with the traceback if there is one.
    error = models.TextField(default="", db_default="", blank=True)
    #: What a failed task raised and where: "ValueError", "shop/tasks.py:42 in ship".
    exception = models.CharField(max_length=200, default="", db_default="", blank=True)
    place = models.CharField(max_length=300, default="", db_default="", blank=True)
    #: A line for each attempt that failed or was interrupted; `attempt_errors()` reads it.
    errors = models.TextField(default="", db_default="", blank=True)

    #: When a waiting task or a kept result is deleted.
    expires_at = models.DateTimeField(null=True, blank=True)
    #: How long to keep the row after it succeeded, in seconds; None: not at all.
    result_ttl = models.IntegerField(null=True, blank=True)
    result = JSONText(null=True, blank=True)
    #: Whether its result is kept with the row, not only the row.
    keeps_result = models.BooleanField(default=True, db_default=True)
    #: Its tags, each between spaces: " vip import ".
    tags = models.TextField(default="", db_default="", blank=True)
    #: What `fair_by` returned: the tasks of each key take turns. And its place in the line; None: its id.
    fair_key = models.CharField(max_length=200, null=True, blank=True)
    turn = models.BigIntegerField(null=True, blank=True)
    #: The task that enqueued this one.
    parent_id = models.BigIntegerField(null=True, blank=True)
    #: The batch that it is a member of.
    batch_id = models.BigIntegerField(null=True, blank=True)
    #: Whether it was asked to end while it ran.
    is_revoked = models.BooleanField(default=False, db_default=False)
    #: Whether its arguments and its result must not be shown.
    is_sensitive = models.BooleanField(default=False, db_default=False)
    progress_done = models.FloatField(null=True, blank=True)
    progress_total = models.FloatField(null=True, blank=True)
    progress_note = models.TextField(default="", db_default="", blank=True)
    #: What it logged, if it keeps its log: one line of JSON for each record.
    log = models.TextField(default="", db_default="", blank=True)

    #: Equal for identical calls of a unique task.
    unique_key = models.CharField(max_length=64, null=True, blank=True)
    #: Whether it is unique until it has finished, not only while it waits.
    unique_running = models.BooleanField(default=False, db_default=False)
    #: Its concurrency group. Tasks of a group share the limits below.
    lane = models.CharField(max_length=600, null=True, blank=True)
    #: How many of the group may be claimed at a time, the seconds between two starts, and how many may start
    #: at once after a pause; None: one.
    lane_limit = models.IntegerField(null=True, blank=True)
    lane_interval = models.FloatField(null=True, blank=True)
    lane_burst = models.IntegerField(null=True, blank=True)
    #: Whether it is deleted if it may not start at once.
    lane_discards = models.BooleanField(default=False, db_default=False)
    gate = models.SmallIntegerField(choices=Gate.choices, default=Gate.OPEN, db_default=Gate.OPEN.value)

    #: The backend of django.tasks that enqueued it: its alias in TASKS.
    backend = models.CharField(max_length=100, null=True, blank=True)
    #: What `using()` changed of the django.tasks Task, except what has a column.
    overrides = JSONText(null=True, blank=True)
    #: The Foreman that runs it or must run it, if there may be several.
    foreman_id = models.BigIntegerField(null=True, blank=True)

    class Meta:
        verbose_name, verbose_name_plural = _("task"), _("tasks")
        # One partial index for each question of the Foreman. It costs a microsecond per insert of a row that
        # is in it, and almost nothing otherwise, but SQLite builds a table for each insert if the condition
        # lists more than two values.
        indexes = [
            InOrder(
                "is_async",
                "queue",
                F("priority").desc(),
                Coalesce("turn", "id"),
                name="snappea_ready",
                condition=Q(status="ready") & Q(gate=Gate.OPEN.value),
            ),
            models.Index(fields=["run_after"], name="snappea_scheduled", condition=Q(status="scheduled")),
            models.Index(
                fields=["status", "finished_at"],
                name="snappea_kept_since",
                condition=~Q(status__in=WAITING) & ~Q(status="running"),
            ),
            models.Index(
                fields=["exception", "place", "task_name", "finished_at"],
                name="snappea_failures",
                condition=Q(status="failed"),
            ),
            models.Index(fields=["is_revoked"], name="snappea_revoked", condition=Q(is_revoked=True)),
            InOrder(
                Coalesce("fair_key", Value("")),
                name="snappea_new",
                condition=Q(gate=Gate.NEW.value) & Q(status="ready"),
            ),
            InOrder(
                "lane",
                "status",
                "gate",
                F("priority").desc(),
                Coalesce("turn", "id"),
                name="snappea_lane",
                condition=Q(lane__isnull=False),
            ),
            models.Index(
                fields=["fair_key", "is_async", "queue", "priority", "turn"],
                name="snappea_fair",
                condition=Q(turn__isnull=False) & Q(status="ready"),
            ),
            models.Index(
                fields=["expires_at"],
                name="snappea_expires",
                condition=Q(expires_at__isnull=False) & Q(status__in=(*WAITING, "successful")),
            ),
            models.Index(fields=["parent_id"], name="snappea_parent", condition=Q(parent_id__isnull=False)),
            models.Index(
                fields=["batch_id", "status"], name="snappea_members", condition=Q(batch_id__isnull=False)
            ),
            models.Index(
                fields=["foreman_id"], name="snappea_foreman", condition=Q(foreman_id__isnull=False)
            ),
            models.Index(
                fields=["foreman_id"],
                name="snappea_addressed",
                condition=Q(foreman_id__isnull=False) & Q(status="ready"),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["unique_key"],
                name="snappea_unique_waiting",
                condition=Q(unique_key__isnull=False) & Q(status__in=WAITING),
            ),
            models.UniqueConstraint(
                fields=["unique_key"],
                name="snappea_unique_running",
                condition=Q(unique_running=True) & Q(status__in=(*WAITING, "running")),
            ),
        ]

    def __str__(self) -> str:
        from .log import clean  # a process that only enqueues does not need it

        return f"{clean(self.task_name)} #{self.pk}"

    def attempt_errors(self) -> list[dict[str, Any]]:
        """Return `attempt`, `at` and `error` of each attempt that did not succeed.

        The numbers continue after a requeue, which resets `attempts`. For a task of a django.tasks backend,
        `exception` and `traceback` are included.
        """
        errors, before, highest = read_errors(self.errors), 0, 0
        for error in errors:
            if isinstance(number := error.get("attempt"), int):
                if before + number <= highest:  # it was requeued
                    before = highest
                error["attempt"] = highest = before + number
        return errors


class Batch(models.Model):
    """Tasks that belong together, its members, and the calls that follow when they have ended.

    How many members wait, run or have failed follows from their rows.
    """

    description = models.TextField(default="", db_default="", blank=True)
    #: The batch that it is a part of.
    parent_id = models.BigIntegerField(null=True, blank=True)
    #: How many members were enqueued, and how many of them have succeeded.
    total = models.BigIntegerField(default=0, db_default=0)
    succeeded = models.BigIntegerField(default=0, db_default=0)
    #: The calls that follow, as JSON; each is enqueued once, and the task's id is noted.
    on_success = models.TextField(null=True, blank=True)
    on_failure = models.TextField(null=True, blank=True)
    on_complete = models.TextField(null=True, blank=True)
    success_id = models.BigIntegerField(null=True, blank=True)
    failure_id = models.BigIntegerField(null=True, blank=True)
    complete_id = models.BigIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    #: When all members had ended.
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name, verbose_name_plural = _("batch"), _("batches")
        indexes = [
            models.Index(fields=["finished_at"], name="snappea_batch_end"),
            models.Index(
                fields=["parent_id"], name="snappea_batch_parent", condition=Q(parent_id__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return self.description or f"#{self.pk}"


class UniqueUntil(models.Model):
    """Until when no identical call of a task with `unique_for` is enqueued."""

    key = models.CharField(max_length=64, primary_key=True)
    until = models.DateTimeField()
    #: The call that was enqueued.
    task_id = models.BigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["until"], name="snappea_unique_until")]


class Schedule(models.Model):
    """A periodic task, from the options `cron` or `every` or from `SNAPPEA["SCHEDULES"]`.

    The Foreman writes the rows when it starts, and enqueues tasks as they say.
    """

    name = models.CharField(max_length=255, unique=True)
    task_name = models.CharField(max_length=255)
    #: A cron expression, or "every 600 s".
    expression = models.CharField(max_length=255)
    timezone = models.CharField(max_length=100)
    args = JSONText(default="[]")
    kwargs = JSONText(default="{}")
    #: None: the task's own.
    queue = models.CharField(max_length=100, null=True, blank=True)
    #: Whether one run makes up for all that were missed while no Foreman ran.
    catch_up = models.BooleanField(default=True)
    #: None: it never runs again.
    next_run = models.DateTimeField(null=True, blank=True)
    #: The time of the last run, and its task.
    last_run = models.DateTimeField(null=True, blank=True)
    last_task_id = models.BigIntegerField(null=True, blank=True)
    #: Why it was not enqueued, or why its row was deleted; empty if the row exists, or it succeeded.
    last_outcome = models.TextField(default="", blank=True)
    is_paused = models.BooleanField(default=False)
    #: The columns as the code declares them, as a JSON object, if a person has changed them; "" otherwise.
    declared = JSONText(default="", db_default="", blank=True)
    #: Whether a person has added it, so that it is not in the code.
    is_added = models.BooleanField(default=False, db_default=False)

    class Meta:
        verbose_name, verbose_name_plural = _("schedule"), _("schedules")
        indexes = [
            models.Index(fields=["next_run"], name="snappea_next_run", condition=Q(is_paused=False)),
        ]

    def __str__(self) -> str:
        return self.name

    def outcome(self) -> str:
        """Return the outcome of the last run: a task's status, "expired", why it was not enqueued, or ""."""
        if self.last_outcome or self.last_task_id is None:
            return self.last_outcome
        found = Task.objects.filter(pk=self.last_task_id).values_list("status", flat=True).first()
        return found or Status.SUCCESSFUL.value


class ScheduleRun(models.Model):
    """One of the last runs of a schedule."""

    schedule = models.CharField(max_length=255)
    at = models.DateTimeField()
    #: The task that was enqueued; None if none was.
    task_id = models.BigIntegerField(null=True, blank=True)
    #: Why it was not enqueued, or why its row was deleted; empty if the row exists, or it succeeded.
    outcome = models.TextField(default="", db_default="", blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["schedule"], name="snappea_runs"),
            models.Index(fields=["task_id"], name="snappea_run_of_task", condition=Q(task_id__isnull=False)),
        ]


class Pause(models.Model):
    """A queue from which nothing is claimed until it is resumed."""

    queue = models.CharField(max_length=100, primary_key=True)
    since = models.DateTimeField()
    #: The ids of the Foremen that have confirmed it, each between spaces; 0 on SQLite.
    heard_by = models.TextField(default="", db_default="", blank=True)


class Presence(models.Model):
    """A running Foreman, if there may be several. `seen_at` is its last heartbeat."""

    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    since = models.DateTimeField()
    seen_at = models.DateTimeField()
    workers = models.IntegerField(default=0)
    #: The ids of tasks that should have ended, as JSON.
    stuck = JSONText(default="[]")
    #: The only queues that it serves, as JSON. Empty: all.
    queues = JSONText(default="[]", db_default="[]")


class Opening(models.Model):
    """When a rate-limited group may start as many tasks at once as its burst allows."""

    lane = models.CharField(max_length=600, primary_key=True)
    opens_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["opens_at"], name="snappea_openings")]


class Limit(models.Model):
    """Limits that were changed at run time; a column that is None does not replace those of the calls."""

    #: The name of a task, or one of its concurrency groups.
    lane = models.CharField(max_length=600, primary_key=True)
    max_concurrency = models.IntegerField(null=True, blank=True)
    #: Of the rate, with the burst; 0: no rate.
    rate_interval = models.FloatField(null=True, blank=True)
    rate_burst = models.IntegerField(null=True, blank=True)


class Handover(models.Model):
    """A call on its way to Celery.

    It runs once, even if its message is sent several times: the worker first takes the row.
    """

    #: Celery's id of the call.
    key = models.CharField(max_length=36, primary_key=True)
    task_name = models.CharField(max_length=255)
    #: A `records.Call`, when it was enqueued, and how often it was retried, as JSON.
    call = models.TextField()
    expires_at = models.DateTimeField(null=True, blank=True)
    #: When its message was last sent; None: perhaps never.
    sent_at = models.DateTimeField(null=True, blank=True)
    #: While a call that may be repeated runs: its message.
    taken_by = models.CharField(max_length=32, default="", db_default="", blank=True)


class Stat(models.Model):
    """The outcomes of a task's runs within a minute. Times are in seconds.

    The row with an empty name is for all tasks, and has the number of ready ones at the end of the minute.
    Each Foreman writes rows of its own.
    """

    minute = models.DateTimeField()
    task_name = models.CharField(max_length=255, blank=True)
    done = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)
    retried = models.IntegerField(default=0)
    cancelled = models.IntegerField(default=0)
    #: How many expired before they ran.
    expired = models.IntegerField(default=0)
    #: The time from when a task was due until its start.
    wait_sum = models.FloatField(default=0.0)
    wait_max = models.FloatField(default=0.0)
    run_sum = models.FloatField(default=0.0)
    run_max = models.FloatField(default=0.0)
    #: A `stats.Histogram`, as JSON.
    run_times = models.TextField(default="{}")
    #: The waiting times, as another one.
    wait_times = models.TextField(default="{}", db_default="{}")
    backlog = models.IntegerField(null=True, blank=True)
    #: How many Foremen started, on the row with an empty name.
    starts = models.IntegerField(default=0, db_default=0)

    class Meta:
        indexes = [
            models.Index(fields=["minute"], name="snappea_stat_minute"),
            models.Index(fields=["task_name", "minute"], name="snappea_stat_of_task"),
        ]


class Total(models.Model):
    """The outcomes of all runs of a task so far. Times are in seconds."""

    task_name = models.CharField(max_length=255, primary_key=True)
    done = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    retried = models.BigIntegerField(default=0)
    cancelled = models.BigIntegerField(default=0)
    expired = models.BigIntegerField(default=0)
    wait_sum = models.FloatField(default=0.0)
    run_sum = models.FloatField(default=0.0)


def _proxy(name: str, label: Any) -> type[Task]:
    options = {"verbose_name": label, "verbose_name_plural": label}
    meta = type("Meta", (), {"proxy": True, "default_permissions": (), **options})
    return cast(type[Task], ModelBase(name, (Task,), {"__module__": __name__, "Meta": meta}))


_NAMES = "Future", "Pending", "Active", "Failed", "Dirty", "Finished", "Cancelled"
#: For the admin, without permissions of their own: an entry for each state (FailedTask, DirtyTask ...), and
#: the console.
LISTS = {status: _proxy(f"{name}Task", status.label) for status, name in zip(Status, _NAMES, strict=True)}
for _model in LISTS.values():  # for imports by name, as in Django's shell, and for pickle
    globals()[_model.__name__] = _model
Dashboard = _proxy("Dashboard", _("Overview"))
