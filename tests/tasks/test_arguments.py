"""Arguments: valid ones arrive unchanged; others raise an error that says what, where, and the cure."""

import datetime
import decimal
import enum
import json
import math
import uuid
from collections import Counter, OrderedDict, UserDict, defaultdict
from typing import Any, NamedTuple
from unittest import mock

import pytest
from django.forms.utils import ErrorList
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from snappea.errors import ConfigurationError, SnappeaError, UnreadableArguments, UnserializableArgument
from snappea.models import Task
from snappea.tasks.arguments import decode, encode, encode_result
from snappea.tasks.function import registry, task
from tests.fuzzing import as_arrived
from tests.playground.tasks import echo
from tests.site import Made, Site


class Pair(NamedTuple):
    a: int
    b: int


class Colour(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


class SafeText(str):
    __slots__ = ()


class Attributes(dict[str, Any]):
    """A dict with its keys and more as attributes."""

    serializer = None


class Elsewhere(dict[str, Any]):
    """A dict with other items() than its content."""

    def items(self) -> Any:
        return {"other": 1}.items()


class Alone(str):
    """A string that equals nothing."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Word.YES,
        SafeText("x"),
        OrderedDict(a=1),
        defaultdict(list, a=[1]),
        Counter("aab"),
        Attributes(a={"b": SafeText("x")}),
        {SafeText("key"): Word.YES, Word.YES: Colour.RED},
        SafeString("<b>"),
        [QueryDict("a=1&a=2").dict(), dict(QueryDict("a=1&a=2").lists())],
        Pair(1, 2),
        (1, (2, 3)),
        2**80,
        "\0",
    ],
)
def test_what_only_looks_special_is_accepted(value: Any) -> None:
    assert decode(encode((value,), "t"), "{}")[0] == [as_arrived(value)]


@pytest.mark.parametrize(
    ("value", "what", "cure"),
    [
        (b"x", "argument[0] is a bytes", "decode it, or store it and pass the primary key"),
        ({1}, "argument[0] is a set", "sorted"),
        (math.nan, "argument[0] is nan", "pass None"),
        ([1, math.inf], "argument[0][1] is inf", "pass None"),
        (datetime.datetime(2026, 1, 1), "argument[0] is a datetime", "isoformat()"),
        (decimal.Decimal(1), "argument[0] is a Decimal", "str(...)"),
        (uuid.uuid4(), "argument[0] is a UUID", "str(...)"),
        (Task(id=3), "argument[0] is a Task", "pass the primary key"),
        ({"a": {"b": {7: 8}}}, "argument[0]['a']['b'] is a dict with the key 7", "strings"),
        ({"a": "\ud800"}, "argument[0]['a'] is a string with a lone surrogate", "decode"),
        pytest.param(10**5000, "argument[0] is an integer of thousands of digits", "hex", id="huge"),
        (object, "argument[0] is a type", "str(...)"),
        (QueryDict("a=1&a=2"), "argument[0] is a QueryDict with several values for each key", ".dict()"),
        (QueryDict(""), "argument[0] is a QueryDict", "....lists()"),
        ({"form": MultiValueDict({"a": ["1"]})}, "argument[0]['form'] is a MultiValueDict", ".dict()"),
        (
            ErrorList(["x"]),
            "argument[0] is a ErrorList that differs from its plain list",
            "pass a plain list",
        ),
        (Elsewhere(a=1), "argument[0] is a Elsewhere that differs", "pass a plain dict"),
        (Alone("x"), "argument[0] is a Alone that differs", "pass a plain str"),
        (SimpleLazyObject(lambda: 5), "argument[0] is a SimpleLazyObject", "pass the int that it wraps"),
        ([SimpleLazyObject(dict)], "argument[0][0] is a SimpleLazyObject", "pass the dict"),
        (SimpleLazyObject(lambda: Task(id=3)), "argument[0] is a SimpleLazyObject", "pass the primary key"),
        (gettext_lazy("x"), "argument[0] is a lazy string", "pass str(...)"),
        ({gettext_lazy("x"): 1}, "argument[0] is a dict with the key 'x' of type __proxy__", "strings"),
        (mock.Mock(spec=dict), "argument[0] is a Mock", "pass the dict"),
        (UserDict(a=1), "argument[0] is a UserDict", "pass dict(...)"),
        ({"a": 1}.values(), "argument[0] is a dict_values", "pass list(...)"),
        (range(3), "argument[0] is a range", "pass list(...)"),
        (Task.objects.all(), "argument[0] is a QuerySet", "pass list(...)"),
        (Ellipsis, "argument[0] is a ellipsis", "str(...)"),
    ],
)
def test_what_is_refused_is_named_with_its_place_and_the_cure(value: Any, what: str, cure: str) -> None:
    with pytest.raises(UnserializableArgument) as refused:
        encode((value,), "shop.tasks.ship")
    assert str(refused.value).startswith(f"shop.tasks.ship(): {what}") and cure in str(refused.value)
    assert isinstance(refused.value, TypeError) and isinstance(refused.value, SnappeaError)


def test_a_lazy_object_that_cannot_be_evaluated() -> None:
    def unavailable() -> None:
        raise RuntimeError

    with pytest.raises(UnserializableArgument, match=r"SimpleLazyObject.*pass the value that it wraps"):
        encode((SimpleLazyObject(unavailable),), "t")


def test_keyword_arguments_are_named() -> None:
    with pytest.raises(UnserializableArgument, match=r"argument\['when'\] is a date,"):
        encode({"when": datetime.date(2026, 1, 1)}, "t")


def test_depth_and_loops() -> None:
    deep: list[Any] = []
    for _ in range(90):
        deep = [deep]
    assert decode(encode((deep,), "t"), "{}")[0] == [deep]
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnserializableArgument, match="nested more than 100 deep"):
        encode((loop,), "t")


@pytest.mark.parametrize("args", ["", "{", "{}", "1", "null", '"x"', "[" * 100_000, "[1,]", None, b"\xff"])
def test_what_cannot_be_read_is_said_to_be(args: Any) -> None:
    with pytest.raises(UnreadableArguments):
        decode(args, "{}")


def test_keyword_arguments_that_are_no_object() -> None:
    with pytest.raises(UnreadableArguments, match="JSON object"):
        decode("[]", "[]")


# JSON_ENCODER


class Reversing(json.JSONEncoder):
    """An encoder that converts sets only."""

    def default(self, o: Any) -> Any:
        return sorted(o, reverse=True) if isinstance(o, set) else super().default(o)


DJANGOS = "django.core.serializers.json.DjangoJSONEncoder"


def test_an_encoder_makes_json_of_other_values(site: Site, settings: Any, made: Made) -> None:
    @made
    def keep(*args: Any, **kwargs: Any) -> None: ...

    settings.SNAPPEA = site.settings | {"JSON_ENCODER": DJANGOS}
    moment = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    key = uuid.UUID(int=7)
    keep.delay([moment, (decimal.Decimal("1.50"),)], at={"key": key, "text": gettext_lazy("x")}, plain=1)
    row = Task.objects.get()
    assert decode(row.args, row.kwargs) == (
        [["2026-01-02T03:04:00Z", ["1.50"]]],
        {"at": {"key": str(key), "text": "x"}, "plain": 1},
    )
    assert encode_result(OrderedDict(when=moment.date()), "t") == '{"when":"2026-01-02"}'
    for wrong, words in (({1}, "a set"), (QueryDict("a=1"), "a QueryDict"), ([Task(id=3)], "a Task")):
        with pytest.raises(UnserializableArgument, match=rf"tests\.made\(\): argument.* is {words}"):
            keep.delay(wrong)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnserializableArgument, match="nested more than 100 deep"):
        keep.delay(loop)
    settings.SNAPPEA = site.settings | {"JSON_ENCODER": Reversing}
    assert json.loads(Task.objects.get(pk=keep.delay({1, 2}).id).args) == [[2, 1]]


def test_an_encoder_counts_for_unique_calls_and_keys(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"JSON_ENCODER": DJANGOS}

    def report(day: Any = datetime.date(2026, 1, 2)) -> None: ...

    made = task(name="tests.report", unique=True)(report)
    try:
        day = datetime.date(2026, 1, 2)
        assert made.delay(day) == made.delay(day=day) == made.delay("2026-01-02")
        assert made.delay() == made.delay(day) != made.delay("2026-01-03")
    finally:
        del registry["tests.report"]


@pytest.mark.parametrize("wrong", ["no.such.Encoder", "json.dumps", "snappea.models.Task", "x"])
def test_an_encoder_that_is_none(settings: Any, wrong: str) -> None:
    settings.SNAPPEA = {"JSON_ENCODER": wrong}
    with pytest.raises(ConfigurationError, match=r"SNAPPEA\['JSON_ENCODER'\] is"):
        encode_result(datetime.date(2026, 1, 2), "t")


def test_without_one_they_are_refused(site: Site) -> None:
    with pytest.raises(UnserializableArgument, match=r"pass \.isoformat\(\)"):
        echo.delay(datetime.date(2026, 1, 2))
