"""Where the fields of a serialized message lie, known and unknown ones alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_FIXED: Final = {1: 8, 5: 4}
_LENGTH: Final = 2
_GROUP: Final = 3
_END: Final = 4


def wire_fields(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields number, begin and end of each field of a message, as serialized by a protobuf library, so well-formed.

    Fields within fields are not looked at; a group is one field.
    """
    at = 0
    while at < len(raw):
        begin = at
        number, at = _field(raw, at)
        yield number, begin, at


def _field(raw: bytes, at: int) -> tuple[int, int]:
    tag, at = _varint(raw, at)
    kind = tag & 7
    if kind == _LENGTH:
        size, at = _varint(raw, at)
        return tag >> 3, at + size
    if kind == _GROUP:
        while True:
            inner, after = _varint(raw, at)
            if inner & 7 == _END:
                return tag >> 3, after
            at = _field(raw, at)[1]
    if kind in _FIXED:
        return tag >> 3, at + _FIXED[kind]
    return tag >> 3, _varint(raw, at)[1]


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
