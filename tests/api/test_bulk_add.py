"""BulkAddMemories: a stream becomes one commit, whole or not at all."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import pytest

from memos_server._pb.mip.v1.commit_pb2 import CHANGE_KIND_MEMORY_ADDED
from memos_server._pb.mip.v1.memory_pb2 import PROVENANCE_KIND_MEMORY, Memory
from memos_server._pb.mip.v1.memory_service_pb2 import BulkAddMemoriesRequest, BulkAddMemoriesResponse
from tests.conftest import MakeWorld, World
from tests.support.mip import Cube, Mip, Provenance, RpcError, Vector, text

Frame = BulkAddMemoriesRequest
CUBE = "cubes/c"
FINISH = Frame(finish=True)


def header(parent: str = CUBE, **fields: Any) -> BulkAddMemoriesRequest:
    return Frame(header=Frame.Header(parent=parent, **fields))


def batch(memories: Iterable[Memory]) -> BulkAddMemoriesRequest:
    return Frame(batch=Frame.Batch(memories=memories))


def notes(start: int, end: int) -> list[Memory]:
    return [text(f"note {n} of the harbour", name=f"{CUBE}/memories/n{n}") for n in range(start, end)]


async def bulk(mip: Mip, *frames: BulkAddMemoriesRequest) -> BulkAddMemoriesResponse:
    response: BulkAddMemoriesResponse = await mip.upload("BulkAddMemories", frames)
    return response


async def refused(mip: Mip, *frames: BulkAddMemoriesRequest) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await bulk(mip, *frames)
    return caught.value


@pytest.fixture
async def cube(mip: Mip) -> Mip:
    await mip.CreateCube(cube_id="c")
    return mip


async def ids(mip: Mip) -> list[str]:
    return [memory.name.rpartition("/")[2] for memory in (await mip.ListMemories(parent=CUBE, page_size=1000)).memories]


async def test_batches_become_one_commit_in_their_order(cube: Mip) -> None:
    done = await bulk(cube, header(cause="import"), batch(notes(0, 3)), batch(notes(3, 5)), FINISH)
    assert (done.memory_count, done.commit.revision, done.commit.change_count) == (5, 2, 5)
    assert done.commit.cause == "import"
    assert await ids(cube) == ["n0", "n1", "n2", "n3", "n4"]
    changes = (await cube.ListCommitChanges(parent=done.commit.name)).changes
    assert [change.kind for change in changes] == [CHANGE_KIND_MEMORY_ADDED] * 5
    hits = (await cube.SearchMemories(cubes=[CUBE], query="note 3")).hits
    assert hits[0].memory.plaintext.text == "note 3 of the harbour"
    assert (await cube.VerifyCube(name=CUBE)).valid


async def test_a_fault_in_the_last_batch_leaves_nothing(cube: Mip) -> None:
    error = await refused(cube, header(), batch(notes(0, 3)), batch([text("x"), text("")]), FINISH)
    assert (error.code, error.fields) == ("INVALID_ARGUMENT", ["batch.memories[1].plaintext.text"])
    error = await refused(cube, header(), batch(notes(0, 3)), batch(notes(2, 4)), FINISH)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_NAME")
    assert await ids(cube) == []
    assert (await cube.GetCube(name=CUBE)).cube.revision == 1


async def test_an_id_that_is_taken_refuses_the_whole_stream(cube: Mip) -> None:
    await cube.AddMemories(parent=CUBE, memories=notes(7, 8))
    error = await refused(cube, header(), batch(notes(0, 3)), batch(notes(6, 9)), FINISH)
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")
    assert error.metadata["name"] == f"{CUBE}/memories/n7"
    assert await ids(cube) == ["n7"]


async def test_without_finish_nothing_is_stored(cube: Mip) -> None:
    error = await refused(cube, header(), batch(notes(0, 3)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_STREAM")
    assert await ids(cube) == []


@pytest.mark.parametrize(
    "frames",
    [
        (batch(notes(0, 1)), FINISH),
        (header(), header(), FINISH),
        (header(), FINISH),
        (header(), batch(notes(0, 1)), FINISH, FINISH),
        (header(), batch(notes(0, 1)), FINISH, batch(notes(1, 2))),
        (header(), Frame(), FINISH),
        (),
    ],
    ids=["no header", "two headers", "no memory", "finish twice", "batch after finish", "an empty frame", "nothing"],
)
async def test_frames_out_of_order_are_refused(cube: Mip, frames: tuple[BulkAddMemoriesRequest, ...]) -> None:
    error = await refused(cube, *frames)
    assert error.code == "INVALID_ARGUMENT"
    assert error.reason == "INVALID_STREAM"
    assert await ids(cube) == []


async def test_a_repeated_stream_is_the_same_call_however_it_is_cut(cube: Mip) -> None:
    request_id = str(uuid4())
    first = await bulk(cube, header(request_id=request_id), batch(notes(0, 3)), batch(notes(3, 5)), FINISH)
    again = await bulk(cube, header(request_id=request_id), batch(notes(0, 5)), FINISH)
    assert again == first
    assert len(await ids(cube)) == 5
    error = await refused(cube, header(request_id=request_id), batch(notes(0, 4)), FINISH)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    error = await refused(cube, header(request_id=request_id, cause="x"), batch(notes(0, 5)), FINISH)
    assert error.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(("gone", "fields"), [("DeleteCube", {}), ("PurgeCube", {"reason": "asked"})])
async def test_a_repeated_stream_is_answered_after_its_cube_is_gone(
    mip: Mip, gone: str, fields: dict[str, str]
) -> None:
    await mip.CreateCube(cube_id="c", cube=Cube(embedding_model="own", embedding_dimension=2))
    request_id = str(uuid4())
    note = text("tea", vectors=[Vector(model="own", dimension=2, data=struct.pack("<2f", 1.0, 0.0))])
    frames = [header(request_id=request_id), batch([note]), FINISH]
    first = await bulk(mip, *frames)
    await getattr(mip, gone)(name=CUBE, **fields)
    again = await bulk(mip, *frames)
    assert (again.commit, again.memory_count) == (first.commit, 1)


async def test_a_repeated_stream_is_neither_embedded_nor_set_aside_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(limits={"max_staged_bytes": 3 * 2**20})
    mip = world.admin
    await mip.CreateCube(cube_id="c")
    frames = [header(request_id=str(uuid4())), batch([text("x" * 250_000) for _ in range(8)]), FINISH]
    first = await bulk(mip, *frames)

    async def prepare(*_: object) -> None:
        raise AssertionError("a repeated call is prepared anew")

    monkeypatch.setattr("memos_server.mem_os.bulk_adding.drafts_of", prepare)
    with world.server.mos.staging.share() as other:
        other.take(2 * 2**20)
        assert await bulk(mip, *frames) == first
        error = await refused(mip, frames[0], batch(notes(0, 1)), FINISH)
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")


async def test_the_expected_revision_is_that_at_finish(cube: Mip) -> None:
    error = await refused(cube, header(expected_revision=7), batch(notes(0, 1)), FINISH)
    assert (error.code, error.reason) == ("ABORTED", "REVISION_MISMATCH")
    assert (await bulk(cube, header(expected_revision=1), batch(notes(0, 1)), FINISH)).commit.revision == 2


async def test_labels_of_sources_are_inherited_as_in_any_addition(cube: Mip) -> None:
    await cube.AddMemories(parent=CUBE, memories=[text("secret", name=f"{CUBE}/memories/s", sensitivity=4)])
    source = Provenance(kind=PROVENANCE_KIND_MEMORY, source=f"{CUBE}/memories/s")
    derived = text("derived", name=f"{CUBE}/memories/d", provenance=[source])
    await bulk(cube, header(), batch([derived]), FINISH)
    assert (await cube.GetMemory(name=f"{CUBE}/memories/d")).memory.sensitivity == 4


async def test_who_may_not_write_learns_nothing(cube: Mip, world: World) -> None:
    reader = await world.principal("r", (CUBE, 1, 4))
    stranger = await world.principal("x")
    for caller, parent in [(reader, CUBE), (stranger, CUBE), (stranger, "cubes/absent")]:
        error = await refused(caller, header(parent), batch(notes(0, 1)), FINISH)
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


async def test_limits_of_count_and_bytes_are_declared_and_kept(make_world: MakeWorld) -> None:
    world = await make_world(limits={"max_bulk_memories": 16, "max_bulk_bytes": 3 * 2**20})
    mip = world.admin
    await mip.CreateCube(cube_id="c")
    limits = (await mip.GetCapabilities()).limits
    assert (limits.max_bulk_memories, limits.max_bulk_bytes) == (16, 3 * 2**20)
    error = await refused(mip, header(), batch(notes(0, 9)), batch(notes(9, 17)), FINISH)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "TOO_MANY_ITEMS")
    large = [batch([text("x" * 250_000) for _ in range(4)]) for _ in range(4)]
    error = await refused(mip, header(), *large, FINISH)
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
    assert (await bulk(mip, header(), batch(notes(0, 16)), FINISH)).memory_count == 16


async def test_streams_share_what_the_server_sets_aside_and_give_it_back(make_world: MakeWorld) -> None:
    world = await make_world(limits={"max_staged_bytes": 3 * 2**20})
    mip = world.admin
    await mip.CreateCube(cube_id="c")
    stub = mip.channel.stream_unary("/mip.v1.MemoryService/BulkAddMemories")
    waiting = stub(metadata=mip.metadata)
    await waiting.write(header().SerializeToString())
    await waiting.write(batch([text("x" * 250_000) for _ in range(8)]).SerializeToString())
    large = batch([text("z" * 250_000) for _ in range(8)])
    for _ in range(200):
        try:
            await bulk(mip, header(), large, FINISH)
        except RpcError as refusal:
            error = refusal
            break
        await asyncio.sleep(0.05)  # the other stream's batch is on its way
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert error.metadata["quota"] == "staged_bytes"
    waiting.cancel()
    for _ in range(200):
        try:
            await bulk(mip, header(), large, FINISH)
            break
        except RpcError:
            await asyncio.sleep(0.05)
    else:
        pytest.fail("a cancelled stream keeps its share")
