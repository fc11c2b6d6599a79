"""Several servers on one Neo4j: no update is lost, no request is done twice, no job is leased twice."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

import pytest

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CommitRow, JobRow, Kind, Reader, RequestKey, RequestRow, Writer
from memos_server.graph_dbs.neo4j import Neo4jRecordStore
from memos_server.graph_dbs.neo4j.schema import MIGRATIONS, parts
from tests.ports.records import OWNER, PURGED, append, change, commit, create, following, memory, relation, uid
from tests.support import engines

pytestmark = pytest.mark.engines

WRITERS = 8


@pytest.fixture
def config() -> dict[str, Any]:
    return engines.clean_neo4j()


@pytest.fixture
async def servers(config: dict[str, Any]) -> AsyncIterator[list[Neo4jRecordStore]]:
    opened = [Neo4jRecordStore("", **config) for _ in range(2)]
    # At once, on an empty database: one makes the schema, the other waits for it.
    await asyncio.gather(*[each.open() for each in opened])
    yield opened
    for each in opened:
        await each.close()


async def number(txn: Reader, key: int) -> int:
    """Returns the number that the memory `n` of a cube holds."""
    return int((await txn.versions(key, Kind.MEMORY, ["n"]))["n"].payload)


async def test_eight_writers_on_two_servers_lose_no_update(servers: list[Neo4jRecordStore]) -> None:
    key = await create(servers[0], "c", memory("n", "0"))

    async def add_one(txn: Writer) -> None:
        cube = await txn.lock_cube("c")
        assert cube is not None
        found = (await txn.versions(key, Kind.MEMORY, ["n"]))["n"]
        await append(txn, "c", [following(found, words=str(int(found.payload) + 1))])

    async def writer(place: int) -> None:
        for _ in range(10):
            await servers[place % 2].write(add_one)

    await asyncio.gather(*map(writer, range(WRITERS)))
    for server in servers:
        assert await server.read(lambda txn: number(txn, key)) == 10 * WRITERS
        cube = await server.read(lambda txn: txn.cube("c"))
        assert cube is not None
        assert cube.revision == 1 + 10 * WRITERS
        assert await server.read(lambda txn: txn.misfits(key, 9)) == []


async def test_readers_see_whole_commits_only_while_two_servers_write(servers: list[Neo4jRecordStore]) -> None:
    ids = [f"m{place}" for place in range(20)]
    key = await create(servers[0], "c", *[memory(id_, "1") for id_ in ids])
    ended = asyncio.Event()

    async def look(txn: Reader) -> tuple[int, set[bytes], set[bytes], int]:
        cube = await txn.cube("c")
        assert cube is not None
        listed = await txn.list_versions(key, Kind.MEMORY, 0, 99)
        found = await txn.versions(key, Kind.MEMORY, ids)
        commits = await txn.commits(key, 1, 2**60, 999, newest_first=True)
        assert commits[0].digest == cube.head_digest
        assert cube.settings.payload == (b"settings" if cube.revision == 1 else b"%d" % cube.revision)
        return cube.revision, {row.payload for row in listed}, {row.payload for row in found.values()}, len(commits)

    async def read(server: Neo4jRecordStore) -> int:
        seen = set()
        while not ended.is_set():
            revision, listed, found, commits = await server.read(look)
            # Every commit writes its own revision into all memories and into the settings.
            assert listed == found == {b"%d" % revision}
            assert commits == revision
            seen.add(revision)
        return len(seen)

    async def write(server: Neo4jRecordStore) -> None:
        async def work(txn: Writer) -> None:
            cube = await txn.lock_cube("c")
            assert cube is not None
            words = str(cube.revision + 1)
            found = await txn.versions(key, Kind.MEMORY, ids)
            versions = [following(row, words=words) for row in found.values()]
            await append(txn, "c", [*versions, following(cube.settings, words=words)])

        for _ in range(15):
            await server.write(work)

    readers = [asyncio.create_task(read(servers[place % 2])) for place in range(4)]
    await asyncio.gather(*map(write, servers))
    ended.set()
    assert min(await asyncio.gather(*readers)) > 3


@pytest.mark.parametrize("chosen_id", [True, False])
async def test_a_request_made_on_two_servers_at_once_is_done_once(
    servers: list[Neo4jRecordStore], chosen_id: bool
) -> None:
    await create(servers[0], "c")
    done: list[str] = []

    async def call(server: Neo4jRecordStore, request_id: str, caller: int) -> int:
        key = RequestKey(OWNER, "AddMemories", "cubes/c", request_id)

        async def work(txn: Writer) -> int:
            before = await txn.request(key)
            if before is not None:
                return before.revision
            # With an id of the caller's choice, the second call meets the first one's memory.
            id_ = request_id if chosen_id else f"{request_id}-{caller}-{len(done)}"
            revision = await append(txn, "c", [memory(id_)._replace(uid=uid(f"{id_} {caller} {len(done)}"))])
            await txn.put_request(key, RequestRow(bytes([caller]) * 16, b"digest", id_, revision, 7, 1))
            done.append(id_)
            return revision

        return await server.write(work)

    for number_ in range(6):
        revisions = await asyncio.gather(*[call(servers[place % 2], f"r{number_}", place) for place in range(6)])
        assert set(revisions) == {number_ + 2}
    rows = await servers[1].read(lambda txn: txn.list_versions(1, Kind.MEMORY, 0, 99))
    assert len(rows) == 6


async def test_a_job_is_leased_by_one_of_the_servers(servers: list[Neo4jRecordStore]) -> None:
    async def lease(server: Neo4jRecordStore, id_: str, owner: str) -> bool:
        async def take(txn: Writer) -> bool:
            row = await txn.job("c", id_)
            assert row is not None
            if row.lease_until:
                return False
            await txn.put_job(replace(row, state=2, lease_owner=owner, lease_until=99))
            return True

        return await server.write(take)

    for number_ in range(10):
        id_ = f"j{number_}"
        await servers[0].write(lambda txn, i=id_: txn.put_job(JobRow("c", i, "compaction", 1, OWNER, 1, 1)))  # type: ignore[misc]
        taken = await asyncio.gather(*[lease(servers[place % 2], id_, str(place)) for place in range(6)])
        assert sum(taken) == 1
        row = await servers[1].read(lambda txn, i=id_: txn.job("c", i))  # type: ignore[misc]
        assert row is not None
        assert taken[int(row.lease_owner)]


async def test_of_two_administrators_who_remove_each_other_one_stays(servers: list[Neo4jRecordStore]) -> None:
    async def remove(server: Neo4jRecordStore, who: str) -> bool:
        async def work(txn: Writer) -> bool:
            others = [row for row in await txn.grants_on("server", 0, 99) if row.principal != who]
            return bool(others) and await txn.delete_grant(who, "server")

        return await server.write(work)

    for _ in range(5):
        for who in ("principals/ann", "principals/bob"):
            await servers[0].write(lambda txn, w=who: txn.put_grant(w, "server", 3, 4, 1))  # type: ignore[misc]
        removed = await asyncio.gather(remove(servers[0], "principals/ann"), remove(servers[1], "principals/bob"))
        assert sorted(removed) == [False, True]


async def test_a_principal_and_a_cube_are_made_by_one_of_the_servers(servers: list[Neo4jRecordStore]) -> None:
    async def taken(act: Awaitable[Any]) -> str:
        try:
            await act
        except KeyError as error:
            return str(error.args[0])
        return ""

    async def make(server: Neo4jRecordStore, number_: int) -> list[str]:
        cube = await taken(create(server, f"c{number_}"))
        return [cube, await taken(server.write(lambda txn: txn.put_principal(f"p{number_}", "", 1)))]

    for number_ in range(5):
        first, second = await asyncio.gather(*[make(server, number_) for server in servers])
        # One of the two met the other's.
        assert sorted([first[0], second[0]]) == ["", f"cubes/c{number_}"]
        assert sorted([first[1], second[1]]) == ["", f"principals/p{number_}"]
    assert len(await servers[0].read(lambda txn: txn.cubes(0, 99))) == 5
    assert await servers[0].check() == []


async def test_work_on_two_cubes_in_opposite_orders_ends(servers: list[Neo4jRecordStore]) -> None:
    keys = {name: await create(servers[0], name, memory("n", "0")) for name in ("a", "b")}

    async def both(server: Neo4jRecordStore, order: str) -> None:
        async def work(txn: Writer) -> None:
            for name in order:
                await txn.lock_cube(name)
            for name in order:
                found = (await txn.versions(keys[name], Kind.MEMORY, ["n"]))["n"]
                await append(txn, name, [following(found, words=str(int(found.payload) + 1))])

        for _ in range(8):
            await server.write(work)

    await asyncio.gather(*[both(servers[place % 2], "ab" if place % 2 else "ba") for place in range(6)])
    for key in keys.values():
        assert await servers[0].read(lambda txn, k=key: number(txn, k)) == 48  # type: ignore[misc]


async def test_work_on_a_cube_holds_up_no_other_cube_that_it_reads(servers: list[Neo4jRecordStore]) -> None:
    key = await create(servers[0], "theirs", memory("n", "0"))
    await create(servers[0], "mine")

    async def work(txn: Writer) -> list[int]:
        assert await txn.lock_cube("mine") is not None
        found = [await number(txn, key)]
        theirs = await txn.cube("theirs")
        assert theirs is not None
        # Another server changes it meanwhile, and what is read stays what it was.
        async with asyncio.timeout(10):
            await change(servers[1], "theirs", Kind.MEMORY, ["n"], words="1")
        assert await txn.cube("theirs") == theirs
        found.append(await number(txn, key))
        # Whoever locks it sees it as it is now.
        now = await txn.lock_cube("theirs")
        assert now is not None
        assert now.revision == theirs.revision + 1
        await append(txn, "theirs", [memory("made")])
        return [*found, await number(txn, key)]

    assert await servers[0].write(work) == [0, 0, 1]
    assert await servers[0].read(lambda txn: txn.misfits(key, 9)) == []


async def test_work_begins_anew_when_a_cube_that_it_read_without_its_lock_has_changed(
    servers: list[Neo4jRecordStore],
) -> None:
    key = await create(servers[0], "c", memory("n", "0"), memory("a", "PIN is 4417"))
    ran: list[int] = []

    async def add_one(txn: Writer) -> None:
        ran.append(1)
        found = (await txn.versions(key, Kind.MEMORY, ["n"]))["n"]
        if len(ran) == 1:
            await change(servers[1], "c", Kind.MEMORY, ["n"], words="5")
        header = f"by hand {len(ran)}".encode()
        cube = await txn.cube("c")
        assert cube is not None
        row = CommitRow(cube.revision + 1, hashlib.sha256(header).digest(), header, cube.head_time + 1, 1)
        await txn.append(key, row, [following(found, words=str(int(found.payload) + 1))])

    await servers[0].write(add_one)
    assert len(ran) == 2
    assert await servers[0].read(lambda txn: number(txn, key)) == 6

    async def purge(txn: Writer) -> None:
        found = (await txn.versions(key, Kind.MEMORY, ["a"]))["a"]
        await append(txn, "c", [following(found, state=PURGED, erased=True)])
        await txn.erase(key, [found.item])

    async def look(txn: Writer) -> bytes:
        ran.append(1)
        assert await txn.cube("c") is not None
        if len(ran) == 3:
            await servers[1].write(purge)
        return (await txn.versions(key, Kind.MEMORY, ["a"]))["a"].payload

    assert await servers[0].write(look) == b""
    assert len(ran) == 4


async def test_what_is_purged_while_it_is_read_is_not_shown_as_empty(servers: list[Neo4jRecordStore]) -> None:
    key = await create(servers[0], "c", memory("a", "PIN is 4417"))

    async def work(txn: Reader) -> bytes:
        assert await txn.cube("c") is not None

        async def purge(other: Writer) -> None:
            await other.lock_cube("c")
            found = (await other.versions(key, Kind.MEMORY, ["a"]))["a"]
            await append(other, "c", [following(found, state=PURGED, erased=True)])
            await other.erase(key, [found.item])

        await servers[1].write(purge)
        return (await txn.versions(key, Kind.MEMORY, ["a"]))["a"].payload

    with pytest.raises(MipError, match="purged meanwhile") as raised:
        await servers[0].read(work)
    assert raised.value.code == "UNAVAILABLE"
    (row,) = (await servers[0].read(lambda txn: txn.versions(key, Kind.MEMORY, ["a"], 1))).values()
    assert (row.payload, row.current_state) == (b"", PURGED)


async def test_a_thousand_callers_wait_for_a_few_connections(config: dict[str, Any]) -> None:
    store = Neo4jRecordStore("", **config, connections=8)
    await store.open()
    try:
        keys = [await create(store, f"c{number_}") for number_ in range(4)]
        writes = [asyncio.create_task(commit(store, f"c{place % 4}", memory(f"m{place}"))) for place in range(200)]
        await asyncio.sleep(0.05)
        waiting = store.waiting_writes
        reads = [store.read(lambda txn: txn.cube("c0")) for _ in range(800)]
        await asyncio.gather(*writes, *reads)
        assert waiting > 100
        assert store.waiting_writes == 0
        uids = [uid(f"m{place}") for place in range(200)]
        for key in keys:
            assert len(await store.read(lambda txn, k=key: txn.names(k, uids))) == 50  # type: ignore[misc]
    finally:
        await store.close()


async def test_relations_that_are_active_are_relationships_between_their_memories(
    servers: list[Neo4jRecordStore],
) -> None:
    key = await create(servers[0], "c", memory("a"), memory("b"), relation("a", "b", "PARENT_OF", 2.0))
    query = """MATCH (s:Memory)-[e:RELATES]->(t:Memory) RETURN s.id, e.type, e.weight, t.id"""
    assert await servers[0].rows(query) == [["a", "PARENT_OF", 2.0, "b"]]
    await change(servers[0], "c", Kind.RELATION, ["a-b"], weight=3.0)
    assert await servers[0].rows(query) == [["a", "PARENT_OF", 3.0, "b"]]
    await change(servers[0], "c", Kind.RELATION, ["a-b"], state=4)
    assert await servers[0].rows(query) == []
    await change(servers[0], "c", Kind.RELATION, ["a-b"], state=1)
    assert await servers[0].rows(query) == [["a", "PARENT_OF", 3.0, "b"]]
    assert await servers[0].read(lambda txn: txn.misfits(key, 9)) == []


async def test_the_sums_of_a_record_are_those_that_were_hashed(servers: list[Neo4jRecordStore]) -> None:
    key = await create(servers[0], "c", memory("a", "x" * 200_000))
    (row,) = (await servers[1].read(lambda txn: txn.versions(key, Kind.MEMORY, ["a"]))).values()
    digest = hashlib.sha256(row.payload).digest()
    assert hashlib.sha256(row.salt + digest).digest() == row.commitment


async def test_a_newer_schema_is_refused_and_a_missing_part_is_named(
    servers: list[Neo4jRecordStore], config: dict[str, Any]
) -> None:
    store = servers[0]
    await store.rows("DROP INDEX memos_request_time")
    assert await store.check() == [
        "the schema lacks memos_request_time; start the server again after removing (:Schema)"
    ]
    await store.rows("MATCH (s:Schema) SET s.version = $version", version=len(MIGRATIONS) + 1)
    newer = Neo4jRecordStore("", **config)
    with pytest.raises(SetupError, match=r"has schema 2; this server reads up to 1"):
        await newer.open()
    await store.rows("MATCH (s:Schema) DELETE s")
    again = Neo4jRecordStore("", **config)
    await again.open()
    assert await again.check() == []
    assert len({part.name for part in parts()}) == len(parts())
    await again.close()
