"""Arguments: what is accepted arrives equal; what is not JSON is refused with what, where and the cure."""

import datetime
import decimal
import enum
import math
import uuid
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappea.arguments import decode, encode
from snappea.errors import SnappeaError, UnreadableArguments, UnserializableArgument
from snappea.models import Task

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(
    st.lists(JSON, max_size=4),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=4),
)
def test_json_arrives_equal_in_value_and_type(args: list[Any], kwargs: dict[str, Any]) -> None:
    arrived = decode(encode(tuple(args), "t"), encode(kwargs, "t"))
    assert arrived == (args, kwargs)
    assert repr(arrived) == repr((args, kwargs)), "1 is not True, and 0.0 is not -0.0"


ANYTHING = st.recursive(
    SCALARS
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.datetimes()
    | st.decimals()
    | st.uuids()
    | st.complex_numbers()
    | st.integers(min_value=10**4290, max_value=10**4310),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers())
        | st.dictionaries(
            st.text(st.characters()) | st.integers() | st.none() | st.booleans(), inner, max_size=4
        )
    ),
    max_leaves=10,
)


def as_arrived(value: Any) -> Any:
    """Turn tuples into lists, as documented."""
    if isinstance(value, (list, tuple)):
        return [as_arrived(item) for item in value]
    if isinstance(value, dict):
        return {key: as_arrived(item) for key, item in value.items()}
    return value


@given(ANYTHING)
def test_anything_arrives_equal_or_is_refused(value: Any) -> None:
    try:
        encoded = encode((value,), "t")
    except UnserializableArgument as refused:
        assert str(refused).startswith("t(): argument[0]") and "which is not JSON: " in str(refused)
        return
    assert decode(encoded, "{}")[0] == [as_arrived(value)]


class Pair(NamedTuple):
    a: int
    b: int


class Colour(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


class SafeText(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Word.YES,
        SafeText("x"),
        OrderedDict(a=1),
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
        (Ellipsis, "argument[0] is a ellipsis", "str(...)"),
    ],
)
def test_what_is_refused_is_named_with_its_place_and_the_cure(value: Any, what: str, cure: str) -> None:
    with pytest.raises(UnserializableArgument) as refused:
        encode((value,), "shop.tasks.ship")
    assert str(refused.value).startswith(f"shop.tasks.ship(): {what}") and cure in str(refused.value)
    assert isinstance(refused.value, TypeError) and isinstance(refused.value, SnappeaError)


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
