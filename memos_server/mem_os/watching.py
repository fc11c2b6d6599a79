"""Where commits are announced: watchers and the index keeper wait here for a cube's next one."""

from __future__ import annotations

import asyncio


class Heads:
    """Wakes who waits for a cube's head to move. A wake-up is a hint: the record says what the head is."""

    def __init__(self) -> None:
        """Starts without waiters."""
        self._waiters: dict[str, set[asyncio.Event]] = {}

    def moved(self, cube_uid: str) -> None:
        """Wakes all who wait for the cube."""
        for event in self._waiters.get(cube_uid, ()):
            event.set()

    def moved_all(self) -> None:
        """Wakes everybody, as when the server drains."""
        for cube_uid in list(self._waiters):
            self.moved(cube_uid)

    def subscribe(self, cube_uid: str) -> asyncio.Event:
        """Returns an event that is set whenever the cube moves; clear it before reading the record."""
        event = asyncio.Event()
        self._waiters.setdefault(cube_uid, set()).add(event)
        return event

    def unsubscribe(self, cube_uid: str, event: asyncio.Event) -> None:
        """Ends a subscription."""
        waiters = self._waiters.get(cube_uid, set())
        waiters.discard(event)
        if not waiters:
            self._waiters.pop(cube_uid, None)


class AccessChanges:
    """Tells open streams that principals, tokens or grants changed."""

    def __init__(self) -> None:
        """Starts at generation 0."""
        self.generation = 0
        self._event = asyncio.Event()

    def changed(self) -> None:
        """Wakes all who wait for a change."""
        self.generation += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int) -> None:
        """Returns when there was a change after a generation: one made before the wait began is not missed."""
        while self.generation == seen:
            await self._event.wait()
