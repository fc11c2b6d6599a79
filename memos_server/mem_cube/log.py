"""Appending to a cube's log: the one way in which anything in a cube changes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from memos_server._pb.mip.v1.commit_pb2 import CommitHeader, Head
from memos_server.graph_dbs.base import CommitRow, NewVersion, Writer
from memos_server.mem_cube import commitments


def now_us() -> int:
    """Returns the time in microseconds since the epoch."""
    return time.time_ns() // 1000


def timestamp(microseconds: int) -> Timestamp:
    """Returns a Timestamp."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def set_time(field: Timestamp, microseconds: int) -> None:
    """Sets a Timestamp in place, at a fraction of the cost of making one."""
    field.seconds = microseconds // 1_000_000
    field.nanos = microseconds % 1_000_000 * 1000


async def append_commit(
    txn: Writer,
    cube: int,
    cube_uid: str,
    parent: CommitRow | None,
    versions: Sequence[NewVersion],
    *,
    principal: str,
    cause: str,
    request_id: str = "",
    merged_heads: Sequence[Head] = (),
) -> CommitRow:
    """Seals a commit over the changes and appends it.

    Args:
        txn: The transaction; it holds the cube's lock.
        cube: The cube's key.
        cube_uid: The cube's uid.
        parent: The head, of which revision, digest and time count; None for the first commit.
        versions: The changes, at most one an item.
        principal: Who makes the commit.
        cause: Why.
        request_id: The call's request_id.
        merged_heads: Heads of other logs that the commit takes in.
    """
    moment = max(now_us(), (parent.time if parent else 0) + 1)
    header = CommitHeader(
        cube_uid=cube_uid,
        revision=(parent.revision if parent else 0) + 1,
        parent_digest=parent.digest if parent else b"",
        merged_heads=merged_heads,
        principal=principal,
        cause=cause,
        create_time=timestamp(moment),
        request_id=request_id,
        change_count=len(versions),
        changes_digest=commitments.changes_digest(commitments.change_digest(v.change) for v in versions),
    )
    sealed = header.SerializeToString(deterministic=True)
    commit = CommitRow(header.revision, commitments.commit_digest(sealed), sealed, moment, len(versions))
    await txn.append(cube, commit, versions)
    return commit
