"""What follows a purge: erased bytes leave the index, the caches, the blob store and the record's files."""

from __future__ import annotations

import asyncio

from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, JobRow, Reader, Writer
from memos_server.mem_os.context import Mos, existing_cube
from memos_server.mem_scheduler.jobs import Progress

_TRIES = 200
_PAUSE_S = 0.1


async def compact(mos: Mos, job: JobRow, progress: Progress) -> None:
    """Erases purged bytes of a cube; doing it again changes nothing.

    Raises:
        MipError: BACKEND_UNAVAILABLE when a part could not be compacted now; the job is run again later.
    """

    async def read(txn: Reader) -> tuple[CubeRow, list[str]]:
        cube = await existing_cube(txn, job.cube_id, deleted=True)
        return cube, list(await txn.doomed_blobs(cube.key))

    cube, doomed = await mos.read(read)
    steps = len(doomed) + 2
    purged = cube.settings.state == MEMORY_STATE_PURGED
    if purged:
        # Nothing of a purged cube is ever found again.
        await mos.keeper.drop(cube.uid)
    elif await mos.keeper.caught_up(cube) < cube.revision:
        raise MipError("BACKEND_UNAVAILABLE", "the search index cannot be compacted now")
    for done, digest in enumerate(doomed, start=1):
        await _erase_blob(mos, cube, digest)
        await progress(done, steps)
    mos.embeddings.forget()
    if purged:
        await mos.blobs.drop_cube(cube.uid)
    for _ in range(_TRIES):
        if await mos.store.compact():
            await progress(steps, steps)
            return
        await asyncio.sleep(_PAUSE_S)
    raise MipError("BACKEND_UNAVAILABLE", "readers kept the record's log from being compacted")


async def _erase_blob(mos: Mos, cube: CubeRow, digest: str) -> None:
    async with mos.blob_lock(cube.uid):

        async def begin(txn: Writer) -> bool:
            return await txn.begin_erasing_blob(cube.key, digest)

        # It may have been uploaded again since the job began, and then it stays.
        if not await mos.store.write(begin):
            return
        await mos.blobs.delete(cube.uid, digest)

        async def forget(txn: Writer) -> None:
            await txn.delete_blob(cube.key, digest)

        await mos.store.write(forget)
