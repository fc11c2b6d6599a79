"""Copying what lies beside the logs: principals, grants, tokens, requests, the audit trail, jobs, and blobs' bytes.

These rows change and go away, so each kind is made equal: what the target lacks or has otherwise is put, and what the
source has no more is dropped. Doing it again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Final

from memos_server.blob_stores.base import BlobStore
from memos_server.errors import MipError
from memos_server.graph_dbs.base import PrincipalRow, Reader, RecordStore, Writer
from memos_server.graph_dbs.moving import LooseKey, LooseRow, MovingStore, Table, before_all, key_of
from memos_server.migrate_logs import heads, patiently

_STEP: Final = 1000
_GRANTS: Final = 500
"""How many grants are written in one transaction."""

_EQUALLED: Final = (Table.REQUESTS, Table.REVOKED_TOKENS, Table.JOBS, Table.BLOBS, Table.BLOB_PROOFS)

_OF_CUBES: Final = (Table.BLOBS, Table.BLOB_PROOFS)
"""The tables of which a store takes no row of a cube that it has not."""

_LATE: Final = 3600 * 1_000_000 << 10
"""How far back audit events are looked at again: an hour, as a store of many servers numbers them. One that numbers
them one by one has so few that this is from the beginning."""

DIGESTED: Final = (*_EQUALLED, Table.AUDIT_EVENTS)
"""The tables whose rows are the same on both sides, keys included."""


async def pages(store: MovingStore, table: Table, after: LooseKey | None = None) -> AsyncIterator[Sequence[LooseRow]]:
    """Yields a table's rows in pages.

    Args:
        store: The record.
        table: The table.
        after: The key of the row to go on behind; None begins with the first.
    """
    reached = before_all(table) if after is None else after
    while rows := await patiently(partial(store.loose_rows, table, reached, _STEP)):
        yield rows
        reached = key_of(table, rows[-1])


async def principals(store: RecordStore) -> list[PrincipalRow]:
    """Returns all principals in order of creation."""
    found: list[PrincipalRow] = []
    after = 0
    while True:

        async def step(txn: Reader, after: int = after) -> Sequence[PrincipalRow]:
            return await txn.principals(after, _STEP)

        rows = await patiently(partial(store.read, step))
        if not rows:
            return found
        found += rows
        after = rows[-1].key


async def equal_rows(source: MovingStore, target: MovingStore, *, last: bool) -> None:
    """Makes all rows beside the logs of the target those of the source.

    Args:
        source: The source's record.
        target: The target's.
        last: Whether nobody writes to the source, so that all cubes that rows name exist in the target. Otherwise, rows
            of cubes that it does not have yet, and audit events that are late, are left to the last pass.

    Raises:
        MipError: A side is away, full or damaged.
    """
    cubes = None if last else {head.id for head in await heads(target)}
    await _equal_principals(source, target)
    await _equal_grants(source, target)
    if last:
        await _equal_table(source, target, Table.AUDIT_EVENTS)
    else:
        await _add_audit(source, target)
    for table in _EQUALLED:
        await _equal_table(source, target, table, cubes if table in _OF_CUBES else None)


async def _equal_principals(source: MovingStore, target: MovingStore) -> None:
    # None is ever removed, and a disabled one stays so with its first time.
    here = {row.id: row for row in await principals(target)}
    for start in range(0, len(rows := await principals(source)), _GRANTS):
        some = rows[start : start + _GRANTS]

        async def write(txn: Writer, some: Sequence[PrincipalRow] = some) -> None:
            for row in some:
                if await txn.principal(row.id) is None:
                    await txn.put_principal(row.id, row.display_name, row.created)
                if row.disabled:
                    await txn.disable_principal(row.id, row.disabled)

        if any(row.id not in here or row.disabled != here[row.id].disabled for row in some):
            await patiently(partial(target.write, write))


async def grants(store: MovingStore) -> list[LooseRow]:
    """Returns all grants in order of creation: principal, resource, role, max_sensitivity, updated."""
    return [row[1:] async for page in pages(store, Table.GRANTS) for row in page]


async def _equal_grants(source: MovingStore, target: MovingStore) -> None:
    ours, theirs = await grants(source), await grants(target)
    # They are listed in order of creation, so from the first one that is another on, they are made anew.
    same = 0
    while same < min(len(ours), len(theirs)) and ours[same][:2] == theirs[same][:2]:
        same += 1
    changed = [new for new, old in zip(ours[:same], theirs[:same], strict=True) if new != old]
    steps: list[tuple[bool, LooseRow]] = [(False, row) for row in theirs[same:]]
    steps += [(True, row) for row in [*changed, *ours[same:]]]
    for start in range(0, len(steps), _GRANTS):

        async def write(txn: Writer, some: Sequence[tuple[bool, LooseRow]] = steps[start : start + _GRANTS]) -> None:
            for kept, (principal, resource, role, level, updated) in some:
                if kept:
                    await txn.put_grant(str(principal), str(resource), int(role), int(level), int(updated))
                else:
                    await txn.delete_grant(str(principal), str(resource))

        await patiently(partial(target.write, write))


async def _add_audit(source: MovingStore, target: MovingStore) -> None:
    # Events are only ever added, so the target's last one says where to go on; but where many servers write, one can
    # become visible after others with higher numbers, so that those shortly before it are looked at again.
    last = max(await _last_event(target) - _LATE, 0)
    await _put_table(source, target, Table.AUDIT_EVENTS, after=(last,))


async def _last_event(store: MovingStore) -> int:
    async def read(txn: Reader) -> int:
        rows = await txn.audit_events("", 2**62, 1)
        return rows[0].sequence if rows else 0

    return await patiently(partial(store.read, read))


async def _put_table(
    source: MovingStore,
    target: MovingStore,
    table: Table,
    *,
    after: LooseKey | None = None,
    cubes: Set[str] | None = None,
) -> None:
    async for page in pages(source, table, after):
        wanted = page if cubes is None else [row for row in page if row[0] in cubes]
        there = await _by_key(target, table, wanted)
        if changed := [row for row in wanted if there.get(key_of(table, row)) != row]:
            await patiently(partial(target.put_loose_rows, table, changed))


async def _equal_table(source: MovingStore, target: MovingStore, table: Table, cubes: Set[str] | None = None) -> None:
    await _put_table(source, target, table, cubes=cubes)
    async for page in pages(target, table):
        here = await _by_key(source, table, page)
        if gone := [key_of(table, row) for row in page if key_of(table, row) not in here]:
            await patiently(partial(target.drop_loose_rows, table, gone))


async def _by_key(store: MovingStore, table: Table, rows: Sequence[LooseRow]) -> Mapping[LooseKey, LooseRow]:
    keys = [key_of(table, row) for row in rows]
    found = await patiently(partial(store.loose_rows_of, table, keys))
    return {key_of(table, row): row for row in found}


@dataclass(slots=True)
class CopiedBlobs:
    """What of the blobs has been copied: how many, and their bytes."""

    count: int = 0
    size: int = 0


async def copy_blobs(
    source: MovingStore,
    target: MovingStore,
    ours: BlobStore,
    theirs: BlobStore,
    uids: Mapping[str, str],
    progress: Callable[[int], None],
) -> CopiedBlobs:
    """Copies the bytes of all blobs that the source's cubes hold and the target's store has not.

    Args:
        source: The record that says which blobs there are.
        target: The record that is told of them first, so that what is purged meanwhile is known to be erased there.
        ours: The source's blobs.
        theirs: The target's.
        uids: Cube id -> uid, of the cubes that the target has.
        progress: Called with a number of bytes that were written.

    Raises:
        MipError: A side is away or full; DATA_CORRUPT when the bytes of a blob that is held are missing or damaged.
    """
    copied = CopiedBlobs()
    async for page in pages(source, Table.BLOBS):
        # Those of cubes that were made since the heads were read come with the next pass.
        held = [row for row in page if not row[4] and row[0] in uids]
        there = await _by_key(target, Table.BLOBS, held)
        if changed := [row for row in held if there.get(key_of(Table.BLOBS, row)) != row]:
            await patiently(partial(target.put_loose_rows, Table.BLOBS, changed))
        for row in held:
            cube, digest, size = str(row[0]), str(row[1]), int(row[2])
            uid = uids[cube]
            if await patiently(partial(theirs.size, uid, digest)) == size:
                continue
            try:
                await _copy_blob(ours, theirs, uid, digest, size, progress)
            except MipError as error:
                if error.reason not in ("BLOB_NOT_FOUND", "DATA_CORRUPT", "DIGEST_MISMATCH", "UPLOAD_INCOMPLETE"):
                    raise
                if not await _held(source, cube, digest):
                    # It was purged while it was being copied.
                    await patiently(partial(theirs.delete, uid, digest))
                    continue
                raise MipError(
                    "DATA_CORRUPT",
                    f"the source's bytes of the blob {digest} of cubes/{cube} are missing or damaged; put them back"
                    " from a backup, or purge the memories that name it",
                    metadata={"digest": digest},
                ) from error
            copied.count += 1
            copied.size += size
    return copied


async def _copy_blob(
    ours: BlobStore, theirs: BlobStore, uid: str, digest: str, size: int, progress: Callable[[int], None]
) -> None:
    async def send() -> None:
        # What an earlier run has sent is gone on with; the target compares the digest of all of it at the end.
        begun = await theirs.upload_size(uid, digest)
        if begun > size:
            await theirs.delete(uid, digest)
            begun = 0
        try:
            await _send(ours, theirs, uid, digest, size, begun, progress)
        except MipError as error:
            if error.reason != "DIGEST_MISMATCH" or not begun:
                raise
            # What the earlier run sent was wrong, and is dropped: the source was mended since.
            await _send(ours, theirs, uid, digest, size, 0, progress)

    await patiently(send)


async def _send(
    ours: BlobStore,
    theirs: BlobStore,
    uid: str,
    digest: str,
    size: int,
    offset: int,
    progress: Callable[[int], None],
) -> None:
    if offset < size:
        async for piece in ours.read(uid, digest, offset):
            await theirs.append(uid, digest, offset, piece)
            offset += len(piece)
            progress(len(piece))
    await theirs.finish(uid, digest, size)


async def _held(source: MovingStore, cube: str, digest: str) -> bool:
    rows = await source.loose_rows_of(Table.BLOBS, [(cube, digest)])
    return any(not row[4] for row in rows)


async def drop_blobs(source: MovingStore, target: MovingStore, theirs: BlobStore, uids: Mapping[str, str]) -> None:
    """Erases the bytes of blobs that the target holds and the source does not hold any more.

    Called before the rows are made equal, while the target's still say what it holds.
    """
    async for page in pages(target, Table.BLOBS):
        here = await _by_key(source, Table.BLOBS, page)
        for row in page:
            held = here.get(key_of(Table.BLOBS, row))
            if (held is None or held[4]) and (uid := uids.get(str(row[0]))) is not None:
                digest = str(row[1])
                await patiently(partial(theirs.delete, uid, digest))


@dataclass(frozen=True, slots=True)
class Digest:
    """How many rows a table has, and a digest over all of them that does not depend on their order."""

    rows: int
    digest: str


async def digest_of(store: MovingStore, table: Table) -> Digest:
    """Returns a table's digest: the sum of the SHA-256 of its rows, modulo 2^256, as hexadecimal digits."""
    count = total = 0
    async for page in pages(store, table):
        count += len(page)
        for row in page:
            total += int.from_bytes(hashlib.sha256(repr(tuple(row)).encode()).digest(), "big")
    return Digest(count, f"{total % 2**256:064x}")


def digest_in_order(rows: Sequence[object]) -> Digest:
    """Returns the digest of rows whose order counts."""
    running = hashlib.sha256()
    for row in rows:
        running.update(hashlib.sha256(repr(row).encode()).digest())
    return Digest(len(rows), running.hexdigest())
