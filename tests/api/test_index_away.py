"""An index that cannot be used takes no other cube and no other call down; only one that is at fault is made anew."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from memos_server._pb.mip.v1.memory_pb2 import PROVENANCE_KIND_MEMORY
from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_GRAPH
from memos_server.errors import MipError
from memos_server.mem_os.index_batches import Handed
from memos_server.vec_dbs.base import SearchIndex
from tests.conftest import World
from tests.support.mip import Mip, Provenance, text

C, D = "cubes/c", "cubes/d"
AWAY = MipError("BACKEND_UNAVAILABLE", "the index is away")
NOTICE = "a search index cannot be used or brought up to date; searches name its cube in stale or unreachable"


@pytest.fixture(autouse=True)
def _tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memos_server.mem_os.indexing._RETRY_S", 0.0)


@pytest.fixture
async def index(world: World, mip: Mip) -> SearchIndex:
    """The index of a server with the cubes c and d, both with a memory that is indexed."""
    for cube in (C, D):
        await mip.CreateCube(cube_id=cube.removeprefix("cubes/"))
        await mip.AddMemories(parent=cube, memories=[text(f"tea of {cube}")])
        assert (await mip.SearchMemories(cubes=[cube], query="tea")).hits
    return world.server.mos.keeper._index


async def fails_of_c(
    world: World, patch: pytest.MonkeyPatch, error: Exception, *methods: str, cube: str = "c"
) -> list[str]:
    """Makes methods of the index fail for the cube c; returns a list of the methods that were called for it."""
    index = world.server.mos.keeper._index
    row = await world.server.mos.read(lambda txn: txn.cube(cube))
    assert row is not None
    called: list[str] = []

    def failing(name: str, works: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def method(uid: str, *rest: Any) -> Any:
            if uid == row.uid:
                called.append(name)
                if name in methods:
                    raise error
            return await works(uid, *rest)

        return method

    for name in ("indexed_revision", "apply", "search", "related", "entries", "drop"):
        patch.setattr(index, name, failing(name, getattr(index, name)))
    return called


def texts(found: Any) -> list[str]:
    return [hit.memory.plaintext.text for hit in found.hits]


ALL = ("indexed_revision", "apply", "search", "related", "entries", "drop")


@pytest.mark.parametrize("error", [AWAY, OSError(5, "Input/output error"), sqlite3.OperationalError("disk I/O error")])
async def test_a_search_of_two_cubes_answers_for_the_one_whose_backend_can_be_reached(
    world: World, mip: Mip, index: SearchIndex, error: Exception
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        await fails_of_c(world, patch, error, *ALL)
        found = await mip.SearchMemories(cubes=[C, D], query="tea")
        assert (texts(found), list(found.unreachable), list(found.stale)) == ([f"tea of {D}"], [C], [])
        assert NOTICE in (await mip.GetCapabilities()).notices
    found = await mip.SearchMemories(cubes=[C, D], query="tea")
    assert (len(found.hits), list(found.unreachable)) == (2, [])
    for _ in range(100):
        if NOTICE not in (await mip.GetCapabilities()).notices:
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the notice stayed")


@pytest.mark.parametrize("method", ["search", "related"])
async def test_a_cube_whose_index_goes_away_during_the_search_is_unreachable_and_not_stale(
    world: World, mip: Mip, index: SearchIndex, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = await fails_of_c(world, monkeypatch, AWAY, method, "apply")
    await mip.AddMemories(parent=C, memories=[text("more tea")])
    found = await mip.SearchMemories(cubes=[C, D], query="tea", mode=SEARCH_MODE_GRAPH)
    assert (texts(found), list(found.unreachable), list(found.stale)) == ([f"tea of {D}"], [C], [])
    assert method in called


async def test_a_purge_a_verification_and_the_statistics_go_on_without_the_index(
    world: World, mip: Mip, index: SearchIndex
) -> None:
    pin = (await mip.AddMemories(parent=C, memories=[text("the pin")])).memories[0].name
    cites = Provenance(kind=PROVENANCE_KIND_MEMORY, source=pin)
    citing = (await mip.AddMemories(parent=C, memories=[text("as said", provenance=[cites])])).memories[0].name
    longer = Provenance(kind=PROVENANCE_KIND_MEMORY, source=f"{pin}0")
    await mip.AddMemories(parent=C, memories=[text("of another", provenance=[longer])])
    await mip.SearchMemories(cubes=[C], query="pin")
    with pytest.MonkeyPatch.context() as patch:
        await fails_of_c(world, patch, AWAY, *ALL)
        purged = await mip.PurgeMemories(parent=C, names=[pin], reason="asked")
        assert list(purged.derived) == [citing]
        assert purged.index_pending
        verified = await mip.VerifyCube(name=C)
        assert [(each.kind, each.resource, each.message) for each in verified.findings] == [
            ("index", C, "the index cannot be asked now and was not compared")
        ]
        assert (verified.commits_checked, verified.indexed_revision) == (6, 0)
        seen = await mip.GetServerStats()
        assert seen.unfinished_jobs == 1
        assert [(lag.cube, lag.indexed_revision, lag.revision) for lag in seen.index_lags] == [(C, 0, 6)]
    assert (await mip.VerifyCube(name=C)).valid
    assert texts(await mip.SearchMemories(cubes=[C], query="pin")) == []


@pytest.mark.parametrize("error", [AWAY, OSError(28, "No space left on device"), MemoryError()])
async def test_an_index_that_cannot_be_written_is_kept_and_searched_at_its_revision(
    world: World, mip: Mip, index: SearchIndex, error: Exception
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        called = await fails_of_c(world, patch, error, "apply")
        added = await mip.AddMemories(parent=C, memories=[text("more tea")])
        found = await mip.SearchMemories(cubes=[C, D], query="tea")
        assert sorted(texts(found)) == [f"tea of {C}", f"tea of {D}"]
        assert [(stale.cube, stale.indexed_revision) for stale in found.stale] == [(C, 2)]
        assert not found.unreachable
        cites = Provenance(kind=PROVENANCE_KIND_MEMORY, source=added.memories[0].name)
        citing = (await mip.AddMemories(parent=C, memories=[text("as said", provenance=[cites])])).memories[0].name
        # The index does not know of it yet; the record does.
        purged = await mip.PurgeMemories(parent=C, names=[added.memories[0].name], reason="asked")
        assert list(purged.derived) == [citing]
        assert "drop" not in called
    found = await mip.SearchMemories(cubes=[C], query="tea said")
    assert (sorted(texts(found)), list(found.stale)) == (["as said", f"tea of {C}"], [])


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("a row of the record is damaged")])
async def test_a_record_that_cannot_be_read_costs_no_index(
    world: World, mip: Mip, index: SearchIndex, error: Exception
) -> None:
    keeper = world.server.mos.keeper

    async def unreadable(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        called = await fails_of_c(world, patch, AWAY)
        patch.setattr(keeper, "_handed", Handed(0))
        patch.setattr(keeper._batches, "of_log", unreadable)
        await mip.AddMemories(parent=C, memories=[text("more tea")])
        found = await mip.SearchMemories(cubes=[C], query="tea")
        assert (texts(found), [stale.indexed_revision for stale in found.stale]) == ([f"tea of {C}"], [2])
        assert "drop" not in called
    assert len((await mip.SearchMemories(cubes=[C], query="tea")).hits) == 2


@pytest.mark.parametrize(
    "error",
    [ValueError("the batch does not follow"), sqlite3.DatabaseError("database disk image is malformed"),
     MipError("DATA_CORRUPT", "a file has another checksum")],
)  # fmt: skip
async def test_an_index_that_is_at_fault_is_made_anew(
    world: World, mip: Mip, index: SearchIndex, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, drop = index.apply, index.drop
    dropped: list[str] = []

    async def refuses(uid: str, *rest: Any) -> None:
        if not dropped:
            raise error
        await apply(uid, *rest)

    async def noted(uid: str) -> None:
        dropped.append(uid)
        await drop(uid)

    monkeypatch.setattr(index, "apply", refuses)
    monkeypatch.setattr(index, "drop", noted)
    await mip.AddMemories(parent=C, memories=[text("more tea")])
    found = await mip.SearchMemories(cubes=[C], query="tea")
    assert (len(found.hits), list(found.stale), len(dropped)) == (2, [], 1)


async def test_an_index_that_is_dropped_during_a_search_is_unreachable_for_it(
    mip: Mip, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = index.search
    with monkeypatch.context() as patch:

        async def dropped_before(uid: str, query: Any) -> Any:
            await index.drop(uid)
            return await search(uid, query)

        patch.setattr(index, "search", dropped_before)
        assert list((await mip.SearchMemories(cubes=[C], query="tea")).unreachable) == [C]
    assert texts(await mip.SearchMemories(cubes=[C], query="tea")) == [f"tea of {C}"]


async def test_a_fault_of_the_backend_in_a_search_is_one_of_the_server(
    world: World, mip: Mip, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = await fails_of_c(world, monkeypatch, ValueError("not what was asked"), "search")
    with pytest.raises(Exception, match="INTERNAL"):
        await mip.SearchMemories(cubes=[C], query="tea")
    assert called.count("search") == 2
