"""Time as a fault: clocks that jump, deadlines that are too short for anything, and everybody coming back at once."""

from __future__ import annotations

import asyncio
import random
import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from memos_sdk import AsyncClient
from memos_sdk.errors import DeadlineExceeded, Unavailable
from tests.engines.cluster import PATIENCE
from tests.engines.fleet import Fleet
from tests.engines.load import read_log
from tests.engines.scene import Plan, Scene, play

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300 * PATIENCE)]

FORWARD = Plan("one server's clock jumps ahead by an hour and back", "clock-ahead", variants=({"clock_s": 3600},))
BACK = Plan("one server's clock jumps back by an hour and ahead", "clock-back", variants=({"clock_s": -3600},))
STORM = Plan("400 calls with deadlines of 1 to 40 ms beside the load", "deadline-storm")
HERD = Plan("200 callers that waited for Neo4j come back at once", "herd", patience_s=60.0)


async def jump(scene: Scene) -> None:
    """Sets the first server's clock wrong and right again, under load."""
    node = scene.cluster.nodes[0]
    node.tell(signal.SIGUSR1)
    await scene.moment(1.5, 2.5)
    node.tell(signal.SIGUSR2)
    scene.over()


async def storm(scene: Scene) -> None:
    """Calls with deadlines of a few milliseconds; each addition is asked for once more, patiently, with its request_id.

    So each takes effect exactly once, whenever its deadline struck. They have a cube of their own.
    """
    name = f"{scene.load.cube}-storm"
    clients = [scene.cluster.client(number, 60.0) for number in range(len(scene.cluster.nodes))]
    await clients[0].cubes.create(name)
    asked: list[str] = []
    early = 0

    async def one(number: int) -> None:
        nonlocal early
        client, request_id = scene.rng.choice(clients), str(uuid.UUID(int=scene.rng.getrandbits(128), version=4))
        deadline = scene.rng.uniform(0.001, 0.04)
        try:
            if number % 2:
                await client.search("anything", cubes=[scene.load.cube], timeout=deadline)
                return
            asked.append(request_id)
            await client.cube(name).add(f"storm {number}", request_id=request_id, timeout=deadline)
        except (DeadlineExceeded, Unavailable):
            early += 1
        if not number % 2:
            await scene.rng.choice(clients).cube(name).add(f"storm {number}", request_id=request_id)

    for _ in range(4):
        await asyncio.gather(*(one(number) for number in range(100)))
    log = await read_log(clients[0], name)
    told = [entry.request_id for entry in log[1:]]
    assert sorted(told) == sorted(asked), "an addition of the storm took effect twice, or never"
    scene.facts |= {"calls": 400, "ran out of time": early}
    scene.over()


async def herd(scene: Scene) -> None:
    """Neo4j is down while 200 callers try to write; all of them come back when it does."""
    cube = scene.load.cube
    name = f"{cube}-herd"
    clients = [scene.cluster.client(number, 30.0) for number in range(len(scene.cluster.nodes))]
    await clients[0].cubes.create(name)
    await scene.thread(scene.fleet.neo4j.kill)
    waited: list[float] = []

    async def caller(number: int, client: AsyncClient) -> None:
        request_id = str(uuid.UUID(int=scene.rng.getrandbits(128), version=4))
        while True:
            try:
                await client.cube(name).add(f"herd {number}", request_id=request_id)
                waited.append(time.perf_counter_ns())
                return
            except (Unavailable, DeadlineExceeded) as error:
                scene.load.errors.note(error)
                # As impatient as a caller may be: exactly as long as the server says.
                await asyncio.sleep(error.retry_after or 0.1)

    callers = [asyncio.create_task(caller(number, clients[number % len(clients)])) for number in range(200)]
    await asyncio.sleep(2.0)
    await scene.thread(scene.fleet.neo4j.start, 90.0 * PATIENCE)
    scene.over()
    await asyncio.wait_for(asyncio.gather(*callers), 90 * PATIENCE)
    scene.facts |= {"callers": 200, "all served after s": round((max(waited) - scene.ended) / 1e9, 2)}
    assert len(await read_log(clients[0], name)) == 201


async def test_a_clock_that_jumps_ahead_changes_nothing(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(FORWARD, jump, fleet, tmp_path, rng)


@pytest.mark.long
async def test_a_clock_that_jumps_back_changes_nothing(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(BACK, jump, fleet, tmp_path, rng)


@pytest.mark.long
async def test_a_storm_of_short_deadlines_does_everything_once(
    fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    await play(STORM, storm, fleet, tmp_path, rng)


@pytest.mark.long
async def test_a_herd_that_comes_back_at_once_is_served(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(HERD, herd, fleet, tmp_path, rng)


@pytest.mark.long
@pytest.mark.timeout(1800 * PATIENCE)
@pytest.mark.parametrize("plan", [FORWARD, BACK], ids=lambda plan: plan.slug)
async def test_clocks_that_jump_again_and_again_change_nothing(
    plan: Plan, fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    await play(replace(plan, slug=f"{plan.slug}-ten", rounds=10), jump, fleet, tmp_path, rng)
