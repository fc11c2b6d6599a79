"""The index keeper: brings each cube's search index up to its log, and asks it.

The log is the outbox. After every commit a task replays what the index has not seen, idempotently; a search first waits
until the index has reached the head that it found, so it sees every write acknowledged before it. When that takes too
long, the search goes on at the index's revision and says so.

An index that cannot be brought up to the log counts as broken until it can. It is dropped and made anew only where it
is itself at fault: a disk or a backend that is away, and a record that cannot be read, say nothing against it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

from memos_server.errors import MipError
from memos_server.graph_dbs.base import OPEN, CubeRow, Kind, Reader, RecordStore
from memos_server.mem_os.access import CubeView
from memos_server.mem_os.index_batches import Added, Batches, Handed
from memos_server.mem_os.index_faults import IndexFaultError, is_away, of_index
from memos_server.memories.registry import MemoryTypes
from memos_server.telemetry.calls import step
from memos_server.vec_dbs.base import (
    IndexBatch,
    IndexEntry,
    IndexQuery,
    IndexResult,
    Predicate,
    SearchIndex,
)

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_PAUSE_S = 0.025
"""How long the index lets commits gather when nobody waits for it, seconds: catching up costs more by the time than by
the commit."""
_INLINE = 16
"""Up to how many texts are analysed on the event loop."""
_SHARED_TRIES = 5
"""How often an index that another server changes at the same time is continued before it is made anew."""
_RETRY_S = 1.0
"""How long an index that could not be written is left alone, seconds."""


class IndexKeeper:
    """Keeps the indexes of all cubes."""

    def __init__(self, store: RecordStore, index: SearchIndex, types: MemoryTypes, *, wait_s: float = 10.0) -> None:
        """Keeps `index` up to `store`.

        Args:
            store: The record.
            index: The backend.
            types: The memory types, which say what of a payload is indexed.
            wait_s: How long a search waits for the index, seconds.
        """
        self._store = store
        self._index = index
        self._batches = Batches(types)
        self._handed = Handed()
        self._wanted: dict[str, int] = {}
        self._wait_s = wait_s
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: dict[str, asyncio.Task[int]] = {}
        self._soon: dict[str, asyncio.TimerHandle] = {}
        self._behind: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._failed: dict[str, float] = {}
        self._closing = False

    async def close(self) -> None:
        """Ends the running tasks; what they did not finish is replayed at the next start."""
        self._closing = True
        for soon in self._soon.values():
            soon.cancel()
        self._soon.clear()
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def moved(self, cube_id: str, cube_uid: str, revision: int, added: Added | None = None) -> None:
        """Catches up soon after a commit; a search does not wait for it, but has it done at once.

        Args:
            cube_id: The cube.
            cube_uid: Its uid.
            revision: The commit's revision.
            added: The commit itself, where it only added memories, so that it need not be read back.
        """
        self._wants(cube_uid, revision)
        if added is not None and not self._closing:
            self._handed.put(cube_uid, added)
        if cube_uid not in self._soon and not self._closing:
            loop = asyncio.get_running_loop()
            self._soon[cube_uid] = loop.call_later(_PAUSE_S, self._start, cube_id, cube_uid)

    def broken(self, cube_uid: str) -> bool:
        """Returns whether the index of a cube cannot be brought up to its log now."""
        return cube_uid in self._broken

    def problems(self) -> Mapping[str, str]:
        """Returns cube uid -> why its index cannot be brought up to the log."""
        return dict(self._broken)

    def behind(self) -> Mapping[str, str]:
        """Returns cube uid -> cube id of the indexes that are being brought up to the log, or cannot be.

        An index that nothing asked for since the server started may be behind too; the first search or write finds out.
        """
        return dict(self._behind)

    async def caught_up(self, cube: CubeRow) -> int:
        """Waits, within the limit, until the index has reached a cube's head; returns the revision it has reached.

        It is 0 too while the index cannot be asked; the cube then counts as broken.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                indexed = await self.indexed_revision(cube.uid)
        except TimeoutError:
            return 0
        if indexed >= cube.revision:
            if cube.uid in self._broken and self._may_try(cube.uid) and not self._closing:
                # It may only have been away; nobody waits for the proof.
                self._start(cube.id, cube.uid)
            return indexed
        self._wants(cube.uid, cube.revision)
        try:
            with step("index.wait"):
                async with asyncio.timeout(self._wait_s):
                    while indexed < cube.revision and self._may_try(cube.uid) and not self._closing:
                        indexed = await asyncio.shield(self._start(cube.id, cube.uid))
        except Exception:
            # Out of time, or the index cannot be brought up, which the task has logged and `broken` tells.
            indexed = await self.indexed_revision(cube.uid)
        return indexed

    def _wants(self, cube_uid: str, revision: int) -> None:
        self._wanted[cube_uid] = max(revision, self._wanted.get(cube_uid, 0))

    def _may_try(self, cube_uid: str) -> bool:
        """Returns whether an index can be brought up as far as is known, or was left alone for long enough."""
        return cube_uid not in self._broken or time.monotonic() - self._failed[cube_uid] >= _RETRY_S

    def _not_later(self, cube_uid: str) -> None:
        if (soon := self._soon.pop(cube_uid, None)) is not None:
            soon.cancel()

    def _start(self, cube_id: str, cube_uid: str) -> asyncio.Task[int]:
        self._not_later(cube_uid)
        task = self._tasks.get(cube_uid)
        if task is None or task.done():
            task = asyncio.create_task(self._catch_up(cube_id, cube_uid), name=f"index {cube_uid}")
            self._tasks[cube_uid] = task
            self._behind[cube_uid] = cube_id
            task.add_done_callback(lambda ended: self._ended(cube_id, cube_uid, ended))
        return task

    def _ended(self, cube_id: str, cube_uid: str, task: asyncio.Task[int]) -> None:
        if self._tasks.get(cube_uid) is task:
            del self._tasks[cube_uid]
            self._wanted.pop(cube_uid, None)
            if cube_uid not in self._broken:
                self._behind.pop(cube_uid, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            trace = None if isinstance(error, MipError) else error
            _LOG.error("index of cubes/%s cannot be brought up to its log: %s", cube_id, error, exc_info=trace)

    async def _catch_up(self, cube_id: str, cube_uid: str) -> int:
        async with self._locks.setdefault(cube_uid, asyncio.Lock()):
            try:
                indexed = await self._continued(cube_id, cube_uid)
            except Exception as error:
                self._broken[cube_uid] = str(error)
                self._failed[cube_uid] = time.monotonic()
                raise
            self._broken.pop(cube_uid, None)
            self._failed.pop(cube_uid, None)
            return indexed

    async def _continued(self, cube_id: str, cube_uid: str) -> int:
        """Replays what the index has not seen. The index is derived: what cannot be continued is made anew, once."""
        for _ in range(_SHARED_TRIES):
            began = await of_index(self._index.indexed_revision(cube_uid))
            try:
                return await self._replay(cube_id, cube_uid, began)
            except IndexFaultError as error:
                now = await of_index(self._index.indexed_revision(cube_uid))
                if now == began:
                    _LOG.error("index of cubes/%s cannot be continued and is made anew", cube_id, exc_info=error)
                    break
                # Another server dropped it or went on with it meanwhile: what it does is not to be dropped again.
        await self._index.drop(cube_uid)
        return await self._replay(cube_id, cube_uid, 0)

    async def _replay(self, cube_id: str, cube_uid: str, indexed: int) -> int:
        while True:
            found = await self._next(cube_id, cube_uid, indexed)
            if found is None:
                return indexed
            dimension, batch = found
            await of_index(self._index.apply(cube_uid, dimension, batch))
            indexed = batch.to_revision

    async def _next(self, cube_id: str, cube_uid: str, after: int) -> tuple[int, IndexBatch] | None:
        """Returns the dimension and the next batch after a revision; None when the index knows all that is known."""
        handed = self._handed.after(cube_uid, after)
        if handed:
            if sum(len(commit.memories) for commit in handed) <= _INLINE:
                return self._batches.of_added(after, handed)
            # Analysing a thousand texts would hold the event loop for a tenth of a second.
            return await asyncio.to_thread(self._batches.of_added, after, handed)
        if after >= self._wanted.get(cube_uid, OPEN):
            return None
        return await self._store.read(lambda txn: self._batches.of_log(txn, cube_id, after))

    async def search(self, cube: CubeRow, query: IndexQuery) -> IndexResult:
        """Asks the index of a cube. An index whose files were lost since it was asked for its revision is made anew.

        Raises:
            MipError: BACKEND_UNAVAILABLE when the index cannot be asked now.
        """
        if await self.indexed_revision(cube.uid) < query.revision:
            await self.caught_up(cube)
        with step("index.search"):
            return await self._asked(cube, query, partial(self._index.search, cube.uid, query))

    async def related(self, cube: CubeRow, query: IndexQuery, uids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """Returns the visible memories that share an entity with others.

        Raises:
            MipError: BACKEND_UNAVAILABLE when the index cannot be asked now.
        """
        return await self._asked(cube, query, partial(self._index.related, cube.uid, query, uids))

    async def _asked(self, cube: CubeRow, query: IndexQuery, ask: Callable[[], Awaitable[T]]) -> T:
        """Returns the index's answer to a query."""
        try:
            try:
                return await ask()
            except ValueError:
                # It may have been dropped since it was asked for its revision; otherwise asking again fails again.
                if await self.indexed_revision(cube.uid) >= query.revision:
                    return await ask()
                raise MipError("BACKEND_UNAVAILABLE", "the search index is being made anew") from None
        except Exception as error:
            if isinstance(error, MipError) or not is_away(error):
                raise
            raise MipError("BACKEND_UNAVAILABLE", "the search index cannot be read now") from error

    async def matching(self, cube: CubeRow, view: CubeView, where: Predicate, limit: int) -> list[str] | None:
        """Returns the uids of visible memories for which a predicate holds, newest first.

        None means that the index cannot tell now, as it has not caught up with the log or cannot be asked.
        """
        if await self.caught_up(cube) < cube.revision:
            return None
        granted = await self.granted_uids(cube, view)
        query = IndexQuery(cube.revision, where, view.level, granted, depth=limit)
        try:
            return [candidate.uid for candidate in (await self.search(cube, query)).candidates]
        except MipError as error:
            if error.reason != "BACKEND_UNAVAILABLE":
                raise
            return None

    async def granted_uids(self, cube: CubeRow, view: CubeView) -> dict[str, int]:
        """Returns a view's grants on single memories by uid, as the index knows them."""
        if not view.granted:
            return {}

        async def read(txn: Reader) -> dict[str, int]:
            found = await txn.versions(cube.key, Kind.MEMORY, view.granted)
            return {version.uid: view.granted[id_] for id_, version in found.items()}

        return await self._store.read(read)

    async def rebuild(self, cube: CubeRow) -> int:
        """Drops a cube's index, makes it anew from the log, and returns the revision that it has reached."""
        await self.drop(cube.uid)
        return await self.caught_up(cube)

    async def drop(self, cube_uid: str) -> None:
        """Drops a cube's index, in memory and on disk; a search would make it anew."""
        self._not_later(cube_uid)
        self._handed.forget(cube_uid)
        async with self._locks.setdefault(cube_uid, asyncio.Lock()):
            await self._index.drop(cube_uid)
        self._broken.pop(cube_uid, None)
        self._failed.pop(cube_uid, None)
        if cube_uid not in self._tasks:
            # A failed one has left it there, and there may never be another: nobody asks for a purged cube's.
            self._behind.pop(cube_uid, None)

    async def entries(self, cube: CubeRow) -> tuple[int, Sequence[IndexEntry]]:
        """Returns the revision that a cube's index has reached and what it holds of every version, for VerifyCube."""
        return await self._index.entries(cube.uid)

    async def indexed_revision(self, cube_uid: str) -> int:
        """Returns the revision that a cube's index has reached; 0 while it cannot be asked, too."""
        try:
            return await self._index.indexed_revision(cube_uid)
        except Exception:
            # Whatever it is, bringing the index up meets it as well, and tells.
            _LOG.debug("the index of the cube %s cannot be asked", cube_uid, exc_info=True)
            return 0
