"""The asynchronous client: the same, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from memos_sdk import AsyncClient, Cancelled, ConnectError, DeadlineExceeded, Head, NotFound, RetryPolicy
from memos_server._pb.mip.v1 import blob_service_pb2, cube_service_pb2, session_pb2, session_service_pb2
from tests.unit.fake_mip import FakeMip, Notes, Refusal, commit, digest_of

FAST = RetryPolicy(initial_delay=0.01, max_delay=0.02)


@pytest.fixture
def fake() -> Iterator[FakeMip]:
    server = FakeMip()
    Notes(server)
    yield server
    server.stop()


@pytest.fixture
async def client(fake: FakeMip) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(fake.address, token="secret", retry=FAST) as made:
        yield made


async def test_add_search_and_list_are_awaited(fake: FakeMip, client: AsyncClient) -> None:
    cube = await client.cubes.create("notes")
    await cube.add("green tea")
    await cube.add_many(["black tea", "coffee"])
    assert [hit.text for hit in await cube.search("tea")] == ["green tea", "black tea"]
    assert [memory.text async for memory in cube.list()] == ["green tea", "black tea", "coffee"]
    assert client.heads.get(cube.info.uid) == Head(3, digest_of(3))
    assert fake.calls[0].metadata["authorization"] == "Bearer secret"


async def test_an_asynchronous_stream_of_memories_can_be_added(client: AsyncClient) -> None:
    async def texts() -> AsyncIterator[str]:
        for number in range(7):
            await asyncio.sleep(0)
            yield f"memory {number}"

    assert (await client.cube("notes").add_many(texts(), commit_size=3)).added == 7


async def test_what_an_asynchronous_iterable_raises_reaches_the_caller(fake: FakeMip, client: AsyncClient) -> None:
    async def texts() -> AsyncIterator[str]:
        for number in range(1500):
            yield str(number)
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        await client.cube("notes").add_many(texts())
    assert not any(frame.finish for call in fake.named("BulkAddMemories") for frame in call.request)


async def test_a_server_that_refuses_early_ends_the_reading(fake: FakeMip, client: AsyncClient) -> None:
    def refuses(frames: Iterator[Any]) -> Any:
        next(frames)
        raise Refusal("NOT_FOUND", "CUBE_NOT_FOUND", "no")

    fake.on("BulkAddMemories", refuses)
    read = 0

    async def texts() -> AsyncIterator[str]:
        nonlocal read
        for read in range(10_000_000):  # noqa: B007 - how far it came is what matters
            yield "x" * 1000

    with pytest.raises(NotFound):
        await client.cube("notes").add_many(texts())
    assert read < 1_000_000


async def test_a_stream_that_the_server_cancels_is_an_error_of_the_sdk(fake: FakeMip, client: AsyncClient) -> None:
    def cancels(frames: Iterator[Any]) -> Any:
        list(frames)
        raise Refusal("CANCELLED", "CANCELLED", "the server goes away")

    fake.on("BulkAddMemories", cancels)
    with pytest.raises(Cancelled):
        await client.cube("notes").add_many(["one"])


async def test_a_task_that_is_cancelled_ends_its_stream(fake: FakeMip, client: AsyncClient) -> None:
    async def texts() -> AsyncIterator[str]:
        for number in range(1500):
            yield str(number)
        waiting.set()
        await asyncio.sleep(60)

    waiting = asyncio.Event()
    task = asyncio.create_task(client.cube("notes").add_many(texts()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await client.cube("notes").add("after")).text == "after"


async def test_a_broken_bulk_addition_is_sent_again(fake: FakeMip, client: AsyncClient) -> None:
    answer = fake.handlers["BulkAddMemories"]

    def breaks_once(frames: Iterator[Any]) -> Any:
        if len(fake.named("BulkAddMemories")) == 1:
            next(frames)
            next(frames)
            raise Refusal("UNAVAILABLE", "SHUTTING_DOWN")
        return answer(frames)

    fake.on("BulkAddMemories", breaks_once)
    summary = await client.cube("notes").add_many(str(number) for number in range(2500))
    first, second = (call.request for call in fake.named("BulkAddMemories"))
    assert first[:2] == second[:2]
    assert (summary.added, len(summary.names)) == (2500, 2500)


async def test_a_mutation_is_repeated_with_identical_bytes(fake: FakeMip, client: AsyncClient) -> None:
    answer = fake.handlers["AddMemories"]

    def twice_refused(request: Any) -> Any:
        if len(fake.named("AddMemories")) < 3:
            raise Refusal("UNAVAILABLE", "BACKEND_UNAVAILABLE")
        return answer(request)

    fake.on("AddMemories", twice_refused)
    await client.cube("notes").add("one")
    assert len({call.raw for call in fake.named("AddMemories")}) == 1


async def test_errors_are_the_same_classes(client: AsyncClient) -> None:
    with pytest.raises(NotFound) as caught:
        await client.cube("notes").get("none")
    assert caught.value.reason == "MEMORY_NOT_FOUND"


async def test_a_call_ends_at_its_deadline(fake: FakeMip, client: AsyncClient) -> None:
    import time

    fake.on("GetMemory", lambda request: time.sleep(1.0))
    with pytest.raises(DeadlineExceeded):
        await client.cube("notes").get("m1", timeout=0.2)


async def test_nobody_listening_is_a_connection_error() -> None:
    async with AsyncClient("127.0.0.1:9", token="", retry=FAST) as client:
        with pytest.raises(ConnectError):
            await client.capabilities()


async def test_a_watch_is_left_by_breaking_out_of_the_loop(fake: FakeMip, client: AsyncClient) -> None:
    def watch(request: Any) -> Iterator[Any]:
        yield cube_service_pb2.WatchCubeResponse(commit=commit(2))
        yield cube_service_pb2.WatchCubeResponse(end={"revision": 2})
        yield cube_service_pb2.WatchCubeResponse(commit=commit(3))

    fake.on("WatchCube", watch)
    events = client.cube("notes").watch(2)
    async for event in events:
        assert event.commit.revision == 2
        break
    await events.aclose()  # type: ignore[attr-defined]


async def test_blobs_travel_both_ways(fake: FakeMip, client: AsyncClient) -> None:
    stored: list[bytes] = []

    def write(frames: Iterator[Any]) -> Any:
        stored.extend(frame.data.data for frame in frames if frame.HasField("data"))
        return blob_service_pb2.WriteBlobResponse()

    fake.on("FindMissingBlobs", lambda request: blob_service_pb2.FindMissingBlobsResponse(digests=request.digests))
    fake.on("QueryWrite", lambda request: blob_service_pb2.QueryWriteResponse())
    fake.on("WriteBlob", write)
    fake.on("ReadBlob", lambda request: iter([blob_service_pb2.ReadBlobResponse(data={"data": b"".join(stored)})]))
    data = b"x" * 1_500_000
    blobs = client.cube("notes").blobs
    reference = await blobs.upload(data)
    assert [len(piece) for piece in stored] == [1_048_576, 451_424]
    assert await blobs.read(reference.digest) == data


async def test_a_session_begins_and_ends_with_its_block(fake: FakeMip, client: AsyncClient) -> None:
    session = session_pb2.Session(name="cubes/notes/sessions/s1")
    fake.on("CreateSession", lambda request: session_service_pb2.CreateSessionResponse(session=session))
    fake.on("EndSession", lambda request: session_service_pb2.EndSessionResponse(session=session))
    cube = client.cube("notes")
    async with cube.session("Planning", participants=["Ada"]) as begun:
        await cube.add("one", session=begun)
    assert [call.name for call in fake.calls] == ["CreateSession", "AddMemories", "EndSession"]
    assert fake.calls[1].request.memories[0].session == "cubes/notes/sessions/s1"
