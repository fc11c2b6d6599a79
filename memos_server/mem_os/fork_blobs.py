"""The blobs of a fork: copied before its commit, and taken back when there is no commit, also after a crash.

A commit names no blob that is not durable, so the bytes come first. Until the commit nothing but a job knows of them:
it is recorded before the first byte and ends in the transaction that makes the cube.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_PENDING
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, JobRow, Writer
from memos_server.mem_cube.log import now_us
from memos_server.mem_os.context import Call, Mos
from memos_server.mem_os.purging import order_compaction
from memos_server.mem_scheduler.jobs import Held, Progress

FORK: Final = "fork"
"""The kind of the job that takes the copied bytes back."""

# No cube has this id. The job is about a cube that may never be, whose name the source's readers may not know: it is
# nobody's to list or to name.
_NO_CUBE = ""

# The part of what is free that copies leave to all others who write.
_ROOM = 0.1


@dataclasses.dataclass(slots=True)
class Copied:
    """Blobs that were copied for a cube to be.

    Attributes:
        sizes: digest -> size.
        lost: Digests that the source did not hold any more.
        held: The job that takes the bytes back; None when there are none.
    """

    sizes: dict[str, int]
    lost: set[str]
    held: Held | None = None

    async def keep(self, txn: Writer, call: Call, cube: CubeRow, named: Collection[str]) -> bool:
        """Makes those blobs that memories of the fork name its own, in the transaction that makes it. What no memory
        names any more was purged meanwhile, and is erased; returns whether there is any.

        Raises:
            MipError: BLOB_NOT_FOUND when the bytes of a named blob are gone; BACKEND_UNAVAILABLE when the copying took
                so long that the bytes may be gone.
        """
        if lost := sorted(self.lost.intersection(named)):
            raise MipError("BLOB_NOT_FOUND", f"the bytes of {lost[0]} are not there", metadata={"digest": lost[0]})
        if self.held is None:
            return False
        await self.held.finish(txn)
        unnamed = False
        for digest, size in self.sizes.items():
            await txn.put_blob(cube.key, digest, size, now_us())
            if digest not in named:
                await txn.doom_blob(cube.key, digest)
                unnamed = True
        if unnamed:
            await order_compaction(txn, call, cube, 1)
        return unnamed


@asynccontextmanager
async def copied(
    mos: Mos, call: Call, source_uid: str, uid: str, blobs: dict[str, int], total: int
) -> AsyncIterator[Copied]:
    """Copies blobs to a cube to be, and takes them back unless `Copied.keep` has made them the cube's.

    Args:
        mos: The server.
        call: The call.
        source_uid: The uid of the cube that holds them.
        uid: The uid of the cube to be.
        blobs: digest -> size, bytes.
        total: The sum of the sizes.

    Raises:
        MipError: STORAGE_FULL when there is no room, before anything is copied.
    """
    copies = Copied({}, set())
    if not blobs:
        yield copies
        return
    room = await mos.blobs.free()
    if room is not None and total > room * (1 - _ROOM):
        raise MipError("STORAGE_FULL", f"The blobs of the fork have {total} bytes, for which there is no room")
    now = now_us()
    job = JobRow(_NO_CUBE, uid, FORK, JOB_STATE_PENDING, call.principal, now, now)
    async with mos.jobs.holding(job) as copies.held:
        for digest, size in blobs.items():
            try:
                await _copy(mos, source_uid, uid, digest, size)
            except MipError as error:
                if error.reason != "BLOB_NOT_FOUND":
                    raise
                # Purged meanwhile, or lost: the fork's transaction tells.
                copies.lost.add(digest)
            else:
                copies.sizes[digest] = size
        yield copies


async def take_back(mos: Mos, job: JobRow, progress: Progress) -> None:
    """Erases all bytes that were copied for a cube that was not made; doing it again changes nothing."""
    await mos.blobs.drop_cube(job.id)


async def _copy(mos: Mos, source_uid: str, target_uid: str, digest: str, size: int) -> None:
    offset = 0
    async for piece in mos.blobs.read(source_uid, digest):
        await mos.blobs.append(target_uid, digest, offset, piece)
        offset += len(piece)
    await mos.blobs.finish(target_uid, digest, size)
