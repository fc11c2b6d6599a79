"""Snapshots over a read-committed database: each cube is pinned at its head when a unit of work first reads it.

Every version says from which revision on it is valid, and nothing that was written is changed but by erasure. So the
state at the pinned head can be read with as many statements as it takes, while others commit.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from neo4j import Bookmarks

from memos_server.graph_dbs.base import CommitRow, CubeRow
from memos_server.graph_dbs.neo4j.shapes import CUBE, HEAD, WHOLE, Held, OvertakenError, damaged, to_held
from memos_server.graph_dbs.neo4j.statements import Statements

BY_ID: Final = f"MATCH (u:Cube {{id: $id}}) {HEAD} RETURN {CUBE}, {WHOLE}"
BY_KEY: Final = f"MATCH (u:Cube {{key: $key}}) {HEAD} RETURN {CUBE}, {WHOLE}"
_LISTED: Final = f"""MATCH (u:Cube) WHERE u.key > $after WITH u ORDER BY u.key LIMIT $limit {HEAD}
    RETURN {CUBE}, {WHOLE} ORDER BY u.key"""
# Whoever has written the cube's node is alone in changing the cube until its transaction ends. Within the statement the
# write comes before every read of the node, as the operations manual asks for ("Locks and deadlocks", lost updates).
_LOCK_ID: Final = f"MATCH (u:Cube {{id: $id}}) SET u.locked = true {HEAD} RETURN {CUBE}, {WHOLE}"
_LOCK_KEY: Final = f"MATCH (u:Cube {{key: $key}}) SET u.locked = true {HEAD} RETURN {CUBE}, {WHOLE}"
_TRIES: Final = 5


class Pins:
    """The cubes that a unit of work has read, each as it was then."""

    def __init__(self, statements: Statements) -> None:
        """Reads through `statements`."""
        self._statements = statements
        self._by_key: dict[int, Held] = {}
        self._keys: dict[str, int | None] = {}

    def resume(self, helds: Iterable[Held]) -> None:
        """Goes on with cubes as another unit of work has pinned them."""
        for held in helds:
            self._pin(held)

    @property
    def pinned(self) -> Collection[Held]:
        """The cubes that are pinned."""
        return self._by_key.values()

    async def by_id(self, cube_id: str) -> CubeRow | None:
        """Returns a cube as it is, or as it was when the unit first read it."""
        if cube_id in self._keys:
            key = self._keys[cube_id]
            return self._by_key[key].row if key is not None else None
        held = await self._read(BY_ID, id=cube_id)
        if held is None or held.row is None:
            self._keys[cube_id] = None
            return None
        return self._pin(held).row

    async def head(self, cube: int) -> int:
        """Returns the revision at which a cube is read; 0 when there is none."""
        held = self._by_key.get(cube)
        if held is None:
            held = await self._read(BY_KEY, key=cube)
            if held is None:
                return 0
            self._pin(held)
        return held.revision

    async def after(self, after: int, limit: int) -> Sequence[CubeRow]:
        """Returns cubes with a key above `after`, in order."""
        for attempt in range(_TRIES):
            found = await self._statements.rows(_LISTED, after=after, limit=limit)
            read = [self._by_key.get(row[0]) or to_held(row) for row in found]
            held = [each for each in read if each is not None]
            if len(held) == len(found):
                return [row for each in held if (row := self._pin(each).row) is not None]
            await asyncio.sleep(0.005 * attempt)
        raise damaged("cubes")

    async def _read(self, query: str, **parameters: str | int) -> Held | None:
        for attempt in range(_TRIES):
            rows = await self._statements.rows(query, **parameters)
            if not rows:
                return None
            held = to_held(rows[0])
            if held is not None:
                return held
            # A commit is being applied, and part of it cannot be seen yet; the next statement waits for that.
            await asyncio.sleep(0.005 * attempt)
        raise damaged(f"cubes/{rows[0][1]}")

    def _pin(self, held: Held) -> Held:
        if held.row is None:
            return held
        self._keys[held.row.id] = held.row.key
        return self._by_key.setdefault(held.row.key, held)


class Moments:
    """What units of work have pinned, so that a later unit may go on at it: the last pin of each cube, of so many, with
    the bookmarks after which everything that it shows is there whole."""

    def __init__(self, most: int = 1024) -> None:
        """Keeps the pins of `most` cubes."""
        self._most = most
        self._kept: OrderedDict[int, tuple[Held, Bookmarks]] = OrderedDict()

    def note(self, pinned: Iterable[Held], bookmarks: Bookmarks) -> None:
        """Keeps the pins of a unit that has ended with these bookmarks."""
        for held in pinned:
            self._kept[held.key] = (held, bookmarks)
            self._kept.move_to_end(held.key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def of(self, cubes: Iterable[CubeRow]) -> tuple[list[Held], Bookmarks | None]:
        """Returns the pins of cubes, as far as there are any that are as new as these rows, and what to wait for."""
        found, after = [], None
        for cube in cubes:
            held, bookmarks = self._kept.get(cube.key, (None, None))
            if held is not None and bookmarks is not None and held.revision >= cube.revision:
                found.append(held)
                after = bookmarks if after is None else after + bookmarks
        return found, after


class LockedCubes(Pins):
    """The cubes of a writer: what it locks is seen as the writer has left it, and others as a reader sees them.

    Reading takes no lock: what a caller names may lie in a cube that it has no right to hold up.
    """

    def __init__(self, statements: Statements) -> None:
        """Reads through `statements`, those of the writer's transaction."""
        super().__init__(statements)
        self._locked: set[int] = set()

    async def lock(self, cube_id: str) -> CubeRow | None:
        """Returns a cube as it is now; its lock is held from then on."""
        key = self._keys.get(cube_id)
        if key is None or key not in self._locked:
            # What was read of it before may be older: who locks a cube reads what it depends on after that.
            held = await self._read(_LOCK_ID, id=cube_id)
            return None if held is None else self._take(held).row
        return await self.by_id(cube_id)

    async def by_id(self, cube_id: str) -> CubeRow | None:
        """Returns a cube: one that is locked as it is now, another as it was when the unit first read it."""
        key = self._keys.get(cube_id)
        if key is None:
            held = await self._read(BY_ID, id=cube_id)
            return None if held is None else self._pin(held).row
        held = self._by_key[key]
        if held.row is None and held.revision:
            held.row = await self._again(key)
        return held.row

    async def held(self, cube: int) -> Held | None:
        """Returns a cube that is to be changed, locked.

        Raises:
            OvertakenError: It has been read without its lock, and has changed since.
        """
        held = self._by_key.get(cube)
        if held is not None and cube in self._locked:
            return held
        read = await self._read(_LOCK_KEY, key=cube)
        if read is None:
            return None
        if held is not None and held.revision != read.revision:
            raise OvertakenError
        return self._take(read)

    def _take(self, held: Held) -> Held:
        self._by_key.pop(held.key, None)
        self._locked.add(held.key)
        return self._pin(held)

    async def after(self, after: int, limit: int) -> Sequence[CubeRow]:
        """Returns cubes with a key above `after`, in order: those of the writer as it left them, others as they are."""
        for held in self._by_key.values():
            if held.row is None and held.revision:
                held.row = await self._again(held.key)
        return await super().after(after, limit)

    def inserted(self, key: int, cube_id: str) -> None:
        """Notes a cube that the writer has made."""
        self._keys[cube_id] = key
        self._by_key[key] = Held(key, None, 0, 0, 0, 0)
        self._locked.add(key)

    def moved(self, cube: int, commit: CommitRow, items: int, versions: int, *, settings: bool) -> None:
        """Notes a commit of the writer.

        Args:
            cube: The cube's key.
            commit: The commit.
            items: How many items have been numbered.
            versions: How many versions have been numbered.
            settings: Whether it changed the settings.
        """
        held = self._by_key[cube]
        held.revision, held.items, held.versions = commit.revision, items, versions
        if settings:
            held.settings = commit.revision
        if settings or held.row is None:
            held.row = None
        else:
            held.row = held.row._replace(revision=commit.revision, head_digest=commit.digest, head_time=commit.time)

    async def _again(self, key: int) -> CubeRow | None:
        read = await self._read(BY_KEY, key=key)
        return None if read is None else read.row
