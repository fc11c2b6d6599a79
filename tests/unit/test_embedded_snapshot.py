"""What the embedded index leaves on disk: damage is dropped, erased content is gone, evicted cubes come back."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memos_server.vec_dbs.base import OPEN, All, IndexBatch, IndexContent, IndexQuery, IndexVersion
from memos_server.vec_dbs.embedded import EmbeddedIndex, snapshot
from memos_server.vec_dbs.embedded.columns import CHUNK_ROWS
from memos_server.vec_dbs.embedded.postings import SEGMENT_CAP, Postings

CUBE = "0192f7a0-0000-7000-8000-00000000c0be"
OTHER = "0192f7a0-0000-7000-8000-00000000beef"
MARKER = "zebrafish4417"
UNIT = np.array([0.6, 0.8], dtype=np.float32)


def uid(number: int) -> str:
    return f"0192f7a0-0000-7000-8000-{number:012x}"


def key(number: int) -> bytes:
    return b"commitment-%021d" % number


def adding(revision: int, numbers: Sequence[int], *words: str, dimension: int = 2) -> IndexBatch:
    """Returns the commit that adds memories."""
    vector = np.resize(UNIT, dimension) if dimension else None
    contents = [
        IndexContent(key(n), ["word", f"own{n}", *words], [f"tag:{w}" for w in words], [f"E{w}" for w in words],
                     {"confidence": 0.5}, vector)
        for n in numbers
    ]  # fmt: skip
    versions = [IndexVersion(uid(n), revision, key(n), 1, 2, float(n), float(n)) for n in numbers]
    return IndexBatch(revision - 1, revision, contents, versions)


def purging(revision: int, number: int) -> IndexBatch:
    """Returns the commit that purges a memory."""
    gone = IndexVersion(uid(number), revision, None, 5, 2, float(number), float(revision))
    return IndexBatch(revision - 1, revision, (), [gone], [key(number)])


async def opened(folder: Path, **config: float) -> EmbeddedIndex:
    index = EmbeddedIndex(str(folder), **config)
    await index.open()
    return index


async def hits(index: EmbeddedIndex, revision: int, *words: str, cube: str = CUBE) -> set[int]:
    asked = IndexQuery(revision, All(()), 4, terms=words, vector=None if words else UNIT)
    return {int(candidate.uid[-12:], 16) for candidate in (await index.search(cube, asked)).candidates}


async def saved(folder: Path) -> Path:
    """Leaves a cube of three memories at revision 2 on disk and returns its folder."""
    index = await opened(folder)
    await index.apply(CUBE, 2, adding(1, [1, 2], MARKER))
    await index.apply(CUBE, 2, adding(2, [3]))
    await index.close()
    return folder / "index" / CUBE


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def reseal(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Changes the manifest and gives it a matching checksum again."""
    body = json.loads((folder / "manifest.json").read_bytes())["body"]
    change(body)
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    (folder / "manifest.json").write_text(json.dumps({"body": body, "crc32": zlib.crc32(text)}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(only(folder, "data-*")),
        lambda folder: flip(only(folder, "data-*")),
        lambda folder: only(folder, "data-*").unlink(),
        lambda folder: cut(only(folder, "vectors-*")),
        lambda folder: flip(only(folder, "vectors-*")),
        lambda folder: only(folder, "vectors-*").unlink(),
        lambda folder: cut(folder / "manifest.json"),
        lambda folder: flip(folder / "manifest.json"),
        lambda folder: (folder / "manifest.json").write_bytes(b""),
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe[]"),
        lambda folder: (folder / "manifest.json").write_text("[1, 2]"),
        lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
        lambda folder: (folder / "manifest.json").write_bytes(b" " * (17 << 20)),
        lambda folder: reseal(folder, lambda body: body.update(format=2)),
        lambda folder: reseal(folder, lambda body: body.update(vectors=[])),
        lambda folder: reseal(folder, lambda body: body.update(dimension=3)),
        lambda folder: reseal(folder, lambda body: body.pop("segments")),
        lambda folder: reseal(folder, lambda body: body["arrays"]["items.uid"].__setitem__(0, "|O")),
        lambda folder: reseal(folder, lambda body: body["arrays"]["items.uid"].__setitem__(1, 2**60)),
        lambda folder: reseal(folder, lambda body: body["arrays"]["versions.item"].__setitem__(1, 1)),
        lambda folder: reseal(folder, lambda body: body["data"].update(name="../../record.sqlite")),
    ],
    ids=["data-cut", "data-flipped", "data-missing", "vectors-cut", "vectors-flipped", "vectors-missing",
         "manifest-cut", "manifest-flipped", "manifest-empty", "manifest-not-text", "manifest-list", "manifest-deep",
         "manifest-huge", "format", "no-vectors", "dimension", "key-missing", "object-array", "too-long",
         "columns-differ", "outside"],
)  # fmt: skip
async def test_a_damaged_snapshot_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    folder = await saved(tmp_path)
    damage(folder)
    index = await opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert await index.indexed_revision(CUBE) == 0
    assert CUBE in caplog.text
    assert "rebuilt" in caplog.text
    assert not folder.exists()
    await index.apply(CUBE, 2, adding(1, [1]))
    assert await hits(index, 1, "word") == {1}
    await index.close()


