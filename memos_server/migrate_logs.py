"""Copying cubes' logs from one record to another: what the target lacks, commit by commit, as the source has it.

A commit is appended with the exact bytes, salts and vectors that the source has, so every digest stays what it was. The
target's own revision says where to go on, so nothing is copied twice and nothing is remembered elsewhere. Content that
was purged comes without its bytes; where it was copied before its purge, the purging commit, which comes later, erases
it in the target as it did in the source.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeVar

from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.commit_pb2 import Change
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.graph_dbs.base import (
    ChangeRow,
    CommitRow,
    CubeRow,
    Kind,
    NewContent,
    NewVersion,
    Reader,
    RecordStore,
    Version,
    Writer,
)
from memos_server.graph_dbs.moving import MovingStore
from memos_server.mem_cube import commitments

T = TypeVar("T")

_CUBES: Final = 500
_COMMITS: Final = 500
_CHANGES: Final = 2000
"""About how many changes are written in one transaction; a larger commit is one of its own."""
_BYTES: Final = 8 * 2**20
"""About how many bytes of content are written in one transaction."""
_READ: Final = 250
"""How many changes are read at once with their contents, which may be 256 KiB each."""
_PATIENCE_S: Final = 60.0
"""How long a side that is away is tried again before the migration ends; it goes on when it is run again."""
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)

_RETURNING: Final = frozenset({commit_pb2.CHANGE_KIND_MEMORY_ROLLED_BACK, commit_pb2.CHANGE_KIND_CUBE_ROLLED_BACK})
"""The changes with which an earlier content of the item returns."""


async def patiently(work: Callable[[], Awaitable[T]], patience_s: float = _PATIENCE_S) -> T:
    """Runs work that may be repeated, until it succeeds or a side has been away for too long.

    Raises:
        MipError: Its error, when it is none that passes, or has not passed.
    """
    deadline = time.monotonic() + patience_s
    for turn in range(1_000_000):
        try:
            return await work()
        except MipError as error:
            pause = _PAUSES_S[min(turn, len(_PAUSES_S) - 1)]
            if not error.rule.retryable or error.reason == "SHUTTING_DOWN" or time.monotonic() + pause > deadline:
                raise
        await asyncio.sleep(pause)
    raise AssertionError("the deadline comes first")


class Head(NamedTuple):
    """Where a cube's log stands in a record."""

    id: str
    uid: str
    owner: str
    revision: int
    digest: bytes


async def heads(store: RecordStore) -> list[Head]:
    """Returns the heads of all cubes in order of creation."""
    found: list[Head] = []
    after = 0
    while True:

        async def step(txn: Reader, after: int = after) -> Sequence[CubeRow]:
            return await txn.cubes(after, _CUBES)

        rows = await patiently(partial(store.read, step))
        if not rows:
            return found
        after = rows[-1].key
        found += [Head(row.id, row.uid, row.owner, row.revision, row.head_digest) for row in rows]


class Batch(NamedTuple):
    """Commits with all that belongs to them.

    Attributes:
        commits: Each with its changes and the versions that they made, with content.
        vectors: The record's content handle -> vector.
        blobs: The record's content handle -> digests of the blobs that the content names.
    """

    commits: Sequence[tuple[CommitRow, Sequence[ChangeRow]]]
    vectors: Mapping[int, bytes]
    blobs: Mapping[int, Set[str]]

    @property
    def changes(self) -> int:
        """How many changes the commits have."""
        return sum(len(changes) for _, changes in self.commits)


@dataclass(slots=True)
class Copied:
    """What a pass over the logs has copied."""

    commits: int = 0
    changes: int = 0
    seconds: float = 0.0


async def check_heads(source: RecordStore, ours: Sequence[Head], theirs: Sequence[Head]) -> None:
    """Makes sure that what a target holds is the beginning of what the source holds.

    Raises:
        SetupError: It has another cube, or a commit that the source has not: somebody wrote to it.
    """
    known = {head.id: head for head in ours}
    for head in theirs:
        mine = known.get(head.id)
        flaw = ""
        if mine is None or mine.uid != head.uid:
            flaw = f"has a cube cubes/{head.id} that the source has not"
        elif head.revision > mine.revision:
            flaw = f"has cubes/{head.id} at revision {head.revision}, and the source at {mine.revision}"
        elif await digest_at(source, mine, head.revision) != head.digest:
            flaw = f"has another commit at revision {head.revision} of cubes/{head.id} than the source"
        if flaw:
            raise SetupError(
                f"The target {flaw}: somebody else wrote to one of them.",
                "Begin anew with an empty target, and start no server on it before the migration is finished.",
            )


