"""A full disk under each engine: what cannot be kept is refused, and everything goes on once there is space."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.cluster import PATIENCE
from tests.engines.fleet import Fleet
from tests.engines.scene import Fault, Plan, Scene, play
from tests.engines.small_disk import SmallDisk, on_disk
from tools.engines import Neo4jEngine, S3Engine, WeaviateEngine

pytestmark = [pytest.mark.engines, pytest.mark.long, pytest.mark.timeout(600 * PATIENCE)]

KINDS = {
    "neo4j": (Neo4jEngine, 500, "Neo4j's disk full for 5 s; freed, and Neo4j restarted"),
    "weaviate": (WeaviateEngine, 200, "Weaviate's disk full for 5 s; freed, and Weaviate restarted"),
    "s3": (S3Engine, 64, "the S3 store's disk full for 5 s; freed"),
}


@pytest.fixture
def cramped(request: pytest.FixtureRequest, fleet: Fleet, tmp_path: Path) -> Iterator[tuple[str, Fleet, SmallDisk]]:
    """The engines, one of them on a small disk."""
    name: str = request.param
    kind, megabytes, _ = KINDS[name]
    folder = tmp_path / name
    folder.mkdir()
    with SmallDisk(folder / "data", megabytes) as disk:
        engine = on_disk(kind(folder), disk)
        try:
            engine.start(90.0 * PATIENCE)
            yield name, replace(fleet, **{name: engine}), disk
        finally:
            engine.kill()


def filling(name: str, disk: SmallDisk) -> Fault:
    """Returns the fault: the disk is full for five seconds. An operator restarts what does not get over it."""

    async def fault(scene: Scene) -> None:
        await scene.thread(disk.fill)
        await asyncio.sleep(5.0)
        await scene.thread(disk.free)
        engine = scene.fleet.engine(name)
        if name != "s3":
            await scene.thread(engine.kill)
            await scene.thread(engine.start, 90.0 * PATIENCE)
        scene.over()

    return fault


@pytest.mark.parametrize("cramped", list(KINDS), indirect=True)
async def test_a_full_disk_loses_nothing(
    cramped: tuple[str, Fleet, SmallDisk], tmp_path: Path, rng: random.Random
) -> None:
    name, fleet, disk = cramped
    plan = Plan(KINDS[name][2], f"full-disk-{name}", blobs=name == "s3", also=("STORAGE_FULL",), patience_s=60.0)
    await play(plan, filling(name, disk), fleet, tmp_path / "servers", rng)
