"""One commit of many thousand changes, through every reading of the log, within the default limits of gRPC.

The caller's channel has its default options: a message of more than 4 MiB would be refused there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message_factory import GetMessageClass

from memos_server._pb.mip.v1.memory_pb2 import DTYPE_FLOAT32, Memory
from memos_server._pb.mip.v1.memory_service_pb2 import BulkAddMemoriesRequest, BulkAddMemoriesResponse
from tests.conftest import MakeWorld
from tests.support.mip import METHODS, Mip, Vector, path_of, text

CUBE = "cubes/c"
MODEL = "test-model"
Frame = BulkAddMemoriesRequest


def _memory(number: int, vector: bytes) -> Memory:
    memory: Memory = text(f"note {number} of the harbour", name=f"{CUBE}/memories/n{number}", tags=[f"t{number % 10}"])
    memory.vectors.append(Vector(model=MODEL, dtype=DTYPE_FLOAT32, dimension=64, data=vector))
    return memory


async def _add(mip: Mip, count: int) -> Any:
    vectors = np.random.default_rng(1).standard_normal((997, 64), dtype=np.float32)

    async def frames() -> Any:
        yield Frame(header=Frame.Header(parent=CUBE)).SerializeToString()
        for start in range(0, count, 1000):
            numbers = range(start, min(start + 1000, count))
            memories = [_memory(number, vectors[number % 997].tobytes()) for number in numbers]
            yield Frame(batch=Frame.Batch(memories=memories)).SerializeToString()
        yield Frame(finish=True).SerializeToString()

    method = METHODS["BulkAddMemories"]
    raw = await mip.channel.stream_unary(path_of(method))(frames(), metadata=mip.metadata, timeout=600)
    return BulkAddMemoriesResponse.FromString(raw)


@pytest.mark.parametrize(
    "count", [3_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])], ids=str
)
async def test_a_commit_of_many_changes_is_added_listed_watched_verified_and_rolled_back(
    make_world: MakeWorld, count: int
) -> None:
    world = await make_world()
    mip = world.admin
    await mip.CreateCube(cube_id="c", cube={"embedding_model": MODEL, "embedding_dimension": 64})
    done = await _add(mip, count)
    assert (done.memory_count, done.commit.revision, done.commit.change_count) == (count, 2, count)

    listed, token = 0, ""
    while True:
        page = await mip.ListMemories(parent=CUBE, page_size=1000, page_token=token)
        assert [memory.name for memory in page.memories] == [
            f"{CUBE}/memories/n{number}" for number in range(listed, listed + len(page.memories))
        ]
        listed, token = listed + len(page.memories), page.next_page_token
        if not token:
            break
    assert listed == count

    changes, token = 0, ""
    while True:
        page = await mip.ListCommitChanges(parent=done.commit.name, page_size=1000, page_token=token)
        changes, token = changes + len(page.changes), page.next_page_token
        if not token:
            break
    assert changes == count

    watched = 0
    async for frame in mip.WatchCube(name=CUBE, start_revision=2):
        watched += len(frame.changes.changes)
        assert frame.ByteSize() <= 2**20 + 1024
        if frame.HasField("end"):
            break
    assert watched == count

    query = np.random.default_rng(1).standard_normal((997, 64), dtype=np.float32)[count % 997 - 1]
    vector = Vector(model=MODEL, dtype=DTYPE_FLOAT32, dimension=64, data=query.tobytes())
    found = await mip.SearchMemories(cubes=[CUBE], vector=vector, top_k=1)
    assert int(found.hits[0].memory.name.rpartition("/n")[2]) % 997 == count % 997 - 1

    head = (await mip.GetCube(name=CUBE)).cube
    verified = await _slow(mip, "VerifyCube", name=CUBE, expected_revision=2, expected_head_digest=head.head_digest)
    assert verified.valid, verified.findings

    back = await _slow(mip, "RollbackCube", name=CUBE, to_revision=1)
    assert back.commit.change_count == count
    assert not (await mip.ListMemories(parent=CUBE)).memories
    again = await _slow(mip, "RollbackCube", name=CUBE, to_revision=2)
    assert again.commit.change_count == count
    assert len((await mip.ListMemories(parent=CUBE, page_size=1000)).memories) == 1000
    assert (await _slow(mip, "VerifyCube", name=CUBE)).valid


async def _slow(mip: Mip, rpc: str, **fields: Any) -> Any:
    """Makes a call that may take longer than the others."""
    method = METHODS[rpc]
    stub = mip.channel.unary_unary(
        path_of(method),
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return await stub(GetMessageClass(method.input_type)(**fields), metadata=mip.metadata, timeout=600)
