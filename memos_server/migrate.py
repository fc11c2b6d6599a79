"""`memos migrate`: moves everything that a server holds into another record and blob store, while it goes on serving.

The first pass copies what the source holds, later ones what has come since, until little is left. The last pass runs
while nobody writes: then everything beside the logs is made equal, both sides are read and compared, the source is
marked as moved, and the target may be served. A run that ends anywhere is gone on with by the next one.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import create_secret, read_secret
from memos_server.configs.settings import Settings
from memos_server.graph_dbs.base import CommitRow, Reader
from memos_server.graph_dbs.moving import Mark, MovingStore, Table
from memos_server.migrate_index import fill
from memos_server.migrate_logs import Copied, Head, copy_logs, heads
from memos_server.migrate_rows import copy_blobs, drop_blobs, equal_rows, pages
from memos_server.migrate_sides import Side, check_pair, described, open_source, open_target
from memos_server.migrate_verify import Verdict, compare

_LITTLE: Final = 100
"""So few commits in a pass are little: what comes after it is left to the last pass."""
_PASSES: Final = 20
"""The most passes of one run beside a server that writes all the time."""
_LAST_PASSES: Final = 3
_COMPACTIONS: Final = 50
_AT_ONCE: Final = 8
"""How many cubes are copied at the same time where the target can take them at once."""
_NAMED: Final = 10


class Progress(Protocol):
    """What is told while a migration runs."""

    def stage(self, what: str, total: int | None) -> None:
        """Begins a stage of so many steps; None where they are not known."""

    def done(self, count: int) -> None:
        """Tells that so many steps more are done."""


@dataclass(slots=True)
class Report:
    """What a run did.

    Attributes:
        source: Where it copied from, in words.
        target: Where to.
        finished: Whether the target is the record now, and the source is marked as moved.
        passes: What each pass over the logs copied.
        blobs: How many blobs were copied.
        blob_bytes: Their bytes.
        behind: After a run that did not finish, how many commits the source had that the target had not.
        cubes: After a finished one, cube name -> revision, head digest and digest of all rows, equal on both sides.
        tables: What lies beside the logs -> rows and digest, equal on both sides.
        blobs_read: How many blobs were read whole in the target.
        keys: What became of the key that signs tokens: `shared`, `copied`, `different` or `absent`.
        index: What of the index could not be brought up to the record; None where nobody waited for it.
    """

    source: str
    target: str
    finished: bool = False
    passes: list[Copied] = field(default_factory=list)
    blobs: int = 0
    blob_bytes: int = 0
    behind: int = 0
    cubes: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs_read: int = 0
    keys: str = ""
    index: list[str] | None = None

    def as_json(self) -> Mapping[str, Any]:
        """Returns the report as JSON values."""
        return asdict(self)


@dataclass(slots=True)
class Plan:
    """What there is to copy, as `--dry-run` tells it.

    Attributes:
        source: Where from.
        target: Where to.
        continued: Whether the target holds a part already.
        running: Whether a server uses the source now.
        cubes: How many cubes there are.
        commits: How many commits they have.
        changes: How many changes those have.
        left: How many commits the target has not.
        blobs: How many blobs there are.
        blob_bytes: Their bytes.
        record_bytes: The size of the record's file with its log; 0 where it is none.
        rows: What lies beside the logs -> number of rows.
    """

    source: str
    target: str
    continued: bool
    running: bool
    cubes: int = 0
    commits: int = 0
    changes: int = 0
    left: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    record_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)


async def migrate(
    source: Settings, target: Settings, progress: Progress, *, finish: bool = False, wait_index: bool = False
) -> Report:
    """Copies a server's record and blobs to another place, or goes on with it.

    Args:
        source: The settings of what is copied.
        target: The settings of the place.
        progress: Is told how it goes.
        finish: Whether the source's servers are stopped. An embedded source shows by itself whether its server is.
        wait_index: Whether to fill the target's index too, which its server would do.

    Returns:
        What was done.

    Raises:
        SetupError: The target is not this migration's, a server stands in the way, or what was copied is not the same.
        MipError: A side is away, full or damaged; the next run goes on.
    """
    async with AsyncExitStack() as stack:
        ours = await open_source(source, stack, finish=finish)
        if finish and ours.in_use:
            raise SetupError(
                f"A server uses {ours.folder.path}: while it writes, the migration cannot be finished.",
                "Stop that server, and run the same command again; without --finish it copies beside the server.",
            )
        theirs = await open_target(target, ours, stack)
        move = await _begin(ours, theirs)
        report = Report(described(source), described(target))
        last = ours.alone or finish
        await _catch_up(ours, theirs, report, progress, once=last)
        if not last:
            report.behind = await _behind(ours.store, theirs.store)
            return report
        await _finish(ours, theirs, move, report, progress)
        if wait_index:
            progress.stage("filling the index", len(report.cubes))
            report.index = await fill(theirs, progress.done)
        return report


async def undo(settings: Settings) -> Mark:
    """Takes the mark of a migration from a record, so that its own server starts again.

    Returns:
        The mark that it had.

    Raises:
        SetupError: It has none, or a server uses it.
    """
    async with AsyncExitStack() as stack:
        side = await open_source(settings, stack)
        mark = await side.mark()
        if mark is None or mark.role == "target":
            raise SetupError(
                "This record has not been migrated."
                if mark is None
                else f"This record is the target of a migration from {mark.other}, and not whole.",
                "There is nothing to undo." if mark is None else "Finish that migration, or delete the target.",
            )
        await side.store.set_mark("")
        return mark


async def plan(source: Settings, target: Settings, progress: Progress) -> Plan:
    """Returns what there is to copy; looks at both sides and copies nothing.

    Raises:
        SetupError: As `migrate`.
        MipError: As `migrate`.
    """
    async with AsyncExitStack() as stack:
        ours = await open_source(source, stack)
        there: list[Head] = []
        continued = False
        # An embedded target that does not exist yet is not made by asking.
        if target.record.backend != "sqlite" or (target.data / "record.sqlite").exists():
            theirs = await open_target(target, ours, stack)
            continued = await check_pair(ours, theirs) is not None
            there = await heads(theirs.store)
        found = Plan(described(source), described(target), continued, ours.in_use)
        here = await heads(ours.store)
        done = {head.id: head.revision for head in there}
        found.cubes = len(here)
        found.commits = sum(head.revision for head in here)
        found.left = sum(head.revision - done.get(head.id, 0) for head in here)
        progress.stage("counting", found.commits)
        for head in here:
            found.changes += await _changes(ours.store, head, progress)
        async for page in pages(ours.store, Table.BLOBS):
            held = [row for row in page if not row[4]]
            found.blobs += len(held)
            found.blob_bytes += sum(int(row[2]) for row in held)
        for table in Table:
            found.rows[table.value] = sum([len(page) async for page in pages(ours.store, table)])
        if ours.embedded:
            files = [ours.folder.record, ours.folder.record.with_name(f"{ours.folder.record.name}-wal")]
            found.record_bytes = sum(os.stat(file).st_size for file in files if file.exists())
        return found


async def _changes(store: MovingStore, head: Head, progress: Progress) -> int:
    count, low = 0, 1
    while low <= head.revision:

        async def step(txn: Reader, low: int = low) -> list[CommitRow]:
            cube = await txn.cube(head.id)
            return (
                [] if cube is None else list(await txn.commits(cube.key, low, head.revision, 1000, newest_first=False))
            )

        rows = await store.read(step)
        if not rows:
            break
        count += sum(row.change_count for row in rows)
        low = rows[-1].revision + 1
        progress.done(len(rows))
    return count


async def _begin(source: Side, target: Side) -> str:
    """Marks both sides as those of one move, and returns its id."""
    theirs = await check_pair(source, target)
    if theirs is not None:
        return theirs.id
    ours = await source.mark()
    id_ = ours.id if ours is not None else str(uuid.uuid4())
    # The source first: a target that nobody's mark names would be taken for another migration's.
    if ours is None:
        await source.store.set_mark(Mark("source", id_, described(target.settings), _now()).text())
    await target.store.set_mark(Mark("target", id_, described(source.settings), _now()).text())
    return id_


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


async def _catch_up(source: Side, target: Side, report: Report, progress: Progress, *, once: bool) -> None:
    """Copies logs and blobs until little is left."""
    for turn in range(_PASSES):
        copied = await _pass(source, target, report, progress)
        if turn == 0:
            # While there is time: the last pass then finds most of it done.
            await _equal(source, target, progress, last=False)
        if once or copied.commits <= _LITTLE:
            return


async def _pass(source: Side, target: Side, report: Report, progress: Progress) -> Copied:
    number = len(report.passes) + 1
    progress.stage(f"copying commits, pass {number}", await _behind(source.store, target.store))
    # An embedded record writes one transaction after the other; several at once would only wait for each other.
    at_once = 1 if target.embedded else _AT_ONCE
    copied = await copy_logs(source.store, target.store, progress.done, at_once)
    report.passes.append(copied)
    if not _same_blobs(source, target):
        uids = {head.id: head.uid for head in await heads(target.store)}
        progress.stage(f"copying blobs, pass {number}", None)
        blobs = await copy_blobs(source.store, target.store, source.blobs, target.blobs, uids, progress.done)
        report.blobs += blobs.count
        report.blob_bytes += blobs.size
    return copied


async def _equal(source: Side, target: Side, progress: Progress, *, last: bool) -> None:
    """Makes what lies beside the logs equal, and erases the bytes of blobs that the source has erased."""
    progress.stage("copying access, requests, audit and jobs", None)
    if not _same_blobs(source, target):
        # First, while the target's rows still name them.
        uids = {head.id: head.uid for head in await heads(target.store)}
        await drop_blobs(source.store, target.store, target.blobs, uids)
    await equal_rows(source.store, target.store, last=last)


def _same_blobs(source: Side, target: Side) -> bool:
    """Returns whether both sides keep their blobs in the same place, where there is nothing to copy."""
    ours, theirs = source.settings, target.settings
    if ours.blobs.backend != theirs.blobs.backend:
        return False
    if ours.blobs.backend == "filesystem":
        return source.folder.path == target.folder.path
    return ours.blobs.config == theirs.blobs.config


async def _behind(source: MovingStore, target: MovingStore) -> int:
    done = {head.id: head.revision for head in await heads(target)}
    return sum(max(head.revision - done.get(head.id, 0), 0) for head in await heads(source))


async def _finish(source: Side, target: Side, move: str, report: Report, progress: Progress) -> None:
    """Copies the rest while nobody writes, compares both sides, and makes the target the record."""
    moved = Mark("moved", move, described(target.settings), _now()).text()
    if not source.alone:
        # No lock keeps servers away: this keeps them from starting, and whoever runs shows by what it writes.
        await source.store.set_mark(moved)
    try:
        verdict = await _last_pass(source, target, report, progress)
    except BaseException:
        if not source.alone:
            mark = Mark("source", move, described(target.settings), _now()).text()
            await asyncio.shield(source.store.set_mark(mark))
        raise
    report.keys = _carry_keys(source, target)
    if source.alone:
        await source.store.set_mark(moved)
    await target.store.set_mark("")
    report.finished = True
    report.blobs_read = verdict.blobs
    report.cubes = {
        f"cubes/{id_}": {
            "revision": cube.head.revision,
            "head_digest": cube.head.digest.hex(),
            "changes": cube.changes,
            "digest": cube.rows,
        }
        for id_, cube in verdict.cubes.items()
    }
    report.tables = {name: asdict(digest) for name, digest in verdict.tables.items()}


async def _last_pass(source: Side, target: Side, report: Report, progress: Progress) -> Verdict:
    for _ in range(_LAST_PASSES):
        if not (await _pass(source, target, report, progress)).commits:
            break
    await _equal(source, target, progress, last=True)
    # What was copied before it was purged must not stay in the target's files either.
    for _ in range(_COMPACTIONS):
        if await target.store.compact():
            break
        await asyncio.sleep(0.1)
    progress.stage("comparing both sides", sum(head.revision for head in await heads(source.store)))
    verdict = await compare(source.store, target.store, target.blobs, progress.done, _AT_ONCE)
    if verdict.differences:
        moved_on = not source.alone and await _behind(source.store, target.store)
        raise SetupError(
            f"What was copied is not the same: {'; '.join(verdict.differences[:_NAMED])}.",
            "A server still writes to the source: stop all of them, and run the same command again."
            if moved_on
            else "Run `memos doctor` on the source; if it is sound, begin anew with an empty target, and report this.",
        )
    if not source.alone and sorted(await heads(source.store)) != sorted(await heads(target.store)):
        raise SetupError(
            "A server wrote to the source while it was compared.",
            "Stop all servers of the source, and run the same command again.",
        )
    return verdict


def _carry_keys(source: Side, target: Side) -> str:
    """Takes the key that signs tokens along, so that those that were issued go on opening the server."""
    ours, theirs = source.folder.token_key, target.folder.token_key
    if ours == theirs:
        # Page tokens hold handles of the old record's rows. The key that seals them is made anew at the next start.
        target.folder.page_key.unlink(missing_ok=True)
        return "shared"
    if not ours.exists():
        return "absent"
    if not theirs.exists():
        create_secret(theirs, read_secret(ours))
        return "copied"
    return "shared" if read_secret(ours) == read_secret(theirs) else "different"
