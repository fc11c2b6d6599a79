"""Between the wire's messages and what people hold: generated messages, enums, times, plain Python values.

Inside, the SDK works on the wire's messages alone (`memos_sdk._gen.wire`: compiled, some 400 times as fast). The
generated messages (`memos_sdk._gen.mip.v1`: dataclasses of betterproto2) are what it gives to people and takes from
them; they are imported when the first one is needed, and go through bytes, so that fields unknown to one side stay.
"""

from __future__ import annotations

import datetime
import functools
import json
import struct
import sys
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from memos_sdk._core.pool import message_type, wire_type
from memos_sdk.errors import DataLoss, UsageError

WireT = TypeVar("WireT", bound=Message)
GeneratedT = TypeVar("GeneratedT")

# What betterproto2 and protobuf raise on values that a field cannot hold, or on bytes that are not the message.
VALUE_ERRORS = (TypeError, ValueError, AttributeError, OverflowError, KeyError, EOFError, struct.error)


@functools.cache
def _generated_type(full_name: str) -> Any:
    from memos_sdk._gen.mip import v1

    return getattr(v1, full_name.removeprefix("mip.v1.").replace(".", ""))


def generated(message: Message) -> GeneratedT:  # type: ignore[type-var] # what the caller says it is
    """Returns the generated message that says the same as a message of the wire.

    Raises:
        DataLoss: It holds what Python cannot, such as a time after the year 9999.
    """
    return _parsed(type(message), message.SerializeToString())  # type: ignore[no-any-return]


def generated_from(cls: type[Message], data: bytes) -> GeneratedT:  # type: ignore[type-var] # as in generated
    """Returns the generated message of bytes that the wire's class stands for.

    Raises:
        DataLoss: The bytes are not the message, or hold what Python cannot.
    """
    try:
        # betterproto2 takes some bytes for a message that are none.
        cls.FromString(data)
    except DecodeError as error:
        raise _malformed(f"the bytes are no {cls.DESCRIPTOR.full_name}: {error}") from None
    return _parsed(cls, data)  # type: ignore[no-any-return]


def _parsed(cls: type[Message], data: bytes) -> Any:
    name = cls.DESCRIPTOR.full_name
    try:
        return _generated_type(name).parse(data)
    except VALUE_ERRORS as error:
        raise _malformed(f"{name} cannot be shown: {error}") from error


def is_generated(value: object) -> bool:
    """Returns True for a generated message; nobody has one while betterproto2 is not imported."""
    betterproto2 = sys.modules.get("betterproto2")
    return betterproto2 is not None and isinstance(value, betterproto2.Message)


def to_wire(value: Any, cls: type[WireT]) -> WireT:
    """Returns the message of the wire for a generated one, or for what already is of the wire.

    Args:
        value: The message.
        cls: The wire's class.

    Raises:
        UsageError: It is another type of message, none at all, or holds what it cannot carry.
    """
    if isinstance(value, cls):
        return value
    name = cls.DESCRIPTOR.name
    if not is_generated(value) or type(value).__name__ != name:
        raise UsageError(
            f"{type(value).__name__} is not a {name}", reason="INVALID_FIELD", remedy=f"Pass a message {name}."
        )
    try:
        return cls.FromString(bytes(value))
    except VALUE_ERRORS as error:
        raise unfit(f"a {name}", error) from error


def unfit(what: str, error: Exception) -> UsageError:
    """Returns the error for a value that its field cannot carry."""
    return UsageError(
        f"{what} cannot carry its arguments: {error}",
        reason="INVALID_FIELD",
        remedy="Check the types of the arguments; times need a time zone, text must be valid Unicode.",
    )


def enum_member(name: str, number: int) -> GeneratedT:  # type: ignore[type-var] # as in generated
    """Returns the member of an enum; a number that the SDK does not know yet makes a member without a name."""
    from memos_sdk._gen.mip import v1

    return getattr(v1, name)(number)  # type: ignore[no-any-return]


@functools.cache
def _enum_names(name: str) -> dict[str, int]:
    """Returns the names of an enum without their common prefix, such as `ACTIVE` of `MEMORY_STATE_ACTIVE`."""
    items = wire_type(name).items()
    prefix = next(label for label, number in items if number == 0).removesuffix("UNSPECIFIED")
    return {label.removeprefix(prefix): number for label, number in items}


def enum_name(name: str, number: int) -> str | int:
    """Returns what a number of an enum is called; the number itself where the SDK does not know it."""
    return next((label for label, known in _enum_names(name).items() if known == number), number)


def enum_number(name: str, value: object, what: str) -> Any:
    """Returns the number that a name in any case, a member or a number stands for.

    Raises:
        UsageError: There is none.
    """
    if isinstance(value, str):
        number = _enum_names(name).get(value.upper().replace("-", "_"))
        if number is not None:
            return number
    elif isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    known = ", ".join(label.lower() for label in _enum_names(name) if label != "UNSPECIFIED")
    raise UsageError(f"{value!r} is not a {what}", reason="INVALID_FIELD", remedy=f"Use one of: {known}.")


def timestamp(value: datetime.datetime | None) -> Any:
    """Returns the wire's form of a time; None stays None.

    Raises:
        TypeError: It is no time.
        ValueError: It has no time zone.
    """
    if value is None:
        return None
    if not isinstance(value, datetime.datetime):
        raise TypeError(f"a time is a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        raise ValueError(f"the time {value.isoformat()} has no time zone")
    made = message_type("google.protobuf.Timestamp")()
    made.FromDatetime(value)
    return made


def duration(value: datetime.timedelta | None) -> Any:
    """Returns the wire's form of a duration; None stays None.

    Raises:
        TypeError: It is no duration.
    """
    if value is None:
        return None
    made = message_type("google.protobuf.Duration")()
    made.FromTimedelta(value)
    return made


def time_of(message: Any, field: str) -> datetime.datetime | None:
    """Returns a time of a message, in UTC to the microsecond; None where it is not set.

    Raises:
        DataLoss: It lies outside of the years 1 to 9999.
    """
    return as_time(getattr(message, field)) if message.HasField(field) else None


def as_time(value: Any) -> datetime.datetime:
    """Returns the wire's time as a datetime in UTC.

    Raises:
        DataLoss: It lies outside of the years 1 to 9999.
    """
    try:
        found: datetime.datetime = value.ToDatetime(datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise _malformed(f"a time of the server's answer is none: {error}") from error
    return found


def as_json(text: str) -> Any:
    """Returns the value of a server's JSON text.

    Raises:
        DataLoss: It is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"a JSON text of the server's answer is none: {error}") from error


def _malformed(message: str) -> DataLoss:
    return DataLoss(
        message, reason="MALFORMED_RESPONSE", remedy="Check that the address is that of a MIP server, and its version."
    )
