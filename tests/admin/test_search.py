"""The language of the search box, and what it finds."""

import random
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

import snappea
from snappea import task
from snappea.admin.search import Found, Search, SearchError, neighbours, scan
from snappea.models import Status, Task
from snappea.tasks.function import registry
from tests.site import Site

pytestmark = pytest.mark.on_both
NAME = "shop.tasks.charge"
HOSTILE = [
    *(
        "'",
        '"',
        "\\",
        "%",
        "_",
        "\0",
        "\u202e",
        "\ud800",
        "😀",
        "é",
        "<b>",
        ":",
        "#",
        "..",
        "()",
        "]",
        "{",
        "\n",
    ),
    *(
        "state:failed",
        "args.",
        "age:>1h",
        "task:",
        "and",
        "OR",
        "--",
        ";",
        "NULL",
        "9" * 30,
        "#1",
        "-1",
        "place:",
    ),
    *('""', '"a b"', 'error:"x\\"y"', "log:%", "args.a.b:1", "queue:''", "1e999", "nan", "[", '{"a":1}'),
]


@pytest.fixture(autouse=True)
def _declared() -> Any:
    @task(name=NAME)
    def charge(order: int, customer: str = "", *, amount: float = 0.0) -> None: ...

    @task(name="shop.tasks.rotate", sensitive=True)
    def rotate(order: int) -> None: ...

    yield
    for name in (NAME, "shop.tasks.rotate"):
        registry.pop(name, None)


def put(status: str = "failed", name: str = NAME, **columns: Any) -> int:
    ended = status in ("failed", "interrupted", "successful", "cancelled")
    columns = {"finished_at": timezone.now() if ended else None} | columns
    return int(Task.objects.create(task_name=name, status=status, **columns).pk)


def found(text: str) -> list[int]:
    return scan(Search(text).tasks().order_by("pk"), seconds=60).ids


def refusal(text: str) -> str:
    with pytest.raises(SearchError) as caught:
        Search(text)
    return str(caught.value)


def test_words_find_names_arguments_errors_and_numbers(site: Site) -> None:
    first = put(args=[77], kwargs={"customer": "João & Söhne"}, error="KeyError: 'customer'")
    second = put(name="mail.tasks.send", args='["João"]', error="100% of it: E_x")
    assert found("charge") == found("KeyError") == found(f"#{first}") == [first]
    assert found("João") == found(f"#{first} #{second}") == found("tasks") == [first, second]
    assert found('"João & S"') == found("charge João") == [first]
    assert found("100%") == found('"100% of it: E_x"') == found("E_x") == [second]
    assert found("nothing") == found("charge send") == found("1_0") == []


def test_keys(site: Site) -> None:
    failed = put(
        queue="mail", exception="KeyError", place="a.py:3 in f", error="KeyError: 1", log='{"x": "seen"}'
    )
    ready = put("ready", enqueued_at=timezone.now() - timedelta(hours=2))
    assert found("state:failed") == found("state:Failed") == found("queue:mail") == [failed]
    assert (
        found("state:ready") == found("state:pending") == found("age:>1h") == found("age:>119.5m") == [ready]
    )
    assert found("age:<1h") == found("ended:<1h") == found("error:keyerror") == found("log:seen") == [failed]
    assert found("task:charge") == found(f"task:{NAME}") == [failed, ready]
    assert found('exception:KeyError place:"a.py:3 in f"') == found("exception:KeyError") == [failed]
    assert found("exception:Key") == found("exception:KeyError state:ready") == found("ended:>1h") == []
    assert found('exception:""') == found('place:""') == []


def test_members_of_a_batch_and_of_those_in_it(site: Site) -> None:
    with snappea.batch() as outer:
        registry[NAME].delay(1)
        with snappea.batch(), snappea.batch() as inner:
            registry[NAME].delay(2)
    alone = put("failed")
    both = list(Task.objects.exclude(pk=alone).order_by("batch_id").values_list("pk", flat=True))
    assert found(f"batch:{outer.id}") == both and found(f"batch:{inner.id}") == both[1:]
    for status in Status.values:
        Task.objects.update(status=status)
        assert found(f"batch:{outer.id} state:{status}") == both, status
    assert found(f"batch:{outer.id} task:rotate") == found("batch:999999999999999999") == []


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *((77, "77"), ("77", "77"), (7.5, "7.5"), (True, "true"), (None, "null"), ("a b", '"a b"')),
        *(("", '""'), ("João", "João"), ('say "hi"', '"say \\"hi\\""')),
        *(([1, "x"], '[1,"x"]'), ("back\\slash", "back\\slash")),
    ],
)  # fmt: skip
def test_arguments_are_written_as_people_write_them(site: Site, value: Any, written: str) -> None:
    by_name, by_place = put(kwargs={"customer": value}), put(args=[1, value])
    put(kwargs={"order": value, "deep": {"customer": value}}), put(args=[value, 9])
    put(name="other.task", args=[1, value])
    if not isinstance(value, list):
        assert found(f"args.customer:{written}") == [by_name, by_place]
    assert found("args.customer:other") == []


