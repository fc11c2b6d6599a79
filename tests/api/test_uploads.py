"""Uploads that are never finished: they end, they are bounded, and a purge leaves nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_RUNNING
from memos_server.graph_dbs.base import JobRow, Writer
from memos_server.mem_os.compaction import compact
from tests.conftest import MakeWorld, World
from tests.support.mip import METHODS, Mip, RpcError, path_of

DATA = b"x" * 1000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def header(cube: str, digest: str = DIGEST, size: int = len(DATA)) -> WriteBlobRequest:
    return WriteBlobRequest(header=BlobHeader(parent=cube, digest=digest, size=size))


def piece(data: bytes, offset: int = 0) -> WriteBlobRequest:
    return WriteBlobRequest(data=BlobData(offset=offset, data=data))


async def begin(mip: Mip, frames: AsyncIterator[bytes]) -> None:
    try:
        await mip.channel.stream_unary(path_of(METHODS["WriteBlob"]))(frames, metadata=mip.metadata, timeout=30)
    except grpc.RpcError as error:
        raise RpcError(error) from None


def parts(world: World) -> list[Path]:
    return sorted(path for path in (world.data / "blobs").rglob("*") if path.is_file())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come about")


async def test_an_upload_that_sends_nothing_ends_and_can_be_gone_on_with(make_world: MakeWorld) -> None:
    world = await make_world(watch={"idle_upload_s": 0.2})
    mip = world.admin
    cube = (await mip.CreateCube(cube_id="c")).cube.name

    async def slow() -> AsyncIterator[bytes]:
        yield header(cube).SerializeToString()
        yield piece(DATA[:400]).SerializeToString()
        await asyncio.sleep(20)

    for frames in (slow(), _nothing()):
        begun = time.monotonic()
        with pytest.raises(RpcError) as raised:
            await begin(mip, frames)
        assert (raised.value.code, raised.value.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        assert "QueryWrite" in raised.value.message
        assert time.monotonic() - begun < 5
    assert (await mip.QueryWrite(parent=cube, digest=DIGEST)).committed_size == 400


async def _nothing() -> AsyncIterator[bytes]:
    await asyncio.sleep(20)
    yield b""


async def test_an_upload_that_nobody_continues_is_dropped_while_the_server_runs(world: World, mip: Mip) -> None:
    cube = (await mip.CreateCube(cube_id="c")).cube.name
    digests = [f"sha256:{number:064x}" for number in (1, 2)]
    for digest in digests:
        with pytest.raises(RpcError):
            await mip.upload("WriteBlob", [header(cube, digest), piece(b"abc")])
    old, recent = parts(world)
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    await world.server.mos.blobs.expire()
    assert parts(world) == [recent]
    assert (await mip.QueryWrite(parent=cube, digest=digests[0])).committed_size == 0
    assert (await mip.QueryWrite(parent=cube, digest=digests[1])).committed_size == 3


async def test_the_unfinished_uploads_of_a_cube_are_bounded_together(make_world: MakeWorld) -> None:
    world = await make_world(blobs={"config": {"max_unfinished_bytes": 2500}})
    mip = world.admin
    cube = (await mip.CreateCube(cube_id="c")).cube.name
    other = (await mip.CreateCube(cube_id="other")).cube.name
    assert (await mip.GetCapabilities()).limits.max_unfinished_upload_bytes == 2500
    for number in range(2):
        with pytest.raises(RpcError) as raised:
            await mip.upload("WriteBlob", [header(cube, f"sha256:{number:064x}"), piece(DATA)])
        assert raised.value.reason == "INVALID_STREAM"
    for _ in range(2):
        with pytest.raises(RpcError) as raised:
            await mip.upload("WriteBlob", [header(cube), piece(DATA), WriteBlobRequest(finish=True)])
        assert (raised.value.code, raised.value.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        assert raised.value.metadata["quota"] == "unfinished_upload_bytes"
        assert raised.value.metadata["limit"] == "2500"
        await world.restart()  # what lies there counts after a restart too
        mip = world.admin
    await mip.upload("WriteBlob", [header(other), piece(DATA), WriteBlobRequest(finish=True)])
    for number in range(2):
        # A wrong digest drops the upload, which makes room.
        finish = [header(cube, f"sha256:{number:064x}"), piece(DATA), WriteBlobRequest(finish=True)]
        finish[0].header.offset, finish[1].data.offset, finish[1].data.data = 1000, 1000, b""
        with pytest.raises(RpcError) as raised:
            await mip.upload("WriteBlob", finish)
        assert raised.value.reason == "DIGEST_MISMATCH"
    await mip.upload("WriteBlob", [header(cube), piece(DATA), WriteBlobRequest(finish=True)])
    await mip.upload("WriteBlob", [header(cube), piece(DATA), WriteBlobRequest(finish=True)])


@pytest.mark.parametrize("finish", [True, False])
async def test_an_upload_across_a_purge_leaves_no_byte(world: World, mip: Mip, finish: bool) -> None:
    cube = (await mip.CreateCube(cube_id="c")).cube.name
    purged = asyncio.Event()
    sent = asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        yield header(cube).SerializeToString()
        yield piece(DATA[:400]).SerializeToString()
        sent.set()
        await purged.wait()
        yield piece(DATA[400:], 400).SerializeToString()
        if finish:
            yield WriteBlobRequest(finish=True).SerializeToString()

    upload = asyncio.create_task(begin(mip, frames()))
    await sent.wait()
    await until(lambda: bool(parts(world)))
    await mip.PurgeCube(name=cube, reason="gone")
    purged.set()
    with pytest.raises(RpcError) as raised:
        await upload
    assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "CUBE_PURGED")
    assert parts(world) == []


async def test_a_caller_that_goes_away_across_a_purge_leaves_no_byte(world: World, mip: Mip) -> None:
    cube = (await mip.CreateCube(cube_id="c")).cube.name

    async def frames() -> AsyncIterator[bytes]:
        yield header(cube, size=10**6).SerializeToString()
        for offset in range(0, 10**6, 1000):
            yield piece(DATA, offset).SerializeToString()
            await asyncio.sleep(0.001)

    upload = asyncio.create_task(begin(mip, frames()))
    await until(lambda: bool(parts(world)))
    purge = asyncio.create_task(mip.PurgeCube(name=cube, reason="gone"))
    await asyncio.sleep(0.02)
    upload.cancel()
    await purge
    await asyncio.gather(upload, return_exceptions=True)
    await until(lambda: not parts(world))


async def test_a_blob_is_recorded_before_a_compaction_looks_though_its_uploader_went_away(
    world: World, mip: Mip
) -> None:
    cube = (await mip.CreateCube(cube_id="c")).cube
    mos = world.server.mos
    await mip.upload("WriteBlob", [header(cube.name), piece(DATA), WriteBlobRequest(finish=True)])
    works, goes_on = threading.Event(), threading.Event()

    async def doom(txn: Writer) -> None:
        row = await txn.cube("c")
        assert row is not None
        await txn.doom_blob(row.key, DIGEST)

    async def busy(_: Writer) -> None:
        works.set()
        goes_on.wait(30)

    async def progress(done: int, steps: int) -> None:
        del done, steps

    await mos.store.write(doom)
    assert list((await mip.FindMissingBlobs(parent=cube.name, digests=[DIGEST])).digests) == [DIGEST]
    # All bytes come again; while the record's writer has other work, the one who sends them goes away.
    working = asyncio.create_task(mos.store.write(busy))
    await until(works.is_set)
    whole = [header(cube.name), piece(DATA), WriteBlobRequest(finish=True)]

    async def sent() -> AsyncIterator[bytes]:
        for frame in whole:
            yield frame.SerializeToString()

    upload = asyncio.create_task(begin(mip, sent()))
    await until(lambda: mos.store.waiting_writes == 1)
    upload.cancel()
    await asyncio.sleep(0.3)
    job = JobRow("c", "compaction-0", "compaction", JOB_STATE_RUNNING, "principals/local-admin", 0, 0)
    erasing = asyncio.create_task(compact(mos, job, progress))
    await asyncio.sleep(0.3)
    goes_on.set()
    await asyncio.gather(working, erasing)
    assert list((await mip.FindMissingBlobs(parent=cube.name, digests=[DIGEST])).digests) == []
    got = [frame.data.data async for frame in mip.ReadBlob(parent=cube.name, digest=DIGEST)]
    assert b"".join(got) == DATA


async def test_streams_that_are_refused_leave_their_places_on_the_connection(make_world: MakeWorld) -> None:
    mip = (await make_world()).admin
    # gRPC gives a connection 256 places; a refused stream that kept one would end it for everybody behind a proxy.
    for _ in range(600):
        with contextlib.suppress(grpc.RpcError):
            await mip.channel.stream_unary(path_of(METHODS["WriteBlob"]))(iter([b"\xff"]), metadata=mip.metadata)
    assert (await mip.CreateCube(cube_id="still")).cube.name == "cubes/still"
