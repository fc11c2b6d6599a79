"""OpenTelemetry traces: one span a call, with its steps below it, sent by OTLP/gRPC. Off unless an endpoint is set.

Spans carry what kind of work took how long and how it ended, never what it was about: no names, content, queries or
tokens. They wait in a bounded queue that a thread empties; while the collector is away they are dropped, and calls
notice nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc

from memos_server import __version__
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

_EXPORT_TIMEOUT_S: Final = 5.0
_QUEUE: Final = 2048
_OF_SERVER: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The codes that are the server's failure and not the caller's (OpenTelemetry's conventions for gRPC)."""
_HEADERS: Final = ("traceparent", "tracestate")


class Tracing:
    """Makes the spans of calls and sends them."""

    def __init__(self, settings: TracingSettings) -> None:
        """Begins to send to `settings.endpoint`; nobody needs to listen there yet.

        Raises:
            SetupError: The extra `telemetry` is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise SetupError(
                f"tracing.endpoint is set, but OpenTelemetry is not installed ({error.name}).",
                'pip install "memos-mip[telemetry]", or remove tracing.endpoint.',
            ) from error
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.ratio)),
            resource=Resource.create({"service.name": "memos", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_TIMEOUT_S)
        self._processor = BatchSpanProcessor(
            exporter, max_queue_size=_QUEUE, schedule_delay_millis=round(settings.delay_s * 1000)
        )
        self._provider.add_span_processor(self._processor)
        self._tracer: Tracer = self._provider.get_tracer("memos_server", __version__)

    def call(self, service: str, method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> CallSpan | None:
        """Begins the span of a call.

        Args:
            service: The service's full name.
            method: The RPC's name.
            metadata: The call's metadata; its W3C `traceparent` makes the span a part of the caller's trace.

        Returns:
            None when the trace is not sampled.
        """
        from opentelemetry.trace import SpanKind

        carrier = {key: value for key, value in metadata or () if key in _HEADERS and isinstance(value, str)}
        parent = self._propagator.extract(carrier) if carrier else _root()
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        span = self._tracer.start_span(f"{service}/{method}", parent, SpanKind.SERVER, attributes)
        return CallSpan(self._tracer, span) if span.is_recording() else None

    def close(self) -> None:
        """Sends what waits, for a few seconds at most, and ends; blocks."""
        self._provider.shutdown()


def _root() -> Context:
    from opentelemetry.context import Context

    return Context()


class CallSpan:
    """The span of one call.

    Attributes:
        trace_id: The trace's id, 32 hexadecimal digits.
    """

    __slots__ = ("_context", "_span", "_tracer", "trace_id")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        """Wraps a span that has begun."""
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, _root())
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    @contextmanager
    def child(self, name: str) -> Iterator[None]:
        """See telemetry.calls.Span. An exception marks the step, without its text: that may hold content."""
        from opentelemetry.trace import StatusCode

        span = self._tracer.start_span(name, self._context)
        try:
            yield
        except Exception as error:
            span.set_attribute("error.type", getattr(error, "reason", type(error).__name__))
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()

    def end(self, code: str, reason: str) -> None:
        """See telemetry.calls.Span."""
        from opentelemetry.trace import StatusCode

        attributes: dict[str, Any] = {"rpc.grpc.status_code": grpc.StatusCode[code].value[0]}
        if reason:
            attributes["error.type"] = reason
        self._span.set_attributes(attributes)
        if code in _OF_SERVER:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
