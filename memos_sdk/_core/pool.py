"""The message classes of the wire: google.protobuf's, made from the descriptor set that the SDK ships.

The classes live in a pool of their own. So they meet no other copy of `mip.v1` in the process, such as that of a server
or of an application that generated its own, and they need no generated code that has to fit a version of protobuf.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

_PACKAGE = "mip.v1."
_PROTOSET = Path(__file__).resolve().parent.parent / "_gen" / "mip.protoset"


@functools.cache
def wire_type(name: str) -> Any:
    """Returns a message class, or a wrapper of an enum's names and numbers, by its name within `mip.v1`.

    Raises:
        AttributeError: There is none; this is what looking up a name in a module raises.
    """
    if not name.startswith("_"):
        try:
            return message_type(_PACKAGE + name)
        except KeyError:
            pass
        try:
            return enum_type_wrapper.EnumTypeWrapper(_pool().FindEnumTypeByName(_PACKAGE + name))
        except KeyError:
            pass
    raise AttributeError(f"mip.v1 has no message or enum {name!r}")


@functools.cache
def message_type(full_name: str) -> Any:
    """Returns a message class by its full name, such as `google.rpc.Status`.

    Raises:
        KeyError: There is none.
    """
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(full_name))


@functools.cache
def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in _files(_PROTOSET.read_bytes()):
        pool.AddSerializedFile(file)
    return pool


def _files(protoset: bytes) -> Iterator[bytes]:
    """Yields the files of a FileDescriptorSet, whose one field is 1, repeated.

    Importing the class that parses it would take longer than everything else here together.
    """
    at = 0
    while at < len(protoset):
        size, shift, at = 0, 0, at + 1
        while True:
            byte = protoset[at]
            size |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                break
        yield protoset[at : at + size]
        at += size
