"""GetServerStats counts what happened, and the health service names each dependency as it is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from memos_server._pb.mip.v1.access_pb2 import ROLE_ADMIN
from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server.api.observing import Observer
from memos_server.api.rpcs import FILES
from memos_server.embedders.service import EmbeddingService
from memos_server.errors import MipError
from memos_server.graph_dbs.base import JobRow, Writer
from memos_server.telemetry.calls import LATENCY_BOUNDS, CallCounts
from tests.conftest import MakeWorld, World
from tests.support.mip import METHODS, Mip, RpcError, text

GET_CUBE = "mip.v1.CubeService.GetCube"
FAST = {"health": {"interval_s": 0.05}}


async def stats(mip: Mip) -> Any:
    # A call that fails is counted just after its answer is out.
    await asyncio.sleep(0.02)
    return await mip.GetServerStats()


def of(stats: Any, method: str) -> Any:
    (found,) = [call for call in stats.calls if call.method == method]
    return found


def dependency(stats: Any, name: str) -> tuple[bool, str]:
    (found,) = [part for part in stats.dependencies if part.name == name]
    return found.serving, found.problem


async def until(seen: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Returns once it is so; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not await seen():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_each_call_is_counted_once_with_its_reason_time_and_bytes(mip: Mip) -> None:
    await mip.CreateCube(cube_id="c")
    for _ in range(3):
        await mip.GetCube(name="cubes/c")
    with pytest.raises(RpcError, match="CUBE_NOT_FOUND"):
        await mip.GetCube(name="cubes/absent")
    with pytest.raises(RpcError, match="INVALID_NAME"):
        await mip.GetCube(name="no name")
    seen = await stats(mip)
    counted = of(seen, GET_CUBE)
    assert (counted.running, counted.succeeded) == (0, 3)
    assert {each.reason: each.count for each in counted.failed} == {"CUBE_NOT_FOUND": 1, "INVALID_NAME": 1}
    assert len(counted.latency_counts) == len(seen.latency_bounds) + 1 == len(LATENCY_BOUNDS) + 1
    assert sum(counted.latency_counts) == 5
    assert 0 < counted.latency_sum < 5
    # `cubes/c` is 7 bytes and 2 of tag and length, `cubes/absent` 12 and 2, `no name` 7 and 2.
    assert counted.request_bytes == 3 * 9 + 14 + 9
    assert counted.response_bytes == 3 * (await mip.GetCube(name="cubes/c")).ByteSize()
    # The call that asks is running while it counts.
    assert of(seen, "mip.v1.ServerService.GetServerStats").running == 1
    assert [call.method for call in seen.calls] == sorted(call.method for call in seen.calls)
    assert "mip.v1.MemoryService.GetMemory" not in {call.method for call in seen.calls}


async def test_calls_without_a_token_are_counted_too(world: World) -> None:
    with pytest.raises(RpcError, match="UNAUTHENTICATED"):
        await world.caller("").GetCube(name="cubes/c")
    counted = of(await stats(world.admin), GET_CUBE)
    assert [(each.reason, each.count) for each in counted.failed] == [("UNAUTHENTICATED", 1)]


async def test_open_streams_are_counted_while_they_are_open(world: World, mip: Mip) -> None:
    await mip.CreateCube(cube_id="c")
    watching = mip.WatchCube(name="cubes/c", start_revision=1)
    await anext(watching)
    seen = await stats(world.admin)
    assert seen.open_streams == 1
    assert of(seen, "mip.v1.CubeService.WatchCube").running == 1
    await watching.aclose()

    async def closed() -> bool:
        return bool((await stats(world.admin)).open_streams == 0)

    await until(closed)
    ended = of(await stats(world.admin), "mip.v1.CubeService.WatchCube")
    assert [(each.reason, each.count) for each in ended.failed] == [("CANCELLED", 1)]
    assert ended.response_bytes > 0


async def test_a_call_whose_time_ran_out_is_counted_as_such(world: World, mip: Mip) -> None:
    await mip.CreateCube(cube_id="c")
    method = METHODS["WatchCube"]
    path = f"/{method.containing_service.full_name}/{method.name}"
    stub = mip.channel.unary_stream(path, lambda request: request, bytes)
    with pytest.raises(grpc.RpcError):
        async for _ in stub(b"\x0a\x07cubes/c\x10\x01", metadata=mip.metadata, timeout=0.3):
            pass

    async def ended() -> bool:
        return {each.reason for each in of(await stats(world.admin), "mip.v1.CubeService.WatchCube").failed} == {
            "DEADLINE_EXCEEDED"
        }

    await until(ended)


async def test_every_frame_of_an_upload_and_of_a_download_is_weighed(mip: Mip) -> None:
    await mip.CreateCube(cube_id="c")
    data = bytes(range(256)) * 1000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    frames = [
        WriteBlobRequest(header=BlobHeader(parent="cubes/c", digest=digest, size=len(data))),
        *(WriteBlobRequest(data=BlobData(offset=at, data=data[at : at + 64_000])) for at in range(0, 256_000, 64_000)),
        WriteBlobRequest(finish=True),
    ]
    answer = await mip.upload("WriteBlob", frames)
    received = [frame async for frame in mip.ReadBlob(parent="cubes/c", digest=digest)]
    seen = await stats(mip)
    upload, download = of(seen, "mip.v1.BlobService.WriteBlob"), of(seen, "mip.v1.BlobService.ReadBlob")
    assert upload.request_bytes == sum(frame.ByteSize() for frame in frames)
    assert upload.response_bytes == answer.ByteSize()
    assert download.response_bytes == sum(frame.ByteSize() for frame in received)
    assert (upload.succeeded, download.succeeded) == (1, 1)


async def test_unfinished_jobs_are_counted_with_those_under_a_lease(world: World, mip: Mip) -> None:
    async def put(txn: Writer) -> None:
        for number, state in enumerate((1, 2, 3, 4, 5)):
            lease = int((time.time() + 3600) * 1e6)
            await txn.put_job(
                JobRow("c", f"j{number}", "unknown", state, "principals/local-admin", 1, 1, lease_until=lease)
            )

    await world.server.mos.store.write(put)
    assert (await stats(mip)).unfinished_jobs == 2


async def test_a_cube_whose_index_cannot_be_written_is_named_with_its_lag(make_world: MakeWorld) -> None:
    world = await make_world(search={"index_wait_s": 0.1})
    mip = world.admin
    await mip.CreateCube(cube_id="c")
    keeper = world.server.mos.keeper

    async def current() -> bool:
        return not (await stats(mip)).lagging_indexes

    await until(current)
    apply = keeper._index.apply

    async def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    keeper._index.apply = refuse  # type: ignore[assignment,method-assign]
    await mip.AddMemories(parent="cubes/c", memories=[text("one")])

    async def behind() -> bool:
        seen = await stats(mip)
        return [(lag.cube, lag.revision) for lag in seen.index_lags] == [("cubes/c", 2)] and seen.lagging_indexes == 1

    await until(behind)
    keeper._index.apply = apply  # type: ignore[method-assign]
    await asyncio.sleep(1.1)
    await mip.SearchMemories(cubes=["cubes/c"], query="one")
    await until(current)


async def test_the_index_of_a_purged_cube_lags_no_longer(
    world: World, mip: Mip, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mip.CreateCube(cube_id="c")

    async def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.server.mos.keeper._index, "apply", refuse)
    await mip.AddMemories(parent="cubes/c", memories=[text("one")])
    await mip.SearchMemories(cubes=["cubes/c"], query="one")
    assert (await stats(mip)).lagging_indexes == 1
    await mip.PurgeCube(name="cubes/c", reason="asked")
    assert (await stats(mip)).lagging_indexes == 0


async def test_only_a_server_administrator_sees_it(world: World) -> None:
    await world.admin.CreateCube(cube_id="c")
    reader = await world.principal("cube-admin", ("cubes/c", ROLE_ADMIN, 4))
    with pytest.raises(RpcError, match="PERMISSION_DENIED"):
        await stats(reader)


async def test_the_process_is_measured(make_world: MakeWorld) -> None:
    world = await make_world()

    async def measured() -> bool:
        return bool((await stats(world.admin)).process.data_bytes > 0)

    await until(measured)
    seen = await stats(world.admin)
    assert seen.process.resident_bytes > 10_000_000
    assert seen.process.cpu_seconds > 0
    assert seen.process.open_files > 3
    assert seen.process.free_disk_bytes > 0
    assert abs(seen.observe_time.seconds - time.time()) < 5
    assert 0 <= seen.observe_time.seconds - seen.start_time.seconds < 60


async def health(world: World, name: str) -> str:
    stub = health_pb2_grpc.HealthStub(world.admin.channel)
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    except grpc.RpcError as error:
        return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def becomes(world: World, name: str, state: str) -> None:
    async def so() -> bool:
        return await health(world, name) == state

    await until(so)


async def test_every_dependency_has_a_name_in_the_health_service(make_world: MakeWorld) -> None:
    world = await make_world(**FAST)
    for name in ("mip.dependency.record", "mip.dependency.index", "mip.dependency.blobs", "", GET_CUBE[:18]):
        await becomes(world, name, "SERVING")
    # No embedder is configured here, so there is none to depend on.
    assert await health(world, "mip.dependency.embedder") == "NOT_FOUND"
    assert {part.name: part.backend for part in (await stats(world.admin)).dependencies} == {
        "record": "sqlite",
        "index": "embedded",
        "blobs": "filesystem",
    }


@pytest.mark.parametrize(("part", "folder"), [("index", "index"), ("blobs", "blobs")])
async def test_a_folder_that_is_gone_is_noticed_and_its_return_too(
    make_world: MakeWorld, part: str, folder: str
) -> None:
    world = await make_world(**FAST)
    await becomes(world, f"mip.dependency.{part}", "SERVING")
    path = world.data / folder
    away = world.data / "away"
    path.rename(away)
    path.write_text("a file where the folder was")
    await becomes(world, f"mip.dependency.{part}", "NOT_SERVING")
    assert dependency(await stats(world.admin), part) == (
        False,
        f"{path} is gone; stop the server and restore the folder from a backup",
    )
    # Reads of the record go on, and so does the server.
    assert await health(world, "") == "SERVING"
    path.unlink()
    away.rename(path)
    await becomes(world, f"mip.dependency.{part}", "SERVING")
    assert dependency(await stats(world.admin), part) == (True, "")


def problem_of_record(world: World) -> str:
    """Returns what the server says of its record, which a caller's token may not be checked without."""
    return {part.name: str(part.problem) for part in world.server.mos.vitals.dependencies()}["record"]