async def test_deleting_the_files_drops_the_index_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = await saved(tmp_path)
    (folder / "manifest.json").unlink()
    index = await opened(tmp_path)
    assert await index.indexed_revision(CUBE) == 0
    assert not caplog.records
    assert not folder.exists()
    await index.close()


async def test_what_an_unfinished_write_left_is_removed(tmp_path: Path) -> None:
    folder = await saved(tmp_path)
    before = sorted(folder.iterdir())
    (folder / "data-0123456789abcdef.bin").write_text(MARKER)
    (folder / "manifest-0123456789abcdef.tmp").write_text("{")
    index = await opened(tmp_path)
    assert await index.indexed_revision(CUBE) == 2
    assert sorted(folder.iterdir()) == before
    await index.close()


async def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    folder = await saved(tmp_path)
    assert {path.stat().st_mode & 0o077 for path in (folder, folder.parent, *folder.iterdir())} == {0}


async def test_erased_content_is_gone_from_the_files_when_apply_returns(tmp_path: Path) -> None:
    folder = await saved(tmp_path)
    raw = b"".join(path.read_bytes() for path in folder.iterdir())
    assert MARKER.encode() in raw
    assert key(1) in raw
    index = await opened(tmp_path)
    for revision, number in [(3, 1), (4, 2)]:
        await index.apply(CUBE, 2, purging(revision, number))
    files = b"".join(path.read_bytes() for path in folder.iterdir())
    for trace in (MARKER.encode(), b"own1", b"own2", key(1), key(2)):
        assert trace not in files
    assert b"own3" in files
    assert files.count(UNIT.tobytes()) == 1
    assert await hits(index, 4) == await hits(index, 1 + 1) == {3}
    await index.close()
    again = await opened(tmp_path)
    assert await again.indexed_revision(CUBE) == 4
    assert await hits(again, 2, MARKER) == set()
    await again.close()


async def test_erased_content_is_gone_from_the_files_even_when_they_cannot_be_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = await saved(tmp_path)
    index = await opened(tmp_path)

    def full(*_: object) -> snapshot.Saved:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "write", full)
        await index.apply(CUBE, 2, purging(3, 1))
    assert not folder.exists()
    assert "No space left" in caplog.text
    assert await hits(index, 3, "word") == {2, 3}
    await index.close()
    again = await opened(tmp_path)
    assert await hits(again, 3, "word") == {2, 3}
    await again.close()


async def test_a_content_that_was_never_saved_leaves_nothing_when_erased(tmp_path: Path) -> None:
    index = await opened(tmp_path)
    await index.apply(CUBE, 2, adding(1, [1], MARKER))
    await index.apply(CUBE, 2, purging(2, 1))
    await index.close()
    folder = tmp_path / "index" / CUBE
    assert all(MARKER.encode() not in path.read_bytes() for path in folder.iterdir())


