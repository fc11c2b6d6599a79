"""Messages as plain values, as expressions see them, and plain values as requests."""

from __future__ import annotations

import base64
import datetime
import json
import re
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from mip_conformance.contract import pool

_TIMESTAMP = "google.protobuf.Timestamp"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")


def plain(message: Message) -> dict[str, Any]:
    """Returns a message as a map by field name.

    Enums are their names (a number where it is unknown), bytes are bytes, Timestamps texts with nine digits of a
    second, so that they compare as they sort. Absent messages, unset members of a oneof and unset optional fields are
    left out; everything else has its default.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                found[field.name] = {key: _one(field.message_type.fields_by_name["value"], value[key]) for key in value}
            else:
                found[field.name] = [_one(field, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = _one(field, value)
    return found


def _one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name == _TIMESTAMP:
            return timestamp_text(value.seconds, value.nanos)
        if name in ("google.protobuf.Duration", "google.protobuf.FieldMask"):
            try:
                return json_format.MessageToDict(value)
            except (ValueError, json_format.Error):
                return plain(value)  # no duration, no mask: a server may send anything
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value


def timestamp_text(seconds: int, nanos: int) -> str:
    """Returns a time in RFC 3339 with nine digits of a second; a time that no calendar has as its numbers."""
    try:
        moment = _EPOCH + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return f"{seconds}s{nanos}n"
    # Not strftime, which writes early years with fewer digits.
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}.{nanos:09d}Z"


def nanoseconds(text: str) -> int:
    """Returns the nanoseconds since 1970 of a time as `timestamp_text` writes it; 0 for another text."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return 0
    moment = datetime.datetime.fromisoformat(f"{match[1]}+00:00") - _EPOCH
    return (moment.days * 86_400 + moment.seconds) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))


def same_text(expected: str, actual: str) -> bool:
    """Tells whether two texts are equal, or the same moment written with other digits."""
    if expected == actual:
        return True
    one, other = _RFC3339.fullmatch(expected), _RFC3339.fullmatch(actual)
    return bool(one and other) and _moment(one) == _moment(other)  # type: ignore[arg-type]


def _moment(match: re.Match[str]) -> tuple[str, str]:
    return match[1], (match[2] or "").ljust(9, "0")


def jsonable(value: Any) -> Any:
    """Returns a plain value in the JSON mapping of protobuf: bytes as base64, keys as they are."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, datetime.timedelta):
        return f"{value.total_seconds():.6f}s"
    return value


def whole(value: Any) -> Any:
    """Returns a value of a Struct with its whole numbers as integers: a Struct knows doubles alone."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def message_of(kind: type[Message], fields: dict[str, Any]) -> Message:
    """Returns a message from plain values in the JSON mapping.

    Raises:
        ValueError: The values do not fit the message.
    """
    try:
        return json_format.ParseDict(jsonable(fields), kind(), descriptor_pool=pool())
    except json_format.ParseError as error:
        raise ValueError(f"{kind.DESCRIPTOR.name}: {error}") from None


def as_json(message: Message) -> str:
    """Returns a message as compact JSON with the field names of the proto, as grpcurl takes it."""
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=pool())
    return json.dumps(fields, ensure_ascii=False)
