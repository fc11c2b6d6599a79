"""How `memos top` looks, in 80 columns and in more."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memos_sdk.cli.context import clean
from memos_sdk.cli.rates import Interval, Rates

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDE = 100
_WIDEST = 132
_SLOW_MS = 1000.0


@dataclasses.dataclass(frozen=True)
class Look:
    """One look at a server.

    Attributes:
        title: The server.
        stats: What it said.
        interval: What happened since the look before.
        history: Calls a second of the looks so far, the newest last.
        hint: The last line.
        lost: True when the server did not answer since.
    """

    title: str
    stats: mip.GetServerStatsResponse
    interval: Interval
    history: Sequence[float]
    hint: str = ""
    lost: bool = False


def render(look: Look, width: int, height: int | None) -> RenderableType:
    """Returns the view.

    Args:
        look: What to show.
        width: The window's columns.
        height: Its lines; None shows every RPC.
    """
    width = min(width, _WIDEST)
    head = [
        _title(look, width),
        _resources(look, width),
        _traffic(look, width),
        _queues(look, width),
        *_dependencies(look, width),
        Text(),
    ]
    # The table's own heading and the last line.
    room = None if height is None else max(height - len(head) - 2, 1)
    parts: list[RenderableType] = [*head, _methods(look.interval.methods[:room], width)]
    if look.hint:
        hidden = 0 if room is None else max(len(look.interval.methods) - room, 0)
        more = f"{hidden} more RPCs · " if hidden else ""
        parts.append(_line(more + look.hint, "bold red" if look.lost else "dim"))
    return Group(*parts)


def _line(text: str, style: str = "") -> Text:
    return Text(clean(text).replace("\n", " "), style=style, no_wrap=True, overflow="ellipsis")


def _pairs(width: int, *pairs: tuple[str, str, str]) -> Text:
    """Returns `label value` pairs in one line; the third of each is the value's style."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for number, (label, value, style) in enumerate(pairs):
        line.append(("   " if width >= _WIDE else "  ") if number else "")
        line.append(f"{label} ", "dim")
        line.append(clean(value), style)
    return line


def _title(look: Look, width: int) -> RenderableType:
    stats = look.stats
    up = ""
    if stats.start_time is not None and stats.observe_time is not None:
        up = f"up {duration((stats.observe_time - stats.start_time).total_seconds())}"
    clock = stats.observe_time.astimezone().strftime("%H:%M:%S") if stats.observe_time is not None else ""
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(Text(clean(look.title), "bold cyan"), Text(f"{up}  {clock}", "bold"))
    line.width = width
    return line


def _resources(look: Look, width: int) -> Text:
    process = look.stats.process
    if process is None:
        return Text()
    return _pairs(
        width,
        ("cpu", f"{look.interval.cpu_percent:.0f} %", "bold"),
        ("memory", size(process.resident_bytes), "bold"),
        ("files", str(process.open_files), ""),
        ("data", size(process.data_bytes) if process.data_bytes else "?", "bold"),
        ("jobs", str(look.stats.unfinished_jobs), ""),
        ("free", size(process.free_disk_bytes) if process.free_disk_bytes else "?", _scarce(process)),
    )


def _scarce(process: mip.ProcessStats) -> str:
    return "bold red" if 0 < process.free_disk_bytes < 2**30 else ""


def _traffic(look: Look, width: int) -> Text:
    seen = look.interval
    line = _pairs(
        width,
        ("calls/s", rate(seen.all.per_second), "bold green"),
        ("err/s", rate(seen.all.errors_per_second), "bold red" if seen.all.errors else ""),
        ("p50", latency(seen.all.p50_ms), ""),
        ("p99", latency(seen.all.p99_ms), ""),
        ("in", f"{size(seen.request_bytes_per_second)}/s", ""),
        ("out", f"{size(seen.response_bytes_per_second)}/s", ""),
    )
    room = width - line.cell_len - 3
    if room >= 8 and look.history:
        line.append("   ")
        line.append(sparkline(list(look.history)[-min(room, 60) :]), "green")
    return line


