"""The contract of record stores, as far as several servers over one record rely on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memos_server.graph_dbs.base import Kind, RecordStore, Writer
from tests.ports.records import BACKENDS, NAMES, OWNER, commit, create, memory

DIGEST = "sha256:" + "0" * 64


@pytest.fixture(params=NAMES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RecordStore]:
    opened: RecordStore = BACKENDS[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()


async def held(store: RecordStore, key: int) -> bool:
    return bool(await store.read(lambda txn: txn.blobs(key, [DIGEST])))


async def put(store: RecordStore, key: int) -> bool:
    return await store.write(lambda txn: txn.put_blob(key, DIGEST, 10, 1))


async def test_a_blob_whose_bytes_are_being_erased_is_not_put_again(store: RecordStore) -> None:
    key = await create(store, "c")
    assert await put(store, key)
    assert not await store.write(lambda txn: txn.begin_erasing_blob(key, DIGEST))
    assert await held(store, key)
    await store.write(lambda txn: txn.doom_blob(key, DIGEST))
    assert await store.write(lambda txn: txn.begin_erasing_blob(key, DIGEST))
    assert not await put(store, key)
    assert not await held(store, key)
    assert await store.read(lambda txn: txn.doomed_blobs(key)) == [DIGEST]
    # Who died in between is followed by another, who begins again.
    assert await store.write(lambda txn: txn.begin_erasing_blob(key, DIGEST))
    await store.write(lambda txn: txn.delete_blob(key, DIGEST))
    assert await put(store, key)
    assert await held(store, key)


async def test_a_doomed_blob_that_is_put_again_is_not_erased(store: RecordStore) -> None:
    key = await create(store, "c")
    await put(store, key)
    await store.write(lambda txn: txn.doom_blob(key, DIGEST))
    assert await put(store, key)
    assert not await store.write(lambda txn: txn.begin_erasing_blob(key, DIGEST))
    await store.write(lambda txn: txn.delete_blob(key, DIGEST))
    assert await held(store, key)


async def test_a_doomed_blob_stays_being_erased_when_it_is_doomed_again(store: RecordStore) -> None:
    key = await create(store, "c")
    await put(store, key)
    await store.write(lambda txn: txn.doom_blob(key, DIGEST))
    await store.write(lambda txn: txn.begin_erasing_blob(key, DIGEST))
    await store.write(lambda txn: txn.doom_blob(key, DIGEST))
    assert not await put(store, key)


async def test_the_news_tell_the_heads_of_the_cubes_asked_for(store: RecordStore) -> None:
    await create(store, "a")
    await create(store, "b")
    before = await store.news(["a", "b", "absent"])
    assert dict(before.heads) == {"a": 1, "b": 1}
    await commit(store, "b", memory("m"))
    assert dict((await store.news(["b"])).heads) == {"b": 2}
    assert dict((await store.news([])).heads) == {}
    assert (await store.news([])).access == before.access


async def test_every_change_of_access_is_news(store: RecordStore) -> None:
    async def grant(txn: Writer) -> None:
        await txn.put_grant(OWNER, "cubes/a", 1, 2, 1)

    async def withdraw(txn: Writer) -> None:
        await txn.delete_grant(OWNER, "cubes/a")

    async def make(txn: Writer) -> None:
        await txn.put_principal("p", "", 1)

    async def disable(txn: Writer) -> None:
        await txn.disable_principal("p", 2)

    async def revoke(txn: Writer) -> None:
        await txn.revoke_token("t", 1)

    seen = [(await store.news([])).access]
    for change in (grant, withdraw, make, disable, revoke):
        await store.write(change)
        seen.append((await store.news([])).access)
    assert len(set(seen)) == len(seen)


async def test_every_erasure_is_news(store: RecordStore) -> None:
    key = await create(store, "c", memory("a"))
    before = await store.news([])
    await commit(store, "c", memory("b"))
    assert (await store.news([])).erased == before.erased
    version = (await store.read(lambda txn: txn.versions(key, Kind.MEMORY, ["a"])))["a"]
    await store.write(lambda txn: txn.erase(key, [version.item]))
    assert (await store.news([])).erased != before.erased
