"""Connections to each engine that are cut, reset, slow, or swallow everything, under load."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.cluster import PATIENCE
from tests.engines.fleet import Fleet
from tests.engines.scene import Fault, Plan, Scene, play

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300 * PATIENCE)]

ENGINES = ("neo4j", "weaviate", "s3")


def cutting(*engines: str) -> Fault:
    """Returns the fault: connections break, and none can be made for up to three seconds."""

    async def fault(scene: Scene) -> None:
        for engine in engines:
            await scene.thread(scene.fleet.cut, engine)
        await scene.moment(1.0, 3.0)
        await scene.thread(scene.fleet.mend)
        scene.over()

    return fault


def poisoning(engine: str, kind: str, seconds: float, *, both: bool = False, **attributes: int) -> Fault:
    """Returns the fault: a toxic for some seconds, on what comes from the engine or on both directions."""

    async def fault(scene: Scene) -> None:
        for stream in ("downstream", "upstream") if both else ("downstream",):
            await scene.thread(scene.fleet.poison, engine, kind, stream=stream, **attributes)
        await asyncio.sleep(seconds)
        await scene.thread(scene.fleet.mend)
        scene.over()

    return fault


def plan(slug: str, words: str) -> Plan:
    """Returns a plan with proxies."""
    return Plan(words, slug, proxied=True, blobs="s3" in slug)


CUTS = {name: (plan(f"cut-{name}", f"connections to {name} cut for up to 3 s"), cutting(name)) for name in ENGINES}
CUTS["all"] = plan("cut-all-s3", "connections to all engines cut at once"), cutting(*ENGINES)
SLOW = {
    name: (
        plan(f"slow-{name}", f"250 ms (+-150) of delay each way to {name} for 5 s"),
        poisoning(name, "latency", 5.0, both=True, latency=250, jitter=150),
    )
    for name in ENGINES
}
HALF_OPEN = {
    name: (
        plan(f"half-open-{name}", f"{name} takes everything and answers nothing for 8 s, then the connections end"),
        poisoning(name, "timeout", 8.0, timeout=0),
    )
    for name in ENGINES
}
RESETS = {
    name: (
        plan(f"reset-{name}", f"connections to {name} reset as soon as they carry anything, for 3 s"),
        poisoning(name, "reset_peer", 3.0, timeout=0),
    )
    for name in ENGINES
}
TRICKLE = {
    name: (
        plan(f"trickle-{name}", f"20 KB/s from {name}, in pieces, for 5 s"),
        poisoning(name, "bandwidth", 5.0, rate=20),
    )
    for name in ENGINES
}


@pytest.mark.parametrize("engine", ["neo4j", pytest.param("weaviate", marks=pytest.mark.long)])
async def test_a_cut_connection_loses_nothing(engine: str, fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(*CUTS[engine], fleet, tmp_path, rng)


@pytest.mark.long
async def test_a_slow_record_loses_nothing(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(*SLOW["neo4j"], fleet, tmp_path, rng)


async def test_a_record_that_answers_nothing_loses_nothing(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(*HALF_OPEN["neo4j"], fleet, tmp_path, rng)


@pytest.mark.long
@pytest.mark.timeout(1800 * PATIENCE)
@pytest.mark.parametrize(
    ("one", "fault", "rounds"),
    [
        *((*pair, 10) for pair in CUTS.values()),
        *((*pair, 2) for pair in SLOW.values()),
        *((*pair, 2) for pair in HALF_OPEN.values()),
        *((*pair, 5) for pair in RESETS.values()),
        *((*pair, 2) for pair in TRICKLE.values()),
    ],
    ids=lambda value: value.slug if isinstance(value, Plan) else "",
)
async def test_again_and_again_nothing_is_lost(
    one: Plan, fault: Fault, rounds: int, fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    await play(replace(one, rounds=rounds, patience_s=60.0), fault, fleet, tmp_path, rng)
