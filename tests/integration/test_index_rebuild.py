"""The index is derived: lost or damaged, it comes back from the log; until then a search is right or says stale."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_LEXICAL
from memos_server.mem_os import index_batches, searching
from tests.conftest import MakeWorld, World
from tests.support.mip import text

COUNT = 3000


async def filled(make_world: MakeWorld) -> tuple[World, str]:
    """Returns a server with a cube of 3,000 memories."""
    world = await make_world(search={"index_wait_s": 0.02})
    cube = (await world.admin.CreateCube(cube_id="c")).cube.name
    for start in range(0, COUNT, 1000):
        batch = [text(f"memory number {n} of the lighthouse") for n in range(start, start + 1000)]
        await world.admin.AddMemories(parent=cube, memories=batch)
    return world, cube


async def test_a_search_during_a_rebuild_is_right_or_says_stale(make_world: MakeWorld) -> None:
    world, cube = await filled(make_world)
    await world.stop()
    shutil.rmtree(world.data / "index")
    await world.start()
    mip = world.admin
    said_stale = False
    for _ in range(500):
        found = await mip.SearchMemories(cubes=[cube], query="2999", mode=SEARCH_MODE_LEXICAL)
        texts = [hit.memory.plaintext.text for hit in found.hits]
        if not found.stale:
            assert texts == ["memory number 2999 of the lighthouse"]
            break
        said_stale = True
        assert found.stale[0].cube == cube
        assert found.stale[0].indexed_revision < 4
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("the index never caught up")
    assert said_stale, "the index was there before the rebuild could be observed"
    assert (await mip.VerifyCube(name=cube)).valid


async def test_an_index_of_another_analyzer_is_made_anew(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    cube = (await world.admin.CreateCube(cube_id="c")).cube.name
    await world.admin.AddMemories(parent=cube, memories=[text("the lighthouse")])
    assert (await world.admin.SearchMemories(cubes=[cube], query="lighthouse")).hits
    await world.stop()
    # Until the next start the analyzer learns to read backwards.
    monkeypatch.setattr(index_batches, "analyze", lambda words: [word[::-1] for word in words.split()])
    monkeypatch.setattr(searching, "analyze", lambda words: [word[::-1] for word in words.split()])
    monkeypatch.setattr(index_batches, "INDEX_VERSION", "another")
    await world.start()
    found = await world.admin.SearchMemories(cubes=[cube], query="lighthouse", explain=True)
    assert list(found.hits[0].explanation.matched_terms) == ["esuohthgil"]


async def test_a_damaged_index_file_is_noticed_and_made_anew(make_world: MakeWorld) -> None:
    world, cube = await filled(make_world)
    await world.stop()
    damaged = 0
    for path in (world.data / "index").rglob("*"):
        if path.is_file():
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(bytes(content))
            damaged += 1
    assert damaged
    await world.start()
    for _ in range(500):
        found = await world.admin.SearchMemories(cubes=[cube], query="17", mode=SEARCH_MODE_LEXICAL)
        if not found.stale:
            break
        await asyncio.sleep(0.02)
    assert [hit.memory.plaintext.text for hit in found.hits] == ["memory number 17 of the lighthouse"]
    assert (await world.admin.VerifyCube(name=cube)).valid
