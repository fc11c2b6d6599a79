"""One batch on its way into a cube's index: what is there is read, what is missing written, and all of it read back.

`writing.py` says why a search sees all of it or nothing, and how several servers may do this at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from weaviate.classes.query import Filter, Sort

from memos_server.errors import MipError
from memos_server.vec_dbs.base import OPEN, IndexBatch, IndexContent
from memos_server.vec_dbs.weaviate import filters
from memos_server.vec_dbs.weaviate.connection import MissingError, NoCollectionError, TooLargeError
from memos_server.vec_dbs.weaviate.heads import NONE, Cells, Head, count
from memos_server.vec_dbs.weaviate.reading import MOST
from memos_server.vec_dbs.weaviate.rows import CONTENT, FULL, HIDDEN, LIGHT, Row, made, object_id, parked, token
from memos_server.vec_dbs.weaviate.tenants import Place

if TYPE_CHECKING:
    from memos_server.vec_dbs.weaviate.writing import Writer

T = TypeVar("T")

_MEMORIES = 500
"""How many memories are brought up at once."""
_WHOLE = 100
"""How many versions are read at once with all that they say: texts of 256 KiB fit into one message of gRPC."""
_CONTENTS = 20
"""The versions of how many contents are, of which each may have several."""
_TRIES = 4
_LOOK_S = 0.25
"""How often it is looked whether another server gets on, seconds."""
_STILL_S = 6.0
"""For how long nothing must have changed before another server is taken for dead, seconds: longer than one that lives
is kept from writing by a slow disk or a pause."""


class MovedOnError(Exception):
    """Another server brought the head into the midst of the batch: what comes next depends on it."""


class Application:
    """One batch on its way into the index.

    Attributes:
        passed_by: Another server did what this one then left undone.
        emptied: Objects are emptied that were not written again yet.
    """

    def __init__(self, writer: Writer, cube_uid: str, head: Head, dimension: int, batch: IndexBatch) -> None:
        self._writer = writer
        self._cube = cube_uid
        self._head = head
        self._dimension = dimension
        self._batch = batch
        self._place: Place = (writer.collections.memories(dimension), cube_uid)
        self._cells: Cells = dict(head.cells)
        self._erased = frozenset(batch.erased)
        self._again = False
        self._alone = False
        self._wrote = False
        self.passed_by = False
        self.emptied = False
        self._new: dict[str, list[Row]] = {}
        self._parked: list[Row] = []

    async def run(self) -> None:
        writer, head, batch = self._writer, self._head, self._batch
        if head.dimension != self._dimension or not head.revision:
            # The tenant itself is made by the first write.
            await writer.collections.make_memories(self._dimension)
        if head.revision and head.dimension != self._dimension:
            await self._move()
        await self._resolve()
        uids = list(self._new)
        try:
            for at in range(0, len(uids), _MEMORIES):
                await self._settle(uids[at : at + _MEMORIES])
                if self.passed_by:
                    break
        except MovedOnError:
            if self._wrote:
                await self._mend_all(uids)
            raise
        if self.passed_by and not self._wrote:
            # Another server did it all while this one waited for it.
            return
        if self._parked and not self.passed_by:
            await self._write(self._parked)
        if batch.erased:
            await self._erase()
        if self._again and batch.erased:
            self._cells = await self._counted()
        now = await writer.heads.read(self._cube)
        if now.revision >= batch.to_revision:
            # Another server was here too, and further. What of its work this one may have undone is set right.
            await self._mend_all(uids)
            return
        if now.revision < head.revision or self.passed_by:
            raise ValueError("the index was dropped while a batch was applied")
        new = sum(map(len, self._new.values()))
        after = Head(
            revision=batch.to_revision,
            dimension=self._dimension,
            objects=head.objects + new,
            erased=batch.to_revision if batch.erased else head.erased,
            cells=self._cells,
            # A cube that moved was written anew as a whole.
            marks=(head if head.dimension == self._dimension else NONE).marked(batch.to_revision),
        )
        if await writer.tenants.objects(self._place) < after.objects:
            raise ValueError("the index was dropped while a batch was applied, or has lost objects")
        await writer.heads.write(self._cube, after)
        if head.revision and head.dimension != self._dimension:
            await writer.tenants.remove(writer.collections.memories(head.dimension), self._cube)

    async def _move(self) -> None:
        """Copies a cube that had no vectors yet to the collection of those with them."""
        old = (self._writer.collections.memories(self._head.dimension), self._cube)
        try:
            async for page in self._writer.reader.pages(old, FULL, vectors=True):
                await self._write(page)
        except MissingError:
            now = await self._writer.heads.read(self._cube)
            if (now.revision, now.dimension) != (self._head.revision, self._head.dimension):
                # Another server moved it, or dropped it.
                raise MovedOnError from None
            if not self._head.objects:
                # It never held any, and so has no tenant.
                return
            await self._writer.heads.remove(self._cube)
            raise ValueError("the index has lost a cube's objects") from None

    async def _write(self, rows: Sequence[Row], *, empty: bool = False) -> None:
        self._wrote |= bool(rows)
        self.emptied |= empty and bool(rows)
        await self._writer.write(self._cube, self._place, rows, empty=empty)

    async def _resolve(self) -> None:
        """Makes the new versions, with the contents that they name."""
        batch, revision = self._batch, self._head.revision
        given: dict[bytes, IndexContent | Row] = {content.key: content for content in batch.contents}
        named = {version.content for version in batch.versions if version.content is not None}
        fresh = [version for version in batch.versions if version.from_revision > revision]
        wanted = {v.content for v in fresh if v.content is not None and v.content not in given}
        for row in await self._holding(wanted, FULL, vectors=True):
            if row.content is not None:
                given[row.content] = row
        if any(version.content not in given for version in fresh if version.content is not None):
            raise ValueError("a version names a content that is not in the index")
        for version in fresh:
            content = None
            if version.content is not None and version.content not in self._erased:
                content = given[version.content]
            rows = self._new.setdefault(version.uid, [])
            rows[:] = [row for row in rows if row.since != version.from_revision]
            rows.append(made(version, content))
        self._parked = [
            parked(content)
            for content in batch.contents
            if content.key not in named and content.key not in self._erased
        ]

    async def _holding(self, keys: Collection[bytes], properties: Sequence[str], *, vectors: bool = False) -> list[Row]:
        """Returns the versions, and parked contents, that hold contents."""
        found: list[Row] = []
        waiting = iter(sorted(keys))

        async def read(keys: Sequence[bytes]) -> list[Row]:
            where = filters.has(*(token(CONTENT, key.hex()) for key in keys))
            try:
                return await self._writer.reader.found(self._place, where, properties, vectors=vectors)
            except TooLargeError:
                if len(keys) > 1:
                    raise
            # Many versions of one memory have it.
            rows = await self._writer.reader.found(self._place, where, LIGHT)
            ids = [object_id(self._cube, row.uid or keys[0].hex(), row.since) for row in rows]
            return await self._by_ids(ids, properties, vectors=vectors)

        while chunk := list(islice(waiting, _CONTENTS)):
            try:
                found += await _halved(chunk, read)
            except NoCollectionError:
                raise
            except MissingError:
                break
        return found

    async def _settle(self, uids: Sequence[str]) -> None:
        """Writes what memories need until what is read back is what they should be."""
        for attempt in range(_TRIES):
            have = await self._have(uids, older=self._relabelled if attempt else None)
            if not attempt:
                begun = self._begun(have)
                if begun:
                    if await self._overtaken():
                        return
                    # It may have written more before it died.
                    have = await self._have(uids, older=None)
                self._tally(uids, have)
                older = self._relabelled = [uid for uid in uids if self._label_changes(have.get(uid, {}), uid)]
                if older:
                    have = await self._have(uids, older=older)
                if begun:
                    await self._distrust(have)
            wrong = [row for uid in uids for row in planned(have.get(uid, {}), self._new[uid])]
            if not wrong:
                self.emptied = False
                return
            if attempt:
                # What is there, but in no index, would be taken for unchanged when it is written again.
                lost = [row for row in wrong if row.since not in have.get(row.uid, {})]
                await self._write(lost, empty=True)
            await self._write(await self._whole(wrong))
        raise MipError(
            "BACKEND_UNAVAILABLE",
            "Weaviate reported objects as written that it does not have; raise its limit of open files, or lower "
            "active_tenants of the index",
        )

    def _begun(self, have: Mapping[str, Mapping[int, Row]]) -> bool:
        """Returns whether some of the batch is there already."""
        low, high = self._head.revision, self._batch.to_revision
        return any(
            low < row.since <= high or low < row.until <= high for rows in have.values() for row in rows.values()
        )

    async def _overtaken(self) -> bool:
        """Waits for another server that seems to apply the batch, and returns whether it did.

        When nothing more happens it is dead, or this Weaviate was, and what it left cannot be trusted: Weaviate writes
        an object and each of its indexes one after the other.

        Raises:
            MovedOnError: The index is at another revision than it was. What was written up to there is live now.
        """
        head = await self._writer.heads.read(self._cube)
        if not self._alone:
            seen, since = (-1, NONE.revision), time.monotonic()
            # Of several servers that wait for the same dead one, one takes over and the others wait for that.
            patience = _STILL_S * random.uniform(1.0, 1.5)  # noqa: S311
            while head.revision == self._head.revision and time.monotonic() - since < patience:
                await asyncio.sleep(_LOOK_S)
                objects, head = await asyncio.gather(
                    self._writer.tenants.objects(self._place), self._writer.heads.read(self._cube)
                )
                if (objects, head.revision) != seen:
                    seen, since = (objects, head.revision), time.monotonic()
        if head.revision >= self._batch.to_revision:
            self.passed_by = True
            return True
        if head.revision != self._head.revision:
            raise MovedOnError
        self._alone = True
        return False

    async def _distrust(self, have: dict[str, dict[int, Row]]) -> None:
        """Has everything of the batch that is there written anew, into every index."""
        low, high = self._head.revision, self._batch.to_revision
        fresh, closed = [], []
        for rows in have.values():
            for row in list(rows.values()):
                if low < row.since <= high and not row.erased:
                    fresh.append(rows.pop(row.since))
                elif row.since <= low < row.until <= high:
                    row.until = OPEN
                    closed.append(row)
        await self._write(fresh, empty=True)
        # These are seen at the revision before: they stay in every index but that of their ends.
        await self._write(await self._whole(closed))

    _relabelled: Sequence[str] = ()

    def _label_changes(self, have: Mapping[int, Row], uid: str) -> bool:
        """Returns whether a memory's newest version has another label than the one before the batch."""
        before = [row for row in have.values() if row.since <= self._head.revision]
        newest = max([*have.values(), *self._new[uid]], key=lambda row: row.since)
        return bool(before) and max(before, key=lambda row: row.since).label != newest.label

    async def _have(self, uids: Sequence[str], older: Sequence[str] | None) -> dict[str, dict[int, Row]]:
        """Returns uid -> from_revision -> the versions that are there and were not closed by the head's revision.

        Args:
            uids: The memories.
            older: Those of which all versions are returned.
        """
        closed = Filter.by_property("to_revision").less_or_equal(self._head.revision)
        try:
            rows = await self._many(uids, filters.opposite(closed))
            if older:
                rows += await self._many(older, closed)
        except NoCollectionError:
            raise
        except MissingError:
            rows = []
        found: dict[str, dict[int, Row]] = {}
        for row in rows:
            found.setdefault(row.uid, {})[row.since] = row
        return found

    async def _many(self, uids: Sequence[str], where: Any) -> list[Row]:
        """Returns versions of memories, however many there are."""
        asked = filters.every([filters.memories(uids), where])
        rows = await self._writer.reader.found(self._place, asked, LIGHT)
        if len(rows) < MOST:
            return rows
        if len(uids) > 1:
            half = len(uids) // 2
            return await self._many(uids[:half], where) + await self._many(uids[half:], where)
        found: list[Row] = []
        last = -1
        while True:
            after = Filter.by_property("from_revision").greater_than(last)
            order = Sort.by_property("from_revision")
            page = await self._writer.reader.found(self._place, filters.every([asked, after]), LIGHT, sort=order)
            if not page:
                return found
            found += page
            last = page[-1].since

    async def _whole(self, rows: Sequence[Row]) -> list[Row]:
        """Returns versions as they are to be written, with what they contain."""
        ids = [object_id(self._cube, row.uid, row.since) for row in rows if row.partial]
        known = {(row.uid, row.since): row for row in await self._by_ids(ids, FULL, vectors=True)}
        whole = [row for row in rows if not row.partial]
        for row in rows:
            # One that is gone meanwhile, or erased, is found by the next reading.
            full = known.get((row.uid, row.since)) if row.partial else None
            if full is not None and full.content == row.content:
                full.until, full.level = row.until, row.level
                whole.append(full)
        return whole

    async def _by_ids(self, ids: Sequence[Any], properties: Sequence[str], *, vectors: bool) -> list[Row]:
        """Returns the objects that are there of these."""

        async def read(chunk: Sequence[Any]) -> list[Row]:
            where = Filter.by_id().contains_any(list(chunk))
            return await self._writer.reader.found(self._place, where, properties, vectors=vectors)

        found: list[Row] = []
        for at in range(0, len(ids), _WHOLE):
            found += await _halved(ids[at : at + _WHOLE], read)
        return found

    def _tally(self, uids: Sequence[str], have: Mapping[str, Mapping[int, Row]]) -> None:
        """Brings the counts from the head to the end of the batch."""
        revision, end = self._head.revision, self._batch.to_revision
        for uid in uids:
            rows = have.get(uid, {})
            for row in rows.values():
                self._again |= row.erased > revision or revision < row.since <= end
            before = [row for row in rows.values() if row.since <= revision]
            if before and (last := max(before, key=lambda row: row.since)).content is not None:
                count(self._cells, last, -1)
            newest = max(self._new[uid], key=lambda row: row.since)
            if newest.content is not None:
                count(self._cells, newest, 1)

    async def _erase(self) -> None:
        """Takes the erased contents out of every version that has them."""
        end = self._batch.to_revision
        for _ in range(_TRIES):
            rows = await self._holding(self._erased, FULL)
            if not rows:
                return
            ids = [object_id(self._cube, row.content.hex(), row.since) for row in rows if not row.uid and row.content]
            if ids:
                await self._writer.delete(self._place, ids)
            left = [row for row in rows if row.uid]
            for row in left:
                if row.current(end) and row.uid not in self._new:
                    count(self._cells, row, -1)
                row.erase(end)
            await self._write(left)
        raise MipError("BACKEND_UNAVAILABLE", "Weaviate keeps contents that were erased; see its log")

    async def _mend_all(self, uids: Sequence[str]) -> None:
        for at in range(0, len(uids), _MEMORIES):
            await self._mend(uids[at : at + _MEMORIES])

    async def _mend(self, uids: Sequence[str]) -> None:
        """Sets right what the writes of this batch may have undone of a later one's."""
        for _ in range(_TRIES):
            have = await self._have(uids, older=uids)
            wrong, purged = [], []
            for uid in uids:
                rows = have.get(uid, {})
                wrong += planned(rows, ())
                if rows and rows[max(rows)].content is None and not rows[max(rows)].erased:
                    # The memory was purged since, and its contents with it.
                    purged += [row for row in rows.values() if row.content is not None]
            if not wrong and not purged:
                return
            whole = await self._whole([*wrong, *(row for row in purged if row not in wrong)])
            for row in whole:
                if any(row.uid == each.uid and row.since == each.since for each in purged):
                    row.erase(self._batch.to_revision)
            await self._write(whole)
        raise MipError("BACKEND_UNAVAILABLE", "several servers index a cube at once; it is tried again")

    async def _counted(self) -> Cells:
        """Counts everything anew: a crash left part of this batch, and what it erased cannot be told from the rest."""
        cells: Cells = {}
        async for page in self._writer.reader.pages(self._place, LIGHT):
            for row in page:
                if row.content is not None and row.current(self._batch.to_revision):
                    count(cells, row, 1)
        return cells