async def test_what_was_not_saved_is_replayed_from_where_the_snapshot_ends(tmp_path: Path) -> None:
    await saved(tmp_path)
    crashed = await opened(tmp_path)
    await crashed.apply(CUBE, 2, adding(3, [4]))
    # Not closed: what a killed process leaves.
    index = await opened(tmp_path)
    assert await index.indexed_revision(CUBE) == 2
    await index.apply(CUBE, 2, adding(3, [4]))
    assert await hits(index, 3, "word") == {1, 2, 3, 4}
    await index.close()
    await crashed.drop(CUBE)
    await crashed.close()


async def test_a_snapshot_is_written_once_enough_has_changed(tmp_path: Path) -> None:
    index = await opened(tmp_path, snapshot_changes=50)
    await index.apply(CUBE, 2, adding(1, range(20)))
    assert not (tmp_path / "index" / CUBE).exists()
    await index.apply(CUBE, 2, adding(2, range(20, 40)))
    await index.close()
    files = {path.name for path in (tmp_path / "index" / CUBE).iterdir()}
    assert len(files) == 3


async def test_chunks_of_vectors_that_did_not_change_keep_their_file(tmp_path: Path) -> None:
    index = await opened(tmp_path)
    await index.apply(CUBE, 2, adding(1, range(CHUNK_ROWS + 5)))
    await index.close()
    folder = tmp_path / "index" / CUBE
    first, tail = only(folder, "vectors-0-*").name, only(folder, "vectors-1-*").name
    again = await opened(tmp_path)
    await again.apply(CUBE, 2, adding(2, [CHUNK_ROWS + 5]))
    await again.close()
    assert only(folder, "vectors-0-*").name == first
    assert only(folder, "vectors-1-*").name != tail
    last = await opened(tmp_path)
    assert len((await last.entries(CUBE))[1]) == CHUNK_ROWS + 6
    asked = IndexQuery(2, All(()), 4, vector=UNIT, depth=3)
    assert [c.vector for c in (await last.search(CUBE, asked)).candidates] == pytest.approx([1.0] * 3)
    await last.close()


async def test_cubes_over_the_memory_budget_leave_memory_and_come_back(tmp_path: Path) -> None:
    index = await opened(tmp_path, memory_budget_mb=1)
    for cube in (CUBE, OTHER):
        await index.apply(cube, 512, adding(1, range(400), dimension=512))
    for _ in range(3):
        for cube in (CUBE, OTHER):
            assert len(await hits(index, 1, "word", cube=cube)) == 200
            await index.apply(cube, 512, IndexBatch(0, 1))
    revisions = {}
    for revision in range(2, 6):
        for cube in (CUBE, OTHER):
            await index.apply(cube, 512, adding(revision, [1000 + revision], "late", dimension=512))
            revisions[cube] = await index.indexed_revision(cube)
    assert revisions == {CUBE: 5, OTHER: 5}
    assert await hits(index, 5, "late") == {1002, 1003, 1004, 1005}
    # What leaves memory is written by a thread of its own.
    for _ in range(3000):
        if (tmp_path / "index" / CUBE / "manifest.json").exists():
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the cube that was not used for longest stayed in memory")
    await index.close()


async def test_a_cube_that_is_dropped_leaves_no_file(tmp_path: Path) -> None:
    folder = await saved(tmp_path)
    index = await opened(tmp_path)
    await index.drop(CUBE)
    assert not folder.exists()
    await index.close()
    assert not folder.exists()


@pytest.mark.parametrize("cube", ["../up", "", "a/b", ".", "x" * 65])
async def test_a_cube_uid_cannot_name_another_folder(tmp_path: Path, cube: str) -> None:
    index = await opened(tmp_path)
    with pytest.raises(ValueError):
        await index.indexed_revision(cube)
    await index.close()


@pytest.mark.parametrize("config", [{"memory_budget_mb": 0}, {"b": 1.5}, {"k1": float("nan")}, {"threads": 0}])
def test_a_setting_out_of_range_is_refused(tmp_path: Path, config: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        EmbeddedIndex(str(tmp_path), **config)


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="memory_budget"):
        EmbeddedIndex(str(tmp_path), memory_budget=1)


