"""The contract of record stores: the log of a cube, its present, its past, and many writers at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from memos_server.graph_dbs.base import OPEN, ChangeRow, CommitRow, CubeRow, Kind, Reader, RecordStore, Version, Writer
from tests.ports.records import (
    ACTIVE,
    ARCHIVED,
    BACKENDS,
    DELETED,
    MERGED,
    NAMES,
    OWNER,
    SECRET,
    append,
    change,
    commit,
    commitment,
    create,
    following,
    memories,
    memory,
    moment,
    relation,
    session,
    uid,
)

Make = Callable[[], RecordStore]


@pytest.fixture(params=NAMES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    return lambda: BACKENDS[request.param](tmp_path)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[RecordStore]:
    opened = make()
    await opened.open()
    yield opened
    await opened.close()


async def cube_of(store: RecordStore, cube_id: str) -> CubeRow:
    found = await store.read(lambda txn: txn.cube(cube_id))
    assert found is not None
    return found


async def item(store: RecordStore, key: int, id_: str, kind: Kind = Kind.MEMORY, at: int | None = None) -> Version:
    return (await store.read(lambda txn: txn.versions(key, kind, [id_], at)))[id_]


async def history(store: RecordStore, key: int, id_: str, before: int = OPEN, limit: int = 100) -> Sequence[Version]:
    return await store.read(lambda txn: txn.history(key, Kind.MEMORY, id_, before, limit))


# Cubes


async def test_a_cube_is_read_back_with_its_head_and_settings(store: RecordStore) -> None:
    key = await create(store, "c")
    await commit(store, "c", memory("a"))
    cube = await cube_of(store, "c")
    assert (cube.key, cube.id, cube.uid, cube.owner) == (key, "c", uid("cubes/c"), OWNER)
    assert (cube.revision, cube.head_time, cube.create_time) == (2, 2_000, 1_000)
    (head,) = await store.read(lambda txn: txn.commits(key, 2, 2, 1, newest_first=False))
    assert cube.head_digest == head.digest
    assert (cube.settings.kind, cube.settings.id, cube.settings.uid) == (Kind.CUBE, "", uid("cubes/c"))
    assert cube.settings.payload == b"settings"
    assert await store.read(lambda txn: txn.cube("other")) is None


async def test_settings_have_versions_like_anything_else(store: RecordStore) -> None:
    key = await create(store, "c")
    await change(store, "c", Kind.CUBE, [""], words="new settings")
    assert (await cube_of(store, "c")).settings.payload == b"new settings"
    assert (await item(store, key, "", Kind.CUBE, 1)).payload == b"settings"


async def test_cubes_are_listed_in_order_of_creation_in_pages(store: RecordStore) -> None:
    for cube_id in ("z", "a", "m"):
        await create(store, cube_id)
    first = await store.read(lambda txn: txn.cubes(0, 2))
    second = await store.read(lambda txn: txn.cubes(first[-1].key, 2))
    assert [cube.id for cube in first] == ["z", "a"]
    assert [cube.id for cube in second] == ["m"]


async def test_an_id_of_a_cube_is_given_once(store: RecordStore) -> None:
    await create(store, "c", memory("a"))
    with pytest.raises(KeyError) as raised:
        await create(store, "c")
    assert raised.value.args == ("cubes/c",)
    assert (await cube_of(store, "c")).revision == 1


async def test_a_cube_that_is_locked_is_read_as_it_is_now(store: RecordStore) -> None:
    await create(store, "c")

    async def work(txn: Writer) -> list[int]:
        seen = []
        for id_ in ("a", "b"):
            cube = await txn.lock_cube("c")
            assert cube is not None
            seen.append(cube.revision)
            await append(txn, "c", [memory(id_)])
        assert await txn.lock_cube("none") is None
        return seen

    assert await store.write(work) == [1, 2]


async def test_what_a_transaction_wrote_it_reads(store: RecordStore) -> None:
    key = await create(store, "c")

    async def work(txn: Writer) -> tuple[bytes, bytes, int]:
        await append(txn, "c", [memory("a", "one")])
        one = (await txn.versions(key, Kind.MEMORY, ["a"]))["a"]
        await append(txn, "c", [following(one, words="two")])
        two = (await txn.versions(key, Kind.MEMORY, ["a"]))["a"]
        (then,) = await txn.list_versions(key, Kind.MEMORY, 0, 10, 2)
        return two.payload, then.payload, then.to_revision

    assert await store.write(work) == (b"two", b"one", 3)


# Ids of items


async def test_the_id_of_an_item_is_given_once_even_after_its_deletion(store: RecordStore) -> None:
    key = await create(store, "c")
    await commit(store, "c", memory("a", "first"))
    await change(store, "c", Kind.MEMORY, ["a"], state=DELETED)
    with pytest.raises(KeyError) as raised:
        await commit(store, "c", memory("b"), memory("a")._replace(uid=uid("another")), memory("d"))
    assert raised.value.args == ("memories/a",)
    assert await memories(store, key) == {"a": (DELETED, "first")}
    assert (await cube_of(store, "c")).revision == 3


async def test_an_id_twice_in_one_batch_is_refused_by_its_name(store: RecordStore) -> None:
    await create(store, "c")
    with pytest.raises(KeyError) as raised:
        await commit(store, "c", memory("a"), memory("b"), memory("b")._replace(uid=uid("another")))
    assert raised.value.args == ("memories/b",)
    assert (await cube_of(store, "c")).revision == 1


async def test_a_new_item_with_the_id_of_one_that_the_batch_changes_is_refused_by_its_name(store: RecordStore) -> None:
    key = await create(store, "c", memory("a"))
    old = await item(store, key, "a")
    again = memory("a", "again")._replace(uid=uid("another"))
    for batch in ([following(old, state=ARCHIVED), again], [again, following(old, state=ARCHIVED)]):
        with pytest.raises(KeyError) as raised:
            await commit(store, "c", *batch)
        assert raised.value.args == ("memories/a",)
    assert await memories(store, key) == {"a": (ACTIVE, "a")}


@pytest.mark.parametrize(
    ("first", "again", "name"),
    [
        (session("s"), session("s")._replace(uid=uid("another")), "sessions/s"),
        (relation("a", "b"), relation("a", "b")._replace(uid=uid("another")), "relations/a-b"),
    ],
)
async def test_sessions_and_relations_have_ids_of_their_own(store, first, again, name) -> None:  # type: ignore[no-untyped-def]
    await create(store, "c", memory("a"), memory("b"), memory("s")._replace(uid=uid("no session")), first)
    with pytest.raises(KeyError) as raised:
        await commit(store, "c", again)
    assert raised.value.args == (name,)


async def test_two_cubes_may_use_one_id_and_one_uid(store: RecordStore) -> None:
    one = await create(store, "one", memory("a", "in one"))
    two = await create(store, "two", memory("a", "in two"))
    await change(store, "two", Kind.MEMORY, ["a"], words="changed")
    assert await memories(store, one) == {"a": (ACTIVE, "in one")}
    assert await memories(store, two) == {"a": (ACTIVE, "changed")}
    assert (await store.read(lambda txn: txn.versions_by_uid(one, [uid("a")])))[uid("a")].payload == b"in one"


# Versions


async def test_a_version_is_read_back_with_everything(store: RecordStore) -> None:
    key = await create(store, "c")
    await commit(store, "c", memory("a", "likes tea")._replace(sensitivity=SECRET, owner="principals/bob"))
    found = await item(store, key, "a")
    assert (found.kind, found.id, found.uid, found.owner) == (Kind.MEMORY, "a", uid("a"), "principals/bob")
    assert (found.from_revision, found.to_revision, found.time, found.create_time) == (2, OPEN, 2_000, 2_000)
    assert (found.state, found.sensitivity, found.merged_into) == (ACTIVE, SECRET, "")
    assert (found.current_state, found.current_sensitivity, found.current_revision) == (ACTIVE, SECRET, 2)
    assert (found.payload, found.commitment, len(found.salt)) == (b"likes tea", commitment("likes tea"), 32)
    assert (found.source, found.target, found.type, found.weight) == ("", "", "", 0.0)


async def test_each_version_is_valid_from_its_commit_to_the_next_one(store: RecordStore) -> None:
    key = await create(store, "c")
    await commit(store, "c", memory("a", "one"))
    await change(store, "c", Kind.MEMORY, ["a"], words="two")
    await commit(store, "c", memory("b"))
    await change(store, "c", Kind.MEMORY, ["a"], state=ARCHIVED, sensitivity=SECRET)
    versions = await history(store, key, "a")
    assert [(v.from_revision, v.to_revision, v.state, v.payload) for v in versions] == [
        (5, OPEN, ARCHIVED, b"two"),
        (3, 5, ACTIVE, b"two"),
        (2, 3, ACTIVE, b"one"),
    ]
    assert [v.time for v in versions] == [5_000, 3_000, 2_000]
    for version in versions:
        assert (version.current_state, version.current_sensitivity, version.current_revision) == (ARCHIVED, SECRET, 5)
        assert version.create_time == 2_000
    assert versions[0].content == versions[1].content != versions[2].content


async def test_history_comes_in_pages_from_the_newest_on(store: RecordStore) -> None:
    key = await create(store, "c", memory("a", "version 1"))
    for revision in range(2, 6):
        await change(store, "c", Kind.MEMORY, ["a"], words=f"version {revision}")
    first = await history(store, key, "a", limit=2)
    second = await history(store, key, "a", before=first[-1].from_revision, limit=9)
    assert [v.payload.decode() for v in first] == ["version 5", "version 4"]
    assert [v.payload.decode() for v in second] == ["version 3", "version 2", "version 1"]
    assert await history(store, key, "none") == []


async def test_every_revision_is_read_as_it_was(store: RecordStore) -> None:
    key = await create(store, "c")
    await commit(store, "c", memory("a", "one"), memory("b", "two"))
    await change(store, "c", Kind.MEMORY, ["b"], state=MERGED, merged_into="memories/a")
    await change(store, "c", Kind.MEMORY, ["a"], words="one and two")
    await change(store, "c", Kind.MEMORY, ["a"], state=DELETED)
    expected = {
        1: {},
        2: {"a": (ACTIVE, "one"), "b": (ACTIVE, "two")},
        3: {"a": (ACTIVE, "one"), "b": (MERGED, "two")},
        4: {"a": (ACTIVE, "one and two"), "b": (MERGED, "two")},
        5: {"a": (DELETED, "one and two"), "b": (MERGED, "two")},
    }
    for revision, state in expected.items():
        assert await memories(store, key, revision) == state
    assert await memories(store, key) == expected[5]
    assert (await item(store, key, "b", at=4)).merged_into == "memories/a"
    assert (await item(store, key, "b", at=2)).merged_into == ""
    assert await store.read(lambda txn: txn.versions(key, Kind.MEMORY, ["a"], 1)) == {}
    by_uid = await store.read(lambda txn: txn.versions_by_uid(key, [uid("a"), uid("none")], 2))
    assert {id_: version.payload for id_, version in by_uid.items()} == {uid("a"): b"one"}


async def test_content_returns_by_reference(store: RecordStore) -> None:
    key = await create(store, "c", memory("a", "one", vector=b"\0\0\x80?"))
    first = await item(store, key, "a")
    await change(store, "c", Kind.MEMORY, ["a"], words="two")
    await change(store, "c", Kind.MEMORY, ["a"], back_to=first)
    now = await item(store, key, "a")
    assert (now.from_revision, now.content, now.payload, now.salt) == (3, first.content, b"one", first.salt)
    assert await store.read(lambda txn: txn.vectors([now.content or 0])) == {first.content: b"\0\0\x80?"}


async def test_many_ids_are_found_in_one_read(store: RecordStore) -> None:
    count = 2_300
    key = await create(store, "c", *[memory(f"m{number}") for number in range(count)])
    ids = [f"m{number}" for number in range(count)]
    uids = [uid(id_) for id_ in ids]

    async def work(txn: Reader) -> tuple[set[str], set[str], int]:
        by_id = await txn.versions(key, Kind.MEMORY, [*ids, "none", "m1"])
        by_uid = await txn.versions_by_uid(key, [*uids, uid("none"), uids[1]])
        names = await txn.names(key, [*uids, uid("none"), uids[1]])
        return set(by_id), set(by_uid), len(names)

    assert await store.read(work) == (set(ids), set(uids), count)


async def test_a_listing_goes_on_where_the_page_before_ended(store: RecordStore) -> None:
    key = await create(store, "c", memory("z"), memory("a"), relation("z", "a"))
    await commit(store, "c", memory("m"))
    await change(store, "c", Kind.MEMORY, ["z"], state=DELETED)

    async def work(txn: Reader) -> list[list[str]]:
        first = await txn.list_versions(key, Kind.MEMORY, 0, 2)
        second = await txn.list_versions(key, Kind.MEMORY, first[-1].item, 2)
        past = await txn.list_versions(key, Kind.MEMORY, 0, 9, 1)
        edges = await txn.list_versions(key, Kind.RELATION, 0, 9)
        return [[version.id for version in page] for page in (first, second, past, edges)]

    assert await store.read(work) == [["z", "a"], ["m"], ["z", "a"], ["z-a"]]


async def test_a_listing_leaves_content_out_where_it_is_not_asked_for(store: RecordStore) -> None:
    key = await create(store, "c", memory("a", "words"))
    (bare,) = await store.read(lambda txn: txn.list_versions(key, Kind.MEMORY, 0, 9, with_content=False))
    assert (bare.payload, bare.salt, bare.commitment) == (b"", b"", commitment("words"))


async def test_names_are_relative_to_the_cube(store: RecordStore) -> None:
    key = await create(store, "c", memory("a"), memory("b"), relation("a", "b"), session("s"))
    asked = [uid("a"), uid("a-b"), uid("s"), uid("cubes/c"), uid("none")]
    assert await store.read(lambda txn: txn.names(key, asked)) == {
        uid("a"): "memories/a",
        uid("a-b"): "relations/a-b",
        uid("s"): "sessions/s",
        uid("cubes/c"): "",
    }


async def test_vectors_are_those_of_the_contents_that_have_one(store: RecordStore) -> None:
    vector = b"\x00\x00\x80?" * 384
    key = await create(store, "c", memory("a", vector=vector), memory("b"))
    a, b = await item(store, key, "a"), await item(store, key, "b")
    assert a.content is not None
    assert b.content is not None
    contents = [a.content, b.content, 10**9]
    assert await store.read(lambda txn: txn.vectors(contents)) == {a.content: vector}


# The log


async def test_commits_are_read_in_both_directions_within_bounds(store: RecordStore) -> None:
    key = await create(store, "c")
    for number in range(2, 8):
        await commit(store, "c", memory(f"m{number}"), memory(f"n{number}"))

    async def revisions(low: int, high: int, limit: int, newest_first: bool) -> list[int]:
        rows = await store.read(lambda txn: txn.commits(key, low, high, limit, newest_first=newest_first))
        return [row.revision for row in rows]

    assert await revisions(3, 6, 9, False) == [3, 4, 5, 6]
    assert await revisions(1, OPEN, 3, True) == [7, 6, 5]
    assert await revisions(1, 5, 2, False) == [1, 2]
    assert await revisions(8, OPEN, 9, False) == []
    (row,) = await store.read(lambda txn: txn.commits(key, 4, 4, 1, newest_first=False))
    assert isinstance(row, CommitRow)
    assert (row.time, row.change_count, len(row.digest)) == (4_000, 2, 32)


async def test_the_commit_of_a_time_is_the_newest_not_after_it(store: RecordStore) -> None:
    key = await create(store, "c")
    await create(store, "other")
    for id_ in "ab":
        await commit(store, "c", memory(id_))
    times = {0: 0, 999: 0, 1_000: 1, 1_001: 1, 2_000: 2, 2_999: 2, 3_000: 3, 10**15: 3}
    assert {time_: await store.read(lambda txn, t=time_: txn.commit_at(key, t)) for time_ in times} == times  # type: ignore[misc]
    assert moment(3) == 3_000


async def test_changes_come_in_the_order_of_the_commit_in_pages(store: RecordStore) -> None:
    key = await create(store, "c")
    await create(store, "other", memory("not this"))
    await commit(store, "c", *[memory(id_) for id_ in "edcba"])
    await change(store, "c", Kind.MEMORY, ["a"], state=DELETED)

    async def page(after: int, limit: int, with_content: bool = False) -> Sequence[ChangeRow]:
        return await store.read(lambda txn: txn.changes(key, 2, after, limit, with_content=with_content))

    first, second = await page(-1, 3), await page(2, 3)
    assert [(row.sequence, row.change, row.version.id) for row in [*first, *second]] == [
        (0, b"added e", "e"), (1, b"added d", "d"), (2, b"added c", "c"), (3, b"added b", "b"), (4, b"added a", "a"),
    ]  # fmt: skip
    assert await page(4, 3) == []
    # The version is the one that the change made, not the current one.
    last = second[-1].version
    assert (last.state, last.to_revision, last.current_state, last.payload) == (ACTIVE, 3, DELETED, b"")
    assert (await page(3, 1, True))[0].version.payload == b"a"
    assert await store.read(lambda txn: txn.changes(key, 9, -1, 9)) == []


async def test_a_commit_may_hold_no_change(store: RecordStore) -> None:
    key = await create(store, "c")
    assert await commit(store, "c") == 2
    assert await store.read(lambda txn: txn.changes(key, 2, -1, 9)) == []
    assert await commit(store, "c", memory("a")) == 3
    (row,) = await store.read(lambda txn: txn.changes(key, 3, -1, 9))
    assert (row.sequence, row.version.id) == (0, "a")


async def test_changed_items_are_those_since_a_revision_with_what_they_were(store: RecordStore) -> None:
    key = await create(store, "c", memory("same"), memory("a", "one"), memory("b"), relation("a", "b"))
    await change(store, "c", Kind.MEMORY, ["a"], words="two")
    await change(store, "c", Kind.MEMORY, ["a"], words="three")
    await commit(store, "c", memory("new"))
    await change(store, "c", Kind.RELATION, ["a-b"], state=DELETED)
    await create(store, "other", memory("x"))

    async def changed(after: int) -> dict[str, tuple[int, int | None]]:
        pairs = await store.read(lambda txn: txn.changed_items(key, after))
        return {now.id: (now.from_revision, then.from_revision if then else None) for now, then in pairs}

    assert await changed(1) == {"a": (3, 1), "new": (4, None), "a-b": (5, 1)}
    assert await changed(2) == {"a": (3, 2), "new": (4, None), "a-b": (5, 1)}
    assert await changed(3) == {"new": (4, None), "a-b": (5, 1)}
    assert await changed(5) == {}
    (pair,) = [pair for pair in await store.read(lambda txn: txn.changed_items(key, 1)) if pair[0].id == "a"]
    assert pair[1] is not None
    assert (pair[0].commitment, pair[1].commitment) == (commitment("three"), commitment("one"))
    assert pair[1].content is not None


# Relations


async def test_relations_are_found_from_either_end_and_in_the_past(store: RecordStore) -> None:
    names = ("a", "b", "d")
    key = await create(store, "c", *[memory(name) for name in names])
    await commit(store, "c", relation("a", "b", "PARENT_OF", 2.5), relation("b", "d"), relation("d", "a"))
    await change(store, "c", Kind.RELATION, ["a-b"], weight=3.0)
    await change(store, "c", Kind.RELATION, ["d-a"], state=DELETED)

    async def found(*ends: str, outgoing: bool = True, incoming: bool = True, at: int | None = None) -> list[str]:
        uids = [uid(end) for end in ends]
        rows = await store.read(lambda txn: txn.relations(key, uids, outgoing=outgoing, incoming=incoming, revision=at))
        return [row.id for row in rows]

    assert await found("a", incoming=False) == ["a-b"]
    assert await found("a", outgoing=False) == []
    assert await found("b") == ["a-b", "b-d"]
    assert await found("d", "a", "a") == ["a-b", "b-d"]
    assert await found("a", outgoing=False, at=3) == ["d-a"]
    assert await found("a", "b", "d", at=1) == []
    assert await found("a", outgoing=False, incoming=False) == []
    assert await found() == []
    edge = await item(store, key, "a-b", Kind.RELATION)
    assert (edge.source, edge.target, edge.type, edge.weight) == (uid("a"), uid("b"), "PARENT_OF", 3.0)
    assert (await item(store, key, "a-b", Kind.RELATION, 2)).weight == 2.5
    assert (edge.content, edge.commitment, edge.payload) == (None, b"", b"")


async def test_the_relations_of_a_hub_are_read_in_pieces(store: RecordStore) -> None:
    names = [f"m{number}" for number in range(30)]
    key = await create(store, "c", memory("hub"), *[memory(name) for name in names])
    await commit(store, "c", *[relation("hub", name, "CITES") for name in names[:20]])
    await commit(store, "c", *[relation(name, "hub", "KNOWS") for name in names[10:]])
    ends = [uid("hub")]

    async def piece(
        after: int, limit: int, *types: str, at: int | None = None, uids: list[str] = ends
    ) -> Sequence[Version]:
        async def read(txn: Reader) -> Sequence[Version]:
            return await txn.relations(
                key, uids, outgoing=True, incoming=True, revision=at, types=types, after=after, limit=limit
            )

        return await store.read(read)

    for at in (None, 3):
        seen: list[str] = []
        after = 0
        while rows := await piece(after, 7, at=at):
            assert len(rows) == min(7, 40 - len(seen))
            seen += [row.id for row in rows]
            after = rows[-1].item
        assert seen == [f"hub-{name}" for name in names[:20]] + [f"{name}-hub" for name in names[10:]]
    assert [row.id for row in await piece(0, 2, "KNOWS")] == ["m10-hub", "m11-hub"]
    assert len(await piece(0, 100, "KNOWS", "CITES")) == 40
    assert len(await piece(0, 5, uids=[uid("hub"), uid("m1")])) == 5
    assert len(await piece(0, 100, uids=[uid("hub"), uid("m1")])) == 40


# Transactions


async def test_a_failing_piece_undoes_itself_and_leaves_the_others(store: RecordStore) -> None:
    await create(store, "c")

    async def good(txn: Writer, number: int) -> int:
        return await append(txn, "c", [memory(f"good{number}")])

    async def bad(txn: Writer, number: int) -> int:
        await txn.insert_cube(f"bad{number}", uid(f"bad{number}"), OWNER)
        await append(txn, "c", [memory(f"bad{number}")])
        raise ValueError(f"piece {number}")

    works = [lambda txn, n=n: (bad if n % 3 == 1 else good)(txn, n) for n in range(30)]
    results = await asyncio.gather(*map(store.write, works), return_exceptions=True)
    failed = [str(result) for result in results if isinstance(result, ValueError)]
    assert failed == [f"piece {number}" for number in range(1, 30, 3)]
    assert sorted(result for result in results if isinstance(result, int)) == list(range(2, 22))
    cube = await cube_of(store, "c")
    assert cube.revision == 21
    assert sorted(await memories(store, cube.key)) == sorted(f"good{number}" for number in range(30) if number % 3 != 1)
    assert [cube.id for cube in await store.read(lambda txn: txn.cubes(0, 99))] == ["c"]


async def test_a_read_sees_one_snapshot_however_long_it_takes(store: RecordStore) -> None:
    key = await create(store, "c")
    ended = asyncio.Event()

    async def look(txn: Reader) -> tuple[int, int, int, int]:
        cube = await txn.cube("c")
        assert cube is not None
        _pause()
        commits = await txn.commits(key, 1, OPEN, 999, newest_first=True)
        _pause()
        listed = await txn.list_versions(key, Kind.MEMORY, 0, 999)
        _pause()
        again = await txn.cube("c")
        assert again is not None
        return cube.revision, len(commits), len(listed) + 1, again.revision

    async def read() -> set[int]:
        seen = set()
        while not ended.is_set():
            numbers = await store.read(look)
            assert len(set(numbers)) == 1, numbers
            seen.add(numbers[0])
        return seen

    readers = [asyncio.create_task(read()) for _ in range(3)]
    for number in range(40):
        await commit(store, "c", memory(f"m{number}"))
    ended.set()
    assert len(set().union(*await asyncio.gather(*readers))) > 3


def _pause() -> None:
    time.sleep(0.002)


async def test_a_write_is_seen_by_every_read_that_starts_after_it(store: RecordStore) -> None:
    key = await create(store, "c")
    for number in range(20):
        revision = await commit(store, "c", memory(f"m{number}"))
        cubes = await asyncio.gather(*[cube_of(store, "c") for _ in range(4)])
        assert {cube.revision for cube in cubes} == {revision}
        assert f"m{number}" in await memories(store, key)


async def test_sixty_four_writers_on_one_cube_lose_nothing(store: RecordStore) -> None:
    key = await create(store, "c")

    async def write(number: int) -> int:
        return await commit(store, "c", memory(f"m{number}"))

    revisions = await asyncio.gather(*map(write, range(64)))
    assert sorted(revisions) == list(range(2, 66))
    for number, revision in enumerate(revisions):
        (row,) = await store.read(lambda txn, r=revision: txn.changes(key, r, -1, 9))  # type: ignore[misc]
        assert row.version.id == f"m{number}"
    commits = await store.read(lambda txn: txn.commits(key, 1, OPEN, 99, newest_first=False))
    assert [row.revision for row in commits] == list(range(1, 66))
    assert await memories(store, key) == {f"m{n}": (ACTIVE, f"m{n}") for n in range(64)}


async def test_writers_of_many_cubes_number_each_cube_by_itself(store: RecordStore) -> None:
    keys = {name: await create(store, name) for name in ("one", "two", "three")}
    writes = [(name, number) for number in range(20) for name in keys]
    await asyncio.gather(*[commit(store, name, memory(f"m{number}")) for name, number in writes])
    for name, key in keys.items():
        assert (await cube_of(store, name)).revision == 21
        assert len(await memories(store, key)) == 20


async def test_a_cancelled_writer_leaves_a_whole_commit_or_none(store: RecordStore) -> None:
    key = await create(store, "c")

    async def write(number: int) -> int:
        return await commit(store, "c", memory(f"{number}a"), memory(f"{number}b"))

    for number in range(12):
        task = asyncio.create_task(write(number))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    last = await write(99)
    cube = await cube_of(store, "c")
    assert cube.revision == last
    ids = list(await memories(store, key))
    assert len(ids) == 2 * (last - 1)
    assert {id_[:-1] + "a" for id_ in ids} | {id_[:-1] + "b" for id_ in ids} == set(ids)
    assert ids[-2:] == ["99a", "99b"]


async def test_what_was_acknowledged_is_there_after_opening_again(store: RecordStore, make: Make) -> None:
    key = await create(store, "c", memory("a", "one"))
    await change(store, "c", Kind.MEMORY, ["a"], words="two")
    await store.close()
    again = make()
    await again.open()
    try:
        assert await memories(again, key) == {"a": (ACTIVE, "two")}
        # Numbering goes on after what is there.
        await commit(again, "c", memory("b"))
        assert list(await memories(again, key)) == ["a", "b"]
        assert [v.to_revision for v in await history(again, key, "a")] == [OPEN, 2]
        assert await again.check() == []
    finally:
        await again.close()


async def test_compaction_and_the_check_change_nothing(store: RecordStore) -> None:
    key = await create(store, "c", memory("a"))
    assert await store.compact()
    assert await store.check() == []
    assert await memories(store, key) == {"a": (ACTIVE, "a")}