def test_delayed_calls_are_found_by_their_arguments(site: Site) -> None:
    registry[NAME].delay(77, customer="Zoë")
    assert len(found("args.order:77")) == len(found("args.customer:Zoë")) == len(found("Zoë")) == 1


def test_invalid_json_is_found_by_words_only(site: Site) -> None:
    broken = put(args="[77", kwargs="not 77")
    assert found("77") == [broken] and found("args.order:77") == []


def test_sensitive_tasks_are_not_found_by_what_is_hidden(site: Site) -> None:
    hidden: Any = {"args": ["needle"], "kwargs": {"key": "needle"}, "error": "needle", "log": "needle"}
    by_row, by_task = put(is_sensitive=True, **hidden), put(name="shop.tasks.rotate", **hidden)
    for text in (
        "needle",
        "args.key:needle",
        "args.order:needle",
        "error:needle",
        "log:needle",
        "state:failed nee",
    ):
        assert found(text) == [], text
    assert found("charge state:failed") == [by_row] and found("task:rotate") == [by_task]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("state:lost", "scheduled, ready, running"),
        ("age:1h", "<30m"),
        ("age:>1w", "<30m"),
        ("ended:>999999d", "<30m"),
        ("batch:x", "not the number of a batch"),
        ("color:red", "double quotes"),
        ("args:7", "args.NAME"),
        ("state:failed state:ready", "one state"),
        ("x " * 40, "30 terms"),
        ("x" * 2000, "1000 characters"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(text: str, words: str) -> None:
    assert words in refusal(text)


def test_terms_are_replaced() -> None:
    search = Search('state:failed "a b" queue:x')
    assert search.with_term("state", "ready").text == '"a b" queue:x state:ready'
    assert search.with_term("queue", None).text == 'state:failed "a b"'
    place = Search().with_term("place", 'a.py:3 in "f"')
    assert place.text == 'place:"a.py:3 in \\"f\\""' and place.value("place") == 'a.py:3 in "f"'
    assert search.with_term("exception", "").value("exception") == ""
    assert search.state == place.state == Status.FAILED and Search().state is None


def test_any_text_is_either_refused_or_finds_something_and_is_spelled_the_same_again(site: Site) -> None:
    for text in HOSTILE:
        put(
            args=[text.encode(errors="replace").decode()],
            error=text.replace("\0", "").encode(errors="replace").decode(),
        )
    chance = random.Random(20)
    for _ in range(400):
        text = "".join(chance.choice([*HOSTILE, " ", " "]) for _ in range(chance.randrange(1, 7)))
        try:
            search = Search(text)
        except SearchError as error:
            assert str(error)
            continue
        assert Search(search.text).terms == search.terms and Search(search.text).text == search.text, repr(
            text
        )
        scan(search.ordered(), seconds=60)


def test_a_quoted_value_finds_exactly_itself(site: Site) -> None:
    for text in HOSTILE:
        value = text.replace("\0", "").encode(errors="replace").decode()
        put(queue=value, kwargs={"customer": value})
        for key in ("queue", "args.customer"):
            ids = found(Search().with_term(key, value).text)
            assert ids and set(Task.objects.filter(pk__in=ids).values_list("queue", flat=True)) == {value}
        Task.objects.all().delete()


def test_a_search_ends_in_time_with_what_it_has_found(site: Site) -> None:
    row = "INSERT INTO snappea_task (task_name, enqueued_at) VALUES ('a.task', '2026-01-01')"
    site.sql(f"{row}, " + ", ".join(["('b.task', '2026-01-01')"] * 20_000))
    assert scan(Search("b").ordered(), most=3) == Found([20_001, 20_000, 19_999], False)
    assert scan(Search("no such thing").ordered(), seconds=0.0) == Found([], False)
    assert scan(Search("task:a").ordered(), seconds=60).is_all


@pytest.mark.parametrize("status", [status for status in Status.values if status != "running"])
def test_neighbors_follow_the_list(site: Site, status: str) -> None:
    moment = timezone.now()
    for number in range(6):
        since = moment - timedelta(minutes=number % 3)
        put(status, run_after=since) if status == "scheduled" else put(status, finished_at=since)
        put("failed" if status != "failed" else "ready")
    search = Search(f"state:{status}")
    listed = scan(search.ordered()).ids
    assert len(listed) == 6
    for before, here, after in zip([None, *listed], listed, [*listed[1:], None], strict=False):
        assert neighbours(search, Task.objects.get(pk=here)) == (before, after)
    assert neighbours(Search("queue:none"), Task.objects.get(pk=listed[0])) == (None, None)
