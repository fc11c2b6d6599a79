"""Counts the elements of a request before it is parsed: three megabytes may hold 1.5 million empty messages, whose
parsing takes a second and a third of a gigabyte before anybody can refuse them.

For each message type there is an outline: the same field numbers, with everything that is repeated and limited, and
everything that leads there, as `repeated bytes`. Parsing an outline makes no element, only notes where each lies, and
what the parser thinks well-formed, merges or skips as unknown it does here as it does there. One level is read at a
time, from a list of what is still to read, so that nothing nests on the stack.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from memos_server._pb.mip.v1 import options_pb2
from memos_server.errors import invalid_field, option, too_many

MAX_MESSAGES: Final = 400_000
"""The most messages within one request. Twice of what fits the declared limits: 1,000 memories with 64 each of labels,
provenance and blobs. More come only of a field that is not repeated and yet sent again and again."""

_DEPTH: Final = 100
"""Deeper the parser itself refuses to go."""

Check = Callable[[bytes], None]


class _Field(NamedTuple):
    """A field of an outline.

    Attributes:
        name: Its name.
        max_items: The most elements; 0 for any number.
        message: Its message type; None for texts.
        below: Whether something is to be counted in it.
        repeated: Whether it may be sent more than once.
        alone: Whether it is one of several of which the last counts.
    """

    name: str
    max_items: int
    message: Descriptor | None
    below: bool
    repeated: bool
    alone: bool


class _Outline(NamedTuple):
    parse: Callable[[bytes], Any]
    fields: dict[int, _Field]


def wire_check(descriptor: Descriptor) -> Check | None:
    """Returns the check of a request type's bytes; None where nothing in it is repeated.

    The check raises a MipError, TOO_MANY_ITEMS with the reason and the path that validation would give, or a
    DecodeError. Of a field that is not repeated and yet comes several times within a oneof, each is counted by itself.
    """
    if not _has_elements(descriptor):
        return None

    def check(raw: bytes) -> None:
        _walk(descriptor, raw)

    return check


def _walk(descriptor: Descriptor, raw: bytes) -> None:
    messages = 0
    left: list[tuple[Descriptor, bytes, str, int]] = [(descriptor, raw, "", 1)]
    while left:
        kind, data, path, depth = left.pop()
        outline = _outline(kind)
        for set_field, pieces in outline.parse(data).ListFields():
            field = outline.fields[set_field.number]
            count = len(pieces)
            if field.max_items and count > field.max_items:
                raise invalid_field(f"{path}{field.name}", too_many(field.max_items, count), "TOO_MANY_ITEMS")
            if field.message is None:
                continue
            messages += count
            if messages > MAX_MESSAGES:
                text = f"holds more than {MAX_MESSAGES} messages"
                raise invalid_field(f"{path}{field.name}", text, "TOO_MANY_ITEMS")
            if not field.below or depth >= _DEPTH:
                continue
            if field.repeated:
                left += [
                    (field.message, piece, f"{path}{field.name}[{index}].", depth + 1)
                    for index, piece in enumerate(pieces)
                    if piece
                ]
            elif count == 1 or field.alone:
                left += [(field.message, piece, f"{path}{field.name}.", depth + 1) for piece in pieces if piece]
            else:
                # Occurrences of one message are merged, which is what their bytes one after the other are.
                left.append((field.message, b"".join(pieces), f"{path}{field.name}.", depth + 1))


@cache
def _outline(descriptor: Descriptor) -> _Outline:
    fields = {field.number: _field(field) for field in descriptor.fields if _counts(field)}
    file = descriptor_pb2.FileDescriptorProto(name="outline.proto", syntax="proto3")
    message = file.message_type.add(name="Outline")
    for number, field in fields.items():
        message.field.add(
            name=field.name,
            number=number,
            type=FieldDescriptor.TYPE_BYTES,
            label=FieldDescriptor.LABEL_REPEATED,
        )
    # A pool for each: they have nothing in common, and no name is taken twice.
    pool = DescriptorPool()
    pool.Add(file)
    return _Outline(GetMessageClass(pool.FindMessageTypeByName("Outline")).FromString, fields)


def _field(field: FieldDescriptor) -> _Field:
    kind = field.message_type
    return _Field(
        field.name,
        _max_items(field),
        kind,
        kind is not None and _has_elements(kind),
        field.is_repeated,
        field.containing_oneof is not None,
    )


def _max_items(field: FieldDescriptor) -> int:
    return int(option(field.GetOptions(), options_pb2.limit).max_items) if field.is_repeated else 0


def _counts(field: FieldDescriptor) -> bool:
    """Returns whether a field belongs to its type's outline."""
    if field.message_type is not None:
        return True
    # Numbers take little more room than their bytes did; texts are counted where a number is declared.
    return field.cpp_type == FieldDescriptor.CPPTYPE_STRING and _max_items(field) > 0


@cache
def _has_elements(descriptor: Descriptor) -> bool:
    """Returns whether something in a message, however deep, is repeated or one of several messages."""
    seen: set[str] = set()
    left = [descriptor]
    while left:
        current = left.pop()
        if current.full_name in seen:
            continue
        seen.add(current.full_name)
        for field in current.fields:
            if field.is_repeated and field.cpp_type in (
                FieldDescriptor.CPPTYPE_STRING,
                FieldDescriptor.CPPTYPE_MESSAGE,
            ):
                return True
            if field.message_type is not None:
                left.append(field.message_type)
    return False
