"""Health and reflection, which every server offers beside the contract: their few messages, made here by hand.

Only the fields that cases need are declared; others of an answer are skipped as unknown. A stream of requests with one
request in it looks on the wire as a single request does, so reflection is called as a stream from the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from mip_conformance.contract import Rpc, rpcs

_Field = descriptor_pb2.FieldDescriptorProto
_Messages = Mapping[str, Mapping[str, tuple[int, str, bool]]]

_HEALTH: _Messages = {
    "HealthCheckRequest": {"service": (1, "", False)},
    # The status is an enum of three values; cases compare its number: 1 is SERVING.
    "HealthCheckResponse": {"status": (1, "int32", False)},
}
_REFLECTION: _Messages = {
    "ServerReflectionRequest": {
        "host": (1, "", False),
        "file_containing_symbol": (4, "", False),
        "list_services": (7, "", False),
    },
    "ServerReflectionResponse": {
        "file_descriptor_response": (4, "FileDescriptorResponse", False),
        "list_services_response": (6, "ListServiceResponse", False),
        "error_response": (7, "ErrorResponse", False),
    },
    "FileDescriptorResponse": {"file_descriptor_proto": (1, "bytes", True)},
    "ListServiceResponse": {"service": (1, "ServiceResponse", True)},
    "ServiceResponse": {"name": (1, "", False)},
    "ErrorResponse": {"error_code": (1, "int32", False), "error_message": (2, "", False)},
}
"""Messages, their fields, and of each field its number, its type (empty for a text) and whether it is repeated."""

_SCALARS = {"": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES, "int32": _Field.TYPE_INT32}


def _classes(package: str, messages: _Messages) -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}.proto", package=package, syntax="proto3"
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added.type = _SCALARS.get(kind, _Field.TYPE_MESSAGE)
            if kind not in _SCALARS:
                added.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _rpc(name: str, service: str, request: type[Message], response: type[Message], *, streams: bool) -> Rpc:
    method = name.partition(".")[2]
    return Rpc(
        rpc=name,
        service=service,
        name=method,
        path=f"/{service}/{method}",
        request=request,
        response=response,
        client_streaming=False,
        server_streaming=streams,
        level="core",
        permission="PERMISSION_OPEN",
        resource_fields=(),
    )


@cache
def open_rpcs() -> Mapping[str, Rpc]:
    """Returns the RPCs by what cases call them: health, and reflection in both of its versions."""
    health = _classes("grpc.health.v1", _HEALTH)
    found = [
        _rpc(
            "Health.Check",
            "grpc.health.v1.Health",
            health["HealthCheckRequest"],
            health["HealthCheckResponse"],
            streams=False,
        )
    ]
    for name, package in (
        ("ServerReflection", "grpc.reflection.v1"),
        ("ServerReflectionAlpha", "grpc.reflection.v1alpha"),
    ):
        classes = _classes(package, _REFLECTION)
        request, response = classes["ServerReflectionRequest"], classes["ServerReflectionResponse"]
        found.append(
            _rpc(f"{name}.ServerReflectionInfo", f"{package}.ServerReflection", request, response, streams=True)
        )
    return {rpc.rpc: rpc for rpc in found}


@cache
def callable_rpcs() -> Mapping[str, Rpc]:
    """Returns everything that a case may call: the RPCs of the contract, and these."""
    return {**rpcs(), **open_rpcs()}
