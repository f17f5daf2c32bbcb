"""A result, progress or error that cannot be written fails its task, and no other."""

from typing import Any

import pytest

from snappea.errors import ResultTooLarge
from snappea.models import Task
from snappea.testing import drain
from tests.playground import values
from tests.playground.tasks import record
from tests.site import Site, wait_until

#: What is on the row of a task that has said something: done, total and note, or why it has failed.
SAID: dict[str, Any] = {
    "lazy": (1, 2, "January"),
    "large": (float(2**70), float(2**71), ""),
    "surrogate": (1, 2, "a\\ud800b"),
    "nul": (1, 2, "a\\x00b"),
    "long": (1, 2, "x" * 1000),
    "number": (1, 2, "3"),
    "nan": "progress(): done must be a finite number",
    "infinite": "progress(): total must be a finite number",
    "huge": "progress(): done must be a finite number",
    "text": "progress(): done must be a number, not str",
    "bytes": "progress(): note must be a string, not bytes",
    "none": "progress(): done must be a number, not NoneType",
}
#: The JSON that is kept of a result, or why the task has failed.
RESULTS = {
    "large": "the result takes more than 1000 bytes as JSON; MAX_RESULT_BYTES is 1000. Store it",
    "list": "the result takes 1381 bytes as JSON; MAX_RESULT_BYTES is 1000",
    "surrogate": "a string with a lone surrogate",
    "nan": "JSON has no such number",
    "bytes": "decode it",
    "lazy": "is a lazy string, which is not JSON",
    "nul": '"a\\u0000b"',
    "integer": str(2**70),
}


@pytest.mark.long
def test_no_other_task_is_touched(site: Site) -> None:
    site.settings["MAX_RESULT_BYTES"] = 1000
    said = {values.say.delay(kind).id: kind for kind in SAID}
    said |= {values.say_async.delay(kind).id: kind for kind in SAID}
    said |= {values.say_alone.delay(kind).id: kind for kind in ("lazy", "surrogate", "nan", "bytes")}
    given = {values.give.delay(kind).id: kind for kind in RESULTS}
    given |= {values.give_alone.delay(kind).id: kind for kind in ("large", "surrogate")}
    spoilt = values.retry_never.delay().id
    raising = values.raise_text.delay("x" * 50_000).id
    for number in range(50):
        record.delay(number)
    foreman = site.foreman()
    site.wait_until_empty()
    wait_until(
        lambda: site.counts() == {"failed": len(said) + len(given), "successful": 2}, str(site.counts())
    )
    assert len(site.ledger.keys("end")) == 50
    rows = {row.pk: row for row in Task.objects.all()}
    for number, kind in said.items():
        row = rows[number]
        if isinstance(SAID[kind], str):
            assert SAID[kind] in row.error, row.error
        else:
            assert (row.progress_done, row.progress_total, row.progress_note) == SAID[kind]
    for number, kind in given.items():
        assert RESULTS[kind] in (rows[number].error or rows[number].result), kind
    assert rows[spoilt].exception == "OutcomeNotWritten"
    assert "refused the outcome: ValueError('cannot convert float NaN" in rows[spoilt].error
    assert "ValueError: a\\ud800\\x00xxx" in rows[raising].error and len(rows[raising].error) < 21_000
    assert foreman.stop() == 0
    assert "The round failed" not in foreman.output() and "Set aside" not in foreman.output()
    assert f"Failed tests.playground.values.retry_never #{spoilt}: OutcomeNotWritten" in foreman.output()


def test_a_result_has_its_limit_in_tests_as_well(settings: Any) -> None:
    settings.SNAPPEA = {"MAX_RESULT_BYTES": 10}
    assert values.give.delay("nul").status == "ready"
    values.give.delay("large")
    with pytest.raises(ResultTooLarge):
        drain()
