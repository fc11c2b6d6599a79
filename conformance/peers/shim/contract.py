"""The contract as a shim knows it: the published descriptor set, in a pool of its own, without generated code."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

PROTOCOL_VERSION = "1.0-alpha"
_DESCRIPTOR_SET = Path(__file__).parents[3] / "protos" / "mip.protoset"


class Rpc(NamedTuple):
    """An RPC and what the contract declares of it.

    Attributes:
        service: The full name of its service, `mip.v1.CubeService`.
        name: Its own name, `GetCube`.
        level: `core`, `history`, `access` or `graph`.
        open: True when it needs no token.
        request: The class of its requests.
        client_streaming: True when the client sends a stream.
        server_streaming: True when the server does.
    """

    service: str
    name: str
    level: str
    open: bool
    request: type[Message]
    client_streaming: bool
    server_streaming: bool


class Reason(NamedTuple):
    """An error reason: its status code, and whether the same call may succeed later."""

    code: str
    retryable: bool


@cache
def _files() -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString(_DESCRIPTOR_SET.read_bytes())


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """Returns the pool of the contract's messages."""
    made = descriptor_pool.DescriptorPool()
    for file in _files().file:
        made.Add(file)
    return made


@cache
def message_class(name: str) -> Any:
    """Returns the class of a message of `mip.v1` by its name there."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"mip.v1.{name}"))


@cache
def enum_number(enum: str, name: str) -> int:
    """Returns the number of an enum's value, such as `MEMORY_STATE_ACTIVE` of `MemoryState`."""
    return int(pool().FindEnumTypeByName(f"mip.v1.{enum}").values_by_name[name].number)


@cache
def enum_name(enum: str, number: int) -> str:
    """Returns the name of an enum's value; empty when the contract has none of that number."""
    value = pool().FindEnumTypeByName(f"mip.v1.{enum}").values_by_number.get(number)
    return str(value.name) if value is not None else ""


def _option(options: Any, kind: str, extension: str) -> Any:
    """Returns a custom option, parsed anew in this pool: generated options know none of its extensions."""
    parsed: Any = message_factory.GetMessageClass(pool().FindMessageTypeByName(f"google.protobuf.{kind}")).FromString(
        options.SerializeToString()
    )
    return parsed.Extensions[pool().FindExtensionByName(f"mip.v1.{extension}")]


@cache
def rpcs() -> tuple[Rpc, ...]:
    """Returns every RPC of the contract."""
    found = []
    for file in _files().file:
        for service in file.service:
            for method in service.method:
                level = enum_name("Level", _option(method.options, "MethodOptions", "level"))
                permission = _option(method.options, "MethodOptions", "auth").permission
                request = pool().FindMessageTypeByName(method.input_type.removeprefix("."))
                found.append(
                    Rpc(
                        f"{file.package}.{service.name}",
                        method.name,
                        level.removeprefix("LEVEL_").lower(),
                        enum_name("Permission", permission) == "PERMISSION_OPEN",
                        message_factory.GetMessageClass(request),
                        method.client_streaming,
                        method.server_streaming,
                    )
                )
    return tuple(found)


@cache
def reasons() -> Mapping[str, Reason]:
    """Returns the error reasons, without their prefix."""
    enum = pool().FindEnumTypeByName("mip.v1.ErrorReason")
    found = {}
    for value in enum.values:
        rule = _option(value.GetOptions(), "EnumValueOptions", "reason")
        if rule.code:
            found[value.name.removeprefix("ERROR_REASON_")] = Reason(rule.code, rule.retryable)
    return found


@cache
def limits(message: str) -> Mapping[str, Any]:
    """Returns the declared limits of a message's fields by field name; `message` is its full name."""
    found = {}
    for field in pool().FindMessageTypeByName(message).fields:
        limit = _option(field.GetOptions(), "FieldOptions", "limit")
        if limit.ByteSize():
            found[field.name] = limit
    return found


def is_list(field: Any) -> bool:
    """Tells whether a field is repeated."""
    return bool(field.is_repeated)
