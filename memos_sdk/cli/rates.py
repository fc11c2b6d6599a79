"""What happened between two looks at a server: calls a second and latencies, from the differences of its counts."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


@dataclasses.dataclass(frozen=True)
class Rates:
    """One RPC, or all of them together, in an interval.

    Attributes:
        method: The service and the RPC, such as `MemoryService.GetMemory`; `all` for all.
        calls: Calls that ended.
        per_second: The same, a second.
        errors_per_second: Those of them that failed.
        p50_ms: Half of the calls took at most this long, milliseconds, as exactly as the latency classes are fine; None
            when no call ended.
        p99_ms: 99 of 100 calls took at most this long.
        running: Calls that run now.
        total: Calls that ended since the server started.
        errors: Reason -> calls that failed with it in the interval.
    """

    method: str
    calls: int
    per_second: float
    errors_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    running: int
    total: int
    errors: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Interval:
    """What happened between two looks.

    Attributes:
        seconds: The length of the interval.
        all: All RPCs together.
        methods: Each RPC that was ever called, the busiest first.
        request_bytes_per_second: Bytes received.
        response_bytes_per_second: Bytes sent.
        cpu_percent: Processor time; 100 is one core.
    """

    seconds: float
    all: Rates
    methods: list[Rates]
    request_bytes_per_second: float
    response_bytes_per_second: float
    cpu_percent: float


def between(before: mip.GetServerStatsResponse | None, now: mip.GetServerStatsResponse) -> Interval:
    """Returns what happened between two looks; since the server's start without an earlier look, or one before it."""
    if before is not None and before.start_time != now.start_time:
        before = None
    since = before.observe_time if before is not None else now.start_time
    seconds = max(_seconds(since, now.observe_time), 1e-3)
    earlier = {call.method: call for call in before.calls} if before is not None else {}
    methods = [_rates(call, earlier.get(call.method), now.latency_bounds, seconds) for call in now.calls]
    counts = [_ended(call, earlier.get(call.method)) for call in now.calls]
    whole = [sum(column) for column in zip(*counts, strict=False)]
    errors: dict[str, int] = {}
    for rates in methods:
        for reason, count in rates.errors.items():
            errors[reason] = errors.get(reason, 0) + count
    calls = sum(whole)
    together = Rates(
        "all",
        calls,
        calls / seconds,
        sum(errors.values()) / seconds,
        quantile(now.latency_bounds, whole, 0.5),
        quantile(now.latency_bounds, whole, 0.99),
        sum(call.running for call in now.calls),
        sum(rates.total for rates in methods),
        errors,
    )
    received, sent = (
        sum(getattr(call, field) for call in now.calls)
        - (sum(getattr(call, field) for call in before.calls) if before is not None else 0)
        for field in ("request_bytes", "response_bytes")
    )
    cpu = _cpu(now) - (_cpu(before) if before is not None else 0.0)
    methods.sort(key=lambda rates: (-rates.per_second, -rates.running, -rates.total, rates.method))
    return Interval(seconds, together, methods, received / seconds, sent / seconds, 100 * max(cpu, 0.0) / seconds)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Returns the latency that a share of the calls did not exceed, milliseconds.

    Within a class the latencies are taken as spread evenly, so the result is off by the width of a class at most; above
    the last bound nothing is known but that bound.

    Args:
        bounds: Upper bounds of the classes, seconds, ascending.
        counts: The calls in each class, and those above the last bound.
        share: 0 to 1.

    Returns:
        None without calls.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    seen = 0
    for number, count in enumerate(counts):
        if count and seen + count >= wanted:
            if number >= len(bounds):
                break
            low = bounds[number - 1] if number else 0.0
            return 1000 * (low + (bounds[number] - low) * (wanted - seen) / count)
        seen += count
    return 1000 * bounds[-1] if bounds else None


def _rates(now: mip.CallStats, before: mip.CallStats | None, bounds: Sequence[float], seconds: float) -> Rates:
    ended = _ended(now, before)
    earlier = {each.reason: each.count for each in before.failed} if before is not None else {}
    errors = {
        each.reason: each.count - earlier.get(each.reason, 0)
        for each in now.failed
        if each.count > earlier.get(each.reason, 0)
    }
    return Rates(
        now.method.removeprefix("mip.v1."),
        sum(ended),
        sum(ended) / seconds,
        sum(errors.values()) / seconds,
        quantile(bounds, ended, 0.5),
        quantile(bounds, ended, 0.99),
        now.running,
        sum(now.latency_counts),
        errors,
    )


def _ended(now: mip.CallStats, before: mip.CallStats | None) -> list[int]:
    if before is None:
        return list(now.latency_counts)
    return [new - old for new, old in zip(now.latency_counts, before.latency_counts, strict=False)]


def _cpu(stats: mip.GetServerStatsResponse) -> float:
    return stats.process.cpu_seconds if stats.process is not None else 0.0


def _seconds(since: datetime.datetime | None, until: datetime.datetime | None) -> float:
    return (until - since).total_seconds() if since is not None and until is not None else 0.0
