"""The doctor and `memos index` over engines: what is damaged there is named, what is derived made anew, and an engine
that is away keeps nothing else from being examined."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import pytest

from memos_server import index_upkeep
from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server.configs.settings import Settings
from memos_server.doctor import Check, examine
from memos_server.errors import MipError
from memos_server.vec_dbs.base import IndexBatch, IndexContent, IndexVersion
from tests.conftest import MakeWorld, World
from tests.support import engines
from tests.support.mip import text
from tests.support.ports import free_port

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]

DATA = b"the bytes of a document" * 1000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
SOUND = "chain, content, blobs and index agree"


@pytest.fixture
def backends() -> dict[str, Any]:
    return {
        "record": {"backend": "neo4j", "config": engines.clean_neo4j()},
        "index": {"backend": "weaviate", "config": engines.clean_weaviate()},
        "blobs": {"backend": "s3", "config": engines.clean_s3()},
    }


async def filled(make_world: MakeWorld, backends: Mapping[str, Any]) -> tuple[World, str]:
    """Returns a running server over engines with a cube `c` of three memories and a blob, and the cube's uid."""
    world = await make_world(**backends)
    cube = (await world.admin.CreateCube(cube_id="c")).cube
    memories = [text("a lighthouse"), text("a harbour"), text("a reef")]
    await world.admin.AddMemories(parent=cube.name, memories=memories)
    frames = [
        WriteBlobRequest(header=BlobHeader(parent=cube.name, digest=DIGEST, size=len(DATA))),
        WriteBlobRequest(data=BlobData(data=DATA)),
        WriteBlobRequest(finish=True),
    ]
    await world.admin.upload("WriteBlob", frames)
    assert await finds_the_harbour(world)
    return world, str(cube.uid)


async def finds_the_harbour(world: World) -> bool:
    found = await world.admin.SearchMemories(cubes=["cubes/c"], query="harbour")
    return [hit.memory.plaintext.text for hit in found.hits] == ["a harbour"]


def settings_of(world: World, **changes: Mapping[str, Any]) -> Settings:
    changed = {
        name: {**world.settings[name], "config": {**world.settings[name]["config"], **change}}
        for name, change in changes.items()
    }
    return Settings(data=world.data, listen="127.0.0.1:0", **{**world.settings, **changed})


async def doctor(settings: Settings, *, repair: bool = False) -> dict[str, Check]:
    return {check.name: check for check in await examine(settings, repair=repair)}


def of(checks: Mapping[str, Check]) -> dict[str, str]:
    return {name: check.status for name, check in checks.items() if name not in ("model", "folder")}


async def replace(world: World, uid: str) -> None:
    """Leaves an index that claims to have seen the log and holds something else."""
    content = IndexContent(b"k" * 32, ["mermaid"])
    stranger = IndexVersion("0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77", 2, content.key, 1, 1, 0.0, 0.0)
    async with index_upkeep.opened(settings_of(world)) as upkeep:
        await upkeep.index.drop(uid)
        await upkeep.index.apply(uid, 0, IndexBatch(0, 2, [content], [stranger]))


async def test_engines_that_agree_are_all_ok_with_a_server_and_without(
    make_world: MakeWorld, backends: dict[str, Any]
) -> None:
    world, _ = await filled(make_world, backends)
    checks = await doctor(settings_of(world))
    assert of(checks) == {"record": "ok", "cubes/c": "ok", "cubes": "ok"}
    assert checks["record"].message == "in use; the server verified its cubes"
    assert checks["cubes/c"].message == f"revision 2, {SOUND}"
    await world.stop()
    checks = await doctor(settings_of(world))
    assert of(checks) == {"record": "ok", "cubes/c": "ok", "cubes": "ok"}
    assert checks["record"].message == "what neo4j holds is sound"
    assert checks["cubes/c"].message == f"revision 2, {SOUND}"


@pytest.mark.parametrize("running", [True, False])
async def test_an_index_that_disagrees_is_named_and_made_anew_when_asked(
    make_world: MakeWorld, backends: dict[str, Any], running: bool
) -> None:
    world, uid = await filled(make_world, backends)
    if not running:
        await world.stop()
    await replace(world, uid)
    check = (await doctor(settings_of(world)))["cubes/c"]
    assert (check.status, check.remedy) == ("fail", "memos doctor --repair")
    assert check.message.startswith("index cubes/c")
    check = (await doctor(settings_of(world), repair=True))["cubes/c"]
    assert check == Check("cubes/c", "repaired", "the search index was made anew from the log")
    assert (await doctor(settings_of(world)))["cubes/c"].status == "ok"
    if not running:
        await world.start()
    assert await finds_the_harbour(world)


async def test_a_blob_that_is_damaged_or_gone_is_named(make_world: MakeWorld, backends: dict[str, Any]) -> None:
    world, uid = await filled(make_world, backends)
    key = f"cubes/{uid}/blobs/{DIGEST[7:]}"
    bucket = backends["blobs"]["config"]["bucket"]
    client = engines.s3().client()
    flawed = {
        "other bytes": lambda: client.put_object(Bucket=bucket, Key=key, Body=DATA[:-1] + b"?"),
        "a cut": lambda: client.put_object(Bucket=bucket, Key=key, Body=DATA[:-1]),
        "nothing": lambda: client.delete_object(Bucket=bucket, Key=key),
    }
    for flaw in flawed.values():
        await asyncio.to_thread(flaw)
        check = (await doctor(settings_of(world), repair=True))["cubes/c"]
        assert check.status == "fail"
        assert check.message.startswith(f"blob cubes/c/blobs/{DIGEST}: the bytes of a blob")
        assert check.remedy.startswith("Put the blob's object back from a copy of the bucket")
    client.close()


