"""`memos top`: rates and latencies from the differences of counts, and how they look in narrow and wide windows."""

from __future__ import annotations

import datetime
import io

import pytest
from rich.console import Console

from memos_sdk._gen.mip import v1 as mip
from memos_sdk.cli.rates import between, quantile
from memos_sdk.cli.top_view import Look, duration, latency, rate, render, size, sparkline

BOUNDS = [0.001, 0.01, 0.1]
START = datetime.datetime(2026, 11, 21, 12, 0, 0, tzinfo=datetime.UTC)


def call(
    name: str, counts: list[int], *, failed: dict[str, int] | None = None, running: int = 0, received: int = 0
) -> mip.CallStats:
    failures = failed or {}
    return mip.CallStats(
        method=f"mip.v1.{name}",
        running=running,
        succeeded=sum(counts) - sum(failures.values()),
        failed=[mip.ReasonCount(reason=reason, count=count) for reason, count in failures.items()],
        latency_counts=counts,
        request_bytes=received,
        response_bytes=2 * received,
    )


def stats(
    seconds: float, *calls: mip.CallStats, cpu: float = 0.0, start: datetime.datetime = START
) -> mip.GetServerStatsResponse:
    return mip.GetServerStatsResponse(
        start_time=start,
        observe_time=START + datetime.timedelta(seconds=seconds),
        calls=list(calls),
        latency_bounds=BOUNDS,
        open_streams=3,
        waiting_writes=7,
        lagging_indexes=2,
        index_lags=[mip.IndexLag(cube="cubes/notes", indexed_revision=5, revision=17)],
        dependencies=[
            mip.DependencyHealth(name="record", backend="sqlite", serving=True),
            mip.DependencyHealth(name="blobs", backend="filesystem", problem="the disk of /d is full; free some space"),
        ],
        process=mip.ProcessStats(resident_bytes=300 * 2**20, cpu_seconds=cpu, free_disk_bytes=5 * 2**30),
    )


def test_rates_come_from_the_difference_of_two_looks() -> None:
    before = stats(100, call("A.X", [10, 0, 0, 0], received=100), call("A.Y", [0, 0, 5, 0]), cpu=10)
    now = stats(
        104,
        call("A.X", [30, 20, 0, 0], failed={"ETAG_MISMATCH": 4}, running=2, received=500),
        call("A.Y", [0, 0, 5, 0]),
        call("A.Z", [0, 0, 0, 8]),
        cpu=12,
    )
    seen = between(before, now)
    assert seen.seconds == 4
    assert seen.cpu_percent == 50
    assert (seen.request_bytes_per_second, seen.response_bytes_per_second) == (100, 200)
    assert (seen.all.calls, seen.all.per_second, seen.all.running) == (48, 12, 2)
    assert (seen.all.errors, seen.all.errors_per_second) == ({"ETAG_MISMATCH": 4}, 1)
    assert [(each.method, each.calls) for each in seen.methods] == [("A.X", 40), ("A.Z", 8), ("A.Y", 0)]
    # Of 40 calls 20 took up to 1 ms and 20 up to 10 ms.
    assert seen.methods[0].p50_ms == pytest.approx(1.0)
    assert seen.methods[0].p99_ms == pytest.approx(1 + 9 * 19.6 / 20)
    # Above the last bound nothing is known but that bound.
    assert seen.methods[1].p99_ms == 100
    assert seen.methods[2].p50_ms is None


def test_without_an_earlier_look_rates_are_those_since_the_start() -> None:
    assert between(None, stats(10, call("A.X", [5, 0, 0, 0]))).all.per_second == 0.5


def test_a_server_that_was_started_again_is_not_compared_with_the_one_before() -> None:
    before = stats(100, call("A.X", [1000, 0, 0, 0]))
    again = stats(110, call("A.X", [20, 0, 0, 0]), start=START + datetime.timedelta(seconds=100))
    assert between(before, again).all.per_second == 2


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([4, 0, 0, 0], 0.5, 0.5),
        ([4, 0, 0, 0], 1.0, 1.0),
        ([0, 10, 0, 0], 0.5, 5.5),
        ([50, 0, 50, 0], 0.99, 10 + 90 * 49 / 50),
        ([1, 0, 0, 99], 0.5, 100.0),
    ],
)
def test_a_quantile_is_interpolated_within_its_class(counts: list[int], share: float, expected: float | None) -> None:
    found = quantile(BOUNDS, counts, share)
    assert found == (None if expected is None else pytest.approx(expected))


def shown(look: Look, width: int, height: int | None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=True)
    console.print(render(look, width, height))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue().splitlines()


def look(number_of_methods: int = 2, title: str = "memos 1.0 at 127.0.0.1:7600") -> Look:
    calls = [call(f"MemoryService.Rpc{number:02}", [10 * number, 0, 0, 0]) for number in range(number_of_methods)]
    now = stats(7500, *calls, cpu=1)
    return Look(title, now, between(None, now), [1.0, 2.0, 4.0], "q ends")


def test_everything_fits_into_eighty_columns_and_twenty_four_lines() -> None:
    lines = shown(look(40), 80, 24)
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert lines[0].startswith("memos 1.0 at 127.0.0.1:7600")
    assert "up 2 h 05 min" in lines[0]
    assert "memory 300 MiB" in text
    assert "writes 7" in text
    assert "indexes 2 behind, cubes/notes by 12" in text
    assert "● record sqlite" in text
    assert "blobs: the disk of /d is full; free some space" in text
    assert "MemoryService.Rpc39" in text
    assert lines[-1] == "25 more RPCs · q ends"


def test_a_wide_window_has_totals_shares_and_the_course_of_calls() -> None:
    lines = shown(look(), 140, 40)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 132
    assert "TOTAL" in text
    assert "▂▄█" in text
    assert "████████████████████" in text


def test_what_a_server_says_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in "\n".join(shown(look(title="evil \x1b[2J\x1b]0;x\x07 [red]server[/red]"), 80, 24)).replace(
        "\x1b[0m", ""
    )
    assert "[red]server[/red]" in "\n".join(shown(look(title="[red]server[/red]"), 80, 24))


def test_figures_keep_to_their_columns() -> None:
    assert [rate(value) for value in (0, 0.01, 0.5, 99.94, 1234, 123_456)] == [
        *("0", "<0.1", "0.5", "99.9", "1,234", "123k"),
    ]
    assert [latency(value) for value in (None, 0.25, 1.5, 12.3, 2500)] == ["-", "250 µs", "1.5 ms", "12 ms", "2.5 s"]
    assert [size(value) for value in (0, 999, 1000, 5 * 2**20, 3 * 2**40)] == [
        *("0 B", "999 B", "1.0 KiB", "5.0 MiB", "3.0 TiB"),
    ]
    assert [duration(value) for value in (5, 65, 3700, 90_000)] == ["5 s", "1 min 05 s", "1 h 01 min", "1 d 01 h"]
    assert sparkline([0, 1, 8]) == "▁▁█"
    assert sparkline([0, 0]) == "▁▁"
