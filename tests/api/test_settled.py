"""What the specification leaves to no reader's judgement: the reference server's answers that the suite cannot see."""

from __future__ import annotations

import asyncio
import struct

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from memos_server._pb.mip.v1.cube_service_pb2 import WatchCubeRequest, WatchCubeResponse
from memos_server._pb.mip.v1.memory_pb2 import Memory
from tests.support.mip import METHODS, Cube, Label, Mip, Plaintext, RpcError, Vector, path_of, text

CUBE = "cubes/c"
NAME = f"{CUBE}/memories/m"
REQUEST_ID = "0b1f3c3a-6a0e-4c53-9c39-1d3d0a5f7c11"


@pytest.fixture
async def cube(mip: Mip) -> Mip:
    await mip.CreateCube(cube_id="c")
    await mip.AddMemories(parent=CUBE, memories=[text("tea", name=NAME, tags=["x"])])
    return mip


def vector(*elements: float) -> Vector:
    return Vector(dimension=len(elements), data=struct.pack(f"<{len(elements)}f", *elements))


async def updated(mip: Mip, memory: Memory, *paths: str, request_id: str = "") -> tuple[Memory, int, int]:
    """Returns the memory, the revision and the number of changes of the commit."""
    mask = FieldMask(paths=paths) if paths else None
    done = await mip.UpdateMemory(memory=memory, update_mask=mask, request_id=request_id)
    return done.memory, done.commit.revision, done.commit.change_count


async def test_an_update_that_changes_nothing_is_a_commit_and_no_version(cube: Mip) -> None:
    before = (await cube.GetMemory(name=NAME)).memory
    same = Memory(name=NAME, plaintext=Plaintext(text="tea"), etag=before.etag)
    assert await updated(cube, same, request_id=REQUEST_ID) == (before, 3, 0)
    assert await updated(cube, same, request_id=REQUEST_ID) == (before, 3, 0)
    assert [memory.revision for memory in (await cube.ListMemoryRevisions(name=NAME)).memories] == [2]
    found = await cube.SearchMemories(cubes=[CUBE], query="tea")
    assert ([hit.memory for hit in found.hits], list(found.stale)) == ([before], [])
    changed, revision, _ = await updated(cube, Memory(name=NAME, tags=["y"], etag=before.etag))
    assert (list(changed.tags), changed.revision, revision) == (["y"], 4, 4)
    verified = await cube.VerifyCube(name=CUBE)
    assert verified.valid, verified.findings


async def test_a_cube_keeps_its_etag_where_nothing_of_it_changes(cube: Mip) -> None:
    before = (await cube.GetCube(name=CUBE)).cube
    done = await cube.UpdateCube(cube=Cube(name=CUBE, etag=before.etag), update_mask=FieldMask(paths=["*"]))
    assert (done.cube.etag, done.commit.revision, done.commit.change_count) == (before.etag, 3, 0)


async def test_a_callers_vector_stays_while_the_text_does(mip: Mip) -> None:
    await mip.CreateCube(cube_id="c", cube=Cube(embedding_model="own", embedding_dimension=2))
    await mip.AddMemories(parent=CUBE, memories=[text("tea", name=NAME, vectors=[vector(1.0, 0.0)])])

    async def vectors() -> int:
        return len((await mip.GetMemory(name=NAME, include_vectors=True)).memory.vectors)

    await updated(mip, Memory(name=NAME, tags=["x"], labels=[Label(key="a", value="b")]))
    assert await vectors() == 1
    await updated(mip, text("coffee", name=NAME))
    assert await vectors() == 0


async def test_what_an_update_leaves_alone_need_not_be_sent_within_plaintext(cube: Mip) -> None:
    kind = Memory(name=NAME, plaintext=Plaintext(kind="fact"))
    memory, _, _ = await updated(cube, kind, "plaintext.kind")
    assert (memory.plaintext.text, memory.plaintext.kind) == ("tea", "fact")
    with pytest.raises(RpcError) as caught:
        await updated(cube, kind, "tags")
    assert (caught.value.reason, caught.value.fields) == ("FIELD_REQUIRED", ["memory.plaintext.text"])


async def test_a_repeated_request_id_is_told_before_that_the_cube_is_deleted(mip: Mip) -> None:
    await mip.CreateCube(cube_id="c", cube=Cube(embedding_model="own", embedding_dimension=2))
    addition = {"parent": CUBE, "memories": [text("tea", vectors=[vector(1.0, 0.0)])]}
    first = await mip.AddMemories(**addition, request_id=REQUEST_ID)
    await mip.DeleteCube(name=CUBE)
    assert (await mip.AddMemories(**addition, request_id=REQUEST_ID)).commit == first.commit
    with pytest.raises(RpcError) as caught:
        await mip.AddMemories(**addition, cause="another", request_id=REQUEST_ID)
    assert (caught.value.reason, caught.value.fields) == ("REQUEST_ID_REUSED", ["request_id"])
    with pytest.raises(RpcError) as caught:
        await mip.AddMemories(**addition)
    assert caught.value.reason == "CUBE_DELETED"


async def test_absent_and_named_alike(cube: Mip) -> None:
    with pytest.raises(RpcError) as caught:
        await cube.BatchGetMemories(parent=CUBE, names=[NAME, f"{CUBE}/memories/none"])
    assert (caught.value.reason, caught.value.metadata["name"]) == ("MEMORY_NOT_FOUND", f"{CUBE}/memories/none")


async def test_a_watch_sends_its_headers_before_anything_happens(cube: Mip) -> None:
    method = METHODS["WatchCube"]
    call = cube.channel.unary_stream(
        path_of(method),
        request_serializer=WatchCubeRequest.SerializeToString,
        response_deserializer=WatchCubeResponse.FromString,
    )(WatchCubeRequest(name=CUBE), metadata=cube.metadata)
    await asyncio.wait_for(call.initial_metadata(), 5)
    await cube.AddMemories(parent=CUBE, memories=[text("coffee")])
    frame = await asyncio.wait_for(call.read(), 5)
    assert frame.commit.revision == 3
    call.cancel()


async def test_without_input_the_newest_of_all_cubes_come_first(mip: Mip) -> None:
    for cube_id in ("c", "d"):
        await mip.CreateCube(cube_id=cube_id)
    for number, cube_id in enumerate("cddccd"):
        await mip.AddMemories(parent=f"cubes/{cube_id}", memories=[text(f"note {number}", tags=["x"] * (number != 3))])

    async def found(**fields: object) -> list[str]:
        hits = (await mip.SearchMemories(cubes=["cubes/c", "cubes/d"], **fields)).hits
        return [hit.memory.plaintext.text.removeprefix("note ") for hit in hits]

    assert await found() == ["5", "4", "3", "2", "1", "0"]
    assert await found(top_k=2) == ["5", "4"]
    assert await found(filter="tags:x", top_k=3) == ["5", "4", "2"]
