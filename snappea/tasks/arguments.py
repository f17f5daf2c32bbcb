"""A call's arguments as strict JSON: what is accepted arrives unchanged, except that tuples become lists."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any, NoReturn

from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise

from ..conf import current, json_default
from ..errors import ResultTooLarge, UnreadableArguments, UnserializableArgument, UnserializableResult

MAX_DEPTH = 100
#: The keyword in which a call carries its trace. It is no argument: `decode()` removes it.
TRACE = "__trace__"
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decoder = json.JSONDecoder()
#: Encodes the most common types several times as fast as the encoder.
_WRITERS: dict[type, Callable[[Any], str]] = {
    int: int.__repr__,
    str: encode_basestring,
    bool: {False: "false", True: "true"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}
_SCALARS = frozenset((*_WRITERS, float))
_EXACT = _SCALARS | {dict, list, tuple}
#: What the encoder sees of an instance of a subclass.
_WRITTEN: dict[type, Callable[[Any], object]] = {
    dict: lambda value: dict(value.items()) if dict.__len__(value) else {},
    list: lambda value: list.__getitem__(value, slice(None)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    str: lambda value: str.__str__(value),
    float: lambda value: float.__add__(value, 0.0),
    int: lambda value: int.__add__(value, 0),
}


def encode(arguments: tuple[Any, ...] | dict[str, Any], name: str) -> str:
    """Encode positional or keyword arguments as strict JSON. Raises UnserializableArgument."""
    try:
        encoded = _encode_plain(arguments)
        if encoded is None:
            if not _is_exact(arguments):
                _check(arguments, name)
            encoded = _encode(arguments)
        if not encoded.isascii():
            encoded.encode()
    except (TypeError, ValueError):  # a UnicodeEncodeError is a ValueError
        _check(arguments, name)
        raise
    return encoded


def _encode_plain(arguments: tuple[Any, ...] | dict[str, Any]) -> str | None:
    """Encode a tuple of the most common types; return None for anything else."""
    if not isinstance(arguments, tuple):
        return None
    try:
        return f"[{','.join([_WRITERS[type(value)](value) for value in arguments])}]"
    except KeyError:
        return None


def _is_exact(value: Any, depth: int = 0) -> bool:
    """Tell whether a value consists only of JSON's own types, so that the encoder's checks suffice."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is dict:
        if any(type(key) is not str for key in value):
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return False
    depth += 1
    return depth <= MAX_DEPTH and all(type(item) in _SCALARS or _is_exact(item, depth) for item in value)


def _check(value: Any, name: str, where: str = "", depth: int = 0) -> None:
    """Raise UnserializableArgument for a value that is not strict JSON or would arrive changed.

    It uses `type()`: `isinstance()` believes a lazy object or a mock that claims to be of another class.
    """
    kind = type(value)
    if depth > MAX_DEPTH:
        _refuse(name, where, f"nested more than {MAX_DEPTH} deep", "store it, and pass the primary key")
    is_dict, is_list = issubclass(kind, dict), issubclass(kind, (list, tuple))
    fault = None if is_dict or is_list else _fault(value, kind)
    if fault := fault or _loss(value):
        _refuse(name, where, *fault)
    for key, item in value.items() if is_dict else enumerate(value) if is_list else ():
        if is_dict:
            if not issubclass(type(key), str):
                what = f"a dict with the key {key!r} of type {type(key).__name__}"
                _refuse(name, where, what, "make its keys strings")
            _check(key, name, f"{where}[{key!r}]", depth + 1)
        _check(item, name, f"{where}[{key!r}]", depth + 1)


def _fault(value: Any, kind: type) -> tuple[str, str] | None:
    """Return what is wrong with a value that is not a container, and the cure; None if it is valid."""
    if value is None:
        return None
    if issubclass(kind, str):
        is_broken = not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)
        return ("a string with a lone surrogate", "decode it properly") if is_broken else None
    if issubclass(kind, float):
        cure = "JSON has no such number; pass None or a string"
        return None if math.isfinite(value) else (repr(value), cure)
    if issubclass(kind, int):
        # Python neither writes nor reads a larger one in decimal (sys.set_int_max_str_digits)
        return None if value.bit_length() < 14_000 else ("an integer of thousands of digits", "pass hex(...)")
    if issubclass(kind, Promise):
        return "a lazy string", "pass str(...)"
    return f"a {kind.__name__}", _cure(value)


def _loss(value: Any) -> tuple[str, str] | None:
    """Return what the JSON of a subclass would lose, and the cure; None if it loses nothing."""
    kind = type(value)
    if kind in _EXACT:
        return None
    if issubclass(kind, MultiValueDict):  # an empty one would arrive unchanged, but others would not
        cure = "pass .dict() for the last value of each key, or dict(....lists()) for all of them"
        return f"a {kind.__name__} with several values for each key", cure
    base, written = next((base, how) for base, how in _WRITTEN.items() if issubclass(kind, base))
    try:
        if value == written(value):
            return None
    except Exception:  # its __eq__ or items() raises
        pass
    return f"a {kind.__name__} that differs from its plain {base.__name__}", f"pass a plain {base.__name__}"


