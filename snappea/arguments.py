"""A call's arguments as strict JSON: what is accepted arrives, and arrives equal.

But for tuples, which arrive as lists.
"""

import json
import math
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, NoReturn

from .errors import UnreadableArguments, UnserializableArgument, UnserializableResult

MAX_DEPTH = 100
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decoder = json.JSONDecoder()
#: How most arguments are written, several times as fast as by the encoder.
_WRITERS: dict[type, Callable[[Any], str]] = {
    int: int.__repr__,
    str: encode_basestring,
    bool: {False: "false", True: "true"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}


def encode(arguments: tuple[Any, ...] | dict[str, Any], name: str) -> str:
    """Encode positional or keyword arguments as strict JSON. Raises UnserializableArgument."""
    try:
        encoded = _encode_plain(arguments)
        if encoded is None:
            _check(arguments, name)
            encoded = _encode(arguments)
        if not encoded.isascii():
            encoded.encode()
    except (TypeError, ValueError):  # a UnicodeEncodeError is a ValueError
        _check(arguments, name)
        raise
    return encoded


def _encode_plain(arguments: tuple[Any, ...] | dict[str, Any]) -> str | None:
    """Encode a tuple of what has a writer; return None for everything else."""
    if not isinstance(arguments, tuple):
        return None
    try:
        return f"[{','.join([_WRITERS[type(value)](value) for value in arguments])}]"
    except KeyError:
        return None


def _check(value: Any, name: str, where: str = "", depth: int = 0) -> None:
    """Find what is not strict JSON, and say what and where. Raises UnserializableArgument."""
    fault: tuple[str, str] | None = None
    if depth > MAX_DEPTH:
        fault = f"nested more than {MAX_DEPTH} deep", "store it, and pass the primary key"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                _refuse(name, where, f"a dict with the key {key!r}", "make its keys strings")
            _check(key, name, f"{where}[{key!r}]", depth + 1)
            _check(item, name, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, name, f"{where}[{index}]", depth + 1)
    else:
        fault = _fault(value)
    if fault:
        _refuse(name, where, *fault)


def _fault(value: object) -> tuple[str, str] | None:
    """Return what is wrong with a value that is no container, and the cure; None if nothing is."""
    if isinstance(value, str):
        broken = not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)
        return ("a string with a lone surrogate", "decode it properly") if broken else None
    if isinstance(value, float):
        return (
            None if math.isfinite(value) else (repr(value), "JSON has no such number; pass None or a string")
        )
    if isinstance(value, int):
        # what Python refuses to write in decimal (sys.set_int_max_str_digits) it would not read either
        return None if value.bit_length() < 14_000 else ("an integer of thousands of digits", "pass hex(...)")
    return None if value is None else (f"a {type(value).__name__}", _cure(value))


def _cure(value: object) -> str:
    if hasattr(value, "pk"):
        return "pass the primary key, and fetch the object in the task"
    if hasattr(value, "isoformat"):
        return "pass .isoformat(), and parse it in the task"
    if isinstance(value, (bytes, bytearray)):
        return "decode it, or store it and pass the primary key"
    if isinstance(value, (set, frozenset)):
        return "pass sorted(...)"
    return "pass str(...), or a primary key"


def _refuse(name: str, where: str, what: str, cure: str) -> NoReturn:
    place = where if len(where) <= 100 else f"{where[:100]}..."
    raise UnserializableArgument(f"{name}(): argument{place} is {what}, which is not JSON: {cure}.")


def encode_result(result: Any, name: str) -> str:
    """Encode what a task returned. Raises UnserializableResult."""
    try:
        return encode((result,), name)[1:-1]
    except TypeError as error:
        message = str(error).replace("argument[0]", "its result", 1)
        raise UnserializableResult(f"{message} Or drop result_ttl, if nobody asks for it.") from None


def _decode(text: str) -> Any:
    try:
        value, end = _decoder.raw_decode(text)  # what decode() comes to, in a third of its time
    except ValueError:  # perhaps there is only white space before it
        end = -1
    return value if end == len(text) else _decoder.decode(text)


def decode(args: str, kwargs: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that a row carries. Raises UnreadableArguments."""
    try:
        positional = _decode(args) if args != "[]" else []
        named = _decode(kwargs) if kwargs != "{}" else {}
    except (TypeError, ValueError, RecursionError) as error:
        raise UnreadableArguments(f"The arguments are not JSON: {error}.") from error
    if not isinstance(positional, list) or not isinstance(named, dict):
        raise UnreadableArguments("The arguments must be a JSON list (args) and a JSON object (kwargs).")
    return positional, named
