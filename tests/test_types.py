"""How mypy --strict judges users' code."""

import re
import subprocess
import sys
from pathlib import Path

from tests.site import ROOT

SAMPLE = """
from typing import Any

from snappea import AsyncResult, Signature, TaskFunction, shared_task, task

@task
def send_mail(user_id: int, subject: str = "") -> bool:
    return True

@task(acks_late=True, priority=5, queue="mail")
async def refresh(url: str) -> None: ...

@task(max_retries=5, unique="running", autoretry_for=(OSError,), rate_limit="10/m", expires=60)
def charge(order_id: int) -> None: ...

@shared_task(max_concurrency=1, concurrency_key=lambda account: account, result_ttl=60)
def bill(account: str) -> int:
    return 0

@task(bind=True, max_retries=2)
def fetch(self: TaskFunction[..., Any], url: str, depth: int = 0) -> int:
    return self.request.retries

@shared_task(queue="mail", bind=True)
async def poll(self, url: str) -> None: ...  # type: ignore[no-untyped-def]

@shared_task(bind=False)
def count(number: int) -> None: ...

options: dict[str, Any] = {"queue": "mail"}

@task(priority=5, **options)
def pack(order_id: int) -> None: ...

def right() -> None:
    result: AsyncResult = send_mail.delay(42)
    send_mail.delay(42, subject="hello")
    send_mail.delay_on_commit(42, "hello")
    send_mail.delay_on_commit(42, using="other")
    send_mail.delay_many([(1,), (2, "two")])
    plain: bool = send_mail(42)
    refresh.delay("https://example.org")
    made: TaskFunction[[int, str], bool] = send_mail
    charge.delay(42)
    charge.apply_async((42,), countdown=60, queue="mail", expires=60, priority=5).revoke(terminate=True)
    signature: Signature = charge.s(42).set(countdown=60)
    signature.delay()
    amount: int = bill("x")
    fetch.delay("https://example.org", depth=1)
    retries: int = fetch("https://example.org")
    bound: TaskFunction[[str, int], int] = fetch
    poll.delay("https://example.org")
    count.delay(1)
    pack.delay(1)
    failed: bool = fetch.apply(("https://example.org",)).failed()
    fetch.si("https://example.org").delay()

async def right_as_well() -> None:
    await refresh("https://example.org")
    await send_mail.adelay(42)

def wrong() -> None:
    send_mail.delay("42")  # wrong
    send_mail.delay()  # wrong
    send_mail.delay(42, body="x")  # wrong
    send_mail.delay_on_commit("42")  # wrong
    send_mail("42")  # wrong
    refresh.delay(42)  # wrong
    result: int = send_mail.delay(42)  # wrong
    task(priority="high")  # wrong
    task(prio=5)  # wrong
    task(max_retrys=5)  # wrong
    task(unique="waiting")  # wrong
    task(rate_limit=10)  # wrong
    task(max_concurrency="2")  # wrong
    task(autoretry_for=OSError)  # wrong
    charge.delay()  # wrong
    charge.delay("42")  # wrong
    bill.delay(account=42)  # wrong
    fetch.delay(fetch, "https://example.org")  # wrong
    fetch.delay(42)  # wrong
    fetch("https://example.org", "deep")  # wrong
    poll.delay()  # wrong
    pack.delay("1")  # wrong
    task(bind="self")  # wrong
    task(bind=True, priority="high")  # wrong
    charge.apply_async((42,), delay=60)  # wrong
    charge.apply_async((42,), eta=60)  # wrong
"""


def test_right_calls_are_accepted_and_wrong_ones_refused(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*mypy, str(sample)], cwd=ROOT, capture_output=True, text=True)
    refused = {int(number) for number in re.findall(r"sample\.py:(\d+): error", done.stdout)}
    wrong = {n for n, line in enumerate(SAMPLE.splitlines(), 1) if line.endswith("# wrong")}
    assert refused == wrong, done.stdout + done.stderr
