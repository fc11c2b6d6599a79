"""Enforces what the contract declares of request fields, before a servicer sees the request.

The rules are the `(mip.v1.limit)` options of the protos. They are compiled once per message type into closures that
walk only the fields that are set (`ListFields`), and the path of a field is put together only when it is at fault, so
a valid request pays for the checks and nothing else. Beyond the declared rules, numbers must be finite, timestamps
lie in the years 1 to 9999, and enum values are known, except inside a memory's content, which is kept as it came.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from memos_server import json_text
from memos_server._pb.mip.v1 import options_pb2
from memos_server.errors import FieldViolation, MipError, too_many
from memos_server.names import GRAMMARS, matches

MAX_VIOLATIONS: Final = 20
"""The most violations that one error names."""

_CONTENT_LAST: Final = 31
"""The last field number of a memory's content (memory.proto)."""

_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
_OPAQUE: Final = frozenset({"google.protobuf.FieldMask", "google.protobuf.Duration"})


class _Fault(NamedTuple):
    reason: str
    description: str


class _Found(NamedTuple):
    path: str
    fault: _Fault


class _EnoughError(Exception):
    """Ends the walk at the last violation that is reported."""


_ValueCheck = Callable[[Any], "_Fault | None"]
_FieldCheck = Callable[[Any, list[_Found]], None]

_NOT_FINITE: Final = _Fault("INVALID_FIELD", "must be a finite number")
_NEGATIVE: Final = _Fault("INVALID_FIELD", "must not be negative")
_REQUIRED: Final = _Fault("FIELD_REQUIRED", "must be set")


def validate(message: Message) -> None:
    """Checks a request.

    Args:
        message: The request, as parsed.

    Raises:
        MipError: FIELD_REQUIRED, FIELD_TOO_LARGE, TOO_MANY_ITEMS, INVALID_NAME, INVALID_JSON or INVALID_FIELD: the
            reason of the first violation, missing fields first, then by field number. Up to 20 violations name path
            and cause.
    """
    found: list[_Found] = []
    with contextlib.suppress(_EnoughError):
        _message_check(message.DESCRIPTOR, False)(message, found)
    mask = getattr(message, "update_mask", None)
    if found and mask is not None and mask.paths:
        found = [violation for violation in found if not _unmasked(violation, mask.paths)]
    if found:
        first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise MipError(
            first.fault.reason,
            f"{first.path}: {first.fault.description}{more}",
            violations=[FieldViolation(path, fault.description) for path, fault in found[:MAX_VIOLATIONS]],
        )


def _unmasked(violation: _Found, paths: Sequence[str]) -> bool:
    """Returns whether a text is missing that the update leaves as it is, because it names its neighbours alone."""
    within = any(path.startswith("plaintext.") for path in paths) and "plaintext" not in paths
    missing = violation.fault is _REQUIRED and violation.path.endswith(".plaintext.text")
    # A text that the mask names is cleared, and so is missing afterwards.
    return missing and within and "plaintext.text" not in paths


def _report(found: list[_Found], path: str, fault: _Fault) -> None:
    found.append(_Found(path, fault))
    if len(found) >= MAX_VIOLATIONS:
        raise _EnoughError


@cache
def _message_check(descriptor: Descriptor, in_content: bool) -> _FieldCheck:
    """Returns the check of a message type; `in_content` when it is part of a memory's sealed content."""
    checks: dict[int, _FieldCheck] | None = None
    required = [(f.number, f.name) for f in descriptor.fields if _limit(f).required]

    def compiled() -> dict[int, _FieldCheck]:
        # Compiled at the first use rather than at once, because message types may contain themselves.
        return {f.number: c for f in descriptor.fields if (c := _field_check(f, in_content)) is not None}

    def check(message: Any, found: list[_Found]) -> None:
        nonlocal checks
        if checks is None:
            checks = compiled()
        fields = message.ListFields()
        if required:
            present = {f.number for f, value in fields if value or f.message_type is not None}
            for number, name in required:
                if number not in present:
                    _report(found, name, _REQUIRED)
        for field, value in fields:
            field_check = checks.get(field.number)
            if field_check is not None:
                field_check(value, found)

    return check


def _limit(field: FieldDescriptor) -> options_pb2.Limit:
    options: Any = field.GetOptions()  # the stubs do not know that the generated `limit` extends these options
    limit: options_pb2.Limit = options.Extensions[options_pb2.limit]
    return limit


def _field_check(field: FieldDescriptor, in_content: bool) -> _FieldCheck | None:
    """Returns the check of one field, or None when nothing is declared of it."""
    if field.message_type is not None:
        return _message_field_check(field, in_content)
    limit = _limit(field)
    value_check = _value_check(field, limit, in_content)
    name = field.name
    if not field.is_repeated:
        if value_check is None:
            return None

        def check_one(value: Any, found: list[_Found]) -> None:
            fault = value_check(value)
            if fault is not None:
                _report(found, name, fault)

        return check_one

    max_items = limit.max_items

    def check_each(values: Any, found: list[_Found]) -> None:
        if max_items and len(values) > max_items:
            _report(found, name, _Fault("TOO_MANY_ITEMS", too_many(max_items, len(values))))
            return
        if value_check is None:
            return
        for index, value in enumerate(values):
            fault = value_check(value)
            if fault is not None:
                _report(found, f"{name}[{index}]", fault)

    return check_each