async def test_a_record_that_was_replaced_takes_the_whole_server_out_until_it_is_back(make_world: MakeWorld) -> None:
    world = await make_world(**FAST)
    await becomes(world, "mip.dependency.record", "SERVING")
    await world.admin.CreateCube(cube_id="c")
    path = world.data / "record.sqlite"
    kept = world.data / "kept.sqlite"
    path.rename(kept)
    await becomes(world, "mip.dependency.record", "NOT_SERVING")
    await becomes(world, "", "NOT_SERVING")
    await becomes(world, "mip.v1.MemoryService", "NOT_SERVING")
    # A thread that reads for the first time finds none, and no empty record appears in place of the lost one.
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        world.server.mos.store._connect()  # type: ignore[attr-defined]
    assert not path.exists()
    assert problem_of_record(world).startswith(f"{path} is gone; ")
    shutil.copy(kept, path)

    async def replaced() -> bool:
        return "was replaced while the server uses it" in problem_of_record(world)

    await until(replaced)
    kept.rename(path)
    for name in ("mip.dependency.record", "", "mip.v1.MemoryService"):
        await becomes(world, name, "SERVING")


async def test_a_damaged_record_is_noticed(make_world: MakeWorld) -> None:
    world = await make_world(**FAST)
    await becomes(world, "mip.dependency.record", "SERVING")
    path = world.data / "record.sqlite"
    # Through a descriptor that stays open: closing one would drop SQLite's locks in this process.
    file = os.open(path, os.O_RDWR)
    page = os.pread(file, 4096, 0)
    try:
        await world.server.mos.store.compact()
        os.pwrite(file, b"\xff" * 4096, 0)
        await becomes(world, "mip.dependency.record", "NOT_SERVING")
        assert "is damaged" in problem_of_record(world)
        os.pwrite(file, page, 0)
        await becomes(world, "mip.dependency.record", "SERVING")
    finally:
        os.pwrite(file, page, 0)
        await world.stop()
        os.close(file)


