"""Where commits and changes of access are announced: watchers and open streams wait here.

A server hears of its own at once. Where other servers write to the record too, it asks the record for theirs, several
times a second while somebody waits, and now and then for what they erased, which its caches must forget.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from memos_server.graph_dbs.base import News, RecordStore

_LOG = logging.getLogger(__name__)
IDLE_S = 5.0
"""How often the record is asked while nobody waits, seconds."""


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


async def hear_of_others(
    store: RecordStore, heads: Heads, access: AccessChanges, forget: Callable[[], None], poll_s: float
) -> None:
    """Tells those who wait of what other servers wrote, until it is cancelled.

    Args:
        store: The record.
        heads: Who waits for commits.
        access: Who waits for changes of access.
        forget: Empties the caches that may hold what was erased.
        poll_s: How often the record is asked while somebody waits, seconds; else every IDLE_S.
    """
    known: News | None = None
    asked = -IDLE_S
    away = False
    while True:
        await asyncio.sleep(poll_s)
        cubes = heads.waited_for()
        if not cubes and not access.waiting and time.monotonic() - asked < IDLE_S:
            continue
        asked = time.monotonic()
        try:
            news = await store.news(cubes)
        except Exception as error:
            # Whatever it is, it passes; those who wait are told by their own reads.
            if not away:
                _LOG.warning("the record cannot be asked for what other servers wrote: %s", error)
            away = True
            continue
        away = False
        # Who begins to wait reads the record first, and may be woken once for nothing.
        for cube in cubes:
            if known is None or news.heads.get(cube) != known.heads.get(cube):
                heads.moved(cube)
        if known is None or news.access != known.access:
            access.changed()
        if known is None or news.erased != known.erased:
            forget()
        known = news
