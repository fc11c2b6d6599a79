"""Comparing the two records of a migration: each is read whole, and what they hold must have the same digests.

Of every cube the chain is recomputed from its bytes, every content must open its commitment, and one digest goes over
all that readers may see: commits, changes, versions, salts, contents, vectors, blobs, and the order of the items. No
handle of a store enters it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from memos_server._pb.mip.v1.commit_pb2 import CommitHeader
from memos_server.blob_stores.base import BlobStore
from memos_server.errors import MipError
from memos_server.graph_dbs.base import ChangeRow, CommitRow, Kind, Misfit, Reader, RecordStore, Version
from memos_server.graph_dbs.moving import MovingStore, Table
from memos_server.mem_cube import commitments
from memos_server.migrate_logs import Batch, Head, heads, patiently, read_batch
from memos_server.migrate_rows import DIGESTED, Digest, digest_in_order, digest_of, grants, pages, principals

_ITEMS: Final = 1000
_NAMED: Final = 20

GRANTS: Final = "grants"
PRINCIPALS: Final = "principals"


@dataclass(slots=True)
class CubeDigest:
    """What a record holds of a cube.

    Attributes:
        head: Where its log stands.
        rows: SHA-256 over everything that readers may see, hexadecimal.
        steps: (revision, the running digest up to it), to say where two records part.
        changes: How many changes the log has.
        flaws: What does not fit within this record, in words.
    """

    head: Head
    rows: str = ""
    steps: list[tuple[int, str]] = field(default_factory=list)
    changes: int = 0
    flaws: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    """What a comparison found.

    Attributes:
        cubes: Cube id -> its digest in the target.
        tables: Name -> digest of the rows beside the logs, in the target.
        blobs: How many blobs were read whole.
        differences: What is not the same, or does not fit, in words; empty when all is well.
    """

    cubes: dict[str, CubeDigest] = field(default_factory=dict)
    tables: dict[str, Digest] = field(default_factory=dict)
    blobs: int = 0
    differences: list[str] = field(default_factory=list)


async def compare(
    source: MovingStore,
    target: MovingStore,
    blobs: BlobStore,
    progress: Callable[[int], None],
    at_once: int,
) -> Verdict:
    """Compares two records that nobody writes, and reads the target's blobs.

    Args:
        source: The source's record.
        target: The target's record.
        blobs: The target's blobs.
        progress: Called with a number of changes that were compared.
        at_once: How many cubes are compared at the same time.

    Raises:
        MipError: A side is away.
    """
    verdict = Verdict()
    # By their ids: where many servers make cubes, one can become visible after another that was made later.
    ours, theirs = sorted(await heads(source)), sorted(await heads(target))
    if [head.id for head in ours] != [head.id for head in theirs]:
        verdict.differences.append("the cubes are not the same")
        return verdict
    gate = asyncio.Semaphore(at_once)

    async def one(mine: Head, other: Head) -> None:
        async with gate:
            here, there = await asyncio.gather(
                cube_digest(source, mine, progress), cube_digest(target, other, lambda _: None)
            )
            verdict.cubes[other.id] = there
            verdict.differences += _differences(here, there)
            verdict.differences += await _misfits(target, other)

    await asyncio.gather(*(one(mine, other) for mine, other in zip(ours, theirs, strict=True)))
    verdict.cubes = {head.id: verdict.cubes[head.id] for head in theirs}
    await _compare_tables(source, target, verdict)
    await _read_blobs(target, blobs, {head.id: head.uid for head in theirs}, verdict)
    return verdict


async def cube_digest(store: MovingStore, head: Head, progress: Callable[[int], None]) -> CubeDigest:
    """Reads a cube whole and returns its digest.

    Args:
        store: The record.
        head: The cube.
        progress: Called with a number of changes that were read.
    """
    found = CubeDigest(head)
    running = hashlib.sha256(repr((head.uid, head.owner)).encode())
    last: CommitRow | None = None
    while last is None or last.revision < head.revision:
        batch = await patiently(
            partial(
                store.read,
                partial(_batch, store=store, id_=head.id, low=last.revision + 1 if last else 1, high=head.revision),
            )
        )
        if not batch.commits:
            found.flaws.append(f"the log ends at revision {last.revision if last else 0}")
            break
        for row, changes in batch.commits:
            _check_commit(head, row, changes, last, found)
            running.update(repr((row.revision, row.digest, row.header, row.time, row.change_count)).encode())
            for change in changes:
                running.update(_line(change, batch, found))
            last = row
        found.changes += batch.changes
        found.steps.append((last.revision if last else 0, running.hexdigest()))
        progress(batch.changes)
    if last is not None and (last.revision, last.digest) != (head.revision, head.digest):
        found.flaws.append("the head is not the last commit of the log")
    for kind in Kind:
        after = -1
        while rows := await patiently(partial(store.read, partial(_items, id_=head.id, kind=kind, after=after))):
            after = rows[-1].item
            running.update(repr([(row.uid, row.from_revision, row.to_revision) for row in rows]).encode())
    found.rows = running.hexdigest()
    return found


async def _batch(txn: Reader, store: MovingStore, id_: str, low: int, high: int) -> Batch:
    cube = await txn.cube(id_)
    return await read_batch(store, txn, cube.key, low, high) if cube is not None else Batch([], {}, {})


async def _items(txn: Reader, id_: str, kind: Kind, after: int) -> Sequence[Version]:
    cube = await txn.cube(id_)
    if cube is None:
        return []
    return await txn.list_versions(cube.key, kind, after, _ITEMS, with_content=False)


def _check_commit(
    head: Head, row: CommitRow, changes: Sequence[ChangeRow], last: CommitRow | None, found: CubeDigest
) -> None:
    """Recomputes a commit's digests and its place in the chain."""
    header = CommitHeader.FromString(row.header)
    digests = (commitments.change_digest(change.change) for change in changes)
    sound = (
        commitments.commit_digest(row.header) == row.digest
        and header.cube_uid == head.uid
        and header.revision == row.revision == (last.revision if last else 0) + 1
        and header.parent_digest == (last.digest if last else b"")
        and header.change_count == row.change_count == len(changes)
        and commitments.changes_digest(digests) == header.changes_digest
    )
    if not sound:
        found.flaws.append(f"the commit at revision {row.revision} does not fit the chain")