async def _halved(items: Sequence[T], read: Callable[[Sequence[T]], Awaitable[list[Row]]]) -> list[Row]:
    """Reads what belongs to items, in halves when that is too large for one message."""
    try:
        return await read(items)
    except TooLargeError:
        if len(items) < 2:
            raise
    half = len(items) // 2
    return await _halved(items[:half], read) + await _halved(items[half:], read)


def planned(have: Mapping[int, Row], new: Sequence[Row]) -> list[Row]:
    """Returns the versions of one memory that must be written.

    A version ends where the next begins, and is seen from the stricter of its own label and the newest one's on.

    Args:
        have: from_revision -> the versions that are in the index, as far as they matter.
        new: Those that should be, too.
    """
    wanted = dict(have)
    for row in new:
        there = have.get(row.since)
        if there is None or (there.content != row.content and not there.erased):
            wanted[row.since] = row
    order = sorted(wanted)
    wrong = []
    for place, since in enumerate(order):
        row = wanted[since]
        until = order[place + 1] if place + 1 < len(order) else OPEN
        level = HIDDEN if row.content is None else max(row.label, wanted[order[-1]].label)
        if row is not have.get(since) or (row.until, row.level) != (until, level):
            row.until, row.level = until, level
            wrong.append(row)
    return wrong