@pytest.mark.parametrize(
    ("part", "moved", "named"),
    [("blobs", ["endpoint"], "blobs (s3)"), ("index", ["http_port", "grpc_port"], "index (weaviate)")],
)
async def test_an_engine_that_is_away_is_named_and_the_rest_examined(
    make_world: MakeWorld, backends: dict[str, Any], part: str, moved: list[str], named: str
) -> None:
    world, _ = await filled(make_world, backends)
    await world.stop()
    port = free_port()
    elsewhere = {key: f"http://127.0.0.1:{port}" if key == "endpoint" else port for key in moved}
    checks = await doctor(settings_of(world, **{part: elsewhere}), repair=True)
    assert of(checks) == {part: "fail", "record": "ok", "cubes/c": "warn", "cubes": "ok"}
    assert checks[part].message.startswith(f"{world.settings[part]['backend']}: ")
    assert checks[part].remedy
    assert checks["cubes/c"].message == f"revision 2, not compared: {named} cannot be asked"
    # It was away, and nothing of it was taken for lost.
    assert of(await doctor(settings_of(world))) == {"record": "ok", "cubes/c": "ok", "cubes": "ok"}


async def test_without_the_record_nothing_else_is_examined(make_world: MakeWorld, backends: dict[str, Any]) -> None:
    world, _ = await filled(make_world, backends)
    await world.stop()
    settings = settings_of(world, record={"uri": f"bolt://127.0.0.1:{free_port()}"})
    checks = await doctor(settings)
    assert of(checks) == {"record": "fail"}
    assert checks["record"].message.startswith("neo4j: ")
    told = str(list(checks.values()))
    assert backends["record"]["config"]["password"] not in told


async def test_a_running_server_says_which_engine_it_cannot_ask(
    make_world: MakeWorld, backends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = await filled(make_world, backends)

    async def away(*_: object) -> None:
        raise MipError("BACKEND_UNAVAILABLE", "away")

    monkeypatch.setattr(world.server.mos.blobs, "size", away)
    answer = await world.admin.VerifyCube(name="cubes/c")
    assert [(found.kind, found.resource, found.message) for found in answer.findings] == [
        ("blob", "cubes/c", "the blob store cannot be asked now and the blobs were not compared")
    ]
    checks = await doctor(settings_of(world))
    assert checks["cubes/c"].status == "warn"
    assert checks["cubes/c"].message == "revision 2, not compared: blobs (s3) cannot be asked"


async def test_an_index_is_made_anew_beside_a_server_that_is_written_to(
    make_world: MakeWorld, backends: dict[str, Any]
) -> None:
    world, uid = await filled(make_world, backends)
    stop = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        mip = world.admin
        while not stop.is_set():
            await mip.AddMemories(parent="cubes/c", memories=[text(f"a buoy number {written}")])
            written += 1

    async def search() -> None:
        mip = world.admin
        while not stop.is_set():
            found = await mip.SearchMemories(cubes=["cubes/c"], query="harbour")
            if not found.stale and not found.unreachable:
                assert [hit.memory.plaintext.text for hit in found.hits] == ["a harbour"]

    tasks = [asyncio.create_task(write()), asyncio.create_task(search())]
    await asyncio.sleep(0.5)
    async with index_upkeep.opened(settings_of(world)) as upkeep:
        for _ in range(3):
            (result,) = await index_upkeep.rebuild(upkeep, ["cubes/c"])
            assert result.problem == ""
            assert result.indexed >= result.revision >= 2
    stop.set()
    await asyncio.gather(*tasks)
    assert written > 3
    found = await world.admin.SearchMemories(cubes=["cubes/c"], query=f"buoy number {written - 1}")
    assert found.hits[0].memory.plaintext.text == f"a buoy number {written - 1}"
    assert list((await world.admin.VerifyCube(name="cubes/c")).findings) == []
    async with index_upkeep.opened(settings_of(world)) as upkeep:
        (status,) = await index_upkeep.status(upkeep, [])
        assert (status.cube, status.revision, status.indexed) == ("cubes/c", 2 + written, 2 + written)
        assert await upkeep.index.indexed_revision(uid) == 2 + written


async def test_an_index_that_was_lost_as_a_whole_comes_back_without_being_asked_for(
    make_world: MakeWorld, backends: dict[str, Any]
) -> None:
    from memos_server.mem_os.drift import DriftSweep

    world, uid = await filled(make_world, backends)
    async with index_upkeep.opened(settings_of(world)) as upkeep:
        await upkeep.index.drop(uid)
    mos = world.server.mos
    sweep = DriftSweep(mos.store, mos.keeper, lambda: True, cubes_per_s=1000, grace_s=0)
    # For a moment the server goes by the head that it has just read.
    async with asyncio.timeout(30):
        await sweep.sweep()
        while not sweep.drift().behind:
            await asyncio.sleep(0.2)
            await sweep.sweep()
    assert sweep.drift()[:4] == (0, 1, 1, 2)
    await sweep.sweep()
    assert sweep.drift()[:4] == (0, 1, 0, 0)
    assert await finds_the_harbour(world)
