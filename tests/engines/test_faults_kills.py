"""SIGKILL of each engine and of servers at random moments under load, and Weaviate that comes back with nothing."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.cluster import PATIENCE
from tests.engines.fleet import Fleet
from tests.engines.load import find
from tests.engines.scene import Fault, Plan, Scene, play

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300 * PATIENCE)]

NEO4J = Plan("SIGKILL of Neo4j, down for up to 2 s", "kill-neo4j")
WEAVIATE = Plan("SIGKILL of Weaviate, down for up to 4 s", "kill-weaviate")
S3 = Plan("SIGKILL of the S3 store while blobs are uploaded", "kill-s3", blobs=True)
SERVER = Plan("SIGKILL of one of three servers", "kill-server", servers=3, connections=True)
ALL = Plan("SIGKILL of all engines at once", "kill-all-engines", blobs=True)
EMPTY = Plan("Weaviate restarted empty", "empty-weaviate")


async def unreachable(scene: Scene) -> str:
    """Returns what a search says of the cube: `unreachable`, `stale`, or `answered` when it does not say that it lacks
    anything."""
    cube = scene.cluster.client(scene.rng.randrange(len(scene.cluster.nodes)), 20.0).cube(scene.load.cube)
    answer = await find(cube, "w0")
    return answer if isinstance(answer, str) else "answered"


def killing(engine: str, down_s: float) -> Fault:
    """Returns the fault: an engine is killed, is down for a while, and starts again."""

    async def fault(scene: Scene) -> None:
        await scene.thread(scene.fleet.engine(engine).kill)
        if engine == "weaviate":
            said = await unreachable(scene)
            assert said != "answered", "the search index is dead and a search does not say so"
            scene.facts["search said"] = said
        await scene.moment(0.0, down_s)
        await scene.thread(scene.fleet.engine(engine).start, 90.0 * PATIENCE)
        scene.over()

    return fault


async def kill_server(scene: Scene) -> None:
    """Kills a server and starts it again on its folder and port."""
    node = scene.rng.choice(scene.cluster.nodes)
    await scene.thread(node.kill)
    await scene.moment(0.0, 1.0)
    await scene.thread(node.start)
    scene.over()


async def kill_all(scene: Scene) -> None:
    """Kills every engine and starts them again in a random order."""
    names = ["neo4j", "weaviate", "s3"]
    await asyncio.gather(*(scene.thread(scene.fleet.engine(name).kill) for name in names))
    scene.rng.shuffle(names)
    for name in names:
        await scene.thread(scene.fleet.engine(name).start, 90.0 * PATIENCE)
    scene.over()


async def empty_weaviate(scene: Scene) -> None:
    """Weaviate loses everything that it had."""
    await scene.thread(scene.fleet.empty_weaviate)
    scene.over()


async def test_neo4j_killed_under_load_loses_nothing(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(NEO4J, killing("neo4j", 2.0), fleet, tmp_path, rng)


async def test_weaviate_killed_under_load_loses_nothing(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(WEAVIATE, killing("weaviate", 4.0), fleet, tmp_path, rng)


async def test_an_s3_store_killed_under_uploads_loses_no_blob(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(S3, killing("s3", 2.0), fleet, tmp_path, rng)


async def test_a_server_killed_under_load_loses_nothing(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(SERVER, kill_server, fleet, tmp_path, rng)


async def test_weaviate_restarted_empty_is_filled_again(fleet: Fleet, tmp_path: Path, rng: random.Random) -> None:
    await play(EMPTY, empty_weaviate, fleet, tmp_path, rng)


@pytest.mark.long
@pytest.mark.timeout(1800 * PATIENCE)
@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        (NEO4J, killing("neo4j", 2.0)),
        (WEAVIATE, killing("weaviate", 4.0)),
        (S3, killing("s3", 2.0)),
        (SERVER, kill_server),
        (EMPTY, empty_weaviate),
        (ALL, kill_all),
    ],
    ids=lambda value: value.slug if isinstance(value, Plan) else "",
)
async def test_ten_times_over_under_load_nothing_is_lost(
    plan: Plan, fault: Fault, fleet: Fleet, tmp_path: Path, rng: random.Random
) -> None:
    many = replace(plan, slug=f"{plan.slug}-ten", rounds=10, patience_s=60.0)
    await play(many, fault, fleet, tmp_path, rng)
