"""Indexes that are behind though nobody asks for them are found, brought up, and told as metrics."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

import pytest

from memos_server.errors import MipError
from memos_server.mem_os.drift import DriftSweep
from memos_server.telemetry.drift import IndexDrift
from memos_server.telemetry.prometheus import drift_families
from memos_server.vec_dbs.base import IndexBatch
from tests.conftest import MakeWorld, World
from tests.support.mip import text
from tests.support.ports import free_port


async def filled(make_world: MakeWorld, count: int) -> World:
    """Returns a server with cubes of two commits, all indexed."""
    world = await make_world()
    for number in range(count):
        cube = (await world.admin.CreateCube(cube_id=f"c{number}")).cube.name
        await world.admin.AddMemories(parent=cube, memories=[text("a harbour")])
        assert (await world.admin.SearchMemories(cubes=[cube], query="harbour")).hits
    return world


def sweep_of(world: World, *, works: bool = True, grace_s: float = 0.0) -> DriftSweep:
    mos = world.server.mos
    return DriftSweep(mos.store, mos.keeper, lambda: works, cubes_per_s=1000, pause_s=0.01, grace_s=grace_s)


def index_of(world: World) -> Any:
    return world.server.mos.keeper._index


async def uid_of(world: World, cube_id: str) -> str:
    found = await world.admin.GetCube(name=f"cubes/{cube_id}")
    return str(found.cube.uid)


async def test_sound_indexes_drift_by_nothing(make_world: MakeWorld) -> None:
    world = await filled(make_world, 3)
    await world.admin.DeleteCube(name="cubes/c2")
    await world.admin.PurgeCube(name="cubes/c2", reason="test")
    sweep = sweep_of(world)
    assert sweep.drift() == IndexDrift()
    assert await sweep.sweep()
    found = sweep.drift()
    # A purged cube has no index.
    assert (found.broken, found.cubes, found.behind, found.worst) == (0, 2, 0, 0)
    assert found.end_time > 1_700_000_000


async def test_an_index_that_was_lost_is_counted_once_and_made_anew(make_world: MakeWorld) -> None:
    world = await filled(make_world, 3)
    uid = await uid_of(world, "c1")
    await index_of(world).drop(uid)
    sweep = sweep_of(world)
    await sweep.sweep()
    assert sweep.drift()[:4] == (0, 3, 1, 2)
    assert await index_of(world).indexed_revision(uid) == 2
    await sweep.sweep()
    assert sweep.drift()[:4] == (0, 3, 0, 0)


async def test_an_index_of_commits_that_the_record_lost_is_made_anew(make_world: MakeWorld) -> None:
    world = await filled(make_world, 1)
    uid = await uid_of(world, "c0")
    # As after a record was restored from a backup, and the index was not.
    await index_of(world).apply(uid, 384, IndexBatch(2, 9))
    sweep = sweep_of(world)
    await sweep.sweep()
    assert sweep.drift()[:4] == (0, 1, 1, 7)
    assert await index_of(world).indexed_revision(uid) == 2
    await world.admin.AddMemories(parent="cubes/c0", memories=[text("a lighthouse")])
    assert (await world.admin.SearchMemories(cubes=["cubes/c0"], query="lighthouse")).hits


async def test_an_index_that_is_only_just_behind_is_no_drift(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await filled(make_world, 1)
    index = index_of(world)
    real = index.indexed_revision
    asked = 0

    async def late(cube_uid: str) -> int:
        nonlocal asked
        asked += 1
        return 1 if asked == 1 else int(await real(cube_uid))

    monkeypatch.setattr(index, "indexed_revision", late)
    sweep = sweep_of(world, grace_s=0.01)
    await sweep.sweep()
    assert sweep.drift().behind == 0


async def test_an_index_that_is_away_ends_the_sweep_and_is_swept_when_it_is_back(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await filled(make_world, 6)
    index = index_of(world)

    async def away(*_: Any) -> Any:
        raise MipError("BACKEND_UNAVAILABLE", "the index is away")

    sweep = sweep_of(world)
    with monkeypatch.context() as patched:
        patched.setattr(index, "indexed_revision", away)
        patched.setattr(index, "apply", away)
        assert not await sweep.sweep()
        assert sweep.drift() == IndexDrift(broken=3)
    await asyncio.sleep(1.1)  # how long the keeper leaves an index alone that it could not write
    assert await sweep.sweep()
    for _ in range(100):
        if not sweep.drift().broken:
            break
        await asyncio.sleep(0.02)
    assert sweep.drift().broken == 0
    assert sweep.drift().cubes == 6


async def test_it_goes_on_in_the_background_and_rests_while_the_index_does_not_work(make_world: MakeWorld) -> None:
    world = await filled(make_world, 1)
    resting, running = sweep_of(world, works=False), sweep_of(world)
    tasks = [asyncio.create_task(each.run()) for each in (resting, running)]
    for _ in range(200):
        if running.drift().cubes:
            break
        await asyncio.sleep(0.01)
    assert running.drift().cubes == 1
    assert resting.drift().cubes == 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_the_metrics_have_the_sweep_once_there_was_one() -> None:
    assert {family.name: family.samples[0].value for family in drift_families(IndexDrift(broken=2))} == {
        "mip_server_index_broken_cubes": 2
    }
    found = {family.name: family.samples[0] for family in drift_families(IndexDrift(0, 9, 2, 7, 0.5, 1_800_000_000.0))}
    assert {name: sample.value for name, sample in found.items()} == {
        "mip_server_index_broken_cubes": 0,
        "mip_server_index_drift_cubes": 2,
        "mip_server_index_drift_max_commits": 7,
        "mip_server_index_swept_cubes": 9,
        "mip_server_index_sweep_seconds": 0.5,
        "mip_server_index_sweep_end_time_seconds": 1_800_000_000.0,
    }
    assert not any(sample.labels for sample in found.values())


async def test_a_scrape_has_the_indexes_that_are_broken_now(make_world: MakeWorld) -> None:
    port = free_port()
    await make_world(metrics={"listen": f"127.0.0.1:{port}"})

    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    body = await asyncio.to_thread(fetch)
    assert "\nmip_server_index_broken_cubes 0.0\n" in body
    assert "mip_server_index_drift_cubes" not in body
