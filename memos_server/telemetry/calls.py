"""Every call, counted: the one set of numbers that GetServerStats, the metrics and `memos top` show.

Counting happens on the event loop, so it needs no locks, and costs a few additions a call.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol

LATENCY_BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of the latency classes, seconds; a latency belongs to the first class whose bound is not below it."""


class Span(Protocol):
    """What a traced call needs of its span."""

    trace_id: str

    def child(self, name: str) -> AbstractContextManager[None]:
        """Returns a context that is one step of the call, named as in docs/guide/observability.md."""

    def end(self, code: str, reason: str) -> None:
        """Ends the span with a canonical code and, where that is not OK, a reason."""


class MethodCounts:
    """The calls of one RPC.

    Attributes:
        name: The full name, such as `mip.v1.MemoryService.GetMemory`.
        streaming: True when request or response is a stream.
        running: The calls that run now.
        succeeded: The calls that ended well.
        failed: Reason -> the calls that ended with it.
        latencies: The ended calls in each class of LATENCY_BOUNDS, and one more class without a bound.
        latency_sum: Seconds that ended calls took.
        request_bytes: The bytes of their requests.
        response_bytes: The bytes of their responses.
    """

    __slots__ = (
        *("failed", "latencies", "latency_sum", "name", "request_bytes", "response_bytes"),
        *("running", "streaming", "succeeded"),
    )

    def __init__(self, name: str, *, streaming: bool) -> None:
        """Starts at zero."""
        self.name = name
        self.streaming = streaming
        self.running = 0
        self.succeeded = 0
        self.failed: dict[str, int] = {}
        self.latencies = [0] * (len(LATENCY_BOUNDS) + 1)
        self.latency_sum = 0.0
        self.request_bytes = 0
        self.response_bytes = 0

    @property
    def called(self) -> bool:
        """True once there was a call."""
        return bool(self.running or self.succeeded or self.failed)


class CallCounts:
    """The calls of all RPCs since the server started.

    Attributes:
        start_time: When that was, seconds since the epoch.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.start_time = time.time()
        self._methods: dict[str, MethodCounts] = {}

    def of(self, name: str, *, streaming: bool) -> MethodCounts:
        """Returns the counts of an RPC; there are as many as the protocol has RPCs."""
        return self._methods.setdefault(name, MethodCounts(name, streaming=streaming))

    def __iter__(self) -> Iterator[MethodCounts]:
        """Yields the RPCs that were called, in the order of their names."""
        return (counts for _, counts in sorted(self._methods.items()) if counts.called)

    @property
    def open_streams(self) -> int:
        """The calls with a stream that run now."""
        return sum(counts.running for counts in self._methods.values() if counts.streaming)


class Observation:
    """One call as it is watched. The endpoint fills in what it learns; `ended` counts it.

    Attributes:
        principal: Who calls; empty until that is known.
        reason: Why the call failed; empty while it did not.
        code: The canonical code that it failed with.
        incident: The id under which the log explains a fault of the server.
        request_bytes: The bytes received.
        response_bytes: The bytes sent.
        seconds: How long it took, once it has ended.
        span: Its span; None while traces are off.
    """

    __slots__ = (
        *("_counts", "_start", "code", "incident", "principal", "reason", "request_bytes"),
        *("response_bytes", "seconds", "span"),
    )

    def __init__(self, counts: MethodCounts) -> None:
        """Begins: the call runs."""
        self._counts = counts
        self.principal = ""
        self.reason = ""
        self.code = "OK"
        self.incident = ""
        self.request_bytes = 0
        self.response_bytes = 0
        self.seconds = 0.0
        self.span: Span | None = None
        counts.running += 1
        self._start = time.perf_counter()

    def failed(self, code: str, reason: str, metadata: Mapping[str, str]) -> None:
        """Notes what the caller is told."""
        self.code = code
        self.reason = reason
        self.incident = metadata.get("incident", "")

    def ended(self) -> None:
        """Counts the call."""
        self.seconds = seconds = time.perf_counter() - self._start
        counts = self._counts
        counts.running -= 1
        if self.reason:
            counts.failed[self.reason] = counts.failed.get(self.reason, 0) + 1
        else:
            counts.succeeded += 1
        counts.latencies[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        counts.latency_sum += seconds
        counts.request_bytes += self.request_bytes
        counts.response_bytes += self.response_bytes


CURRENT: Final[ContextVar[Observation | None]] = ContextVar("observation", default=None)
"""The call that the running code works for; None outside of calls."""

_NOTHING: Final = nullcontext()


def step(name: str) -> AbstractContextManager[None]:
    """Returns a context that is traced as one step of the running call; it does nothing while traces are off."""
    seen = CURRENT.get()
    return _NOTHING if seen is None or seen.span is None else seen.span.child(name)
