"""The part of the Sentry envelope protocol that is needed to receive events.

An envelope is a line of JSON headers, followed by items. An item is a line of JSON headers and a payload:
https://develop.sentry.dev/sdk/data-model/envelopes/
"""

import json
import zlib
from io import BytesIO
from typing import Any, NamedTuple
from uuid import UUID

#: The largest envelope, both as sent and as unpacked, in bytes.
MAX_BYTES = 1_048_576


class Refused(Exception):
    """An envelope is not accepted. The message and the HTTP status go to the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Envelope(NamedTuple):
    """The used parts of an envelope. `event`: the JSON of its event, None if there is none."""

    event_id: str
    event: str | None


def unpack(body: bytes, encoding: str) -> bytes:
    """Decompress a body, without using much more memory than MAX_BYTES. Raises Refused."""
    if len(body) > MAX_BYTES:
        raise Refused(413, f"The envelope has more than {MAX_BYTES} bytes.")
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refused(415, "The Content-Encoding must be gzip, deflate or none.")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: detect which of the two
    try:
        unpacked = inflater.decompress(body, MAX_BYTES + 1)
    except zlib.error:
        raise Refused(400, f"The body is not {encoding}.") from None
    if len(unpacked) > MAX_BYTES:
        raise Refused(413, f"The unpacked envelope has more than {MAX_BYTES} bytes.")
    if not inflater.eof or inflater.unused_data:
        raise Refused(400, f"The {encoding} ends too early or too late.")
    return unpacked


def parse(content: bytes) -> Envelope:
    """Parse an envelope. Raises Refused if any part of it is malformed, even in items that are ignored."""
    stream = BytesIO(content)
    headers = _object(stream.readline(), "envelope header")
    events = []
    while line := stream.readline():
        if line.strip():
            item = _object(line, "item header")
            payload = _payload(stream, item.get("length"))
            if item.get("type") == "event":
                events.append(payload)
    if len(events) > 1:
        raise Refused(400, "The envelope has more than one event.")
    event_id = headers.get("event_id")
    if not events:
        return Envelope("" if event_id is None else _hex(event_id), None)
    event = _object(events[0], "event")
    return Envelope(_hex(event.get("event_id") if event_id is None else event_id), events[0].decode())


def _payload(stream: BytesIO, length: object) -> bytes:
    """Read a payload: `length` bytes and a line break, or one line if there is no length."""
    if length is None:
        return stream.readline()
    if type(length) is not int or not 0 <= length <= MAX_BYTES:
        raise Refused(400, "The length of an item is not a number of bytes.")
    payload = stream.read(length)
    if len(payload) < length or stream.readline().strip():
        raise Refused(400, "An item is shorter or longer than its length.")
    return payload


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        raise Refused(400, f"The {what} is not JSON.") from None
    if not isinstance(value, dict):
        raise Refused(400, f"The {what} is not a JSON object.")
    return value


def _hex(event_id: object) -> str:
    try:
        return UUID(str(event_id)).hex
    except ValueError:
        raise Refused(400, "The event_id is not a UUID.") from None
