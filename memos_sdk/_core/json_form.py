"""The JSON form of messages: field names as in the protos, bytes as hexadecimal, times in RFC 3339, enums by name."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

import betterproto2


def to_json(message: betterproto2.Message) -> dict[str, Any]:
    """Returns a message as JSON values. Fields at their default are left out, as in the protobuf JSON mapping.

    Digests, commitments and other bytes are hexadecimal, which people compare with what other tools print.
    """
    shown = {}
    for field in dataclasses.fields(message):  # type: ignore[arg-type] # every message class is a dataclass
        value = getattr(message, field.name)
        if value is None or (not isinstance(value, betterproto2.Message) and _is_default(value)):
            optional = field.metadata["betterproto"].optional or field.metadata["betterproto"].group
            if value is None or not optional:
                continue
        shown[field.name] = _value(value)
    return shown


def _is_default(value: object) -> bool:
    return value in ("", b"", 0, False) or value == []


def _value(value: Any) -> Any:
    if isinstance(value, betterproto2.Message):
        return to_json(value)
    if isinstance(value, betterproto2.Enum):
        return value.name or int(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime.datetime):
        return time_text(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value


def time_text(value: datetime.datetime) -> str:
    """Returns a time in RFC 3339, in UTC, to the microsecond."""
    return value.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def dumps(value: Any) -> str:
    """Returns JSON text on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
