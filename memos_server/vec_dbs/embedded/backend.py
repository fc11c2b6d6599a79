"""The embedded search index as a backend: which cubes are in memory, when they are written, and on which thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from memos_server.telemetry.probing import try_folder
from memos_server.vec_dbs.base import IndexBatch, IndexEntry, IndexQuery, IndexResult
from memos_server.vec_dbs.embedded import snapshot
from memos_server.vec_dbs.embedded.cube_index import BatchRefusedError, CubeIndex
from memos_server.vec_dbs.embedded.locks import ReadWriteLock
from memos_server.vec_dbs.embedded.searching import CubeSearcher

_log = logging.getLogger(__name__)
_CUBE_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")

T = TypeVar("T")

_RETRY_S = 5.0
"""How long a cube is left alone after its snapshot could not be written, seconds; each further failure doubles it."""
_RETRY_MOST_S = 600.0
_CLOSING_S = 5.0
"""For how long closing begins to write further cubes, seconds: a thousand of them took 33."""


@dataclass(frozen=True, slots=True)
class EmbeddedConfig:
    """The backend's settings.

    Attributes:
        memory_budget_mb: The cubes that were not used for longest leave memory when all take more than this many MiB.
        threads: Threads that search and index.
        snapshot_changes: A snapshot is written after this many changes (versions, contents), but at least as many as a
            quarter of the cube's versions.
        k1: How slowly a term's weight saturates with its frequency (BM25).
        b: How much the length of a text counts against it, 0 to 1 (BM25).
    """

    memory_budget_mb: int = 2048
    threads: int = 2
    snapshot_changes: int = 5000
    k1: float = 0.9
    b: float = 0.4

    def __post_init__(self) -> None:
        """Checks the settings."""
        if self.memory_budget_mb < 1 or self.threads < 1 or self.snapshot_changes < 1:
            raise ValueError("memory_budget_mb, threads and snapshot_changes must be at least 1")
        if not (self.k1 >= 0.0 and 0.0 <= self.b <= 1.0):
            raise ValueError("k1 must not be negative and b must lie between 0 and 1")


class _Slot:
    """A cube's place: its index when it is in memory, and what lies on disk.

    `lock` guards the index; `saving` is held while files are written or removed, and taken before `lock`. A slot that
    is `gone` has left the table with the cube that was dropped; who holds it yet takes the cube's new one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = ReadWriteLock()
        self.saving = threading.RLock()
        self.cube: CubeIndex | None = None
        self.searcher: CubeSearcher | None = None
        self.saved = snapshot.Saved()
        self.changes = 0
        self.versions = 0
        self.queued = False
        self.used = 0
        self.bytes = 0
        self.failures = 0
        self.retry_at = 0.0
        self.gone = False


