"""`manage.py snappea replay`: a task runs again, and leaves nothing behind."""

import asyncio
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django import VERSION
from django.contrib.auth.models import Group
from django.core import mail
from django.core.management import call_command
from django.core.management.base import CommandError

from snappea.models import Task
from snappea.tasks import engine
from snappea.testing import drain
from tests.playground.djangotasks import tell_context
from tests.playground.replayed import pay
from tests.playground.sensitive import fail_with_it
from tests.site import Made, Site


def rows() -> list[Any]:
    return [*Task.objects.order_by("pk").values()]


@pytest.fixture
def failed(site: Site) -> int:
    """Return the id of a task that has failed once. What it enqueued is gone."""
    result = pay.delay(7)
    drain(raise_failures=False)
    Task.objects.exclude(pk=result.id).delete()
    Group.objects.all().delete()
    site.ledger.path.unlink()
    mail.outbox.clear()
    return int(result.id)


@pytest.mark.on_both
def test_a_replay_undoes_everything(site: Site, failed: int, capfd: Any) -> None:
    before, engines = rows(), dict(engine.registered)
    with pytest.raises(SystemExit, match="1"):
        call_command("snappea", "replay", str(failed))
    out, error = capfd.readouterr()
    assert rows() == before and not Group.objects.exists() and engine.registered == engines
    assert site.ledger.lines() == [["attempt", str(failed), "1", "True"]], "its steps were not run again"
    assert "Subject: Paid" in out and not mail.outbox
    assert error.count("Not enqueued: tests.playground.tasks.record(*[") == 3
    assert "ValueError: order 7" in error and "snappea/workers" not in error


def test_a_replay_that_succeeds(site: Site, capfd: Any) -> None:
    waiting = pay.delay(8, fails=False)
    before = rows()
    call_command("snappea", "replay", str(waiting.id))
    assert capfd.readouterr().out.endswith("\n'paid 8'\n")
    assert rows() == before and not Group.objects.exists()
    assert site.ledger.lines()[:2] == [["charged", "8"], ["charged", "9"]]


@pytest.mark.skipif(VERSION < (6, 1), reason="Django has no MAILERS yet")
def test_mailers(site: Site, settings: Any, capfd: Any) -> None:
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    call_command("snappea", "replay", str(pay.delay(8, fails=False).id))
    assert "Subject: Paid" in capfd.readouterr().out and not mail.outbox


@pytest.mark.on_both
def test_a_commit(site: Site, failed: int, capfd: Any) -> None:
    before = rows()
    with pytest.raises(SystemExit):
        call_command("snappea", "replay", str(failed), "--commit")
    after = rows()
    assert after[0] == before[0]
    assert [row["parent_id"] for row in after[1:]] == [failed] * 4
    assert Group.objects.count() == len(mail.outbox) == 1
    assert "ValueError: order 7" in capfd.readouterr().err


def test_a_replay_on_another_machine(
    site: Site, failed: int, capfd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_command("snappea", "show", str(failed), "--json")
    shown = capfd.readouterr().out
    Task.objects.all().delete()
    (tmp_path / "row.json").write_text(shown)
    monkeypatch.setattr(sys, "stdin", io.StringIO(shown))
    for name in (f"{tmp_path}/row.json", "-"):
        with pytest.raises(SystemExit):
            call_command("snappea", "replay", "--file", name)
        assert "ValueError: order 7" in capfd.readouterr().err
    assert site.ledger.count("attempt", failed, 1, True) == 2 and not rows()


def test_an_async_task_and_its_thread(site: Site, made: Made, capfd: Any) -> None:
    @made
    async def create() -> int:
        await Group.objects.acreate(name="on the loop")
        with pytest.raises(RuntimeError, match="cannot undo what a new connection to 'default' does"):
            await asyncio.to_thread(Group.objects.create, name="in a thread")
        return await Group.objects.acount()

    call_command("snappea", "replay", str(create.delay().id))
    assert capfd.readouterr().out == "1\n" and not Group.objects.exists()


def test_a_task_of_django(site: Site, capfd: Any) -> None:
    result = tell_context.enqueue("there")
    call_command("snappea", "replay", result.id)
    out = capfd.readouterr().out
    assert out == f"[{result.id!r}, 1, ['there'], 'default', 'tell_context']\n"


def test_the_queue_in_the_main_database(site: Site, settings: Any, capfd: Any) -> None:
    settings.DATABASE_ROUTERS = []
    settings.SNAPPEA = {**site.settings, "DATABASE": "default"}
    call_command("migrate", verbosity=0)
    waiting = pay.delay(8, fails=False)
    before = rows()
    call_command("snappea", "replay", str(waiting.id))
    assert rows() == before and not Group.objects.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"task_name": "x", "enqueued_at": "never"}'])
def test_a_file_that_is_no_row(site: Site, tmp_path: Path, content: str) -> None:
    (tmp_path / "row.json").write_text(content)
    with pytest.raises(CommandError, match=r"row\.json is not what `snappea show ID --json` prints"):
        call_command("snappea", "replay", "--file", str(tmp_path / "row.json"))


def test_what_cannot_be_replayed(site: Site, tmp_path: Path, capfd: Any) -> None:
    secret = fail_with_it.delay("secret", key="x").id
    call_command("snappea", "show", str(secret), "--json")
    (tmp_path / "row.json").write_text(capfd.readouterr().out)
    with pytest.raises(CommandError, match="is sensitive"):
        call_command("snappea", "replay", "--file", str(tmp_path / "row.json"))
    site.sql("UPDATE snappea_task SET status = 'running'")
    with pytest.raises(CommandError, match="is running"):
        call_command("snappea", "replay", str(secret))
    with pytest.raises(CommandError, match="There is no task 99"):
        call_command("snappea", "replay", "99")
    site.sql("UPDATE snappea_task SET status = 'failed', task_name = 'gone'")
    with pytest.raises(CommandError, match="Unknown task 'gone'"):
        call_command("snappea", "replay", str(secret))


def test_the_debugger(site: Site, failed: int) -> None:
    command = [sys.executable, "-m", "django", "snappea", "replay", str(failed), "--pdb"]
    done = subprocess.run(
        command, env=site.environment(), input="p order * 6\nq\n", capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout.endswith("(Pdb) 42\n(Pdb) ")
    assert done.stderr.startswith("Not enqueued: ") and done.stderr.endswith("ValueError: order 7\n")
