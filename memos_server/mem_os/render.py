"""From the record to the contract's messages: the stored bytes are parsed, never rebuilt, and hidden names left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import Change, Commit
from memos_server._pb.mip.v1.cube_pb2 import Cube
from memos_server._pb.mip.v1.memory_pb2 import (
    MEMORY_STATE_ARCHIVED,
    MEMORY_STATE_PURGED,
    PROVENANCE_KIND_MEMORY,
    Memory,
)
from memos_server._pb.mip.v1.options_pb2 import FORMAT_MEMORY_NAME
from memos_server._pb.mip.v1.relation_pb2 import Relation
from memos_server._pb.mip.v1.session_pb2 import Session
from memos_server.graph_dbs.base import ChangeRow, CommitRow, CubeRow, Kind, Reader, Version
from memos_server.mem_cube.log import set_time, timestamp
from memos_server.mem_os.access import CubeView
from memos_server.mem_os.context import Call


def etag_of(version: Version) -> str:
    """Returns the etag: a digest of the versioned fields. It covers the content through its commitment, so that it
    tells nothing of a purged one."""
    # The revision stands for `merged_into`, whose name a caller may not see and could guess back from a digest of it.
    merged = str(version.from_revision) if version.merged_into else ""
    parts = (version.commitment.hex(), str(version.state), str(version.sensitivity), version.owner, merged)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def cube_message(cube: CubeRow) -> Cube:
    """Returns a Cube."""
    message = Cube.FromString(cube.settings.payload)
    message.name = names.cube_name(cube.id)
    message.uid = cube.uid
    message.owner = cube.owner
    message.revision = cube.revision
    message.head_digest = cube.head_digest
    message.etag = etag_of(cube.settings)
    message.create_time.CopyFrom(timestamp(cube.create_time))
    message.update_time.CopyFrom(timestamp(cube.head_time))
    message.state = cube.settings.state  # type: ignore[assignment]
    return message


def memory_message(cube_id: str, version: Version, *, content: bool = True) -> Memory:
    """Returns a Memory as the record has it; `visible_memories` leaves out what a caller may not see. A purged memory
    is purged in every revision: only name, uid, state and the purging commit's revision remain of it."""
    prefix = names.cube_name(cube_id)
    if version.current_state == MEMORY_STATE_PURGED:
        return Memory(
            name=f"{prefix}/memories/{version.id}",
            uid=version.uid,
            revision=version.current_revision,
            state=MEMORY_STATE_PURGED,
        )
    message = Memory.FromString(version.payload) if content else Memory()
    message.name = f"{prefix}/memories/{version.id}"
    message.uid = version.uid
    message.revision = version.from_revision
    message.etag = etag_of(version)
    message.state = version.state  # type: ignore[assignment]
    if version.merged_into:
        message.merged_into = f"{prefix}/{version.merged_into}"
    message.sensitivity = version.sensitivity  # type: ignore[assignment]
    message.owner = version.owner
    set_time(message.create_time, version.create_time)
    set_time(message.update_time, version.time)
    message.commitment = version.commitment
    return message


async def visible_memories(
    txn: Reader, call: Call, cube: CubeRow, versions: Iterable[Version], *, content: bool = True
) -> list[Memory]:
    """Returns Memory messages without the names of memories that the caller may not see."""
    messages = [memory_message(cube.id, version, content=content) for version in versions]
    await hide_names(txn, call, cube, messages)
    return messages


async def hide_names(txn: Reader, call: Call, cube: CubeRow, messages: Sequence[Memory]) -> bool:
    """Clears `merged_into` and removes provenance that names memories which the caller does not see; returns whether
    anything was hidden. What does not exist is hidden as well, or naming a memory would tell whether it exists."""
    mentioned = {name for message in messages for name in (message.merged_into, *_sources(message)) if name}
    hidden = await _hidden(txn, call, cube, mentioned) if mentioned else set()
    if not hidden:
        return False
    changed = False
    for message in messages:
        if message.merged_into in hidden:
            message.merged_into = ""
            changed = True
        secret = hidden.intersection(_sources(message))
        if secret:
            kept = [item for item in message.provenance if item.source not in secret]
            del message.provenance[:]
            message.provenance.extend(kept)
            changed = True
    return changed