def _message_field_check(field: FieldDescriptor, in_content: bool) -> _FieldCheck:
    message_type = field.message_type
    assert message_type is not None
    if message_type.full_name == "google.protobuf.Timestamp":
        inner: _FieldCheck = _check_timestamp
    elif message_type.full_name in _OPAQUE:
        inner = _check_nothing
    else:
        owner = field.containing_type
        part_of_content = owner is not None and owner.full_name == "mip.v1.Memory" and field.number <= _CONTENT_LAST
        inner = _message_check(message_type, in_content or part_of_content)
    name = field.name
    if not field.is_repeated:

        def check_one(value: Message, found: list[_Found]) -> None:
            before = len(found)
            try:
                inner(value, found)
            finally:
                if len(found) > before:
                    _prefix(found, before, name)

        return check_one

    max_items = _limit(field).max_items

    def check_each(values: Any, found: list[_Found]) -> None:
        if max_items and len(values) > max_items:
            _report(found, name, _Fault("TOO_MANY_ITEMS", too_many(max_items, len(values))))
            return
        for index, value in enumerate(values):
            before = len(found)
            try:
                inner(value, found)
            finally:
                if len(found) > before:
                    _prefix(found, before, f"{name}[{index}]")

    return check_each


def _prefix(found: list[_Found], begin: int, name: str) -> None:
    for at in range(begin, len(found)):
        path, fault = found[at]
        found[at] = _Found(f"{name}.{path}" if path else name, fault)


def _check_nothing(_: Any, __: list[_Found]) -> None:
    """Accepts: a well-known type whose use the servicer judges."""


def _check_timestamp(value: Any, found: list[_Found]) -> None:
    if not (_FIRST_SECOND <= value.seconds <= _LAST_SECOND and 0 <= value.nanos <= 999_999_999):
        _report(found, "", _Fault("INVALID_FIELD", "must lie between 0001-01-01 and 9999-12-31T23:59:59.999999999Z"))


def _value_check(field: FieldDescriptor, limit: options_pb2.Limit, in_content: bool) -> _ValueCheck | None:
    """Returns the check of one scalar value, or None when any value is permitted."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _bytes_check(limit.max_bytes)
        return _string_check(limit)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _finite_non_negative if limit.non_negative else _finite
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        return None if in_content else _enum_check(field.enum_type)
    if limit.non_negative and kind != FieldDescriptor.CPPTYPE_BOOL:
        return _non_negative
    return None


def _finite(value: float) -> _Fault | None:
    return None if math.isfinite(value) else _NOT_FINITE


def _finite_non_negative(value: float) -> _Fault | None:
    if not math.isfinite(value):
        return _NOT_FINITE
    return _NEGATIVE if value < 0 else None


def _non_negative(value: int) -> _Fault | None:
    return _NEGATIVE if value < 0 else None


def _enum_check(enum: EnumDescriptor) -> _ValueCheck:
    known = frozenset(enum.values_by_number)
    fault = _Fault("INVALID_FIELD", f"is not a value of {enum.name}")

    def check(value: int) -> _Fault | None:
        return None if value in known else fault

    return check


def _too_large(limit: int, size: int) -> _Fault:
    return _Fault("FIELD_TOO_LARGE", f"has {size} bytes; at most {limit} are permitted")


def _bytes_check(max_bytes: int) -> _ValueCheck | None:
    if not max_bytes:
        return None

    def check(value: bytes) -> _Fault | None:
        return _too_large(max_bytes, len(value)) if len(value) > max_bytes else None

    return check


def _string_check(limit: options_pb2.Limit) -> _ValueCheck | None:
    max_bytes = limit.max_bytes
    certain = max_bytes // 4  # UTF-8 takes at most 4 bytes a character: so many always fit

    def size_fault(value: str) -> _Fault | None:
        if len(value) <= certain or (len(value) <= max_bytes and value.isascii()):
            return None
        size = len(value.encode())
        return _too_large(max_bytes, size) if size > max_bytes else None

    if limit.format == options_pb2.FORMAT_UNSPECIFIED:
        return size_fault if max_bytes else None
    format_fault = _json_fault if limit.format == options_pb2.FORMAT_JSON else _format_check(limit.format)

    def check(value: str) -> _Fault | None:
        # The size first: no grammar reads a text that is too long for it.
        return (size_fault(value) if max_bytes else None) or (format_fault(value) if value else None)

    return check


def _json_fault(value: str) -> _Fault | None:
    try:
        json_text.parse(value)
    except json_text.JsonTextError as error:
        return _Fault("INVALID_JSON", str(error))
    return None


def _format_check(format_: int) -> _ValueCheck:
    grammar = GRAMMARS[format_]
    fault = _Fault(grammar.reason, f"must have the form {grammar.shape}")

    def check(value: str) -> _Fault | None:
        return None if matches(format_, value) else fault

    return check
