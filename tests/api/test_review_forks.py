"""What a review found of forks that are made while others write, and of sources that others may not know."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from tests.conftest import World
from tests.support.mip import Memory, Mip

DATA = b"the weights of a person who asked to be forgotten" * 100
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
async def cube(mip: Mip) -> str:
    """A cube with a memory that names a blob."""
    name: str = (await mip.CreateCube(cube_id="c")).cube.name
    header = BlobHeader(parent=name, digest=DIGEST, size=len(DATA))
    piece = BlobData(offset=0, data=DATA)
    frames = [WriteBlobRequest(header=header), WriteBlobRequest(data=piece), WriteBlobRequest(finish=True)]
    await mip.upload("WriteBlob", frames)
    blob = {"digest": DIGEST, "size": len(DATA), "title": "adapter_model.safetensors"}
    memory = Memory(name=f"{name}/memories/m", parametric={"base_fingerprint": "b", "method": "lora", "blobs": [blob]})
    await mip.AddMemories(parent=name, memories=[memory])
    return name


def copies_in(folder: Path) -> int:
    """Returns how many files hold the blob's bytes."""
    return sum(path.read_bytes() == DATA for path in folder.rglob("*") if path.is_file())


async def test_a_purge_while_a_fork_is_copied_leaves_no_blob_in_the_fork(
    world: World, mip: Mip, cube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = world.server.mos.blobs
    finish = blobs.finish

    async def purge_meanwhile(uid: str, digest: str, size: int) -> None:
        await finish(uid, digest, size)
        await mip.PurgeMemories(parent=cube, names=[f"{cube}/memories/m"], reason="asked")

    monkeypatch.setattr(blobs, "finish", purge_meanwhile)
    fork = (await mip.ForkCube(name=cube, cube_id="f")).cube.name
    assert not (await mip.ListMemories(parent=fork)).memories
    assert list((await mip.FindMissingBlobs(parent=fork, digests=[DIGEST])).digests) == [DIGEST]
    assert copies_in(world.data) == 0


async def test_a_fork_that_is_asked_for_twice_at_once_is_copied_once(world: World, mip: Mip, cube: str) -> None:
    id_ = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"
    answers = await asyncio.gather(*(mip.ForkCube(name=cube, request_id=id_) for _ in range(2)))
    assert answers[0].cube.name == answers[1].cube.name
    assert copies_in(world.data) == 2
    frames = [frame async for frame in mip.ReadBlob(parent=answers[0].cube.name, digest=DIGEST)]
    assert b"".join(frame.data.data for frame in frames) == DATA
