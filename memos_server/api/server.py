"""The gRPC server: every RPC of the descriptors, health and reflection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import _async as reflection_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from memos_server._pb.mip.v1 import options_pb2
from memos_server.api.bodies import OPTIONS, PRINCIPAL_TURNS, PRINCIPAL_WAITING, Turns
from memos_server.api.endpoints import Context, Endpoint, Server, UseCase
from memos_server.api.observing import Observer
from memos_server.api.open_services import READ_S, OpenServices
from memos_server.api.resources import level_of
from memos_server.api.rpcs import FILES, USE_CASES
from memos_server.api.status import message_of, status_code, trailing_metadata
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError

if TYPE_CHECKING:
    from memos_server.telemetry.tracing import Tracing

    Generic = grpc.GenericRpcHandler[Any, Any]
    Method = grpc.RpcMethodHandler[Any, Any]
else:
    # Generic in the stubs only.
    Generic, Method = grpc.GenericRpcHandler, grpc.RpcMethodHandler

DEPENDENCY = "mip.dependency."
"""What the names of dependencies begin with, in the health service."""

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
_PACKAGE = "/mip.v1."
_SENT_BYTES = 64 * 2**20
_STREAMS = 256
_IDENTITY_ALONE = 1


class _Unimplemented(Generic):
    """Answers RPCs of the protocol that this server does not have, with a reason like every other error."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Method | None:
        """Returns a handler for the protocol's own methods; others are left to the transport."""
        path = handler_call_details.method
        if not path.startswith(_PACKAGE):
            return None

        async def refuse(frames: object, context: Context) -> None:
            error = MipError("UNIMPLEMENTED", f"this server does not implement {path}")
            await context.abort(status_code(error), message_of(error), trailing_metadata(error))

        return grpc.stream_stream_rpc_method_handler(refuse)


def services() -> list[ServiceDescriptor]:
    """Returns the protocol's services that this server implements."""
    return [service for file in FILES for service in file.services_by_name.values()]


def levels() -> list[str]:
    """Returns the levels that the RPCs of this server belong to, in the order of the contract."""
    found = {level_of(method) for service in services() for method in service.methods}
    names = [value.name.removeprefix("LEVEL_").lower() for value in options_pb2.Level.DESCRIPTOR.values]
    return [name for name in names if name in found]


def _handlers(
    server: Server, readers: Turns, observer: Observer, service: ServiceDescriptor, use_cases: dict[str, UseCase]
) -> Generic:
    # For gRPC every request is a stream, so that it reads none before its handler knows the caller. On the wire that is
    # the same.
    methods: dict[str, Method] = {}
    for method in service.methods:
        use_case = use_cases.pop(method.name, None)
        if use_case is None:
            raise SetupError(f"The RPC {method.full_name} has no use case.", "Add it to memos_server/api/rpcs.py.")
        endpoint = Endpoint(server, readers, method, use_case)
        if method.client_streaming:
            methods[method.name] = grpc.stream_unary_rpc_method_handler(observer.wrap(method, endpoint.upload))
        elif method.server_streaming:
            methods[method.name] = grpc.stream_stream_rpc_method_handler(observer.wrap(method, endpoint.stream))
        else:
            methods[method.name] = grpc.stream_unary_rpc_method_handler(observer.wrap(method, endpoint.unary))
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def build(
    server: Server, files: tuple[FileDescriptor, ...] = FILES, tracing: Tracing | None = None
) -> tuple[grpc.aio.Server, health_aio.HealthServicer]:
    """Builds the gRPC server, without a port.

    Args:
        server: What the endpoints share.
        files: The proto files whose services are served.
        tracing: Where calls are traced; None nowhere.

    Raises:
        SetupError: An RPC declares no permission or has no use case, or a use case has no RPC.
    """
    grpc_server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            *OPTIONS,
            ("grpc.max_send_message_length", _SENT_BYTES),
            ("grpc.max_concurrent_streams", _STREAMS),
            # gRPC unpacks a message whole before it looks at its size: a megabyte became a gigabyte.
            ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ALONE),
            # Who connects and says nothing, or went away without a word, does not keep its connection.
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_connection_idle_ms", 600_000),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
    )
    observer = Observer(server.mos.calls, tracing)
    readers = Turns("open_requests", PRINCIPAL_TURNS, PRINCIPAL_WAITING)
    left = dict(USE_CASES)
    described = [service for file in files for service in file.services_by_name.values()]
    for service in described:
        grpc_server.add_generic_rpc_handlers((_handlers(server, readers, observer, service, left),))
    if left:
        raise SetupError(f"Use cases without an RPC: {', '.join(sorted(left))}.", "Remove them from the table.")
    status = health_aio.HealthServicer()
    names = [service.full_name for service in described]
    mirror = reflection_aio.ReflectionServicer([*names, health.SERVICE_NAME, reflection.SERVICE_NAME])
    read_s = min(READ_S, server.mos.settings.watch.slow_request_s)
    grpc_server.add_generic_rpc_handlers((OpenServices((_HEALTH, status), (_REFLECTION, mirror), read_s=read_s),))
    grpc_server.add_generic_rpc_handlers((_Unimplemented(),))
    return grpc_server, status


async def set_serving(status: health_aio.HealthServicer, serving: bool) -> None:
    """Sets the health of the server and of each service."""
    for name in ["", *(service.full_name for service in services())]:
        await _set(status, name, serving)


async def set_dependency(status: health_aio.HealthServicer, name: str, serving: bool) -> None:
    """Sets the health of a part that the server depends on, under a name such as `mip.dependency.record`."""
    await _set(status, f"{DEPENDENCY}{name}", serving)


async def _set(status: health_aio.HealthServicer, name: str, serving: bool) -> None:
    state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    await status.set(name, state)
