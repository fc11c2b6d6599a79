"""What changes did: to several memories, to a whole cube, to a stream of additions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from memos_sdk.models.cube import CubeInfo
from memos_sdk.models.log import Commit
from memos_sdk.models.memory import Memory

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


@dataclasses.dataclass(frozen=True)
class Mutation:
    """What a change of several memories, relations or a whole cube did.

    Attributes:
        commit: The commit.
        memories: The memories concerned, where the server returns them.
        relations: The relations concerned, where the server returns them.
        index_pending: True when search does not see the change yet.
        derived: After a purge: what is known to derive from the erased content and stays, names.
        compaction_job: After a purge: the job that erases the bytes from disk.
    """

    commit: Commit
    memories: tuple[Memory, ...] = ()
    relations: tuple[mip.Relation, ...] = ()
    index_pending: bool = False
    derived: tuple[str, ...] = ()
    compaction_job: str = ""


@dataclasses.dataclass(frozen=True)
class Rollback:
    """What a rollback did.

    Attributes:
        commit: The commit that the rollback made.
        cube: The cube afterwards.
        skipped_purges: Purged memories that stay purged: name -> revision of the purging commit, the first 1,000.
        index_pending: True when search does not see the change yet.
    """

    commit: Commit
    cube: CubeInfo
    skipped_purges: Mapping[str, int]
    index_pending: bool


@dataclasses.dataclass(frozen=True)
class BlobStat:
    """What a cube has of a blob.

    Attributes:
        digest: The blob, `sha256:…`.
        held: True when the cube holds it whole.
        size: Its bytes; None while it is not held.
        arrived: The bytes that have arrived; less than its size while an upload is unfinished.
    """

    digest: str
    held: bool
    size: int | None
    arrived: int


@dataclasses.dataclass(frozen=True)
class AddSummary:
    """What `add_many` did.

    Attributes:
        added: The number of memories added.
        commits: The commits: one, unless there were more memories than one holds; none when there were no memories.
        names: The names of the memories, in the order of the input.
        index_pending: True when search does not see all of them yet.
    """

    added: int
    commits: tuple[Commit, ...]
    names: Sequence[str]
    index_pending: bool
