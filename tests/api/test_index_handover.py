"""What was just added is handed to the index instead of being read back, and gives it exactly what the log gives."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from memos_server._pb.mip.v1.memory_service_pb2 import BulkAddMemoriesRequest
from memos_server.mem_os.index_batches import Added, Handed
from memos_server.vec_dbs.base import IndexBatch
from tests.conftest import World
from tests.support.mip import Cube, Mip, Vector, text

C = "cubes/c"


@pytest.fixture
async def seen(world: World, mip: Mip, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, IndexBatch]]:
    """The batches that the index is given, each with where it comes from; the cube c is there."""
    keeper = world.server.mos.keeper
    found: list[tuple[str, IndexBatch]] = []
    of_added, of_log = keeper._batches.of_added, keeper._batches.of_log

    def handed(after: int, commits: Any) -> Any:
        made = of_added(after, commits)
        found.append(("handed", made[1]))
        return made

    async def read(*args: Any) -> Any:
        made = await of_log(*args)
        if made is not None:
            found.append(("log", made[1]))
        return made

    await mip.CreateCube(cube_id="c", cube=Cube(embedding_model="own", embedding_dimension=2))
    assert not (await mip.SearchMemories(cubes=[C], query="tea")).stale
    monkeypatch.setattr(keeper._batches, "of_added", handed)
    monkeypatch.setattr(keeper._batches, "of_log", read)
    return found


def plain(batch: IndexBatch) -> Any:
    """Returns a batch as values that can be compared."""
    contents = [
        (
            content.key,
            list(content.terms),
            list(content.facets),
            list(content.entities),
            dict(content.numbers),
            None if content.vector is None else content.vector.tobytes(),
        )
        for content in sorted(batch.contents, key=lambda content: content.key)
    ]
    versions = sorted(map(repr, batch.versions))
    return batch.from_revision, batch.to_revision, contents, versions, list(batch.erased)


async def of_log(world: World, after: int) -> IndexBatch:
    """Returns the batch that the log gives."""
    mos = world.server.mos
    made = await mos.read(lambda txn: type(mos.keeper._batches).of_log(mos.keeper._batches, txn, "c", after))
    assert made is not None
    return made[1]


async def test_what_was_added_is_not_read_back_and_is_what_the_log_holds(
    world: World, mip: Mip, seen: list[tuple[str, IndexBatch]]
) -> None:
    vector = Vector(model="own", dimension=2, dtype=1, data=struct.pack("<2f", 0.6, 0.8))
    memories = [
        text("Ada drinks green tea in Paris", tags=["tea"], sensitivity=3),
        text("tea and more tea", vectors=[vector]),
        text("the"),
    ]
    await mip.AddMemories(parent=C, memories=memories)
    assert len((await mip.SearchMemories(cubes=[C], query="tea")).hits) == 2
    assert [source for source, _ in seen] == ["handed"]
    assert plain(seen[0][1]) == plain(await of_log(world, 1))


async def test_a_stream_of_memories_is_handed_over_too(mip: Mip, seen: list[tuple[str, IndexBatch]]) -> None:
    frames = [
        BulkAddMemoriesRequest(header=BulkAddMemoriesRequest.Header(parent=C)),
        BulkAddMemoriesRequest(batch=BulkAddMemoriesRequest.Batch(memories=[text("tea"), text("coffee")])),
        BulkAddMemoriesRequest(finish=True),
    ]
    await mip.upload("BulkAddMemories", frames)
    assert len((await mip.SearchMemories(cubes=[C], query="tea")).hits) == 1
    assert [source for source, _ in seen] == ["handed"]


async def test_a_commit_that_does_more_than_add_is_read_from_the_log(
    world: World, mip: Mip, seen: list[tuple[str, IndexBatch]]
) -> None:
    await mip.AddMemories(parent=C, memories=[text("green tea", name=f"{C}/memories/m")])
    await mip.UpdateMemory(memory=text("white tea", name=f"{C}/memories/m"))
    await mip.AddMemories(parent=C, memories=[text("black tea")])
    assert len((await mip.SearchMemories(cubes=[C], query="tea")).hits) == 2
    covered = sorted((batch.from_revision, batch.to_revision, source) for source, batch in seen)
    assert covered[0][0] == 1, "the first commit reached the index"
    assert covered[-1][1] == 4, "and the last one"
    assert "log" in [source for source, _ in seen]
    verdict = await mip.VerifyCube(name=C)
    assert not verdict.findings


async def test_commits_are_handed_over_without_a_gap_and_forgotten_once_the_index_has_them() -> None:
    one = Added(revision=2, time=1, dimension=0, memories=(), weight=10)
    handed = Handed(most=35)
    for revision in (2, 4, 3, 5):
        handed.put("u", replace(one, revision=revision))
    # There was no room for the fourth.
    assert [commit.revision for commit in handed.after("u", 1)] == [2, 3, 4]
    assert [commit.revision for commit in handed.after("u", 0)] == [], "what lies between is read from the log"
    assert [commit.revision for commit in handed.after("u", 3)] == [4]
    handed.put("u", replace(one, revision=5))
    handed.put("v", replace(one, revision=9))
    assert [commit.revision for commit in handed.after("u", 4)] == [5]
    handed.forget("u")
    assert handed.after("u", 4) == []
    handed.put("w", replace(one, revision=1, weight=25))
    assert len(handed.after("w", 0)) == 1, "what was forgotten makes room"
    assert handed.after("u", 9) == handed.after("nowhere", 0) == []