def _cure(value: Any) -> str:
    kind = type(value)
    try:
        if (claimed := value.__class__) is not kind:  # a lazy object, or a mock with a spec
            plain = claimed.__name__ if claimed in _EXACT else "plain value"
            return "pass the primary key" if hasattr(value, "pk") else f"pass the {plain} that it wraps"
        if hasattr(value, "pk"):
            return "pass the primary key, and fetch the object in the task"
    except Exception:  # evaluating a lazy object fails
        return "pass the value that it wraps"
    if hasattr(value, "isoformat"):
        return "pass .isoformat(), and parse it in the task"
    if issubclass(kind, (bytes, bytearray)):
        return "decode it, or store it and pass the primary key"
    if issubclass(kind, (set, frozenset)):
        return "pass sorted(...)"
    if issubclass(kind, Mapping):
        return "pass dict(...)"
    if issubclass(kind, Iterable) and not hasattr(kind, "assert_called"):  # not a mock
        return "pass list(...)"
    return "pass str(...), or a primary key"


def _refuse(name: str, where: str, what: str, cure: str) -> NoReturn:
    place = where if len(where) <= 100 else f"{where[:100]}..."
    raise UnserializableArgument(f"{name}(): argument{place} is {what}, which is not JSON: {cure}.")


def require_whole(value: Any, name: str) -> None:
    """Raise UnserializableArgument for a form's data: django.tasks would keep only each key's last value."""
    if isinstance(value, MultiValueDict):
        _refuse(name, "", *(_loss(value) or ()))
    if isinstance(value, (dict, list, tuple)) and not _is_exact(value):
        for item in value.values() if isinstance(value, dict) else value:
            require_whole(item, name)


def simplified(value: Any) -> Any:
    """Apply JSON_ENCODER's default() to a value; `encode()` rejects what that cannot convert."""
    default = json_default()
    return value if default is None else _simplified(value, default)


def _simplified(value: Any, default: Callable[[Any], Any], depth: int = 0) -> Any:
    kind = type(value)
    if value is None or issubclass(kind, (str, int, float)) or depth > MAX_DEPTH:
        return value
    if issubclass(kind, (dict, list, tuple)):
        if _loss(value):
            return value
        if issubclass(kind, dict):
            return {key: _simplified(item, default, depth + 1) for key, item in value.items()}
        items = [_simplified(item, default, depth + 1) for item in value]
        return tuple(items) if issubclass(kind, tuple) else items
    try:
        return _simplified(default(value), default, depth + 1)
    except (TypeError, ValueError):  # encode() rejects it, and says where it is
        return value


def encode_result(result: Any, name: str) -> str:
    """Encode a task's result. Raises UnserializableResult or ResultTooLarge."""
    limit = current().MAX_RESULT_BYTES
    try:
        if isinstance(result, str) and len(result) > limit:
            _refuse_result(name, f"more than {limit}", limit)  # before it is copied
        encoded = encode((simplified(result),), name)[1:-1]
        if len(encoded) * 4 > limit and (size := len(encoded.encode())) > limit:
            _refuse_result(name, str(size), limit)
        return encoded
    except TypeError as error:
        message = str(error).replace("argument[0]", "its result", 1)
        raise UnserializableResult(
            f"{message} Or remove result_ttl (in a chain, result=True) if you do not need the result."
        ) from None


def _refuse_result(name: str, size: str, limit: int) -> NoReturn:
    raise ResultTooLarge(
        f"{name}(): the result takes {size} bytes as JSON; MAX_RESULT_BYTES is {limit}. Store it and return "
        "the primary key."
    )


def _decode(text: str) -> Any:
    try:
        value, end = _decoder.raw_decode(text)  # three times as fast as decode()
    except ValueError:  # perhaps because of leading white space
        end = -1
    return value if end == len(text) else _decoder.decode(text)


def decode(args: str, kwargs: str) -> tuple[list[Any], dict[str, Any]]:
    """Return a row's arguments, without its trace. Raises UnreadableArguments."""
    try:
        positional = _decode(args) if args != "[]" else []
        named = _decode(kwargs) if kwargs != "{}" else {}
    except (TypeError, ValueError, RecursionError) as error:
        raise UnreadableArguments(f"The arguments are not JSON: {error}.") from error
    if not isinstance(positional, list) or not isinstance(named, dict):
        raise UnreadableArguments("The arguments must be a JSON list (args) and a JSON object (kwargs).")
    named.pop(TRACE, None)
    return positional, named