async def test_an_embedder_without_its_weights_is_out_and_the_server_is_not(tmp_path: Path) -> None:
    weights = tmp_path / "data" / "models" / "minilm"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(b"no weights")
    world = World(tmp_path / "data", **FAST, embedder={"backend": "minilm"})
    await world.start()
    try:
        await becomes(world, "mip.dependency.embedder", "NOT_SERVING")
        serving, problem = dependency(await stats(world.admin), "embedder")
        assert not serving
        assert "has 10 bytes instead of 90868376" in problem
        assert await health(world, "") == "SERVING"
    finally:
        await world.stop()


class Flaky:
    """An embedder that fails when told to."""

    name, dimension, max_tokens, runtime = "flaky", 4, 128, "test"
    fails = False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.fails:
            raise RuntimeError("out of memory while embedding SECRET")
        return np.full((len(texts), 4), 0.5, np.float32)

    def close(self) -> None:
        pass


async def test_a_model_that_fails_is_told_without_what_it_failed_on() -> None:
    model = Flaky()
    service = EmbeddingService(model)
    await service.probe()
    model.fails = True
    with pytest.raises(MipError) as caught:
        await service.probe()
    assert str(caught.value) == "BACKEND_UNAVAILABLE: the model fails (RuntimeError); restart the server"
    await service.close()


