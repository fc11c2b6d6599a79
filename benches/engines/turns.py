"""Turns: the sides do the same one after the other, again and again; what disturbs the machine then disturbs both."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from harness.figures import Figure

from engines.client import Clients, Done, Job
from engines.stage import Stage


def take(stage: Stage, sides: Mapping[str, tuple[Clients, Job]], rounds: int = 0) -> dict[str, list[Done]]:
    """Returns each side's results, a list with an entry a round; the order changes from round to round.

    Raises:
        RuntimeError: A call failed.
    """
    results: dict[str, list[Done]] = {name: [] for name in sides}
    rounds = rounds or stage.rounds
    for turn in range(rounds):
        progress(stage.watch.phase, turn, rounds)
        order = list(sides)
        for name in order if turn % 2 else reversed(order):
            clients, job = sides[name]
            done = clients.run(job)
            if done.errors:
                raise RuntimeError(f"{name}: {job.what} failed: {done.errors}")
            results[name].append(done)
    progress(stage.watch.phase, rounds, rounds)
    return results


def progress(what: str, done: int, all_: int) -> None:
    """Shows a bar on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        filled = 24 * done // max(all_, 1)
        end = "\n" if done >= all_ else ""
        print(
            f"\r  {what:40} [{'#' * filled}{'.' * (24 - filled)}] {done}/{all_}", end=end, file=sys.stderr, flush=True
        )


def figures(
    what: str, server: Sequence[Done], raw: Sequence[Done], against: str, *, at_most: float | None = None
) -> list[Figure]:
    """Returns median, 99th percentile and rate of the server's calls beside those of the rival."""
    return [
        Figure(
            f"{what}, p50",
            "ms",
            [done.quantile(0.5) for done in server],
            [done.quantile(0.5) for done in raw],
            against,
            at_most=at_most,
        ),
        Figure(
            f"{what}, p99",
            "ms",
            [done.quantile(0.99) for done in server],
            [done.quantile(0.99) for done in raw],
            against,
        ),
        Figure(f"{what}, rate", "calls/s", [done.rate for done in server], [done.rate for done in raw], against),
    ]


class Spent:
    """Processor time that processes use while a block runs, for what a call costs where."""

    def __init__(self, stage: Stage) -> None:
        """Counts from now on."""
        self._stage = stage
        self._before = {name: stage.watch.now(name)["cpu"] for name in stage.names()}

    def a_call(self, calls: int) -> dict[str, float]:
        """Returns microseconds of processor time a call, by process."""
        now: dict[str, Any] = {name: self._stage.watch.now(name)["cpu"] for name in self._before}
        return {name: round((now[name] - self._before[name]) / max(calls, 1) * 1e6) for name in now}
