"""Which blobs of a cube a caller knows: knowing a digest is no right to the bytes.

A blob is known to who sees a memory that names it, and to who has uploaded its bytes to the cube: only who has them can
do that. One that no memory names yet is known to all who may write. For everybody else it is not there: it cannot be
read, found present, or named by a memory in order to be read through that memory.
"""

from __future__ import annotations

from collections.abc import Iterable

from memos_server.graph_dbs.base import CubeRow, Reader
from memos_server.mem_os.access import WRITER
from memos_server.mem_os.context import Call


async def known_blobs(txn: Reader, call: Call, cube: CubeRow, digests: Iterable[str]) -> dict[str, int]:
    """Returns digest -> size of those blobs that the cube holds and the caller knows."""
    held = await txn.blobs(cube.key, digests)
    view = call.view(cube.id)
    if view.full or not held:
        return dict(held)
    proven = await txn.blobs_proven(cube.key, held, call.principal)
    known = {}
    for digest, size in held.items():
        users = [] if digest in proven else await txn.blob_users(cube.key, digest)
        seen = any(view.sees(version) for version in users) if users else view.rank >= WRITER
        if digest in proven or seen:
            known[digest] = size
    return known
