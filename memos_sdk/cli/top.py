"""`memos top`: a live view of a server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live

from memos_sdk.cli.context import Cli, command, plain
from memos_sdk.cli.rates import Interval, between
from memos_sdk.cli.top_view import Look, render
from memos_sdk.errors import Cancelled, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip

_HISTORY = 240


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "top")(top)


def top(
    cli: Cli,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", help="How often to look.", min=0.1, max=3600)
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, print what was seen, and end.")] = False,
) -> None:
    """Watch a server: calls, latencies, errors, queues, index lag, what it depends on. Needs its administrator."""
    title = _title(cli)
    before = cli.client.server_stats()
    if once or not (cli.json or cli.out.is_terminal):
        time.sleep(interval)
        now = cli.client.server_stats()
        looked = Look(title, now, between(before, now), [])
        cli.emit(_plain(looked.stats, looked.interval), lambda: cli.out.print(render(looked, cli.out.width, None)))
    elif cli.json:
        while True:
            time.sleep(interval)
            now = cli.client.server_stats()
            print(json.dumps(_plain(now, between(before, now)), ensure_ascii=False), flush=True)
            before = now
    else:
        _live(cli, title, before, interval)


def _title(cli: Cli) -> str:
    declared = cli.client.capabilities()
    return f"{declared.server_name} {declared.server_version} at {cli.client.target}"


def _live(cli: Cli, title: str, before: mip.GetServerStatsResponse, interval: float) -> None:
    history: deque[float] = deque(maxlen=_HISTORY)
    looked = Look(
        title, before, between(None, before), history, hint=f"since the start · every {interval:g} s · q ends"
    )
    with _keys() as pressed, Live(console=cli.out, screen=True, auto_refresh=False) as live:
        while True:
            live.update(render(looked, cli.out.width, cli.out.height), refresh=True)
            if pressed(interval) == "q":
                return
            hint = f"the last {interval:g} s · q ends"
            try:
                now = cli.client.server_stats(timeout=max(interval, 5.0))
            except (Unavailable, DeadlineExceeded, Cancelled) as error:
                # It stops, starts again or is overloaded; who watches wants to see it come back.
                looked = dataclasses.replace(
                    looked, hint=f"q ends · no answer, trying again: {error.message}", lost=True
                )
                continue
            seen = between(before, now)
            history.append(seen.all.per_second)
            looked, before = Look(title, now, seen, history, hint), now


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Yields a function that waits for a key, up to some seconds, and returns it, or an empty text."""
    try:
        import termios
        import tty

        number = sys.stdin.fileno()
        saved = termios.tcgetattr(number)
    except (ImportError, OSError, ValueError, AttributeError, termios.error):
        # No terminal to read from, or a system without such: Ctrl-C ends.
        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return

    def key(seconds: float) -> str:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not select.select([number], [], [], left)[0]:
                break
            pressed = sys.stdin.read(1)
            if pressed in ("q", "Q", ""):
                return "q"
        return ""

    try:
        tty.setcbreak(number)
        yield key
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, saved)


def _plain(stats: mip.GetServerStatsResponse, seen: Interval) -> dict[str, Any]:
    """Returns a look as JSON values: what the server said, and what follows from it for the interval."""
    said = plain(stats)
    # Totals of the classes are the raw form of what `interval` says.
    for key in ("calls", "latency_bounds", "latencyBounds"):
        said.pop(key, None)
    return {**said, "interval": plain(seen)}
