"""The gRPC server of a shim: every RPC of the contract, its token, its parsing and its limits."""

from __future__ import annotations

import hmac
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from conformance.peers.shim import contract, limits, service
from conformance.peers.shim.errors import Refusal, abort
from conformance.peers.shim.library import Library

_LOG = logging.getLogger(__name__)
_MESSAGE_BYTES = 64 * 1024 * 1024
"""What gRPC lets through, so that the shim itself answers what is above its limit."""


def serve(library: Library, listen: str, token: str) -> tuple[grpc.Server, int]:
    """Starts a server.

    Args:
        library: What it stands in front of.
        listen: `host:port`; port 0 chooses a free one.
        token: The bearer token that calls must carry.

    Returns:
        The server and its port.
    """
    server = grpc.server(
        ThreadPoolExecutor(max_workers=16),
        options=[("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.so_reuseport", 0)],
    )
    calls = _Calls(library, token)
    by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for rpc in contract.rpcs():
        by_service.setdefault(rpc.service, {})[rpc.name] = calls.handler(rpc)
    for name, handlers in by_service.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    status = health.HealthServicer()
    for name in ("", *service.SERVICES):
        status.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((*service.SERVICES, reflection.SERVICE_NAME), server, pool=contract.pool())
    port = server.add_insecure_port(listen)
    if port == 0:
        raise OSError(f"cannot listen on {listen}")
    server.start()
    return server, port


class _Calls:
    def __init__(self, library: Library, token: str) -> None:
        self._service = service.Service(library)
        self._token = token
        # Neither library says that its local storage may be used by several threads at once, so that a cube is used by
        # one call at a time; the set of cubes has a lock of its own, and the locks a third.
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def handler(self, rpc: contract.Rpc) -> grpc.RpcMethodHandler[Any, Any]:
        """Returns the handler of an RPC: bytes in, message out."""
        if rpc.service not in service.SERVICES or rpc.level not in service.LEVELS:
            return self._unimplemented(rpc)
        method = getattr(self._service, rpc.name)
        if rpc.client_streaming:
            return grpc.stream_unary_rpc_method_handler(
                lambda frames, context: self._answer(
                    rpc, context, lambda: service.gather(self._parsed(rpc, frame) for frame in frames), method
                ),
                response_serializer=_bytes,
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda data, context: self._answer(rpc, context, lambda: self._parsed(rpc, data), method),
            response_serializer=_bytes,
        )

    def _unimplemented(self, rpc: contract.Rpc) -> grpc.RpcMethodHandler[Any, Any]:
        def refuse(_: Any, context: grpc.ServicerContext) -> Any:
            def read() -> Any:
                raise Refusal("UNIMPLEMENTED", f"this server does not implement {rpc.service}.{rpc.name}")

            return self._answer(rpc, context, read, _bytes)

        def refuse_stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield refuse(request, context)

        if rpc.server_streaming:
            return grpc.unary_stream_rpc_method_handler(refuse_stream)
        if rpc.client_streaming:
            return grpc.stream_unary_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)

    def _answer(
        self, rpc: contract.Rpc, context: grpc.ServicerContext, read: Callable[[], Any], method: Callable[[Any], Any]
    ) -> Any:
        try:
            if not rpc.open:
                self._authenticate(context)
            request = read()
            with ExitStack() as held:
                for lock in self._locks_of(rpc, request):
                    held.enter_context(lock)
                if not context.is_active():
                    raise Refusal("CANCELLED", "the caller went away or its deadline is over")
                return _fitting(method(request))
        except Refusal as refusal:
            abort(context, refusal)
        except grpc.RpcError:
            # The client went away in the middle of its stream, and whatever is answered goes nowhere.
            abort(context, Refusal("CANCELLED", "the caller cancelled the call"))
        except Exception:
            incident = str(uuid.uuid4())
            _LOG.exception("incident %s in %s", incident, rpc.name)
            abort(context, Refusal("INTERNAL", "the library failed", metadata={"incident": incident}))

    def _locks_of(self, rpc: contract.Rpc, request: Any) -> list[threading.Lock]:
        """Returns the locks of a call in the order in which every call takes them."""
        names = [""] if rpc.name in service.OF_ALL_CUBES else []
        with self._guard:
            return [self._locks.setdefault(name, threading.Lock()) for name in (*names, *service.cubes_of(request))]

    def _authenticate(self, context: grpc.ServicerContext) -> None:
        given = dict(context.invocation_metadata()).get("authorization", "")
        given = given if isinstance(given, str) else ""
        if not given:
            raise Refusal("UNAUTHENTICATED", "the call carries no token")
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), self._token.encode()):
            raise Refusal("TOKEN_INVALID", "the token is not this server's")

    def _parsed(self, rpc: contract.Rpc, data: bytes) -> Any:
        if len(data) > service.MAX_REQUEST_BYTES:
            raise Refusal("REQUEST_TOO_LARGE", f"a request may have {service.MAX_REQUEST_BYTES} bytes")
        try:
            request = rpc.request.FromString(data)
        except DecodeError as error:
            raise Refusal("MALFORMED_MESSAGE", "the request does not parse") from error
        limits.check(request)
        return request


def _fitting(response: Any) -> Any:
    if response.ByteSize() > service.MAX_RESPONSE_BYTES:
        raise Refusal("RESPONSE_TOO_LARGE", f"a response may have {service.MAX_RESPONSE_BYTES} bytes")
    return response


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())
