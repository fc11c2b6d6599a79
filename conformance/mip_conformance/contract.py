"""The contract as the suite knows it: the shipped descriptor set, in a pool of its own, without generated code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

_HERE = Path(__file__).parent
DESCRIPTOR_SET = _HERE / "mip.protoset"
_SUITE_SET = _HERE / "suite.protoset"


class Rpc(NamedTuple):
    """An RPC and what the contract declares of it.

    Attributes:
        rpc: What cases call it, `CubeService.GetCube`.
        service: The full name of its service, `mip.v1.CubeService`.
        name: Its own name.
        path: Its path on the wire.
        request: The class of the request.
        response: The class of the response.
        client_streaming: True when the client sends a stream.
        server_streaming: True when the server sends one.
        level: `core`, `history`, `access` or `graph`.
        permission: The Permission, such as `PERMISSION_READ`.
        resource_fields: The request fields that name resources.
    """

    rpc: str
    service: str
    name: str
    path: str
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool
    level: str
    permission: str
    resource_fields: tuple[str, ...]

    @property
    def mutation(self) -> bool:
        """True when the RPC changes something: its request, or the first frame of its stream, has a request_id."""
        fields = self.request.DESCRIPTOR.fields_by_name
        return "request_id" in fields or "frame" in self.request.DESCRIPTOR.oneofs_by_name

    def described(self) -> dict[str, Any]:
        """Returns what expressions see as an element of `rpcs`."""
        return {
            "rpc": self.rpc,
            "service": self.service,
            "name": self.name,
            "level": self.level,
            "permission": self.permission,
            "resource_fields": list(self.resource_fields),
            "client_streaming": self.client_streaming,
            "server_streaming": self.server_streaming,
            "mutation": self.mutation,
            "request_fields": [field.name for field in self.request.DESCRIPTOR.fields],
        }


class Reason(NamedTuple):
    """An error reason: its status code, and whether the same call may succeed later."""

    code: str
    retryable: bool


def _pool_of(path: Path) -> DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.Add(file)
    return pool


@cache
def pool() -> DescriptorPool:
    """Returns the pool of the contract's messages."""
    return _pool_of(DESCRIPTOR_SET)


@cache
def suite_class(name: str) -> type[Message]:
    """Returns a message class of mip.conformance.v1."""
    found = _suite_pool().FindMessageTypeByName(f"mip.conformance.v1.{name}")
    return message_factory.GetMessageClass(found)


@cache
def _suite_pool() -> DescriptorPool:
    return _pool_of(_SUITE_SET)


@cache
def descriptor_hash() -> str:
    """Returns the SHA-256 of the descriptor set, in hexadecimal: which contract a report is about."""
    return hashlib.sha256(DESCRIPTOR_SET.read_bytes()).hexdigest()


def message_class(name: str) -> type[Message]:
    """Returns the class of a message of the contract by its name in `mip.v1`.

    Raises:
        KeyError: There is none.
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"mip.v1.{name}"))


@cache
def _options_class(name: str) -> type[Message]:
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"google.protobuf.{name}"))


def option(owner: Any, kind: str, extension: str) -> Any:
    """Returns a custom option, read anew in this pool: generated options know none of its extensions."""
    options: Any = _options_class(kind).FromString(owner.GetOptions().SerializeToString())
    return options.Extensions[pool().FindExtensionByName(f"mip.v1.{extension}")]


def enum_name(enum: str, number: int) -> str:
    """Returns the name of a value of an enum of `mip.v1`."""
    return str(pool().FindEnumTypeByName(f"mip.v1.{enum}").values_by_number[number].name)


@cache
def rpcs() -> Mapping[str, Rpc]:
    """Returns every RPC of the contract by what cases call it, in the order of the descriptor set."""
    found: dict[str, Rpc] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes()).file:
        if file.package != "mip.v1":
            continue
        for service in pool().FindFileByName(file.name).services_by_name.values():
            for method in service.methods:
                rpc = _rpc(method)
                found[rpc.rpc] = rpc
    return found


def _rpc(method: MethodDescriptor) -> Rpc:
    service = method.containing_service
    auth = option(method, "MethodOptions", "auth")
    return Rpc(
        rpc=f"{service.name}.{method.name}",
        service=service.full_name,
        name=method.name,
        path=f"/{service.full_name}/{method.name}",
        request=message_factory.GetMessageClass(method.input_type),
        response=message_factory.GetMessageClass(method.output_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        level=enum_name("Level", option(method, "MethodOptions", "level")).removeprefix("LEVEL_").lower(),
        permission=enum_name("Permission", auth.permission),
        resource_fields=tuple(auth.resource_fields),
    )


@cache
def described_rpcs() -> list[dict[str, Any]]:
    """Returns what expressions see as `rpcs`."""
    return [rpc.described() for rpc in rpcs().values()]


@cache
def levels() -> tuple[str, ...]:
    """Returns the levels in the order of the contract."""
    values = pool().FindEnumTypeByName("mip.v1.Level").values
    return tuple(value.name.removeprefix("LEVEL_").lower() for value in values if value.number)


@cache
def reasons() -> Mapping[str, Reason]:
    """Returns the table of error reasons."""
    found = {}
    for value in pool().FindEnumTypeByName("mip.v1.ErrorReason").values:
        if value.number:
            rule = option(value, "EnumValueOptions", "reason")
            found[value.name.removeprefix("ERROR_REASON_")] = Reason(rule.code, rule.retryable)
    return found