async def test_a_failure_inside_a_batch_falls_back_to_what_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved(tmp_path)
    index = await opened(tmp_path)

    def broken(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Postings, "add", broken)
        with pytest.raises(MemoryError):
            await index.apply(CUBE, 2, adding(3, [4]))
    assert await index.indexed_revision(CUBE) == 2
    await index.apply(CUBE, 2, adding(3, [4]))
    assert await hits(index, 3, "word") == {1, 2, 3, 4}
    await index.close()


def test_postings_stay_in_few_bounded_segments_and_agree_with_a_dictionary() -> None:
    random = np.random.default_rng(3)
    postings, expected = Postings(), {}
    for number in range(300):
        tokens = [f"t{n}" for n in random.integers(0, 40, 12).tolist()]
        postings.add(number, [tokens])
        for token in tokens:
            expected.setdefault(token, {}).setdefault(number, 0)
            expected[token][number] += 1
    assert len(postings.segments) <= 12
    assert all(len(segment.ordinals) <= SEGMENT_CAP for segment in postings.segments)
    erased = np.array([0, 7, 150, 299], dtype=np.int32)
    postings.remove(erased)
    for token, counts in expected.items():
        ordinals, found = postings.get(token)
        left = {number: count for number, count in counts.items() if number not in set(erased.tolist())}
        assert dict(zip(ordinals.tolist(), found.tolist(), strict=True)) == left
        assert ordinals.tolist() == sorted(left)


def test_any_text_survives_the_packing_of_a_vocabulary() -> None:
    names = ["plain", None, "", "ünïcödé", "𝄞", "\ud800", "new\nline\0"]
    assert snapshot._unpack_texts(*snapshot._pack_texts(names)) == names


async def test_searches_batches_purges_and_snapshots_do_not_disturb_each_other(tmp_path: Path) -> None:
    index = await opened(tmp_path, snapshot_changes=1, memory_budget_mb=1)
    done = False

    async def search() -> int:
        count = 0
        while not done:
            revision = await index.indexed_revision(CUBE)
            # Every fourth memory is purged in the commit that adds it.
            assert await hits(index, revision, "word") == {n for n in range(1, revision + 1) if n % 4}
            count += 1
        return count

    searching = [asyncio.create_task(search()) for _ in range(3)]
    for revision in range(1, 41):
        batch = adding(revision, [revision], MARKER, dimension=512)
        if revision % 4 == 0:
            gone = IndexVersion(uid(revision), revision, None, 5, 2, 0.0, 0.0)
            batch = replace(batch, versions=[*batch.versions, gone], erased=[key(revision)])
        await index.apply(CUBE, 512, batch)
        await index.apply(OTHER, 512, adding(revision, range(revision * 20, revision * 20 + 20), dimension=512))
    done = True
    assert sum(await asyncio.gather(*searching)) > 0
    await index.close()
    again = await opened(tmp_path)
    assert await hits(again, 40, MARKER) == {n for n in range(1, 41) if n % 4}
    assert sum(entry.to_revision == OPEN for entry in (await again.entries(OTHER))[1]) == 800
    await again.close()


async def test_batches_and_searches_go_on_while_a_snapshot_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = await opened(tmp_path, snapshot_changes=1)
    started, finish = threading.Event(), threading.Event()
    write = snapshot.write

    def slow(*arguments: Any) -> snapshot.Saved:
        started.set()
        assert finish.wait(60)
        return write(*arguments)

    monkeypatch.setattr(snapshot, "write", slow)
    await index.apply(CUBE, 2, adding(1, [1, 2]))
    assert await asyncio.to_thread(started.wait, 60)
    async with asyncio.timeout(60):
        await index.apply(CUBE, 2, adding(2, [3]))
        assert await hits(index, 2, "word") == {1, 2, 3}
    finish.set()
    await index.close()
    again = await opened(tmp_path)
    assert await again.indexed_revision(CUBE) == 2
    await again.close()


async def test_dropped_cubes_leave_nothing_behind_in_memory(tmp_path: Path) -> None:
    index = EmbeddedIndex(str(tmp_path))
    await index.open()
    for number in range(20):
        await index.apply(f"cube-{number}", 0, IndexBatch(0, 1, [], []))
        await index.drop(f"cube-{number}")
    assert not index._slots
    assert index._bytes == 0
    await index.close()
