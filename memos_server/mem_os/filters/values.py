"""Values of filters: times, numbers, enum names and JSON scalars."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from memos_server.mem_os.filters.syntax import Value, invalid_filter

_TIME: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2}))?", re.ASCII
)
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": lambda left, right: bool(left == right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
}
"""Operator -> comparison; `!=` is the negation of `=`, and `:` is each field's own."""


def nanoseconds_of(time: Timestamp) -> int:
    """Returns nanoseconds since the epoch, exactly."""
    return int(time.seconds) * 1_000_000_000 + int(time.nanos)


def time_value(value: Value) -> int:
    """Returns nanoseconds since the epoch of an RFC 3339 time, or of midnight UTC of a date.

    Raises:
        MipError: INVALID_FILTER.
    """
    found = _TIME.fullmatch(value.text)
    if found is not None:
        day, clock, fraction, offset = found.groups()
        zone = (offset or "Z").upper().replace("Z", "+00:00")
        try:
            moment = datetime.fromisoformat(f"{day}T{clock or '00:00:00'}{zone}")
            return round(moment.timestamp()) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
        except (ValueError, OverflowError):
            pass  # no such day or hour: refused below like any other text that is no time
    raise invalid_filter("expected a time such as 2026-05-01 or 2026-05-01T12:00:00Z", value.position)


def number_value(value: Value) -> float:
    """Returns a finite number.

    Raises:
        MipError: INVALID_FILTER.
    """
    if value.kind != "string" and _NUMBER.fullmatch(value.text):
        number = float(value.text)
        if math.isfinite(number):
            return number
    raise invalid_filter("expected a number", value.position)


def enum_value(value: Value, names: Mapping[str, int], prefix: str) -> int:
    """Returns the number of an enum value's name, with or without its prefix, in any case.

    Raises:
        MipError: INVALID_FILTER listing the names.
    """
    name = value.text.upper().removeprefix(prefix)
    if value.kind == "any" or name not in names:
        raise invalid_filter(f"expected one of {', '.join(names)}", value.position)
    return names[name]


def json_scalar(value: Value) -> str | float | bool | None:
    """Returns what a value means beside JSON: a bare number, `true`, `false` or `null`; anything else is text."""
    if value.kind == "number":
        return number_value(value)
    if value.kind == "word" and value.text in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[value.text]
    return value.text


def same_scalar(left: Any, right: str | float | bool | None) -> bool:
    """Returns whether a JSON value equals a scalar: same type, same value; numbers compare as doubles."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if left is None or right is None:
        return left is None and right is None
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(left, str) and isinstance(right, str) and left == right
    return isinstance(left, int | float) and float(left) == right
