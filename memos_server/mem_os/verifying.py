"""VerifyCube: the chain recomputed from its bytes and replayed against the stored rows, the blobs and the search index.

The chain alone would only prove that the log was not edited. So the log is also replayed: every change must fit the
item as the changes before left it, the versions that readers see must be those that the changes describe, every
content must open its commitment, rows that readers would trip over or never find are named, and index and blobs must
hold what the record holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import CommitHeader
from memos_server._pb.mip.v1.cube_service_pb2 import Finding, VerifyCubeRequest, VerifyCubeResponse
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import OPEN, CommitRow, CubeRow, Reader
from memos_server.mem_cube import commitments
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.render import visible_changes
from memos_server.mem_os.verify_holdings import ask_index, compare_blobs, compare_rest
from memos_server.mem_os.verify_replay import compare_cube, compare_current, replay_changes
from memos_server.mem_os.verify_state import Replay, resource_of

_STEP = 1000
_NAMED = 1000
_UNREADABLE = (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError)
"""What reading rows raises whose values are not of their column's type."""


async def verify_cube(mos: Mos, call: Call, request: VerifyCubeRequest) -> VerifyCubeResponse:
    """See CubeService.VerifyCube. What the caller may not see is verified too, and named only to full clearance."""
    cube_id = names.parse_cube(request.name)
    view = call.view(cube_id, whole=True)
    if request.expected_head_digest and not request.expected_revision:
        raise invalid_field(
            "expected_head_digest", "needs expected_revision, whose digest it is", "CONFLICTING_ARGUMENTS"
        )
    replay = Replay(view, mos.types)
    response = replay.response
    try:
        await _verify(mos, cube_id, request, replay)
    except _UNREADABLE:
        # Whoever edits a file may put anything into it, and that is then the finding.
        replay.found("chain", request.name, 0, "the record holds what cannot be read; the rest was not compared")
    except MipError as error:
        if error.reason != "DATA_CORRUPT":
            raise
        replay.found("chain", request.name, 0, error.message)
    response.valid = not response.findings
    if not view.full:
        _unname(response, request.name)
    return response


def _unname(response: VerifyCubeResponse, cube: str) -> None:
    """Leaves one finding of each sort, of the cube: how many there are, and when they changed, tells of the hidden."""
    kept: dict[str, Finding] = {}
    for found in response.findings:
        # Every reader sees the commits themselves, so those of the chain say which.
        revision = found.revision if found.kind in ("chain", "head") else 0
        finding = Finding(kind=found.kind, resource=cube, revision=revision, message=f"a {found.kind} does not fit")
        kept.setdefault(finding.SerializeToString(deterministic=True).hex(), finding)
    del response.findings[:]
    response.findings.extend(kept.values())


async def _verify(mos: Mos, cube_id: str, request: VerifyCubeRequest, replay: Replay) -> None:
    async def head(txn: Reader) -> CubeRow:
        return await existing_cube(txn, cube_id, deleted=True)

    found = await mos.read(head)

    async def rows(txn: Reader) -> None:
        for misfit in await txn.misfits(found.key, _NAMED):
            replay.found(misfit.sort, resource_of(found, misfit.name), misfit.revision, misfit.message)

    await mos.read(rows)
    await ask_index(mos, found, replay)
    replay.response.indexed_revision = replay.indexed

    async def work(txn: Reader) -> CubeRow:
        cube = await existing_cube(txn, cube_id, deleted=True)
        replay.response.head_revision = cube.revision
        replay.response.head_digest = cube.head_digest
        last = await _chain(txn, cube, replay)
        _head(cube, last, request, replay)
        if last is not None:
            _expected(await txn.commits(cube.key, request.expected_revision, request.expected_revision, 1,
                                        newest_first=False), request, replay)  # fmt: skip
        compare_cube(cube, replay)
        await compare_current(txn, cube, replay)
        return cube

    cube = await mos.read(work)
    compare_rest(cube, replay)
    await compare_blobs(mos, cube, replay)


async def _chain(txn: Reader, cube: CubeRow, replay: Replay) -> CommitRow | None:
    last: CommitRow | None = None
    while True:
        rows = await txn.commits(cube.key, (last.revision if last else 0) + 1, OPEN, _STEP, newest_first=False)
        if not rows:
            return last
        for row in rows:
            await _commit(txn, cube, row, last, replay)
            last = row


async def _commit(txn: Reader, cube: CubeRow, row: CommitRow, last: CommitRow | None, replay: Replay) -> None:
    name = names.commit_name(cube.id, row.revision)

    def wrong(message: str) -> None:
        replay.found("chain", name, row.revision, message)

    try:
        header = CommitHeader.FromString(row.header)
    except DecodeError:
        wrong("the header does not parse")
        header = CommitHeader()
    if commitments.commit_digest(row.header) != row.digest:
        wrong("the header does not have the stored digest")
    if header.cube_uid != cube.uid:
        wrong("the header belongs to another cube")
    if header.revision != row.revision or row.revision != (last.revision if last else 0) + 1:
        wrong("the revision does not follow the one before")
    if header.parent_digest != (last.digest if last else b""):
        wrong("the parent digest is not that of the commit before")
    moment = header.create_time.seconds * 1_000_000 + header.create_time.nanos // 1000
    if moment != row.time or (last is not None and moment <= last.time):
        wrong("the time does not follow the commit before")
    if last is None:
        replay.first = header
    digests: list[bytes] = []
    after, count = -1, 0
    while changes := await txn.changes(cube.key, row.revision, after, _STEP, with_content=True):
        after = changes[-1].sequence
        count += len(changes)
        digests += [commitments.change_digest(change.change) for change in changes]
        await replay_changes(txn, cube, row, changes, replay)
        replay.response.changes_checked += len(await visible_changes(txn, replay.view, cube, changes))
    if count != header.change_count or count != row.change_count:
        wrong(f"the commit has {count} changes, its header says {header.change_count}")
    if commitments.changes_digest(digests) != header.changes_digest:
        wrong("the changes do not have the digest that the header holds")
    replay.response.commits_checked += 1


def _head(cube: CubeRow, last: CommitRow | None, request: VerifyCubeRequest, replay: Replay) -> None:
    if last is None or (last.revision, last.digest, last.time) != (cube.revision, cube.head_digest, cube.head_time):
        replay.found("head", request.name, cube.revision, "the head is not the last commit of the log")


def _expected(rows: Sequence[CommitRow], request: VerifyCubeRequest, replay: Replay) -> None:
    if not request.expected_revision:
        return
    if not rows:
        message = f"the log ends before revision {request.expected_revision}: its tail was cut off"
        replay.found("head", request.name, request.expected_revision, message)
    elif request.expected_head_digest and rows[0].digest != request.expected_head_digest:
        message = f"the commit at revision {request.expected_revision} is another one: the log was rewritten"
        replay.found("head", request.name, request.expected_revision, message)
