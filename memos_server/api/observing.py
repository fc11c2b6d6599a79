"""Watches every call from its first byte to its end: counts it, traces it where that is on, logs it at level debug."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from memos_server.telemetry.calls import CURRENT, CallCounts, Observation

if TYPE_CHECKING:
    from memos_server.telemetry.tracing import Tracing

Context = grpc.aio.ServicerContext[bytes, bytes]

_ROUNDED_S = 0.1
"""A caller whose time runs out says so a little before the server's clock does: gRPC rounds the time on the wire up."""

ACCESS = logging.getLogger("memos_server.access")
"""One line a call, at level debug: what RPC, who, how it ended, how long it took; nothing of request or response."""


class Observer:
    """Wraps the handlers of RPCs."""

    def __init__(self, calls: CallCounts, tracing: Tracing | None = None) -> None:
        """Counts in `calls`, and traces where `tracing` is on."""
        self._calls = calls
        self._tracing = tracing

    def wrap(self, method: MethodDescriptor, handler: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        """Returns a handler that does what `handler` does, watched.

        Args:
            method: The RPC.
            handler: Reads requests from the context, and returns the response's bytes, or None after it has written a
                stream; it notes what it learns, the bytes of requests among it, in the Observation that is CURRENT.
        """
        counts = self._calls.of(method.full_name, streaming=method.client_streaming or method.server_streaming)
        tracing, service, name = self._tracing, method.containing_service.full_name, method.name

        async def observed(request: Any, context: Context) -> Any:
            seen = Observation(counts)
            CURRENT.set(seen)
            try:
                if tracing is not None:
                    seen.span = tracing.call(service, name, context.invocation_metadata())
                answer = await handler(request, context)
                if answer is not None:
                    seen.response_bytes = len(answer)
                return answer
            except BaseException as error:
                if not seen.reason:
                    _unexplained(seen, context, error)
                _without_frames(error)
                del request, context
                raise
            finally:
                seen.ended()
                if seen.span is not None:
                    seen.span.end(seen.code, seen.reason)
                if ACCESS.isEnabledFor(logging.DEBUG):
                    _log(f"{service}/{name}", seen)

        return observed


def _without_frames(error: BaseException) -> None:
    """Takes the frames from an error that ended a call, and from all that led to it.

    They hold the call, and are held by it: gRPC keeps the error with the call, and tasks keep theirs beside themselves.
    Such a call keeps its place on the connection until the collector comes by; after 256 of them gRPC refused all calls
    there, for good where the server had nothing else to do.
    """
    waiting, known = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in known:
            continue
        known.add(id(one))
        one.__traceback__ = None
        waiting += [led for led in (one.__context__, one.__cause__) if led is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _unexplained(seen: Observation, context: Context, error: BaseException) -> None:
    """Names the end of a call that the endpoint did not explain: mostly, its caller went away."""
    if isinstance(error, asyncio.CancelledError):
        left = context.time_remaining()
        reason = "DEADLINE_EXCEEDED" if left is not None and left <= _ROUNDED_S else "CANCELLED"
        seen.failed(reason, reason, {})
    else:
        seen.failed("INTERNAL", "INTERNAL", {})


def _log(method: str, seen: Observation) -> None:
    fields: dict[str, str | int | float] = {
        "method": method,
        "code": seen.code,
        "reason": seen.reason,
        "milliseconds": round(seen.seconds * 1000, 3),
        "principal": seen.principal,
        "request_bytes": seen.request_bytes,
        "response_bytes": seen.response_bytes,
        "incident": seen.incident,
        "trace_id": seen.span.trace_id if seen.span is not None else "",
    }
    ACCESS.debug("call", extra={"fields": {key: value for key, value in fields.items() if value != ""}})