def _queues(look: Look, width: int) -> Text:
    stats = look.stats
    behind = "current"
    if stats.lagging_indexes:
        behind = f"{stats.lagging_indexes} behind"
        if stats.index_lags:
            worst = stats.index_lags[0]
            behind += f", {worst.cube} by {worst.revision - worst.indexed_revision}"
    return _pairs(
        width,
        ("running", str(look.interval.all.running), ""),
        ("streams", str(stats.open_streams), ""),
        ("writes", str(stats.waiting_writes), "yellow" if stats.waiting_writes else ""),
        ("texts", str(stats.waiting_embeddings), "yellow" if stats.waiting_embeddings else ""),
        ("indexes", behind, "yellow" if stats.lagging_indexes else ""),
    )


def _dependencies(look: Look, width: int) -> list[Text]:
    line = Text(no_wrap=True, overflow="ellipsis")
    problems = []
    for number, part in enumerate(look.stats.dependencies):
        line.append("   " if number else "")
        line.append("● " if part.serving else "✗ ", "green" if part.serving else "bold red")
        line.append(clean(part.name))
        line.append(f" {clean(part.backend)}", "dim")
        if not part.serving:
            problems.append(_line(f"{part.name}: {part.problem}"[: 2 * width], "red"))
    return [line, *problems]


def _methods(methods: Sequence[Rates], width: int) -> Table:
    wide = width >= _WIDE
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold reverse", width=width)
    table.add_column("RPC", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("CALLS/S", "P50", "P99", "ERR/S", "RUN"):
        table.add_column(name, justify="right", no_wrap=True, min_width=7 if name != "RUN" else 4)
    if wide:
        table.add_column("TOTAL", justify="right", no_wrap=True, min_width=9)
        table.add_column("SHARE", no_wrap=True, width=20)
    most = max((rates.per_second for rates in methods), default=0.0)
    for rates in methods:
        quiet = "" if rates.calls or rates.running else "dim"
        cells = [
            Text(clean(rates.method), quiet),
            Text(rate(rates.per_second), "green" if rates.calls else "dim"),
            Text(latency(rates.p50_ms), quiet),
            Text(latency(rates.p99_ms), "yellow" if (rates.p99_ms or 0) >= _SLOW_MS else quiet),
            Text(rate(rates.errors_per_second), "bold red" if rates.errors else "dim"),
            Text(str(rates.running), quiet),
        ]
        if wide:
            bar = round(160 * rates.per_second / most) if most else 0
            cells += [Text(f"{rates.total:,}", quiet), Text(_bar(bar), "green")]
        table.add_row(*cells)
    return table


def _bar(eighths: int) -> str:
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def sparkline(values: Sequence[float]) -> str:
    """Returns one block a value, as high as its share of the highest."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BLOCKS[1] * len(values)
    return "".join(_BLOCKS[max(1, round(8 * value / most))] for value in values)


def rate(per_second: float) -> str:
    """Returns a rate in at most 7 characters."""
    if per_second == 0:
        return "0"
    if per_second >= 100_000:
        return f"{per_second / 1000:,.0f}k"
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}" if per_second >= 0.05 else "<0.1"


def latency(milliseconds: float | None) -> str:
    """Returns a latency in at most 7 characters; `-` for none."""
    if milliseconds is None:
        return "-"
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    if milliseconds >= 10:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds:.1f} ms" if milliseconds >= 1 else f"{milliseconds * 1000:.0f} µs"


def size(count: float) -> str:
    """Returns a number of bytes in a unit that leaves three digits before the point at most."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Returns a time in its two largest units, such as `2 h 03 min`."""
    whole = datetime.timedelta(seconds=int(seconds))
    hours, rest = divmod(whole.seconds, 3600)
    if whole.days:
        return f"{whole.days} d {hours:02} h"
    if hours:
        return f"{hours} h {rest // 60:02} min"
    return f"{rest // 60} min {rest % 60:02} s" if rest >= 60 else f"{rest} s"