async def digest_at(store: RecordStore, head: Head, revision: int) -> bytes:
    """Returns the digest of a cube's commit at a revision; empty without one."""
    if revision == head.revision:
        return head.digest

    async def read(txn: Reader) -> Sequence[CommitRow]:
        cube = await txn.cube(head.id)
        return await txn.commits(cube.key, revision, revision, 1, newest_first=False) if cube is not None else []

    rows = await patiently(partial(store.read, read))
    return rows[0].digest if rows else b""


async def copy_logs(source: MovingStore, target: RecordStore, progress: Callable[[int], None], at_once: int) -> Copied:
    """Copies the commits that the target lacks, up to the heads that the source had when this began.

    Args:
        source: The record to read.
        target: The record to write.
        progress: Called with a number of changes once they are durable in the target.
        at_once: How many cubes are copied at the same time.

    Raises:
        SetupError: The target holds what the source does not.
        MipError: A side is away, full or damaged.
    """
    began = time.monotonic()
    ours, theirs = await heads(source), {head.id: head for head in await heads(target)}
    await check_heads(source, ours, list(theirs.values()))
    copied = Copied()
    behind: list[tuple[Head, int]] = []
    for head in ours:
        done = theirs[head.id].revision if head.id in theirs else 0
        if not done:
            # One after the other: cubes are listed in the order in which they were made.
            done = await _copy_some(source, target, head, 0, copied, progress, most=1)
        if done < head.revision:
            behind.append((head, done))
    gate = asyncio.Semaphore(at_once)

    async def rest(head: Head, done: int) -> None:
        async with gate:
            while done < head.revision:
                done = await _copy_some(source, target, head, done, copied, progress)

    try:
        async with asyncio.TaskGroup() as group:
            for head, done in behind:
                group.create_task(rest(head, done))
    except BaseExceptionGroup as group:
        # One is what the operator can do something about; the others ended with it.
        raise _first(group) from None
    copied.seconds = time.monotonic() - began
    return copied


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _copy_some(
    source: MovingStore,
    target: RecordStore,
    head: Head,
    done: int,
    copied: Copied,
    progress: Callable[[int], None],
    most: int = _COMMITS,
) -> int:
    """Copies the next commits of a cube in one transaction, and returns the target's revision then."""
    batch = await patiently(partial(source.read, partial(_read, store=source, head=head, done=done, most=most)))
    if not batch.commits:
        raise MipError("DATA_CORRUPT", f"the log of cubes/{head.id} ends at {done}, before its head {head.revision}")
    # Where an answer was lost, the target knows whether the transaction took effect: it is not written twice.
    reached = await patiently(partial(target.write, partial(_write, head=head, batch=batch)))
    copied.commits += len(batch.commits)
    copied.changes += batch.changes
    progress(batch.changes)
    return reached


async def read_batch(store: MovingStore, txn: Reader, cube: int, low: int, high: int, most: int = _COMMITS) -> Batch:
    """Reads commits with low <= revision <= high, as many as are handled at once and at least one.

    Args:
        store: The record.
        txn: A snapshot of it.
        cube: The cube's key.
        low: The first revision.
        high: The last revision.
        most: The most commits.
    """
    rows = await txn.commits(cube, low, high, most, newest_first=False)
    commits: list[tuple[CommitRow, Sequence[ChangeRow]]] = []
    contents: list[int] = []
    count = size = 0
    while len(commits) < len(rows):
        group = _next_few(rows[len(commits) :])
        few = sum(row.change_count for row in group)
        if count and (count + few > _CHANGES or size > _BYTES):
            break
        for row, changes in zip(group, await _changes(store, txn, cube, group), strict=True):
            if len(changes) != row.change_count:
                raise MipError("DATA_CORRUPT", f"the commit at revision {row.revision} of a cube lacks changes")
            commits.append((row, changes))
            contents += [change.version.content for change in changes if change.version.content is not None]
            size += sum(len(change.version.payload) for change in changes)
        count += few
    vectors: dict[int, bytes] = {}
    blobs: dict[int, Set[str]] = {}
    for start in range(0, len(contents), _COMMITS):
        some = contents[start : start + _COMMITS]
        vectors.update(await txn.vectors(some))
        blobs.update(await txn.content_blobs(some))
    return Batch(commits, vectors, blobs)


