"""What a cube holds beside its log, compared with it: the search index, and the bytes of the blobs."""

from __future__ import annotations

from collections.abc import Mapping

from memos_server import names
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, Kind, Reader, Version
from memos_server.mem_os.context import Mos
from memos_server.mem_os.verify_replay import Replay, resource_of

_STEP = 1000


async def compare_index(mos: Mos, cube: CubeRow, indexed: int, replay: Replay) -> None:
    """Compares the index with the record at the revision that the index reflects."""
    held = dict(await mos.keeper.contents(cube, indexed))

    async def compare(txn: Reader) -> None:
        after = -1
        while rows := await txn.list_versions(cube.key, Kind.MEMORY, after, _STEP, indexed, with_content=False):
            after = rows[-1].item
            vectors = await txn.vectors([version.content for version in rows if version.content is not None])
            for version in rows:
                _compare_entry(cube, version, vectors, held.pop(version.uid, None), replay)

    await mos.read(compare)
    for uid in sorted(held):
        replay.found("index", names.cube_name(cube.id), indexed, f"the index holds {uid}, the record does not")


def _compare_entry(
    cube: CubeRow,
    version: Version,
    vectors: Mapping[int, bytes],
    held: tuple[int, bytes | None, int, bool] | None,
    replay: Replay,
) -> None:
    resource = names.memory_name(cube.id, version.id)
    purged = version.current_state == MEMORY_STATE_PURGED
    key = version.commitment if version.commitment and not purged else None
    expected = (version.from_revision, key, version.state, version.content in vectors and not purged)
    if held is None and purged:
        return
    if held is None:
        replay.found("index", resource, version.from_revision, "the index lacks the memory")
    elif (held[0], None if purged else held[1], held[2], held[3] and not purged) != expected:
        replay.found("index", resource, version.from_revision, "the index holds another version of the memory")


async def compare_blobs(mos: Mos, cube: CubeRow, replay: Replay) -> None:
    """Reads every blob that the cube holds: its bytes must have the size and the digest that the log names."""
    after = ""
    while True:

        async def held(txn: Reader, after: str = after) -> list[tuple[str, int]]:
            return list(await txn.cube_blobs(cube.key, after, _STEP))

        rows = await mos.read(held)
        if not rows:
            return
        for digest, size in rows:
            after = digest
            flaw = await _blob_flaw(mos, cube, digest, size, replay)
            if flaw and await _still_held(mos, cube, digest):
                name, revision, _ = replay.blobs.get(digest, (f"blobs/{digest}", 0, 0))
                replay.found("blob", resource_of(cube, name), revision, flaw)


async def _blob_flaw(mos: Mos, cube: CubeRow, digest: str, size: int, replay: Replay) -> str:
    named = replay.blobs.get(digest)
    if named is not None and named[2] not in (0, size):
        return "the size noted for a blob is not the one that the memory names"
    count = 0
    try:
        async for piece in mos.blobs.read(cube.uid, digest):
            count += len(piece)
    except MipError as error:
        if error.reason not in ("BLOB_NOT_FOUND", "DATA_CORRUPT", "INVALID_FIELD"):
            raise
        return "the bytes of a blob are missing or do not have its digest"
    return "" if count == size else "the bytes of a blob do not have the noted size"


async def _still_held(mos: Mos, cube: CubeRow, digest: str) -> bool:
    """Returns whether a blob is held now: a purge may have erased it while it was being read."""

    async def read(txn: Reader) -> bool:
        return digest in await txn.blobs(cube.key, [digest])

    return await mos.read(read)