class EmbeddedIndex:
    """A SearchIndex in this process, with files below `data_dir/index/`."""

    name = "embedded"

    def __init__(self, data_dir: str, **config: Any) -> None:
        """Makes the backend.

        Args:
            data_dir: The data folder.
            config: The fields of EmbeddedConfig.

        Raises:
            TypeError: A setting is unknown.
            ValueError: A setting is out of range.
        """
        self._config = EmbeddedConfig(**config)
        self._root = Path(data_dir) / "index"
        self._slots: dict[str, _Slot] = {}
        self._table = threading.Lock()
        self._clock = count(1)
        self._bytes = 0
        self._workers: ThreadPoolExecutor | None = None
        self._saver: ThreadPoolExecutor | None = None

    async def open(self, version: str = "") -> None:
        """Makes the folder and starts the threads. A cube's files are read when it is first used; those of another
        version of what is indexed the server has removed.
        """
        del version
        self._workers = ThreadPoolExecutor(self._config.threads, thread_name_prefix="memos-index")
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="memos-index-save")
        await self._run(lambda: self._root.mkdir(mode=0o700, parents=True, exist_ok=True))

    async def close(self) -> None:
        """Writes what is not yet on disk, lets go of the cubes and ends the threads."""
        workers, saver = self._workers, self._saver
        if workers is None or saver is None:
            return
        await self._run(self._close_slots)
        self._workers = self._saver = None
        await asyncio.to_thread(workers.shutdown)
        await asyncio.to_thread(saver.shutdown)

    async def indexed_revision(self, cube_uid: str) -> int:
        """Returns the revision that the cube's index reflects, reading its files if they were not; 0 without any."""

        loaded = self._slot(cube_uid).cube
        if loaded is not None:
            # A batch sets the revision last, in one step: no need to wait for the lock, nor for a thread.
            return loaded.revision

        def work() -> int:
            with self._reading(cube_uid) as (_, cube, _):
                return cube.revision

        return await self._run(work)

    async def apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        """Brings the index to the batch's revision. When it erases, the files are rewritten before this returns."""
        await self._run(lambda: self._apply(cube_uid, dimension, batch))

    async def search(self, cube_uid: str, query: IndexQuery) -> IndexResult:
        """Returns the best candidates; the lexical channel's first, then those that only the vector channel found."""

        def work() -> IndexResult:
            with self._reading(cube_uid) as (_, _, searcher):
                return searcher.search(query)

        return await self._run(work)

    async def related(self, cube_uid: str, query: IndexQuery, uids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """Returns the memories that share an entity with others, for each of those."""

        def work() -> Mapping[str, Mapping[str, float]]:
            with self._reading(cube_uid) as (_, _, searcher):
                return searcher.related(query, uids)

        return await self._run(work)

    async def entries(self, cube_uid: str) -> tuple[int, Sequence[IndexEntry]]:
        """Returns the indexed revision and all versions."""

        def work() -> tuple[int, Sequence[IndexEntry]]:
            with self._reading(cube_uid) as (_, cube, _):
                return cube.revision, cube.entries()

        return await self._run(work)

    async def drop(self, cube_uid: str) -> None:
        """Erases the cube's index from memory and disk."""

        def work() -> None:
            slot = self._slot(cube_uid)
            with slot.saving, slot.lock.write():
                snapshot.erase(slot.folder)
                self._settle(slot, None, snapshot.Saved())
                with self._table:
                    slot.gone = self._slots.pop(cube_uid, slot) is slot

        await self._run(work)

    async def probe(self) -> None:
        """See SearchIndex: whether a snapshot could be written."""
        await asyncio.to_thread(try_folder, self._root)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._workers is None:
            raise RuntimeError("the index is not open")
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    def _slot(self, cube_uid: str) -> _Slot:
        if not _CUBE_UID.fullmatch(cube_uid):
            raise ValueError("a cube's uid must be letters, digits and hyphens, 64 at most")
        with self._table:
            slot = self._slots.get(cube_uid)
            if slot is None:
                slot = self._slots[cube_uid] = _Slot(self._root / cube_uid)
            slot.used = next(self._clock)
            return slot

    def _settle(self, slot: _Slot, cube: CubeIndex | None, saved: snapshot.Saved) -> None:
        """Puts an index, or none, into a slot whose lock is held for writing."""
        slot.cube = cube
        slot.searcher = None if cube is None else CubeSearcher(cube, self._config.k1, self._config.b)
        slot.saved = saved
        slot.changes = 0
        slot.versions = 0 if cube is None else len(cube.versions.item)
        self._account(slot, 0 if cube is None else cube.nbytes)

    def _account(self, slot: _Slot, size: int) -> None:
        with self._table:
            self._bytes += size - slot.bytes
            slot.bytes = size

    def _load(self, slot: _Slot) -> bool:
        """Reads a cube's files into its slot, unless it is in memory already; damaged files are dropped."""
        with slot.saving, slot.lock.write():
            if slot.cube is not None or slot.gone:
                return False
            try:
                found = snapshot.read(slot.folder)
            except snapshot.SnapshotDamagedError as error:
                _log.warning("The search index of cube %s is dropped and will be rebuilt: %s", slot.folder.name, error)
                snapshot.erase(slot.folder)
                found = None
            self._settle(slot, *(found or (CubeIndex(), snapshot.Saved())))
            return True

    @contextmanager
    def _reading(self, cube_uid: str) -> Iterator[tuple[_Slot, CubeIndex, CubeSearcher]]:
        """Holds a cube's index for reading, in memory."""
        slot = self._slot(cube_uid)
        loaded = False
        while True:
            with slot.lock.read():
                if slot.cube is not None and slot.searcher is not None:
                    yield slot, slot.cube, slot.searcher
                    break
            loaded = self._load(slot) or loaded
            if slot.gone:
                slot = self._slot(cube_uid)
        if loaded:
            self._keep_budget(slot)

    def _apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        erased = None
        while erased is None:
            slot = self._slot(cube_uid)
            with slot.saving if batch.erased else contextlib.nullcontext():
                while erased is None and not slot.gone:
                    if slot.cube is None:
                        self._load(slot)
                    with slot.lock.write():
                        if slot.cube is not None:
                            erased = self._change(slot, slot.cube, dimension, batch)
                if erased:
                    self._rewrite(slot)
        with self._table:
            many = slot.changes > max(self._config.snapshot_changes, slot.versions // 4)
            due = many and not slot.queued and time.monotonic() >= slot.retry_at
            slot.queued = slot.queued or due
        if due:
            self._submit(lambda: self._save_queued(slot))
        self._keep_budget(slot)

    def _change(self, slot: _Slot, cube: CubeIndex, dimension: int, batch: IndexBatch) -> bool:
        """Applies a batch to an index whose lock is held for writing; returns whether it erased a content."""
        before = cube.revision
        try:
            erased = cube.apply(dimension, batch)
        except BatchRefusedError:
            raise
        except BaseException:
            # Half of the batch may be in: from here on the index is what lies on disk, and the log replays the rest.
            self._settle(slot, None, slot.saved)
            raise
        if slot.searcher is not None:
            slot.searcher.forget()
        if cube.revision != before:
            # A batch without versions still moves the revision, which only a snapshot keeps.
            slot.changes += max(1, len(batch.versions) + len(batch.contents) + len(batch.erased))
        slot.versions = len(cube.versions.item)
        self._account(slot, cube.nbytes)
        return erased

    def _rewrite(self, slot: _Slot) -> None:
        """Makes erased content leave the files; `saving` is held. Without files there is nothing to do."""
        if not slot.folder.exists():
            return
        try:
            self._save(slot)
        except OSError as error:
            _log.warning(
                "The search index of cube %s leaves the disk, it cannot be rewritten: %s", slot.folder.name, error
            )
            snapshot.erase(slot.folder)
            slot.saved = snapshot.Saved()

    def _save(self, slot: _Slot) -> None:
        """Writes a snapshot of a cube; `saving` is held. Searches and batches go on while the files are written."""
        with slot.lock.read():
            if slot.cube is None or not slot.changes:
                return
            cube, taken, changes = slot.cube, snapshot.capture(slot.cube), slot.changes
        try:
            saved = snapshot.write(slot.folder, taken, slot.saved)
        except OSError:
            # A full disk stays full for a while, and each try writes all of the cube.
            slot.failures += 1
            slot.retry_at = time.monotonic() + min(_RETRY_S * 2 ** (slot.failures - 1), _RETRY_MOST_S)
            raise
        slot.failures, slot.retry_at = 0, 0.0
        with slot.lock.write():
            slot.saved = saved
            if slot.cube is cube:
                slot.changes -= changes

    def _save_queued(self, slot: _Slot) -> None:
        slot.queued = False
        with slot.saving:
            self._save(slot)

    def _submit(self, work: Callable[[], None]) -> None:
        if self._saver is not None:
            self._saver.submit(work).add_done_callback(_report)

    def _keep_budget(self, kept: _Slot) -> None:
        """Lets the cubes that were not used for longest leave memory while all take more than the budget."""
        budget = self._config.memory_budget_mb << 20
        if self._bytes <= budget:
            return
        with self._table:
            loaded = sorted((slot for slot in self._slots.values() if slot.bytes), key=lambda slot: slot.used)
        total = sum(slot.bytes for slot in loaded)
        for slot in loaded:
            if total <= budget:
                break
            # One that could not be written stays in memory until it is tried again.
            if slot is not kept and time.monotonic() >= slot.retry_at:
                total -= slot.bytes
                self._submit(partial(self._evict, slot))

    def _evict(self, slot: _Slot) -> None:
        with slot.saving:
            self._save(slot)
            with slot.lock.write():
                # A change since then keeps the cube in memory; the next one tries again.
                if not slot.changes:
                    self._settle(slot, None, slot.saved)

    def _close_slots(self) -> None:
        # A snapshot is synced file by file. What does not fit the time is replayed from the log when it is needed, so
        # the cubes with the most to replay come first.
        enough = time.monotonic() + _CLOSING_S
        for slot in sorted(self._slots.values(), key=lambda slot: -slot.changes):
            with slot.saving:
                try:
                    if time.monotonic() < enough:
                        self._save(slot)
                except OSError as error:
                    _log.warning("The search index of cube %s is not saved: %s", slot.folder.name, error)
                with slot.lock.write():
                    self._settle(slot, None, slot.saved)


def _report(done: Future[None]) -> None:
    """Logs why a snapshot was not written; the log of commits replays what it would have held."""
    error = done.exception()
    if error is not None:
        _log.warning("A snapshot of a search index was not written: %s", error)
