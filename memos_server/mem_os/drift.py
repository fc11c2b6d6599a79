"""Drift: how far indexes are behind their logs, also those of cubes that nobody asks for.

A search or a write brings its cube's index up; one that a server left behind when it died stays so until somebody asks
for it. The sweep looks at all cubes, one after the other and slowly, compares each head with what the index has seen,
and has the keeper bring up what is behind. After an index was lost as a whole this fills it at a bounded rate.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.graph_dbs.base import CubeRow, Reader, RecordStore
from memos_server.mem_os.indexing import IndexKeeper
from memos_server.telemetry.drift import IndexDrift

_LOG = logging.getLogger(__name__)

CUBES_PER_S: Final = 20.0
"""How many cubes are looked at in a second, at most."""
PAUSE_S: Final = 60.0
"""How long after a sweep the next one begins, seconds."""
GRACE_S: Final = 1.0
"""How long an index may be behind before it counts, seconds: a cube that is being written to always is, a little."""

_STEP: Final = 100
_GIVE_UP: Final = 3
"""After how many cubes in a row that cannot be brought up the sweep ends: it is the index as a whole then."""


class DriftSweep:
    """Looks at the indexes of all cubes, again and again."""

    def __init__(
        self,
        store: RecordStore,
        keeper: IndexKeeper,
        works: Callable[[], bool],
        *,
        cubes_per_s: float = CUBES_PER_S,
        pause_s: float = PAUSE_S,
        grace_s: float = GRACE_S,
    ) -> None:
        """Prepares; `run` begins.

        Args:
            store: The record.
            keeper: Brings indexes up.
            works: Returns whether record and index answer, as far as is known; while they do not, nothing is looked at.
            cubes_per_s: The most cubes in a second.
            pause_s: The pause between sweeps, seconds.
            grace_s: How long an index may be behind before it counts, seconds.
        """
        self._store = store
        self._keeper = keeper
        self._works = works
        self._between_s = 1 / cubes_per_s
        self._pause_s = pause_s
        self._grace_s = grace_s
        self._last = IndexDrift()

    def drift(self) -> IndexDrift:
        """Returns what the last sweep found, and how many indexes are broken now."""
        return self._last._replace(broken=len(self._keeper.problems()))

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            # Servers that were started together do not sweep together.
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            if not self._works():
                continue
            try:
                await self.sweep()
            except Exception as error:
                # The record is away, or whatever else passes; the next sweep meets it again if it does not.
                _LOG.warning("the indexes could not be compared with their logs now", exc_info=error)

    async def sweep(self) -> bool:
        """Looks at every cube once; False when it was given up because the index does not work."""
        began = time.monotonic()
        cubes = behind = worst = failed = 0
        after = 0
        while rows := await self._store.read(partial(_page, after=after)):
            after = rows[-1].key
            for row in rows:
                await asyncio.sleep(self._between_s)
                if row.settings.state == MEMORY_STATE_PURGED:
                    continue
                cubes += 1
                distance = await self._distance(row)
                if distance:
                    behind += 1
                    worst = max(worst, distance)
                # One that was broken and is level now is being tried again, which nobody waits for.
                failed = failed + 1 if distance and self._keeper.broken(row.uid) else 0
                if failed >= _GIVE_UP or not self._works():
                    return False
        self._last = IndexDrift(0, cubes, behind, worst, time.monotonic() - began, time.time())
        return True

    async def _distance(self, row: CubeRow) -> int:
        """Returns how many commits a cube's index was behind, and has it brought up."""
        indexed = await self._keeper.indexed_revision(row.uid)
        if indexed < row.revision:
            await asyncio.sleep(self._grace_s)
            indexed = await self._keeper.indexed_revision(row.uid)
        if indexed > row.revision:
            return await self._beyond(row, indexed)
        if indexed >= row.revision and not self._keeper.broken(row.uid):
            return 0
        await self._keeper.caught_up(row)
        return max(row.revision - indexed, 0)

    async def _beyond(self, row: CubeRow, indexed: int) -> int:
        """Makes an index anew that has seen commits which the record does not have: the record was restored, and what
        is written to it now would be taken for seen."""

        async def cube(txn: Reader) -> CubeRow | None:
            return await txn.cube(row.id)

        now = await self._store.read(cube)
        if now is None or indexed <= now.revision:
            return 0
        _LOG.warning(
            "the index of cubes/%s has seen revision %d, the record is at %d; it is made anew, as after a restore",
            row.id,
            indexed,
            now.revision,
        )
        await self._keeper.drop(row.uid)
        await self._keeper.caught_up(now)
        return indexed - now.revision


async def _page(txn: Reader, after: int) -> Sequence[CubeRow]:
    return await txn.cubes(after, _STEP)