def _line(change: ChangeRow, batch: Batch, found: CubeDigest) -> bytes:
    """Returns what a change and its version add to the digest, and checks that the content opens its commitment."""
    version = change.version
    payload = commitments.content_digest(version.payload)
    if version.salt and commitments.commitment(version.salt, payload) != version.commitment:
        found.flaws.append(f"a content of revision {version.from_revision} does not open its commitment")
    vector = batch.vectors.get(version.content) if version.content is not None else None
    blobs = batch.blobs.get(version.content, ()) if version.content is not None else ()
    return repr(
        (
            change.sequence,
            change.change,
            int(version.kind),
            version.id,
            version.uid,
            version.from_revision,
            version.to_revision,
            version.state,
            version.sensitivity,
            version.owner,
            version.merged_into,
            version.time,
            version.create_time,
            version.current_state,
            version.current_sensitivity,
            version.current_revision,
            version.content is None,
            bytes(version.commitment),
            bytes(version.salt),
            payload,
            version.source,
            version.target,
            version.type,
            version.weight,
            hashlib.sha256(vector).digest() if vector is not None else None,
            sorted(blobs),
        )
    ).encode()


def _differences(here: CubeDigest, there: CubeDigest) -> list[str]:
    name = f"cubes/{there.head.id}"
    found = [f"{name}, in the source: {flaw}" for flaw in here.flaws[:_NAMED]]
    found += [f"{name}, in the target: {flaw}" for flaw in there.flaws[:_NAMED]]
    if here.head != there.head:
        found.append(f"{name} is at revision {there.head.revision} in the target, {here.head.revision} in the source")
    elif here.rows != there.rows:
        known: Mapping[int, str] = dict(there.steps)
        parted = next((revision for revision, digest in here.steps if known.get(revision, digest) != digest), None)
        where = f"at or before revision {parted}" if parted is not None else "in the order of its items"
        found.append(f"{name} is not the same {where}")
    return found


async def _misfits(store: RecordStore, head: Head) -> list[str]:
    async def read(txn: Reader) -> Sequence[Misfit]:
        cube = await txn.cube(head.id)
        return await txn.misfits(cube.key, _NAMED) if cube is not None else []

    rows = await patiently(partial(store.read, read))
    return [f"cubes/{head.id}/{row.name}, in the target: {row.message}" for row in rows]


async def _compare_tables(source: MovingStore, target: MovingStore, verdict: Verdict) -> None:
    for table in DIGESTED:
        here, there = await digest_of(source, table), await digest_of(target, table)
        verdict.tables[table.value] = there
        if here != there:
            verdict.differences.append(
                f"the {table.value} are not the same: {here.rows} in the source, {there.rows} in the target"
            )
    for name, both, order in (
        # As for cubes, by their ids.
        (PRINCIPALS, [sorted((r.id, r.display_name, r.created, r.disabled) for r in await principals(side))
                      for side in (source, target)], ""),
        (GRANTS, [await grants(side) for side in (source, target)], ", or not in the same order"),
    ):  # fmt: skip
        verdict.tables[name] = digest_in_order(both[1])
        if both[0] != both[1]:
            verdict.differences.append(f"the {name} are not the same{order}")


async def _read_blobs(store: MovingStore, blobs: BlobStore, uids: Mapping[str, str], verdict: Verdict) -> None:
    async for page in pages(store, Table.BLOBS):
        for cube, digest, size, _, doomed in page:
            if doomed:
                continue
            try:
                await patiently(partial(_read_blob, blobs, uids[str(cube)], str(digest), int(size)))
            except MipError as error:
                if error.reason not in ("BLOB_NOT_FOUND", "DATA_CORRUPT"):
                    raise
                verdict.differences.append(f"the blob {digest!s} of cubes/{cube!s}, in the target: {error.message}")
            verdict.blobs += 1


async def _read_blob(blobs: BlobStore, uid: str, digest: str, size: int) -> None:
    if await blobs.size(uid, digest) != size:
        raise MipError("DATA_CORRUPT", "its bytes are missing or have another size")
    # Whoever reads a blob whole has its digest compared.
    async for _ in blobs.read(uid, digest):
        pass