async def test_texts_that_wait_for_the_model_are_counted() -> None:
    service = EmbeddingService(Flaky())
    waiting = asyncio.gather(*(service.embed([f"text {number}"]) for number in range(7)))
    await asyncio.sleep(0)
    assert service.waiting == 7
    await waiting
    assert service.waiting == 0
    await service.close()


async def test_writes_that_wait_for_the_writer_are_counted(world: World, mip: Mip) -> None:
    release = threading.Event()

    async def hold(_: Writer) -> None:
        release.wait(10)

    async def nothing(_: Writer) -> None:
        return None

    store = world.server.mos.store
    writes = [asyncio.create_task(store.write(hold))]

    async def held() -> bool:
        return bool((await stats(mip)).waiting_writes == 0)

    await asyncio.sleep(0.1)
    await until(held)
    writes += [asyncio.create_task(store.write(nothing)) for _ in range(3)]

    async def three() -> bool:
        return bool((await stats(mip)).waiting_writes == 3)

    await until(three)
    release.set()
    await asyncio.gather(*writes)
    await until(held)


async def test_watching_a_call_costs_less_than_five_microseconds() -> None:
    method = FILES[2].services_by_name["MemoryService"].methods_by_name["GetMemory"]

    async def handler(request: bytes, context: object) -> bytes:
        return request

    observed = Observer(CallCounts()).wrap(method, handler)

    async def cost(call: Any) -> float:
        began = time.perf_counter()
        for _ in range(5_000):
            await call(b"abc", None)
        return (time.perf_counter() - began) / 5_000

    # The best of several, as other work on the machine only ever adds.
    plain, watched = [min([await cost(call) for _ in range(20)]) for call in (handler, observed)]
    assert watched - plain < 5e-6
