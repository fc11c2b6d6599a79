"""The index in Weaviate while Weaviate is away, was killed, comes back empty, and speaks TLS."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.vec_dbs.weaviate import WeaviateIndex
from tests.engines.test_weaviate_index import agree, history, reference
from tests.ports.test_vec_dbs import CUBE, found, query
from tests.support.engines import need
from tools.engines import WeaviateEngine

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeaviateEngine]:
    """A Weaviate that these tests kill."""
    need("weaviate")
    with WeaviateEngine(tmp_path_factory.mktemp("weaviate") / "engine") as running:
        if running.pid is None:
            running.start()
        yield running


@pytest.fixture
async def index(engine: WeaviateEngine) -> AsyncIterator[WeaviateIndex]:
    if engine.pid is None:
        engine.start()
    made = WeaviateIndex("", **engine.config(), prefix="Faults")
    await made.open("1")
    await made.drop(CUBE)
    yield made
    await made.close()


async def started(engine: WeaviateEngine) -> None:
    await asyncio.to_thread(engine.start)


async def refused(call: Any) -> float:
    """Returns how long an index that is away takes to say so."""
    began = time.monotonic()
    with pytest.raises(MipError, match=r"BACKEND_UNAVAILABLE: Weaviate at 127\.0\.0\.1:\d+ .*check that it runs"):
        await call
    return time.monotonic() - began


async def test_a_weaviate_that_is_killed_is_unavailable_at_once_and_used_again_when_it_is_back(
    engine: WeaviateEngine, index: WeaviateIndex
) -> None:
    batches = history(6)
    for batch in batches[:5]:
        await index.apply(CUBE, 4, batch)
    before = await index.search(CUBE, query(5, "cat w1", "x"))
    engine.kill()
    for _ in range(3):
        for call in (
            index.search(CUBE, query(5, "cat", "x")),
            index.apply(CUBE, 4, batches[5]),
            index.probe(),
            index.entries(CUBE),
            index.drop(CUBE),
        ):
            assert await refused(call) < 5.0
    await started(engine)
    assert await index.indexed_revision(CUBE) == 5
    assert await index.search(CUBE, query(5, "cat w1", "x")) == before
    await index.apply(CUBE, 4, batches[5])
    await agree(await reference(batches), index, 6)


async def test_batches_that_a_kill_cuts_off_are_whole_or_not_there(
    engine: WeaviateEngine, index: WeaviateIndex
) -> None:
    batches = history(12, size=20)

    async def write() -> None:
        for batch in batches:
            await index.apply(CUBE, 4, batch)

    for delay in (0.05, 0.3):
        writing = asyncio.create_task(write())
        await asyncio.sleep(delay)
        engine.kill()
        with pytest.raises((MipError, asyncio.CancelledError)):
            await asyncio.wait_for(writing, 60)
        await started(engine)
        revision = await index.indexed_revision(CUBE)
        if revision:
            # A label that the cut off batch makes stricter may hold already: the record has it, too.
            await agree(await reference(batches[:revision]), index, revision, clearances=[4])
    await write()
    await agree(await reference(batches), index, 12)


async def test_a_weaviate_that_comes_back_empty_is_noticed_and_filled_anew(
    engine: WeaviateEngine, index: WeaviateIndex
) -> None:
    batches = history(5)
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    assert found(await index.search(CUBE, query(5, "cat")))
    engine.stop()
    shutil.rmtree(engine.folder / "data")
    await started(engine)
    # What was known of the cube does not hide that it is gone.
    with pytest.raises(ValueError):
        await index.search(CUBE, query(5, "cat"))
    assert await index.indexed_revision(CUBE) == 0
    assert await index.entries(CUBE) == (0, [])
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    await agree(await reference(batches), index, 5)


async def test_a_server_starts_while_weaviate_is_away(engine: WeaviateEngine) -> None:
    engine.kill()
    index = WeaviateIndex("", **engine.config(), prefix="Later")
    await index.open("1")
    await refused(index.probe())
    await started(engine)
    await index.probe()
    batches = history(2)
    for batch in batches:
        await index.apply(CUBE, 4, batch)
    await agree(await reference(batches), index, 2)
    await index.close()


async def test_the_index_speaks_tls_with_an_authority_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    need("weaviate")
    with WeaviateEngine(tmp_path_factory.mktemp("tls") / "engine", tls=True) as secure:
        if secure.pid is None:
            secure.start()
        config = secure.config(files=True)
        index = WeaviateIndex("", **config)
        await index.open("1")
        batches = history(2)
        for batch in batches:
            await index.apply(CUBE, 4, batch)
        await agree(await reference(batches), index, 2)
        await index.close()
        unknown = WeaviateIndex("", **config | {"ca_file": ""})
        await unknown.open("1")
        with pytest.raises(MipError, match="BACKEND_UNAVAILABLE"):
            await unknown.probe()
        await unknown.close()
        with pytest.raises(SetupError, match="ca_file"):
            await WeaviateIndex("", **config | {"ca_file": str(secure.folder / "api.key")}).open("1")
