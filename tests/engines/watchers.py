"""Watchers: each follows a cube on one server, and goes on at another when that one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from memos_sdk.errors import MipError
from tests.engines.cluster import PATIENCE, Cluster
from tests.engines.history import LogEntry


@dataclass
class Watcher:
    """Follows a cube from its first commit on; the SDK itself raises on a gap (WATCH_GAP).

    Attributes:
        entries: The commits that came, in the order in which they came.
        moved: How often it went on at another server.
        errors: The errors that ended a watch, in words.
    """

    cluster: Cluster
    cube: str
    at: int
    entries: list[LogEntry] = field(default_factory=list)
    moved: int = 0
    errors: list[str] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch."""
        self._task = asyncio.create_task(self._run(), name=f"watch on {self.at}")

    async def _run(self) -> None:
        while True:
            cube = self.cluster.client(self.at).cube(self.cube)
            try:
                async for event in cube.watch(len(self.entries) + 1):
                    commit = event.commit
                    entry = LogEntry(commit.revision, commit.request_id, commit.digest, commit.parent_digest)
                    self.entries.append(entry)
            except MipError as error:
                self.errors.append(f"{error.code} {error}")
                self.at = (self.at + 1) % len(self.cluster.nodes)
                self.moved += 1
                await asyncio.sleep(0.2)

    async def caught_up(self, log: Sequence[LogEntry], timeout_s: float = 20.0) -> list[str]:
        """Waits until it has seen a whole log, ends it, and returns what was wrong; nothing when all was right."""
        assert self._task is not None
        for _ in range(int(timeout_s * PATIENCE / 0.1)):
            if len(self.entries) >= len(log) or self._task.done():
                break
            await asyncio.sleep(0.1)
        self._task.cancel()
        ended = (await asyncio.gather(self._task, return_exceptions=True))[0]
        if isinstance(ended, Exception):
            return [f"the watch on server {self.at} failed: {ended!r}"]
        if self.entries != list(log):
            seen = len(self.entries)
            return [f"the watch on server {self.at} saw {seen} of {len(log)} commits, or others: {self.errors[-3:]}"]
        return []