async def _hidden(txn: Reader, call: Call, cube: CubeRow, mentioned: Iterable[str]) -> set[str]:
    by_cube: dict[str, set[str]] = {}
    for name in mentioned:
        cube_id, memory_id = names.parse_memory(name)
        by_cube.setdefault(cube_id, set()).add(memory_id)
    hidden: set[str] = set()
    for cube_id, ids in by_cube.items():
        view = call.view(cube_id)
        if view.full:
            continue
        row = cube if cube_id == cube.id else await txn.cube(cube_id)
        known = await txn.versions(row.key, Kind.MEMORY, ids) if row is not None else {}
        seen = {id_ for id_, version in known.items() if view.sees(version)}
        hidden |= {names.memory_name(cube_id, id_) for id_ in ids - seen}
    return hidden


def _sources(message: Memory) -> list[str]:
    return [
        item.source
        for item in message.provenance
        if item.kind == PROVENANCE_KIND_MEMORY and names.matches(FORMAT_MEMORY_NAME, item.source)
    ]


def relation_message(cube_id: str, version: Version, source: str, target: str) -> Relation:
    """Returns a Relation.

    Args:
        cube_id: The cube.
        version: The relation's version.
        source: The source's name relative to the cube.
        target: The target's name relative to the cube.
    """
    prefix = names.cube_name(cube_id)
    return Relation(
        name=names.relation_name(cube_id, version.id),
        uid=version.uid,
        source=f"{prefix}/{source}",
        target=f"{prefix}/{target}",
        type=version.type,
        weight=version.weight,
        revision=version.from_revision,
        create_time=timestamp(version.create_time),
    )


def session_message(cube_id: str, version: Version) -> Session:
    """Returns a Session."""
    message = Session.FromString(version.payload)
    message.name = names.session_name(cube_id, version.id)
    message.uid = version.uid
    message.owner = version.owner
    message.create_time.CopyFrom(timestamp(version.create_time))
    if version.state == MEMORY_STATE_ARCHIVED:
        message.end_time.CopyFrom(timestamp(version.time))
    message.state = version.state  # type: ignore[assignment]
    message.revision = version.from_revision
    return message


async def visible_changes(txn: Reader, view: CubeView, cube: CubeRow, rows: Sequence[ChangeRow]) -> list[ChangeRow]:
    """Returns the changes that a caller may see: of memories that it sees, and of relations whose two ends it sees."""
    if view.full:
        return list(rows)
    ends = {
        uid for row in rows if row.version.kind is Kind.RELATION for uid in (row.version.source, row.version.target)
    }
    seen = {uid for uid, version in (await txn.versions_by_uid(cube.key, ends)).items() if view.sees(version)}

    def visible(version: Version) -> bool:
        if version.kind is Kind.MEMORY:
            return view.sees(version)
        if version.kind is Kind.RELATION:
            return version.source in seen and version.target in seen
        return view.rank > 0

    kept = [row for row in rows if visible(row.version)]
    return [await _without_hidden_merge(txn, view, cube, row) for row in kept]


async def _without_hidden_merge(txn: Reader, view: CubeView, cube: CubeRow, row: ChangeRow) -> ChangeRow:
    if not row.version.merged_into:
        return row
    target_id = row.version.merged_into.partition("/")[2]
    target = (await txn.versions(cube.key, Kind.MEMORY, [target_id])).get(target_id)
    if target is None or view.sees(target):
        return row
    change = Change.FromString(row.change)
    change.merged_into = ""
    return ChangeRow(row.sequence, change.SerializeToString(deterministic=True), row.version)


def own_commit(cube_id: str, row: CommitRow) -> Commit:
    """Returns a Commit whole, as its maker may see it."""
    message = Commit.FromString(row.header)
    message.name = names.commit_name(cube_id, row.revision)
    message.digest = row.digest
    return message


async def commit_message(txn: Reader, call: Call, cube: CubeRow, row: CommitRow) -> Commit:
    """Returns a Commit whose `change_count` counts what the caller may see. The cause of a commit with hidden changes,
    which might speak of them, is shown to its maker alone; to the maker, one that vanished would tell of them."""
    message = own_commit(cube.id, row)
    view = call.view(cube.id)
    if not view.full:
        count = await txn.count_changes(cube.key, row.revision, view.clearance)
        if count < row.change_count:
            message.change_count = count
            message.cause = message.cause if message.principal == call.principal else ""
    return message


async def commit_of(txn: Reader, call: Call, cube: CubeRow, revision: int) -> Commit:
    """Returns the Commit of a revision that the cube has."""
    (row,) = await txn.commits(cube.key, revision, revision, 1, newest_first=False)
    return await commit_message(txn, call, cube, row)