def _next_few(rows: Sequence[CommitRow]) -> Sequence[CommitRow]:
    """Returns the first commits that are read at once: so many that they have _READ changes, or one."""
    count = 0
    for number, row in enumerate(rows):
        count += row.change_count
        if count > _READ:
            return rows[: max(number, 1)]
    return rows


async def _changes(store: MovingStore, txn: Reader, cube: int, group: Sequence[CommitRow]) -> list[Sequence[ChangeRow]]:
    """Returns the changes of neighbouring commits, with content."""
    if len(group) > 1:
        found = await store.changes_of(txn, cube, group[0].revision, group[-1].revision)
        return [found.get(row.revision, ()) for row in group]
    changes: list[ChangeRow] = []
    while len(changes) < group[0].change_count:
        after = changes[-1].sequence if changes else -1
        step = await txn.changes(cube, group[0].revision, after, _READ, with_content=True)
        if not step:
            break
        changes += step
    return [changes]


async def _read(txn: Reader, store: MovingStore, head: Head, done: int, most: int) -> Batch:
    cube = await txn.cube(head.id)
    if cube is None:
        return Batch([], {}, {})
    return await read_batch(store, txn, cube.key, done + 1, head.revision, most)


async def _write(txn: Writer, head: Head, batch: Batch) -> int:
    cube = await txn.lock_cube(head.id)
    if cube is None:
        key, revision = await txn.insert_cube(head.id, head.uid, head.owner), 0
    else:
        key, revision = cube.key, cube.revision
    for row, changes in batch.commits:
        if row.revision <= revision:
            continue
        if row.revision != revision + 1:
            raise MipError("DATA_CORRUPT", f"the log of cubes/{head.id} has no commit {revision + 1}")
        versions = await _placed(txn, key, row, changes, batch)
        await txn.append(key, row, versions)
        revision = row.revision
        # What the commit purged may have been copied before it was.
        erased = [
            version.item for version in versions if version.state == MEMORY_STATE_PURGED and version.item is not None
        ]
        if erased:
            await txn.erase(key, erased)
    return revision


async def _placed(
    txn: Writer, cube: int, commit: CommitRow, changes: Sequence[ChangeRow], batch: Batch
) -> list[NewVersion]:
    """Returns a commit's versions with the handles that their items and contents have in the target."""
    parsed = [Change.FromString(row.change) for row in changes]
    known = [row.version.uid for row, change in zip(changes, parsed, strict=True) if change.before_state]
    here = await txn.versions_by_uid(cube, known, with_content=False) if known else {}
    placed = []
    for row, change in zip(changes, parsed, strict=True):
        version, before = row.version, here.get(row.version.uid)
        if change.before_state and before is None:
            raise MipError("DATA_CORRUPT", f"the log changes {change.name or 'a cube'} before it makes it")
        content: NewContent | int | None = None
        if version.content is not None:
            content = await _kept(txn, cube, commit.revision, version, before, change)
            if content is None:
                content = _copied(version, version.content, batch)
        placed.append(
            NewVersion(
                row.change,
                version.kind,
                version.id,
                version.uid,
                before.item if before is not None else None,
                version.state,
                version.sensitivity,
                version.owner,
                version.merged_into,
                content,
                version.source,
                version.target,
                version.type,
                version.weight,
            )
        )
    return placed


def _copied(version: Version, handle: int, batch: Batch) -> NewContent:
    # Erased content has a commitment and nothing that opens it.
    digest = commitments.content_digest(version.payload) if version.salt else b""
    named = tuple(sorted(batch.blobs.get(handle, ())))
    return NewContent(version.commitment, version.salt, digest, version.payload, batch.vectors.get(handle), named)


async def _kept(
    txn: Reader, cube: int, revision: int, version: Version, before: Version | None, change: Change
) -> int | None:
    """Returns the target's handle of a content that an earlier version of the item has; None for a new content."""
    if before is None:
        return None
    if before.commitment == version.commitment:
        return before.content
    if change.kind in _RETURNING:
        return await _earlier(txn, cube, version.kind, version.id, revision, version.commitment)
    return None


async def _earlier(txn: Reader, cube: int, kind: Kind, id_: str, before: int, commitment: bytes) -> int | None:
    """Returns the handle of the content that an earlier version of an item has."""
    while versions := await txn.history(cube, kind, id_, before, 20):
        for version in versions:
            if version.commitment == commitment:
                return version.content
        before = versions[-1].from_revision
    return None
