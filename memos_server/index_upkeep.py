"""Making indexes anew, and telling how far they are: `memos index`.

Where record and index lie in engines this works beside the servers that use them: it is one more process over the same
ports. An index in the data folder belongs to the one server that runs there, and is made anew while none does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from memos_server import names
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.configs.backends import load_backend
from memos_server.configs.data_folder import DataFolder
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings
from memos_server.doctor_engines import ENGINES, is_shared
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, Reader, RecordStore
from memos_server.mem_os import index_batches
from memos_server.mem_os.indexing import IndexKeeper
from memos_server.memories.registry import MemoryTypes
from memos_server.vec_dbs.base import SearchIndex

_STEP: Final = 500
_WAIT_S: Final = 3600.0
"""How long the index of one cube may take, seconds."""


class Indexed(NamedTuple):
    """How far a cube's index is.

    Attributes:
        cube: The cube's name.
        revision: Its head's.
        indexed: The revision that the index has reached.
        problem: Why it has not reached the head; empty when it has, or was not brought up.
    """

    cube: str
    revision: int
    indexed: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The parts that this needs, opened.

    Attributes:
        store: The record.
        index: The index.
        keeper: Brings the one up to the other.
    """

    store: RecordStore
    index: SearchIndex
    keeper: IndexKeeper


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Upkeep]:
    """Opens record and index: beside running servers where both lie in engines, else with the data folder locked.

    Raises:
        SetupError: A server uses the data folder, there is none, or a backend cannot be used as it is set.
        MipError: The record is damaged, or an engine is away.
    """
    async with AsyncExitStack() as stack:
        folder = DataFolder(settings.data, settings.keys.folder)
        if not is_shared(settings):
            if not folder.path.exists():
                raise SetupError(f"{folder.path} does not exist.", "Name the server's data folder with --data.")
            stack.enter_context(folder)
        data = str(settings.data)
        store: RecordStore = load_backend(
            "memos.graph_dbs", settings.record.backend, data, port=RecordStore, **settings.record.config
        )
        stack.push_async_callback(store.close)
        await store.open()
        types = MemoryTypes.installed()
        index: SearchIndex = load_backend(
            "memos.vec_dbs", settings.index.backend, data, port=SearchIndex, **settings.index.config
        )
        stack.push_async_callback(index.close)
        version = index_batches.version_of(types, settings.index.backend)
        if settings.index.backend not in ENGINES and folder.index_version() != version:
            # As a server does at its start.
            folder.clear_index()
            folder.set_index_version(version)
        await index.open(version)
        keeper = IndexKeeper(store, index, types, wait_s=_WAIT_S)
        stack.push_async_callback(keeper.close)
        yield Upkeep(store, index, keeper)


async def cubes_of(upkeep: Upkeep, wanted: Sequence[str]) -> list[CubeRow]:
    """Returns cubes that have an index.

    Args:
        upkeep: The parts.
        wanted: Their names; none means all.

    Raises:
        MipError: CUBE_NOT_FOUND, CUBE_PURGED, INVALID_FIELD.
    """
    found: list[CubeRow] = []
    if wanted:
        for name in wanted:
            row = await upkeep.store.read(partial(_cube, cube_id=names.parse_cube(name)))
            if row is None:
                raise MipError("CUBE_NOT_FOUND", f"{name} does not exist")
            if row.settings.state == MEMORY_STATE_PURGED:
                raise MipError("CUBE_PURGED", f"{name} is purged, and has no index")
            found.append(row)
        return found
    after = 0
    while rows := await upkeep.store.read(partial(_page, after=after)):
        after = rows[-1].key
        found += [row for row in rows if row.settings.state != MEMORY_STATE_PURGED]
    return found


async def status(upkeep: Upkeep, wanted: Sequence[str]) -> list[Indexed]:
    """Returns how far the indexes of cubes are; brings up none.

    Raises:
        MipError: As in `cubes_of`; BACKEND_UNAVAILABLE when the index cannot be asked.
    """
    return [
        Indexed(names.cube_name(row.id), row.revision, await upkeep.index.indexed_revision(row.uid))
        for row in await cubes_of(upkeep, wanted)
    ]


async def rebuild(
    upkeep: Upkeep, wanted: Sequence[str], done: Callable[[Indexed], None] = lambda _: None
) -> list[Indexed]:
    """Makes the indexes of cubes anew, one after the other; nothing is embedded, the vectors are the record's.

    Searches of a cube say that it is stale until its index is there again. What is written meanwhile is indexed too.

    Args:
        upkeep: The parts.
        wanted: The names of the cubes; none means all.
        done: Told of each cube.

    Raises:
        MipError: As in `cubes_of`; BACKEND_UNAVAILABLE when the index cannot be dropped.
    """
    results = []
    for row in await cubes_of(upkeep, wanted):
        indexed = await upkeep.keeper.rebuild(row)
        why = upkeep.keeper.problems().get(row.uid, "not done in time") if indexed < row.revision else ""
        result = Indexed(names.cube_name(row.id), row.revision, indexed, why)
        done(result)
        results.append(result)
    return results


async def _cube(txn: Reader, cube_id: str) -> CubeRow | None:
    return await txn.cube(cube_id)


async def _page(txn: Reader, after: int) -> Sequence[CubeRow]:
    return await txn.cubes(after, _STEP)
