"""The subject of an event: the type of its exception, and the place where it was raised."""

from typing import Any, NamedTuple


class Subject(NamedTuple):
    """Events with the same kind and place are one issue. The texts are safe to store, mail and show."""

    kind: str
    place: str
    message: str


def subject_of(event: Any) -> Subject:
    """Return the subject of an event, whatever it contains."""
    kind: Any = None
    place: Any = None
    message: Any = None
    match event:
        case {"exception": {"values": [*_, dict() as exception]}} | {"exception": [*_, dict() as exception]}:
            kind, place, message = exception.get("type"), _place_of(exception), exception.get("value")
        case {"logentry": {"message": kind}, **rest} | {"message": kind, **rest}:
            place = rest.get("logger")
    return Subject(
        _one_line(kind, 200) or "Event", _one_line(place, 300) or "an unknown place", _one_line(message, 500)
    )


def _place_of(exception: dict[str, Any]) -> str:
    """Return the innermost function in the project's own code, or else the innermost of all."""
    match exception:
        case {"stacktrace": {"frames": [*frames]}}:
            frames = [frame for frame in frames if isinstance(frame, dict)]
        case _:
            frames = []
    own = [frame for frame in frames if frame.get("in_app")]
    for frame in (own or frames)[-1:]:
        module = _one_line(frame.get("module"), 200) or _one_line(frame.get("filename"), 200)
        function = _one_line(frame.get("function"), 100)
        return ".".join(name for name in (module, function) if name)
    return ""


def _one_line(value: object, limit: int) -> str:
    """Return a text on one line, without control characters and lone surrogates."""
    text = str(value) if isinstance(value, (str, int, float)) else ""
    printable = (char if char.isprintable() else " " for char in text[: 2 * limit])
    return " ".join("".join(printable).split())[:limit]
