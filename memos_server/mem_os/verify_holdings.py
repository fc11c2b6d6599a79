"""What a cube holds beside its log, compared with it: the search index, and the bytes of the blobs."""

from __future__ import annotations

import hashlib

from memos_server import names
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.errors import MipError
from memos_server.graph_dbs.base import OPEN, CubeRow, Reader, Version
from memos_server.mem_os.context import Mos
from memos_server.mem_os.verify_state import Replay, resource_of

_STEP = 1000

INDEX_AWAY = "the index cannot be asked now and was not compared"
"""What is found of a cube whose index is away; it says nothing against it."""

BLOBS_AWAY = "the blob store cannot be asked now and the blobs were not compared"
"""What is found of a cube while the blob store is away."""


async def ask_index(mos: Mos, cube: CubeRow, replay: Replay) -> None:
    """Notes what the index holds, for `compare_entry`; that it cannot be asked is a finding."""
    await mos.keeper.caught_up(cube)
    try:
        replay.indexed, entries = await mos.keeper.entries(cube)
    except MipError as error:
        if error.reason != "BACKEND_UNAVAILABLE":
            raise
        replay.found("index", names.cube_name(cube.id), 0, INDEX_AWAY)
        return
    replay.entries = {(entry.uid, entry.from_revision): entry for entry in entries}


def compare_entry(version: Version, vector: bytes | None, resource: str, replay: Replay) -> None:
    """Compares a version of a memory with the index's entry of it.

    Args:
        version: The stored version, with content.
        vector: Its content's vector as the record has it, float32 little-endian; None without one.
        resource: The memory's name.
        replay: The verification.
    """
    entry = replay.entries.pop((version.uid, version.from_revision), None)
    if version.from_revision > replay.indexed:
        return

    def wrong(kind: str, message: str) -> None:
        replay.found(kind, resource, version.from_revision, message)

    if entry is None:
        wrong("index", "the index lacks the memory")
        return
    until = version.to_revision if version.to_revision <= replay.indexed else OPEN
    if (entry.to_revision, entry.state, entry.sensitivity) != (until, version.state, version.sensitivity):
        wrong("index", "the index holds another version of the memory")
    purged = version.current_state == MEMORY_STATE_PURGED
    if purged and version.current_revision > replay.indexed:
        # The purge came after the index was asked; what it holds since then is compacted with it.
        return
    kept = bool(version.payload) and not purged
    if entry.content != (version.commitment if kept else None):
        wrong("index", "the index holds another content of the memory")
    elif bool(entry.vector) != (kept and vector is not None):
        wrong("index", "record and index do not both hold a vector of the memory")
    elif entry.vector and entry.vector != hashlib.sha256(vector or b"").digest():
        wrong("content", "the vector in the record is not the one in the index: one of them was edited")


def compare_rest(cube: CubeRow, replay: Replay) -> None:
    """Names what the index holds and the log does not."""
    if replay.indexed > cube.revision:
        message = f"the index has seen revision {replay.indexed}, which the log does not have: its tail was cut off"
        replay.found("head", names.cube_name(cube.id), replay.indexed, message)
    known = {item.uid: name for name, item in replay.items.items()}
    for uid, revision in sorted(replay.entries):
        if revision <= cube.revision:
            resource = resource_of(cube, known.get(uid, ""))
            replay.found("index", resource, revision, "the index holds a version that the log does not")


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
            try:
                flaw = await _blob_flaw(mos, cube, digest, size, replay)
            except MipError as error:
                if error.reason != "BACKEND_UNAVAILABLE":
                    raise
                # The others cannot be read either, and what was found so far holds.
                replay.found("blob", names.cube_name(cube.id), 0, BLOBS_AWAY)
                return
            if flaw and await _still_held(mos, cube, digest):
                name, revision, _ = replay.blobs.get(digest, (f"blobs/{digest}", 0, 0))
                replay.found("blob", resource_of(cube, name), revision, flaw)


async def _blob_flaw(mos: Mos, cube: CubeRow, digest: str, size: int, replay: Replay) -> str:
    named = replay.blobs.get(digest)
    if named is not None and named[2] not in (0, size):
        return "the size noted for a blob is not the one that the memory names"
    try:
        if await mos.blobs.size(cube.uid, digest) not in (size, None):
            # Before any byte of it is read: a file that has grown may have no end.
            return "the bytes of a blob do not have the noted size"
        async for _ in mos.blobs.read(cube.uid, digest):
            pass
    except MipError as error:
        if error.reason not in ("BLOB_NOT_FOUND", "DATA_CORRUPT", "INVALID_FIELD"):
            raise
        return "the bytes of a blob are missing or do not have its digest"
    return ""


async def _still_held(mos: Mos, cube: CubeRow, digest: str) -> bool:
    """Returns whether a blob is held now: a purge may have erased it while it was being read."""

    async def read(txn: Reader) -> bool:
        return digest in await txn.blobs(cube.key, [digest])

    return await mos.read(read)
