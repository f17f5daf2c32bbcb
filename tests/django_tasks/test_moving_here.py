"""What a site needs that comes from another backend of django.tasks, by settings alone."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import transaction
from django.db.models import UUIDField

from snappea.django_tasks.framework import TaskResultDoesNotExist, task_backends
from snappea.django_tasks.restore import is_sealed, seal_of
from snappea.errors import AlreadyEnqueued
from snappea.models import Task
from tests.django_tasks import outside
from tests.playground import djangotasks as tasks
from tests.site import ROOT, Site, wait_until

BACKEND = "snappea.backend.SnappeaBackend"
Configure = Callable[..., Any]


@pytest.fixture
def configure(settings: Any, site: Site) -> Configure:
    """Return a function that makes the default backend one with these parameters, and returns it."""

    def configured(**params: Any) -> Any:
        settings.TASKS = {"default": {"BACKEND": BACKEND, "QUEUES": [], **params}}
        return task_backends["default"]

    return configured


def with_option(value: bool | None) -> Any:
    """Return a task with a value of its own for `enqueue_on_commit`."""
    return tasks.add.using(enqueue_on_commit=value)  # type: ignore[call-arg]


# ENQUEUE_ON_COMMIT


@pytest.mark.parametrize("params", [{"ENQUEUE_ON_COMMIT": True}, {"OPTIONS": {"ENQUEUE_ON_COMMIT": True}}])
def test_a_call_waits_for_the_commit(site: Site, configure: Configure, params: dict[str, Any]) -> None:
    backend = configure(**params)
    assert backend.check() == []
    with transaction.atomic():
        result = tasks.add.enqueue(1)
        assert result.id == "" and site.counts() == {}
        with pytest.raises(TaskResultDoesNotExist):
            result.refresh()
    row = Task.objects.get()
    assert result.id == str(row.pk) and result.enqueued_at == row.enqueued_at
    assert tasks.add.get_result(result.id) == result


def test_a_rollback_leaves_no_call(site: Site, configure: Configure) -> None:
    configure(ENQUEUE_ON_COMMIT=True)
    with transaction.atomic():
        tasks.add.enqueue(1)
        transaction.set_rollback(True)
    assert site.counts() == {}
    assert tasks.add.enqueue(1).id  # there is no transaction to wait for


@pytest.mark.parametrize(
    ("of_backend", "of_task", "waits"),
    [
        (None, None, False),
        (False, None, False),
        (False, True, True),
        (True, False, False),
        (True, None, True),
    ],
)
def test_the_value_of_the_task_counts_before_that_of_the_backend(
    site: Site, configure: Configure, of_backend: bool | None, of_task: bool | None, waits: bool
) -> None:
    configure(ENQUEUE_ON_COMMIT=of_backend)
    with transaction.atomic():
        with_option(of_task).enqueue(1)
        assert bool(site.counts()) != waits
    assert site.counts() == {"ready": 1}


def test_a_unique_call_has_the_id_of_the_one_that_waits(site: Site, configure: Configure) -> None:
    configure(ENQUEUE_ON_COMMIT=True, OPTIONS={"unique": True})
    first = tasks.add.enqueue(1)
    with transaction.atomic():
        second = tasks.add.enqueue(1)
    assert second.id == first.id


def test_arguments_are_checked_at_once(site: Site, configure: Configure) -> None:
    configure(ENQUEUE_ON_COMMIT=True)
    with transaction.atomic(), pytest.raises(TypeError):
        with_option(None).enqueue(object())


def test_what_the_queue_refuses_is_raised_at_the_commit(site: Site, configure: Configure) -> None:
    configure(ENQUEUE_ON_COMMIT=True, OPTIONS={"unique": True, "on_conflict": "raise"})
    tasks.add.enqueue(1)
    with pytest.raises(AlreadyEnqueued), transaction.atomic():
        tasks.add.enqueue(1)


def test_eager_calls_run_at_the_commit(site: Site, configure: Configure, settings: Any) -> None:
    configure(ENQUEUE_ON_COMMIT=True)
    settings.SNAPPEA = {**site.settings, "TASK_ALWAYS_EAGER": True}
    with transaction.atomic():
        result = tasks.add.enqueue(1, 2)
        assert not result.is_finished
    assert result.return_value == 3


# UUIDs


def test_ids_are_uuids_on_request(site: Site, configure: Configure) -> None:
    backend = configure(OPTIONS={"UUIDS": True})
    assert backend.check() == []
    result = tasks.tell_context.enqueue()
    other = tasks.tell_context.enqueue()
    asked = uuid.UUID(result.id)
    assert asked.version == 8 and asked.variant == uuid.RFC_4122
    assert asked.hex[-15:] == f"{Task.objects.earliest('pk').pk:015x}", "an operator can find the row"
    assert result.id[:18] != other.id[:18]
    assert UUIDField().to_python(result.id) == asked
    for same in (result.id, asked, asked.hex, result.id.upper()):
        assert backend.get_result(same) == result


@pytest.mark.on_both
def test_a_task_is_told_its_uuid(site: Site) -> None:
    result: Any = tasks.tell_context.using(backend="uuids").enqueue()
    site.foreman()
    wait_until(lambda: result.refresh() or result.is_finished)
    assert result.return_value[0] == result.id
    wait_until(lambda: [line[2] for line in site.ledger.lines() if line[0] == "finished"] == [result.id])


def test_there_is_no_result_of_another_uuid(site: Site, configure: Configure) -> None:
    backend = configure(OPTIONS={"UUIDS": True})
    result = tasks.add.enqueue(1)
    guessed = uuid.UUID(int=uuid.UUID(result.id).int ^ 1 << 100)
    for wrong in (guessed, uuid.uuid4(), Task.objects.get().pk, "", "x", None):
        with pytest.raises(TaskResultDoesNotExist):
            backend.get_result(wrong)


def test_uuids_survive_a_new_secret_key(site: Site, configure: Configure, settings: Any) -> None:
    backend = configure(OPTIONS={"UUIDS": True})
    result = tasks.add.enqueue(1)
    settings.SECRET_KEY, before = "another", settings.SECRET_KEY
    with pytest.raises(TaskResultDoesNotExist):
        backend.get_result(result.id)
    settings.SECRET_KEY_FALLBACKS = [before]
    assert backend.get_result(result.id).args == [1]


def test_eager_calls_have_uuids(site: Site, configure: Configure, settings: Any) -> None:
    configure(OPTIONS={"UUIDS": True})
    settings.SNAPPEA = {**site.settings, "TASK_ALWAYS_EAGER": True}
    assert uuid.UUID(tasks.add.enqueue(1).id)


# modules outside of installed apps


def test_the_foreman_imports_a_module_that_the_backend_was_handed(site: Site) -> None:
    results: list[Any] = [
        outside.double.enqueue(1),
        outside.double.using(priority=3, soft_time_limit=9).enqueue(2),  # type: ignore[call-arg]
    ]
    sealed = Task.objects.earliest("pk").overrides
    assert apps.get_containing_app_config(outside.__name__) is None and sealed
    forged = [
        Task.objects.create(task_name=f"{module}.double", args="[3]", result_ttl=60, **more)
        for module, more in {
            "tests.django_tasks.elsewhere": {"backend": "default", "overrides": sealed},
            "antigravity": {
                "backend": "default",
                "overrides": sealed.replace(outside.__name__, "antigravity"),
            },
            "this": {"backend": "default"},
        }.items()
    ]
    site.foreman()
    wait_until(lambda: site.counts() == {"successful": 2, "failed": 3})
    for result in results:
        result.refresh()
    assert [result.return_value for result in results] == [2, 4]
    for row in forged:
        row.refresh_from_db()
        assert row.error.startswith("UnknownTask") or "UnknownTask" in row.error


@pytest.mark.parametrize("overrides", [None, "", "[]", "null", "{", '{"snappea.django_tasks.module": 1}'])
def test_a_broken_seal_is_none(overrides: str | None) -> None:
    assert not is_sealed(outside.double.module_path, overrides)
    assert is_sealed(outside.double.module_path, json.dumps(seal_of(outside.double.module_path)))


def test_there_is_no_seal_for_what_needs_none_or_for_uploads(settings: Any) -> None:
    assert seal_of(tasks.add.module_path) == {} == seal_of("not.loaded.task")
    settings.MEDIA_ROOT = str(ROOT / "tests")
    assert seal_of(outside.double.module_path) == {}


# options of other backends


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"OPTIONS": {"id_function": "uuid.uuid7"}}, 'write "UUIDS": True'),
        ({"OPTIONS": {"max_retry": 1}}, "did you mean 'max_retries'?"),
        ({"OPTIONS": {"UUIDS": "uuid.uuid7"}}, "UUIDS must be True, False or None"),
        ({"ENQUEUE_ON_COMMIT": "yes"}, "ENQUEUE_ON_COMMIT must be True, False or None"),
    ],
)
def test_the_check_says_what_to_write_instead(
    configure: Configure, params: dict[str, Any], said: str
) -> None:
    (found,) = configure(**params).check()
    assert found.id == "snappea.E025" and said in found.msg
