"""Servers that share an index in Weaviate: one is slow, or taken for dead, or lost its connection; large answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from memos_server.errors import MipError
from memos_server.vec_dbs.base import IndexBatch
from memos_server.vec_dbs.weaviate import WeaviateIndex, applying, writing
from memos_server.vec_dbs.weaviate.config import WeaviateConfig
from memos_server.vec_dbs.weaviate.connection import Connection, TooLargeError
from memos_server.vec_dbs.weaviate.heads import Head
from memos_server.vec_dbs.weaviate.reading import Reader
from memos_server.vec_dbs.weaviate.rows import FULL, Row
from memos_server.vec_dbs.weaviate.tenants import Tenants
from tests.engines.test_weaviate_index import agree, history, reference
from tests.ports.test_vec_dbs import CUBE, content, found, one, query, version
from tests.support import engines

pytestmark = pytest.mark.engines


@pytest.fixture
def config() -> dict[str, Any]:
    return engines.clean_weaviate("Together")


class Held:
    """Keeps a server from raising heads, as one that is slow, until it is let go."""

    def __init__(self, server: WeaviateIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here, self.go = asyncio.Event(), asyncio.Event()
        self._write = server._heads.write
        monkeypatch.setattr(server._heads, "write", self)

    async def __call__(self, cube: str, head: Head) -> None:
        self.here.set()
        await self.go.wait()
        await self._write(cube, head)


def joined(*batches: IndexBatch) -> IndexBatch:
    return IndexBatch(
        batches[0].from_revision,
        batches[-1].to_revision,
        [each for batch in batches for each in batch.contents],
        [each for batch in batches for each in batch.versions],
        [each for batch in batches for each in batch.erased],
    )


async def test_a_server_that_is_slow_is_waited_for_and_what_it_made_seen_is_not_emptied(
    index: WeaviateIndex, other: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = history(3)
    await index.apply(CUBE, 4, batches[0])
    slow = Held(other, monkeypatch)
    writing_it = asyncio.create_task(other.apply(CUBE, 4, batches[1]))
    await slow.here.wait()
    write, emptied = writing.Writer.write, 0

    async def watched(self: writing.Writer, *args: Any, empty: bool = False) -> None:
        nonlocal emptied
        emptied += empty
        await write(self, *args, empty=empty)

    monkeypatch.setattr(writing.Writer, "write", watched)
    # This one's batch goes further than the other's, which becomes visible in its midst.
    both = asyncio.create_task(index.apply(CUBE, 4, joined(*batches[1:])))
    await asyncio.sleep(1.5)
    assert not both.done()
    slow.go.set()
    await asyncio.gather(writing_it, both)
    assert not emptied
    for server in (index, other):
        await agree(await reference(batches), server, 3)


async def test_an_index_that_was_emptied_under_a_server_that_lived_is_filled_anew(
    index: WeaviateIndex, other: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "_STILL_S", 0.5)
    batches = history(2)
    await index.apply(CUBE, 4, batches[0])
    slow = Held(other, monkeypatch)
    writing_it = asyncio.create_task(other.apply(CUBE, 4, batches[1]))
    await slow.here.wait()
    write, emptied = writing.Writer.write, False

    async def broken(self: writing.Writer, *args: Any, empty: bool = False) -> None:
        nonlocal emptied
        if emptied:
            raise MipError("BACKEND_UNAVAILABLE", "it went away")
        await write(self, *args, empty=empty)
        if empty:
            emptied = True
            slow.go.set()
            await writing_it

    with monkeypatch.context() as patched:
        patched.setattr(writing.Writer, "write", broken)
        with pytest.raises(MipError, match="it went away"):
            await index.apply(CUBE, 4, batches[1])
    assert emptied
    assert await index.indexed_revision(CUBE) == 0
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    await agree(await reference(batches), index, 2)


async def test_what_a_dead_server_left_is_written_anew_after_a_while(
    index: WeaviateIndex, other: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = history(3)
    await index.apply(CUBE, 4, batches[0])
    dead = Held(other, monkeypatch)
    writing_it = asyncio.create_task(other.apply(CUBE, 4, batches[1]))
    await dead.here.wait()
    writing_it.cancel()
    await asyncio.gather(writing_it, return_exceptions=True)
    began = time.monotonic()
    await index.apply(CUBE, 4, batches[1])
    assert 5.5 < time.monotonic() - began < 20
    await index.apply(CUBE, 4, batches[2])
    await agree(await reference(batches), index, 3)


async def test_a_cube_that_another_server_moves_is_followed(
    index: WeaviateIndex, other: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = IndexBatch(0, 1, [content("a", "cat")], [version(1, 1, "a")])
    second = IndexBatch(1, 2, [content("b", "cat", vector="x")], [version(2, 2, "b")])
    await index.apply(CUBE, 0, first)
    pages, moved = index._reader.pages, False

    async def late(*args: Any, **more: Any) -> AsyncIterator[Sequence[Row]]:
        nonlocal moved
        if not moved:
            moved = True
            await other.apply(CUBE, 4, second)
        async for page in pages(*args, **more):
            yield page

    monkeypatch.setattr(index._reader, "pages", late)
    await index.apply(CUBE, 4, second)
    assert moved
    for server in (index, other):
        assert found(await server.search(CUBE, query(2, "cat", "x"))) == {1, 2}


async def test_a_cube_that_was_empty_before_it_had_vectors_has_nothing_to_move(index: WeaviateIndex) -> None:
    await index.apply(CUBE, 0, IndexBatch(0, 1, [], []))
    await index.apply(CUBE, 4, IndexBatch(1, 2, [content("a", "cat", vector="x")], [version(1, 2, "a")]))
    assert found(await index.search(CUBE, query(2, "cat", "x"))) == {1}


async def test_of_two_servers_that_find_what_a_dead_one_left_both_end_with_a_whole_index(
    config: dict[str, Any], index: WeaviateIndex, other: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "_STILL_S", 2.0)
    batches = history(3)
    await index.apply(CUBE, 4, batches[0])
    third = WeaviateIndex("", **config)
    await third.open("1")
    dead = Held(third, monkeypatch)
    writing_it = asyncio.create_task(third.apply(CUBE, 4, batches[1]))
    await dead.here.wait()
    writing_it.cancel()
    await asyncio.gather(writing_it, return_exceptions=True)
    await third.close()
    await asyncio.gather(*(server.apply(CUBE, 4, batches[1]) for server in (index, other)))
    await asyncio.gather(*(server.apply(CUBE, 4, batches[2]) for server in (index, other)))
    await agree(await reference(batches), index, 3)


async def test_answers_too_large_for_a_message_are_asked_for_in_parts(
    index: WeaviateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, refused = Reader._results, 0

    async def narrow(self: Reader, place: Any, build: Any) -> Sequence[Any]:
        nonlocal refused
        found = await results(self, place, build)
        if len(found) > 2 and "tokens" in found[0].properties.non_ref_props.fields:
            refused += 1
            raise TooLargeError("BACKEND_UNAVAILABLE", "too large")
        return found

    monkeypatch.setattr(Reader, "_results", narrow)
    batches = history(5)
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    await agree(await reference(batches), index, 5)
    # More versions of one content than fit.
    for revision in range(6, 12):
        await one(index, revision, version(500, revision, "r5-0", sensitivity=1 + revision % 4))
    before = refused
    await one(index, 12, version(500, 12, None, state=5), erased=["r5-0"])
    assert refused > before > 0
    place = (index._collections.memories(4), CUBE)
    pages = [page async for page in index._reader.pages(place, FULL)]
    assert max(map(len, pages)) <= 2
    assert content("r5-0").key not in {row.content for page in pages for row in page}


async def test_an_answer_that_is_too_large_for_grpc_is_told_from_other_errors(index: WeaviateIndex) -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata(),
        "CLIENT: Received message larger than max (104858099 vs. 104858000)",
    )  # fmt: skip

    async def large(_: Any) -> None:
        raise error

    with pytest.raises(TooLargeError, match="GRPC_MAX_MESSAGE_SIZE"):
        await index._connection.ask(large)
    assert not index._connection._lost


async def test_a_call_on_a_connection_that_another_replaced_is_an_error_and_no_end_of_its_task(
    index: WeaviateIndex,
) -> None:
    connection = index._connection
    client = await connection._connected()

    async def slow(_: Any) -> None:
        await asyncio.sleep(0.1)
        raise asyncio.CancelledError

    with pytest.raises(MipError, match=r"BACKEND_UNAVAILABLE: .* cannot be reached"):
        await connection.ask(slow)
    # The next call makes a new client; the old one stays open for those that it carries.
    await asyncio.sleep(0.25)
    await index.probe()
    assert connection._client is not client
    assert list(connection._retired.values()) == [client]
    # Its own end is still a task's end.
    task = asyncio.create_task(connection.ask(lambda _: asyncio.sleep(5)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await index.probe()


async def test_searches_in_flight_when_their_channel_closes_are_unavailable(index: WeaviateIndex) -> None:
    for batch in history(2):
        await index.apply(CUBE, 4, batch)
    client = await index._connection._connected()
    asked = [asyncio.create_task(index.search(CUBE, query(2, "cat", "x"))) for _ in range(20)]
    await asyncio.sleep(0.001)
    await client.close()
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        assert not isinstance(answer, BaseException) or isinstance(answer, MipError), repr(answer)


async def test_all_who_wait_for_a_connection_share_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, tried = Connection(WeaviateConfig()), 0

    class Away:
        async def connect(self) -> None:
            nonlocal tried
            tried += 1
            await asyncio.sleep(0.4)
            raise OSError("nobody listens")

        async def close(self) -> None:
            return

    monkeypatch.setattr(connection, "_made", Away)
    calls = [connection.ask(lambda client: client.collections.exists("X")) for _ in range(10)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, MipError) and error.reason == "BACKEND_UNAVAILABLE" for error in errors)
    assert tried == 1
    await connection.close()


async def test_cubes_that_could_not_be_unloaded_still_count_as_loaded(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = WeaviateIndex("", **config, active_tenants=2)
    await index.open("1")
    cubes = [f"0192f7a0-0000-7000-8000-0000000d{n:04x}" for n in range(5)]

    async def fail(self: Tenants, collection: str, names: list[str]) -> None:
        raise MipError("BACKEND_UNAVAILABLE", "not now")

    with monkeypatch.context() as patched:
        patched.setattr(Tenants, "_unload", fail)
        for number, cube in enumerate(cubes):
            await index.apply(cube, 4, IndexBatch(0, 1, [content("a", "cat", vector="x")], [version(number, 1, "a")]))
        await index._tenants.close()
        assert index._tenants.loaded == 5
        assert [place[1] for place in index._tenants._used] == cubes
    index._tenants._failed = 0.0
    await index.search(cubes[-1], query(1, "cat"))
    await index._tenants.close()
    assert index._tenants.loaded == 2
    await index.close()
