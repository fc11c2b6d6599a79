"""The embedded index when snapshots fail or take long: it serves from memory, and the log replays the rest."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from memos_server.vec_dbs.base import IndexBatch, IndexContent, IndexQuery, IndexVersion, StateIn
from memos_server.vec_dbs.embedded import EmbeddedIndex, backend, snapshot

CUBE = "00000000-0000-7000-8000-000000000000"


def _batch(revision: int) -> IndexBatch:
    key = bytes([revision])
    uid = f"00000000-0000-7000-8000-{revision:012x}"
    return IndexBatch(
        revision - 1, revision, [IndexContent(key, ["word"])], [IndexVersion(uid, revision, key, 1, 1, 0.0, 0.0)]
    )


async def test_a_snapshot_that_failed_is_tried_again_only_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    tries: list[float] = []

    def full(*_: object) -> None:
        tries.append(now)
        raise OSError(errno.ENOSPC, "No space left on device")

    write = snapshot.write
    monkeypatch.setattr(backend.time, "monotonic", lambda: now)
    monkeypatch.setattr(snapshot, "write", full)
    index = EmbeddedIndex(str(tmp_path), snapshot_changes=1)
    await index.open()

    async def apply(revision: int) -> None:
        await index.apply(CUBE, 0, _batch(revision))
        assert index._saver is not None
        index._saver.submit(lambda: None).result()

    for revision in range(1, 6):
        await apply(revision)
    assert tries == [1000.0]
    found = await index.search(CUBE, IndexQuery(5, StateIn(frozenset({1})), 4, terms=["word"]))
    assert len(found.candidates) == 5
    now = 1005.0
    for revision in range(6, 9):
        await apply(revision)
    # The second failure doubles the wait from 5 to 10 seconds.
    assert tries == [1000.0, 1005.0]
    now = 1014.0
    await apply(9)
    assert tries == [1000.0, 1005.0]
    now = 1015.0
    monkeypatch.setattr(snapshot, "write", write)
    await apply(10)
    assert any((tmp_path / "index" / CUBE).iterdir())
    await index.close()


async def test_closing_writes_the_cubes_with_most_changes_and_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    written: list[str] = []
    write = snapshot.write

    def slow(folder: Path, *rest: object) -> object:
        nonlocal now
        now += 3.0
        written.append(folder.name)
        return write(folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(backend.time, "monotonic", lambda: now)
    monkeypatch.setattr(snapshot, "write", slow)
    index = EmbeddedIndex(str(tmp_path))
    await index.open()
    for cube, revisions in (("a", 1), ("b", 3), ("c", 2)):
        for revision in range(1, revisions + 1):
            await index.apply(cube, 0, _batch(revision))
    await index.close()
    # Each takes 3 of the 5 seconds: the third is not begun.
    assert written == ["b", "c"]
    again = EmbeddedIndex(str(tmp_path))
    await again.open()
    assert [await again.indexed_revision(cube) for cube in "abc"] == [0, 3, 2]
    await again.close()
