"""Filling the index of a migration's target from its record, for who wants to wait: a server would do it by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.configs.backends import load_backend
from memos_server.graph_dbs.base import CubeRow, Reader
from memos_server.mem_os import index_batches
from memos_server.mem_os.indexing import IndexKeeper
from memos_server.memories.registry import MemoryTypes
from memos_server.migrate_sides import Side
from memos_server.vec_dbs.base import SearchIndex

_CUBES: Final = 500
_WAIT_S: Final = 3600.0
"""How long the index of one cube may take, seconds."""
_AT_ONCE: Final = 4
_TRIES: Final = 10
_PAUSE_S: Final = 1.5
"""How often, and after what time, an index that could not be brought up is tried again."""


async def fill(side: Side, progress: Callable[[int], None]) -> list[str]:
    """Brings the index of every cube up to its log; nothing is embedded, the vectors are the record's.

    Args:
        side: The side whose record is complete.
        progress: Called with a number of cubes that are done.

    Returns:
        What could not be brought up, in words.

    Raises:
        SetupError: The index backend is not there, or its settings are wrong.
        MipError: The record or the index is away.
    """
    settings = side.settings
    async with AsyncExitStack() as stack:
        types = MemoryTypes.installed()
        index: SearchIndex = load_backend(
            "memos.vec_dbs", settings.index.backend, str(settings.data), port=SearchIndex, **settings.index.config
        )
        stack.push_async_callback(index.close)
        version = index_batches.version_of(types, settings.index.backend)
        if side.folder.index_version() != version:
            # As a server does at its start.
            side.folder.clear_index()
            side.folder.set_index_version(version)
        await index.open(version)
        keeper = IndexKeeper(side.store, index, types, wait_s=_WAIT_S)
        stack.push_async_callback(keeper.close)
        behind: list[str] = []
        after = 0
        while True:

            async def step(txn: Reader, after: int = after) -> Sequence[CubeRow]:
                return await txn.cubes(after, _CUBES)

            rows = await side.store.read(step)
            if not rows:
                return behind
            after = rows[-1].key
            gate = asyncio.Semaphore(_AT_ONCE)

            async def one(row: CubeRow, gate: asyncio.Semaphore = gate) -> None:
                async with gate:
                    # Nothing of a purged cube is ever found again.
                    purged = row.settings.state == MEMORY_STATE_PURGED
                    reached = row.revision if purged else await keeper.caught_up(row)
                    for _ in range(_TRIES):
                        if reached >= row.revision:
                            break
                        # What an index that has just begun refuses may pass, as a server that searches would find.
                        await asyncio.sleep(_PAUSE_S)
                        reached = await keeper.caught_up(row)
                    if reached < row.revision:
                        why = keeper.problems().get(row.uid, "not done in time")
                        behind.append(f"the index of cubes/{row.id} is at {reached} of {row.revision}: {why}")
                    progress(1)

            await asyncio.gather(*map(one, rows))
