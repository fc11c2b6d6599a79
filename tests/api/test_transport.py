"""Before a call is anybody's: bytes that unpack to more, and connections that say nothing."""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import MakeWorld, World
from tests.support.http2 import Connection, Exchange
from tests.support.mip import Mip, RpcError


def resident_mib() -> int:
    """Returns the memory that this process has, the server among it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20


async def test_a_small_message_that_unpacks_to_a_large_one_is_not_unpacked(world: World, mip: Mip) -> None:
    squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [squeeze.compress(bytes(2**20)) for _ in range(200)]
    bomb = b"".join(pieces) + squeeze.flush()
    assert len(bomb) < 1_000_000
    # As somebody known, and of a service that everybody may call: of others nothing is read.
    token = (world.data / "admin.token").read_text().strip()
    packed = {"grpc-encoding": "gzip", "authorization": f"Bearer {token}"}
    connection = await Connection.open(world.server.address)
    for path in ("/mip.v1.CubeService/GetCube", "/grpc.health.v1.Health/Check"):
        peak = before = resident_mib()
        call = connection.call(path, b"\x01" + struct.pack(">I", len(bomb)) + bomb, packed)
        async with asyncio.timeout(10):
            while not call.ended.is_set():
                await asyncio.sleep(0.002)
                peak = max(peak, resident_mib())
        assert b"grpc-status" in call.answer
        assert peak - before < 50, f"200 MiB were unpacked: {peak - before} MiB more"
    await connection.close()
    capabilities = await mip.GetCapabilities()
    assert list(capabilities.levels) == ["core", "history", "access", "graph"]
    assert capabilities.server_version


@pytest.mark.long
async def test_a_connection_that_says_nothing_is_closed(world: World, mip: Mip) -> None:
    host, _, port = world.server.address.rpartition(":")
    begun = time.monotonic()
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
    assert (await mip.GetCapabilities()).server_version
    async with asyncio.timeout(30):
        for reader, writer in silent:
            while await reader.read(4096):
                pass
            writer.close()
    assert 5 < time.monotonic() - begun < 30


PATHS_OF_STRANGERS = (
    "/mip.v1.MemoryService/AddMemories",
    "/mip.v1.CubeService/WatchCube",
    "/mip.v1.BlobService/WriteBlob",
)
ANNOUNCED = 5 * 2**20
"""What gRPC lets a message announce; 300 of them, half-sent, are 1.5 GiB."""


@asynccontextmanager
async def halves(world: World, paths: tuple[str, ...], count: int, token: str = "") -> AsyncIterator[list[Exchange]]:
    """Begins so many calls, half of each sent as far as the server permits, over as many connections as it takes."""
    metadata = {"authorization": f"Bearer {token}"} if token else {}
    connections = [await Connection.open(world.server.address) for _ in range(-(-count // 100))]
    yield [connections[n // 100].half(paths[n % len(paths)], ANNOUNCED, metadata) for n in range(count)]
    for connection in connections:
        await connection.close()


async def highest_mib(seconds: float, calls: list[Exchange]) -> int:
    """Returns the most memory that this process has until all calls have ended, or the time is over."""
    peak = resident_mib()
    until = time.monotonic() + seconds
    while time.monotonic() < until and not all(call.ended.is_set() for call in calls):
        await asyncio.sleep(0.01)
        peak = max(peak, resident_mib())
    return peak


async def test_of_a_stranger_nothing_is_read(make_world: MakeWorld) -> None:
    world = await make_world(quotas={"unauthenticated_per_second": 0})
    before = resident_mib()
    async with halves(world, PATHS_OF_STRANGERS, 300) as calls:
        serving = world.admin.GetServerStats()
        peak = await highest_mib(10, calls)
        assert (await serving).calls
        assert all(call.ended.is_set() for call in calls)
        assert all(b"grpc-status" in call.answer for call in calls)
        assert max(call.sent for call in calls) < 2**16
        assert peak - before < 40, f"{peak - before} MiB more for calls of strangers"


async def test_what_a_principal_sends_half_is_bounded_and_ends_in_time(make_world: MakeWorld) -> None:
    # Long enough for a busy machine to begin 32 requests before the first has had its time.
    world = await make_world(watch={"slow_request_s": 5})
    await world.admin.CreateCube(cube_id="c")
    issued = await world.admin.CreatePrincipal(principal_id="slow")
    assert issued.principal.name == "principals/slow"
    token = (await world.admin.IssueToken(principal="principals/slow")).token
    before = resident_mib()
    begun = time.monotonic()
    async with halves(world, ("/mip.v1.MemoryService/AddMemories",), 300, token) as calls:
        watched = asyncio.create_task(highest_mib(20, calls))
        # 32 are read, the others have what HTTP/2 gives everybody.
        being_read = 0
        while being_read < 32 and not any(call.ended.is_set() for call in calls):
            await asyncio.sleep(0.02)
            being_read = sum(call.sent > 2**16 for call in calls)
        # A moment more, in which no other may join them.
        await asyncio.sleep(0.3)
        assert sum(call.sent > 2**16 for call in calls) == 32
        assert (await world.admin.GetCube(name="cubes/c")).cube.name == "cubes/c"
        # All of this while they were being waited for.
        assert not any(call.ended.is_set() for call in calls)
        peak = await watched
        assert all(call.ended.is_set() for call in calls)
        assert time.monotonic() - begun > 4.9
        assert all(b"grpc-status" in call.answer for call in calls)
        assert peak - before < 32 * 5 + 300 / 16 + 60, f"{peak - before} MiB more for 300 half-sent calls"


async def test_health_and_reflection_hold_little_for_strangers(make_world: MakeWorld) -> None:
    world = await make_world(watch={"slow_request_s": 2})
    paths = (
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    )
    before = resident_mib()
    async with halves(world, paths, 300) as calls:
        watched = asyncio.create_task(highest_mib(40, calls))
        await asyncio.sleep(0.5)
        # Of one address, 4 requests of health and 8 dialogues of reflection are read.
        assert sum(call.sent > 2**16 for call in calls) <= 12
        async with asyncio.timeout(1):
            assert (await world.admin.GetCapabilities()).server_version
        peak = await watched
        assert all(call.ended.is_set() for call in calls)
        assert peak - before < 12 * 5 + 300 / 16 + 60, f"{peak - before} MiB more"
    async with grpc.aio.insecure_channel(world.server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await check(health_pb2.HealthCheckRequest(service="x" * 5000))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_one_address_watches_health_so_often_and_no_more(world: World) -> None:
    async with grpc.aio.insecure_channel(world.server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        streams = [watch(health_pb2.HealthCheckRequest()) for _ in range(64)]
        for stream in streams:
            assert (await stream.read()).status == health_pb2.HealthCheckResponse.SERVING
        more = watch(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await more.read()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        await asyncio.sleep(0.2)
        again = watch(health_pb2.HealthCheckRequest())
        assert (await again.read()).status == health_pb2.HealthCheckResponse.SERVING
        for stream in [*streams, again]:
            stream.cancel()


async def test_a_call_that_ends_without_a_request_is_told_so(world: World) -> None:
    token = (world.data / "admin.token").read_text().strip()
    async with grpc.aio.insecure_channel(world.server.address) as channel:
        call = channel.stream_unary("/mip.v1.CubeService/GetCube")(
            iter(()), metadata=[("authorization", f"Bearer {token}")]
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
    assert RpcError(raised.value).reason == "MALFORMED_MESSAGE"
