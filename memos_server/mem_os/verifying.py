"""VerifyCube: the chain recomputed from its bytes and replayed against the stored rows and the search index.

The chain alone would only prove that the log was not edited. So the log is also replayed: every change must fit the
item as the changes before left it, the versions that readers see must be those that the changes describe, every
content must open its commitment, and the index must hold what the record holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import Change, CommitHeader
from memos_server._pb.mip.v1.cube_service_pb2 import Finding, VerifyCubeRequest, VerifyCubeResponse
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED
from memos_server.errors import MipError
from memos_server.graph_dbs.base import OPEN, ChangeRow, CommitRow, CubeRow, Kind, Reader, Version, relative_name
from memos_server.mem_cube import commitments
from memos_server.mem_os.access import CubeView
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.render import visible_changes

_STEP = 1000
_NAMED = 1000


@dataclass(slots=True)
class _Item:
    """What the changes so far say of an item."""

    uid: str
    state: int
    commitment: bytes
    sensitivity: int
    owner: str
    merged_into: str
    revision: int
    weight: float


@dataclass(slots=True)
class _Replay:
    """The state of a verification. All changes are checked; those that the caller sees are counted."""

    view: CubeView
    response: VerifyCubeResponse = field(default_factory=VerifyCubeResponse)
    items: dict[str, _Item] = field(default_factory=dict)

    def found(self, kind: str, resource: str, revision: int, message: str) -> None:
        if len(self.response.findings) < _NAMED:
            self.response.findings.append(Finding(kind=kind, resource=resource, revision=revision, message=message))


async def verify_cube(mos: Mos, call: Call, request: VerifyCubeRequest) -> VerifyCubeResponse:
    """See CubeService.VerifyCube. What the caller may not see is verified too, and named only to full clearance."""
    cube_id = names.parse_cube(request.name)
    view = call.view(cube_id, whole=True)
    if request.expected_head_digest and not request.expected_revision:
        raise MipError(
            "CONFLICTING_ARGUMENTS",
            "expected_head_digest needs expected_revision, the revision that it is the digest of",
        )

    async def head(txn: Reader) -> CubeRow:
        return await existing_cube(txn, cube_id, deleted=True)

    indexed = await mos.keeper.caught_up(await mos.read(head))

    async def work(txn: Reader) -> tuple[CubeRow, _Replay]:
        cube = await existing_cube(txn, cube_id, deleted=True)
        replay = _Replay(view)
        last = await _chain(txn, cube, replay)
        _head(cube, last, request, replay)
        if last is not None:
            _expected(await txn.commits(cube.key, request.expected_revision, request.expected_revision, 1,
                                        newest_first=False), request, replay)  # fmt: skip
        await _current(txn, cube, replay)
        return cube, replay

    cube, replay = await mos.read(work)
    if indexed and cube.settings.state != MEMORY_STATE_PURGED:
        await _index(mos, cube, indexed, replay)
    response = replay.response
    response.valid = not response.findings
    response.head_revision = cube.revision
    response.head_digest = cube.head_digest
    response.indexed_revision = indexed
    if not view.full:
        for finding in response.findings:
            finding.resource, finding.message = names.cube_name(cube_id), f"a {finding.kind} does not fit"
    return response


async def _chain(txn: Reader, cube: CubeRow, replay: _Replay) -> CommitRow | None:
    last: CommitRow | None = None
    while True:
        rows = await txn.commits(cube.key, (last.revision if last else 0) + 1, OPEN, _STEP, newest_first=False)
        if not rows:
            return last
        for row in rows:
            await _commit(txn, cube, row, last, replay)
            last = row


async def _commit(txn: Reader, cube: CubeRow, row: CommitRow, last: CommitRow | None, replay: _Replay) -> None:
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
    digests, after, count = [], -1, 0
    while changes := await txn.changes(cube.key, row.revision, after, _STEP, with_content=True):
        after = changes[-1].sequence
        count += len(changes)
        for change in changes:
            digests.append(commitments.change_digest(change.change))
            _change(cube, row, change, replay)
        replay.response.changes_checked += len(await visible_changes(txn, replay.view, cube, changes))
    if count != header.change_count or count != row.change_count:
        wrong(f"the commit has {count} changes, its header says {header.change_count}")
    if commitments.changes_digest(digests) != header.changes_digest:
        wrong("the changes do not have the digest that the header holds")
    replay.response.commits_checked += 1


def _change(cube: CubeRow, commit: CommitRow, row: ChangeRow, replay: _Replay) -> None:
    """Checks a change against the item before it, and the stored version against the change."""
    version = row.version
    try:
        change = Change.FromString(row.change)
    except DecodeError:
        name = relative_name(version.kind, version.id)
        replay.found("changes", _resource(cube, name), commit.revision, "the change does not parse")
        return
    resource = _resource(cube, change.name)
    before = replay.items.get(change.name)

    def wrong(kind: str, message: str) -> None:
        replay.found(kind, resource, commit.revision, message)

    if before is not None and before.uid != change.uid:
        wrong("changes", "the change is of another item than the name's earlier ones")
    if change.before_commitment != (before.commitment if before else b""):
        wrong("changes", "the content before is not what the change before left")
    if change.before_state != (before.state if before else 0):
        wrong("changes", "the state before is not what the change before left")
    stored = (
        relative_name(version.kind, version.id),
        version.uid,
        version.from_revision,
        version.state,
        version.sensitivity,
        version.owner,
        version.merged_into,
        version.commitment,
        version.weight if version.kind is Kind.RELATION else 0.0,
        version.time,
    )
    described = (
        change.name,
        change.uid,
        commit.revision,
        change.after_state,
        change.sensitivity,
        change.owner,
        change.merged_into,
        change.after_commitment,
        change.weight,
        commit.time,
    )
    if stored != described:
        wrong(
            "relation" if version.kind is Kind.RELATION else "state", "the stored version is not what its change says"
        )
    if version.kind is Kind.RELATION and change.type != version.type:
        wrong("relation", "the stored type is not what its change says")
    _content(version, wrong)
    replay.items[change.name] = _Item(
        change.uid,
        change.after_state,
        change.after_commitment,
        change.sensitivity,
        change.owner,
        change.merged_into,
        commit.revision,
        change.weight,
    )


def _resource(cube: CubeRow, relative: str) -> str:
    """Returns a full name, also of one that is no name: what is being verified may have been tampered with."""
    return f"{names.cube_name(cube.id)}/{relative}".rstrip("/")


def _content(version: Version, wrong: Callable[[str, str], None]) -> None:
    if not version.commitment:
        return
    if not version.salt:
        if version.current_state != MEMORY_STATE_PURGED:
            wrong("content", "the content is missing, and no purge erased it")
        return
    digest = commitments.content_digest(version.payload)
    if commitments.commitment(version.salt, digest) != version.commitment:
        wrong("content", "the content does not open its commitment")


def _head(cube: CubeRow, last: CommitRow | None, request: VerifyCubeRequest, replay: _Replay) -> None:
    if last is None or (last.revision, last.digest, last.time) != (cube.revision, cube.head_digest, cube.head_time):
        replay.found("head", request.name, cube.revision, "the head is not the last commit of the log")


def _expected(rows: Sequence[CommitRow], request: VerifyCubeRequest, replay: _Replay) -> None:
    if not request.expected_revision:
        return
    if not rows:
        message = f"the log ends before revision {request.expected_revision}: its tail was cut off"
        replay.found("head", request.name, request.expected_revision, message)
    elif request.expected_head_digest and rows[0].digest != request.expected_head_digest:
        message = f"the commit at revision {request.expected_revision} is another one: the log was rewritten"
        replay.found("head", request.name, request.expected_revision, message)


async def _current(txn: Reader, cube: CubeRow, replay: _Replay) -> None:
    """Compares the current rows, as readers find them, with the end of the replay."""
    missing = set(replay.items)
    for kind in Kind:
        after = -1
        while rows := await txn.list_versions(cube.key, kind, after, _STEP, with_content=False):
            after = rows[-1].item
            for version in rows:
                name = relative_name(kind, version.id)
                missing.discard(name)
                _compare_current(cube, name, version, replay)
    for name in sorted(missing):
        replay.found("state", _resource(cube, name), 0, "the log has the item, the record does not")


def _compare_current(cube: CubeRow, name: str, version: Version, replay: _Replay) -> None:
    item = replay.items.get(name)
    resource = _resource(cube, name)
    if item is None:
        replay.found("state", resource, version.from_revision, "the record has an item that the log does not")
    elif (item.uid, item.state, item.revision) != (version.uid, version.state, version.from_revision):
        replay.found("state", resource, item.revision, "the current version is not the log's last one")
    elif version.to_revision != OPEN:
        replay.found("state", resource, item.revision, "the current version is marked as ended")


async def _index(mos: Mos, cube: CubeRow, indexed: int, replay: _Replay) -> None:
    """Compares the index with the record at the revision that the index reflects."""
    held = dict(await mos.keeper.contents(cube, indexed))

    async def compare(txn: Reader) -> None:
        after = -1
        while rows := await txn.list_versions(cube.key, Kind.MEMORY, after, _STEP, indexed, with_content=False):
            after = rows[-1].item
            vectors = await txn.vectors([version.content for version in rows if version.content is not None])
            for version in rows:
                _compare_index(cube, version, vectors, held.pop(version.uid, None), replay)

    await mos.read(compare)
    for uid in sorted(held):
        replay.found("index", names.cube_name(cube.id), indexed, f"the index holds {uid}, the record does not")


def _compare_index(
    cube: CubeRow,
    version: Version,
    vectors: Mapping[int, bytes],
    held: tuple[int, bytes | None, int, bool] | None,
    replay: _Replay,
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
