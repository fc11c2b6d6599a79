"""The log replayed against the rows: each change must fit the item as the changes before left it, and the stored
version, content and current row must be those that the changes describe.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import Change
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED, Memory
from memos_server.errors import MipError
from memos_server.graph_dbs.base import OPEN, ChangeRow, CommitRow, CubeRow, Kind, Reader, Version, relative_name
from memos_server.mem_cube import commitments
from memos_server.mem_os.verify_holdings import compare_entry
from memos_server.mem_os.verify_state import Replay, ReplayedItem, resource_of

_STEP = 1000


async def replay_changes(
    txn: Reader, cube: CubeRow, commit: CommitRow, changes: Sequence[ChangeRow], replay: Replay
) -> None:
    """Checks changes of a commit, in order, against the items before them, and the stored rows against the changes."""
    memories = [row.version for row in changes if row.version.kind is Kind.MEMORY]
    contents = [version.content for version in memories if version.content is not None]
    held = await txn.content_blobs(contents)
    vectors = await txn.vectors(contents)
    for row in changes:
        resource = _replay_change(cube, commit, row, replay)
        if row.version.kind is Kind.MEMORY:
            compare_entry(row.version, vectors.get(row.version.content or -1), resource, replay)
        if row.version.kind is Kind.MEMORY and row.version.payload:
            named = _named_blobs(row.version, replay)
            if named is not None and named != held.get(row.version.content or -1, set()):
                replay.found(
                    "blob", resource, commit.revision, "the blobs noted for the content are not those it names"
                )


def _replay_change(cube: CubeRow, commit: CommitRow, row: ChangeRow, replay: Replay) -> str:
    """Checks a change and returns what it is about."""
    version = row.version
    try:
        change = Change.FromString(row.change)
    except DecodeError:
        resource = resource_of(cube, relative_name(version.kind, version.id))
        replay.found("changes", resource, commit.revision, "the change does not parse")
        return resource
    resource = resource_of(cube, change.name)
    before = replay.items.get(change.name)

    def wrong(kind: str, message: str) -> None:
        replay.found(kind, resource, commit.revision, message)

    if before is not None and before.uid != change.uid:
        wrong("changes", "the change is of another item than the name's earlier ones")
    if change.before_commitment != (before.commitment if before else b""):
        wrong("changes", "the content before is not what the change before left")
    if change.before_state != (before.state if before else 0):
        wrong("changes", "the state before is not what the change before left")
    created = before.created if before else commit.time
    stored = (
        relative_name(version.kind, version.id),
        version.uid,
        version.from_revision,
        version.state,
        version.sensitivity,
        version.owner,
        version.merged_into,
        version.commitment,
        version.weight,
        version.time,
        version.create_time,
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
        created,
    )
    sort = "relation" if version.kind is Kind.RELATION else "state"
    if stored != described:
        wrong(sort, "the stored version is not what its change says")
    ends = [replay.items[end].uid if end and end in replay.items else "" for end in (change.source, change.target)]
    if [version.source, version.target, version.type] != [*ends, change.type]:
        wrong(sort, "the stored ends or type are not what the change says")
    if flaw := _content_flaw(version):
        wrong("content", flaw)
    if not change.name and not before:
        replay.owner = change.owner
    replay.items[change.name] = ReplayedItem(
        change.uid,
        change.after_state,
        change.after_commitment,
        change.sensitivity,
        change.owner,
        change.merged_into,
        commit.revision,
        change.weight,
        created,
    )
    return resource


def _content_flaw(version: Version) -> str:
    """Returns what is wrong with a version's content; empty for nothing."""
    if version.current_state == MEMORY_STATE_PURGED:
        return "a purge should have erased the content, which is there" if version.salt or version.payload else ""
    if not version.commitment:
        return ""
    if not version.salt:
        return "the content is missing, and no purge erased it"
    digest = commitments.content_digest(version.payload)
    if commitments.commitment(version.salt, digest) != version.commitment:
        return "the content does not open its commitment"
    return ""


def _named_blobs(version: Version, replay: Replay) -> set[str] | None:
    """Returns and notes the blobs that a content names; None when it cannot be asked."""
    try:
        memory = Memory.FromString(version.payload)
        blobs = list(replay.types.for_memory(memory, "memory").blobs(memory))
    except (DecodeError, MipError):
        # Damaged content is a finding already; and a type that is not installed says nothing of its blobs.
        return None
    name = relative_name(version.kind, version.id)
    for blob in blobs:
        replay.blobs[blob.digest] = name, version.from_revision, blob.size
    return {blob.digest for blob in blobs}


async def compare_current(txn: Reader, cube: CubeRow, replay: Replay) -> None:
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
        replay.found("state", resource_of(cube, name), 0, "the log has the item, the record does not")


def _compare_current(cube: CubeRow, name: str, version: Version, replay: Replay) -> None:
    item = replay.items.get(name)
    resource = resource_of(cube, name)
    if item is None:
        replay.found("state", resource, version.from_revision, "the record has an item that the log does not")
        return
    now = (version.uid, version.state, version.from_revision, version.commitment, version.owner, version.to_revision)
    if now != (item.uid, item.state, item.revision, item.commitment, item.owner, OPEN):
        replay.found("state", resource, item.revision, "the current version is not the log's last one")


def compare_cube(cube: CubeRow, replay: Replay) -> None:
    """Compares the cube's own row with its first commit."""
    if replay.first is None:
        return
    source = replay.first.merged_heads[0].cube_uid if replay.first.merged_heads else ""
    created = replay.first.create_time
    moment = created.seconds * 1_000_000 + created.nanos // 1000
    if (cube.owner, cube.create_time, cube.forked_from) != (replay.owner, moment, source):
        resource = names.cube_name(cube.id)
        replay.found("state", resource, 1, "owner, creation time or source are not what the first commit says")
