"""The JSON form of messages: field names as in the protos, bytes as hexadecimal, times in RFC 3339, enums by name."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from memos_sdk._core.convert import as_time, enum_name, is_generated, to_wire
from memos_sdk._core.pool import wire_type
from memos_sdk._core.text_form import time_text


def to_json(message: Any) -> dict[str, Any]:
    """Returns a message, of the wire or generated, as JSON values. Fields at their default are left out, as in the
    protobuf JSON mapping.

    Digests, commitments and other bytes are hexadecimal, which people compare with what other tools print.
    """
    if is_generated(message):
        message = to_wire(message, wire_type(type(message).__name__))
    return {field.name: _field(field, value) for field, value in message.ListFields()}


def _field(field: Any, value: Any) -> Any:
    # Lists are no str, bytes or message; the names of the label that says so changed between versions of protobuf.
    if not isinstance(value, str | bytes | int | float | Message):
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        kind = value.DESCRIPTOR.full_name
        if kind == "google.protobuf.Timestamp":
            return time_text(as_time(value))
        if kind == "google.protobuf.Duration":
            return value.seconds + value.nanos / 1e9  # type: ignore[attr-defined] # its fields
        return to_json(value)
    if isinstance(value, bytes):
        return value.hex()
    if field.enum_type is not None:
        return enum_name(field.enum_type.full_name.removeprefix("mip.v1."), value)
    return value
