"""The contract of record stores: what is counted and listed for somebody who does not see everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memos_server.graph_dbs.base import Clearance, Kind, RecordStore
from tests.ports.records import BACKENDS, INTERNAL, NAMES, SECRET, change, commit, create, memory, relation, session

ALL = Clearance(SECRET)
LOW = Clearance(INTERNAL)
WITH_B = Clearance(INTERNAL, {"b": SECRET, "a": 1})
B_ALONE = Clearance(0, {"b": SECRET}, whole=False)
NOTHING = Clearance(0, {}, whole=False)


@pytest.fixture(params=NAMES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RecordStore]:
    opened = BACKENDS[request.param](tmp_path)
    await opened.open()
    yield opened
    await opened.close()


async def story(store: RecordStore) -> int:
    """Makes a cube: b becomes secret at revision 3, and internal words of it stay at 2; c is secret only at first."""
    key = await create(store, "x", memory("a"), memory("b"), memory("c"), session("s"))
    await commit(store, "x", relation("a", "b"), relation("a", "c"), memory("d"))
    await change(store, "x", Kind.MEMORY, ["b"], sensitivity=SECRET)
    await change(store, "x", Kind.MEMORY, ["c"], sensitivity=SECRET)
    await change(store, "x", Kind.MEMORY, ["c", "d"], sensitivity=INTERNAL)
    return key


@pytest.mark.parametrize(
    ("clearance", "counts"),
    [
        # Revision 1: settings, a, b, c, session. 2: a-b, a-c, d. 3: b secret. 4: c secret. 5: c and d internal.
        (ALL, [5, 3, 1, 1, 2]),
        (LOW, [4, 2, 0, 0, 2]),
        (WITH_B, [5, 3, 1, 0, 2]),
        (B_ALONE, [1, 0, 1, 0, 0]),
        (NOTHING, [0, 0, 0, 0, 0]),
    ],
)
async def test_changes_are_counted_by_the_stricter_label_and_relations_by_their_ends(
    store: RecordStore, clearance: Clearance, counts: list[int]
) -> None:
    key = await story(store)
    found = [await store.read(lambda txn, at=at: txn.count_changes(key, at, clearance)) for at in range(1, 6)]  # type: ignore[misc]
    assert found == counts
    assert await store.read(lambda txn: txn.count_changes(key, 99, clearance)) == 0


@pytest.mark.parametrize(
    ("clearance", "at", "ids"),
    [
        (ALL, None, "abcd"),
        (LOW, None, "acd"),
        (WITH_B, None, "abcd"),
        (B_ALONE, None, "b"),
        (NOTHING, None, ""),
        # Past versions by today's label too: b was internal then, and c is no longer what it was at 4.
        (LOW, 2, "acd"),
        (LOW, 4, "ad"),
        (WITH_B, 1, "abc"),
    ],
)
async def test_a_listing_leaves_out_what_is_not_seen_and_fills_its_pages(
    store: RecordStore, clearance: Clearance, at: int | None, ids: str
) -> None:
    key = await story(store)
    found: list[str] = []
    after = 0
    while rows := await store.read(
        lambda txn, after=after: txn.list_versions(key, Kind.MEMORY, after, 2, at, clearance=clearance)  # type: ignore[misc]
    ):
        after = rows[-1].item
        found += [row.id for row in rows]
    assert "".join(found) == ids
    # Relations and sessions are judged by who asks for them.
    assert len(await store.read(lambda txn: txn.list_versions(key, Kind.RELATION, 0, 9, clearance=clearance))) == 2
