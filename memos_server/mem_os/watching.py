"""Where commits and changes of access are announced: watchers and open streams wait here.

A server hears of its own at once. Where other servers write to the record too, it asks the record for theirs, several
times a second and only while somebody waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from memos_server.graph_dbs.base import RecordStore

_LOG = logging.getLogger(__name__)


class Heads:
    """Wakes who waits for a cube's head to move. A wake-up is a hint: the record says what the head is."""

    def __init__(self) -> None:
        """Starts without waiters."""
        self._waiters: dict[str, set[asyncio.Event]] = {}

    def moved(self, cube_id: str) -> None:
        """Wakes all who wait for the cube."""
        for event in self._waiters.get(cube_id, ()):
            event.set()

    def moved_all(self) -> None:
        """Wakes everybody, as when the server drains."""
        for cube_id in list(self._waiters):
            self.moved(cube_id)

    def waited_for(self) -> Collection[str]:
        """Returns the ids of the cubes that somebody waits for."""
        return list(self._waiters)

    def subscribe(self, cube_id: str) -> asyncio.Event:
        """Returns an event that is set whenever the cube moves; clear it before reading the record."""
        event = asyncio.Event()
        self._waiters.setdefault(cube_id, set()).add(event)
        return event

    def unsubscribe(self, cube_id: str, event: asyncio.Event) -> None:
        """Ends a subscription."""
        waiters = self._waiters.get(cube_id, set())
        waiters.discard(event)
        if not waiters:
            self._waiters.pop(cube_id, None)


class AccessChanges:
    """Tells open streams that principals, tokens or grants changed."""

    def __init__(self) -> None:
        """Starts at generation 0."""
        self.generation = 0
        self.waiting = 0
        """How many wait."""
        self._event = asyncio.Event()

    def changed(self) -> None:
        """Wakes all who wait for a change."""
        self.generation += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int) -> None:
        """Returns when there was a change after a generation: one made before the wait began is not missed."""
        self.waiting += 1
        try:
            while self.generation == seen:
                await self._event.wait()
        finally:
            self.waiting -= 1


async def hear_of_others(store: RecordStore, heads: Heads, access: AccessChanges, poll_s: float) -> None:
    """Tells those who wait of what other servers wrote, until it is cancelled.

    Args:
        store: The record.
        heads: Who waits for commits.
        access: Who waits for changes of access.
        poll_s: How often the record is asked, seconds.
    """
    known: Mapping[str, int] = {}
    generation: int | None = None
    away = False
    while True:
        await asyncio.sleep(poll_s)
        cubes = heads.waited_for()
        if not cubes and not access.waiting:
            # Who begins to wait reads the record first: nothing before that is missed.
            known, generation = {}, None
            continue
        try:
            news = await store.news(cubes)
        except Exception as error:
            # Whatever it is, it passes; those who wait are told by their own reads.
            if not away:
                _LOG.warning("the record cannot be asked for what other servers wrote: %s", error)
            away = True
            continue
        away = False
        for cube in cubes:
            if news.heads.get(cube) != known.get(cube):
                heads.moved(cube)
        if news.access != generation:
            access.changed()
        known, generation = news.heads, news.access
