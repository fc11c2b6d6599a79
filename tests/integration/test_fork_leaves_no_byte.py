"""A fork that is not made leaves none of the bytes that were copied for it, also where its server was killed."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_SUCCEEDED
from memos_server.graph_dbs.base import JobRow, Reader, Writer
from memos_server.mem_os.fork_blobs import FORK
from memos_server.mem_scheduler import jobs
from tests.conftest import MakeWorld, World
from tests.support.mip import Memory, Mip, RpcError

CUBE = "cubes/c"
BLOBS = [hashlib.sha256(b"weights %d" % number).digest() * 2000 for number in range(3)]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def filled(world: World) -> Mip:
    """Makes a cube whose three memories name a blob each, and returns the administrator."""
    mip = world.admin
    await mip.CreateCube(cube_id="c")
    for data in BLOBS:
        header = BlobHeader(parent=CUBE, digest=digest_of(data), size=len(data))
        piece = WriteBlobRequest(data=BlobData(offset=0, data=data))
        await mip.upload("WriteBlob", [WriteBlobRequest(header=header), piece, WriteBlobRequest(finish=True)])
        blob = {"digest": digest_of(data), "size": len(data), "title": "adapter.safetensors"}
        memory = Memory(parametric={"base_fingerprint": "b", "method": "lora", "blobs": [blob]})
        await mip.AddMemories(parent=CUBE, memories=[memory])
    return mip


def copies_in(folder: Path) -> int:
    """Returns how many files below a data folder begin as one of the blobs does; the source has three."""
    files = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
    return sum(any(path.read_bytes()[:64] == data[:64] for data in BLOBS) for path in files)


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    """Waits for something for at most twenty seconds."""
    deadline = time.monotonic() + 20
    while not await done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def fork_job(world: World) -> JobRow:
    """Returns the only job of a fork, which no cube lists."""

    async def read(txn: Reader) -> JobRow:
        (row,) = await txn.jobs("", "", 10)
        return row

    return await world.server.mos.read(read)


def hang_at(world: World, monkeypatch: pytest.MonkeyPatch, number: int) -> asyncio.Event:
    """Lets the finish of a blob hang for good, counted from 0; returns what tells that it does."""
    blobs = world.server.mos.blobs
    finish, calls, reached = blobs.finish, iter(range(100)), asyncio.Event()

    async def hangs(uid: str, digest: str, size: int) -> None:
        if next(calls) == number:
            reached.set()
            await asyncio.sleep(3600)
        await finish(uid, digest, size)

    monkeypatch.setattr(blobs, "finish", hangs)
    return reached


async def test_a_server_killed_while_it_copies_leaves_no_byte_after_its_restart(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = await make_world()
    mip = await filled(world)
    monkeypatch.setattr(jobs, "LEASE_S", 0)
    reached = hang_at(world, monkeypatch, 1)
    fork = asyncio.ensure_future(mip.ForkCube(name=CUBE, cube_id="f"))
    await reached.wait()
    # What a killed process leaves behind: one blob is whole, another one an upload that was not finished.
    shutil.copytree(world.data, tmp_path / "killed", ignore=shutil.ignore_patterns("*.lock", "server.json"))
    fork.cancel()
    assert copies_in(tmp_path / "killed") == 5
    killed = World(tmp_path / "killed")
    await killed.start()
    try:

        async def erased() -> bool:
            return copies_in(killed.data) == 3

        await until(erased)
        assert len(list((killed.data / "blobs").iterdir())) == 1
        # Nobody but the server knows of the job; the name that was wanted is free.
        assert not (await killed.admin.ListJobs(parent=CUBE)).jobs
        made = (await killed.admin.ForkCube(name=CUBE, cube_id="f")).cube.name
        assert (await killed.admin.VerifyCube(name=made)).valid
        assert copies_in(killed.data) == 6
    finally:
        await killed.stop()


async def test_a_fork_whose_caller_goes_away_leaves_no_byte(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    mip = await filled(world)
    reached = hang_at(world, monkeypatch, 2)
    fork = asyncio.ensure_future(mip.ForkCube(name=CUBE, cube_id="f"))
    await reached.wait()
    assert copies_in(world.data) == 6
    fork.cancel()

    async def erased() -> bool:
        return copies_in(world.data) == 3

    await until(erased)


async def test_a_fork_that_is_refused_at_its_end_leaves_no_byte(make_world: MakeWorld) -> None:
    world = await make_world()
    mip = await filled(world)
    await mip.CreateCube(cube_id="f")
    with pytest.raises(RpcError) as refused:
        await mip.ForkCube(name=CUBE, cube_id="f")
    assert refused.value.reason == "ALREADY_EXISTS"
    assert copies_in(world.data) == 3
    assert (await fork_job(world)).state == JOB_STATE_SUCCEEDED


async def test_a_fork_that_is_made_ends_its_job_and_keeps_its_bytes_over_restarts(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    mip = await filled(world)
    monkeypatch.setattr(jobs, "LEASE_S", 0)
    made = (await mip.ForkCube(name=CUBE, cube_id="f")).cube
    row = await fork_job(world)
    assert (row.id, row.kind, row.state) == (made.uid, FORK, JOB_STATE_SUCCEEDED)
    assert not (await mip.ListJobs(parent=made.name)).jobs
    await world.restart()
    await world.server.mos.jobs.run_now("", made.uid)
    assert copies_in(world.data) == 6
    assert (await world.admin.VerifyCube(name=made.name)).valid


async def test_a_fork_that_lost_its_lease_is_refused_rather_than_made_without_bytes(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    mip = await filled(world)
    blobs = world.server.mos.blobs
    finish = blobs.finish

    async def another_server_takes_over(uid: str, digest: str, size: int) -> None:
        await finish(uid, digest, size)

        async def lease(txn: Writer) -> None:
            row = await txn.job("", uid)
            assert row is not None
            await txn.put_job(replace(row, lease_owner="another:1"))

        await world.server.mos.store.write(lease)

    monkeypatch.setattr(blobs, "finish", another_server_takes_over)
    with pytest.raises(RpcError) as refused:
        await mip.ForkCube(name=CUBE, cube_id="f")
    assert refused.value.reason == "BACKEND_UNAVAILABLE"
    with pytest.raises(RpcError) as absent:
        await mip.GetCube(name="cubes/f")
    assert absent.value.reason == "CUBE_NOT_FOUND"


async def test_a_fork_for_which_there_is_no_room_is_refused_before_a_byte_is_copied(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    mip = await filled(world)
    total = sum(len(data) for data in BLOBS)

    async def little() -> int:
        return total

    async def enough() -> int:
        return total * 10 // 9 + 1

    reached = hang_at(world, monkeypatch, 0)
    monkeypatch.setattr(world.server.mos.blobs, "free", little)
    with pytest.raises(RpcError) as refused:
        await mip.ForkCube(name=CUBE, cube_id="f")
    assert refused.value.reason == "STORAGE_FULL"
    assert not reached.is_set()
    monkeypatch.undo()
    monkeypatch.setattr(world.server.mos.blobs, "free", enough)
    await mip.ForkCube(name=CUBE, cube_id="f")


async def test_a_blob_purged_before_it_is_copied_is_no_hindrance_and_a_lost_one_is(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    mip = await filled(world)
    first = (await mip.ListMemories(parent=CUBE)).memories[0].name
    free = world.server.mos.blobs.free

    async def purge_meanwhile() -> int | None:
        await mip.PurgeMemories(parent=CUBE, names=[first], reason="asked")
        return await free()

    with monkeypatch.context() as patched:
        patched.setattr(world.server.mos.blobs, "free", purge_meanwhile)
        made = (await mip.ForkCube(name=CUBE, cube_id="f")).cube.name
    assert len((await mip.ListMemories(parent=made)).memories) == 2
    assert (await mip.VerifyCube(name=made)).valid
    uid = (await mip.GetCube(name=CUBE)).cube.uid
    (lost,) = (world.data / "blobs" / uid).rglob(digest_of(BLOBS[1]).removeprefix("sha256:"))
    lost.unlink()
    with pytest.raises(RpcError) as refused:
        await mip.ForkCube(name=CUBE, cube_id="g")
    assert refused.value.reason == "BLOB_NOT_FOUND"
