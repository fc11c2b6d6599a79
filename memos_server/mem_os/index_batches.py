"""The batches that bring an index up to a cube's log: read from the record, or made of what was just committed.

What a commit of this server added is at hand when its transaction ends, and reading it back costs the record as much as
writing it did. So commits that only add memories are handed over, up to so many bytes; every other one, and those that
other servers made or that a crash forgot, are read from the log, which alone is what an index is made of.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from memos_server._pb.mip.v1.commit_pb2 import CHANGE_KIND_MEMORY_ADDED, CHANGE_KIND_MEMORY_UPDATED, Change
from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_PURGED, Memory
from memos_server.graph_dbs.base import OPEN, ChangeRow, CommitRow, CubeRow, Kind, NewContent, NewVersion, Reader
from memos_server.mem_os import filters
from memos_server.memories.analysis import ANALYZER_VERSION, analyze
from memos_server.memories.entities import entities
from memos_server.memories.indexed_text import indexed_text
from memos_server.memories.registry import MemoryTypes
from memos_server.vec_dbs.base import IndexBatch, IndexContent, IndexVersion

_BATCH: Final = 2000
"""About how many changes go into one batch; a larger commit is a batch of its own."""
_STEP: Final = 1000
_HANDED_BYTES: Final = 64 * 2**20
"""How much of what was just committed is kept for the indexes, bytes."""
_ITEM_BYTES: Final = 1000
"""About what a handed memory takes beside its payload and vector."""

INDEX_VERSION = f"{ANALYZER_VERSION}.2"
"""What the indexes hold depends on the analyzer and on which text, facets and entities a content gives; a change of the
latter raises the last number. An index of another version is made anew."""


def version_of(types: MemoryTypes, backend: str) -> str:
    """Returns the version of what an index holds: INDEX_VERSION, and what a plug-in changes in it, at most 64 bytes.

    Args:
        types: The memory types, whose words it holds.
        backend: The name of the backend that holds it.
    """
    words = types.version()
    if backend == "embedded" and not words:
        return INDEX_VERSION
    return f"{INDEX_VERSION}+{hashlib.sha256(f'{backend} {words}'.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Added:
    """A commit of this server that did nothing but add memories.

    Attributes:
        revision: Its revision.
        time: Its time, microseconds since the epoch.
        dimension: The dimension of the cube's vectors.
        memories: (uid, state, sensitivity, content) of each memory.
        weight: About what it takes, bytes.
    """

    revision: int
    time: int
    dimension: int
    memories: Sequence[tuple[str, int, int, NewContent]]
    weight: int


def added_alone(cube: CubeRow, row: CommitRow, versions: Sequence[NewVersion]) -> Added | None:
    """Returns a commit as indexes may take it over; None when it is another one than of new memories with contents."""
    memories = []
    weight = 0
    for version in versions:
        content = version.content
        if version.kind is not Kind.MEMORY or version.item is not None or not isinstance(content, NewContent):
            return None
        memories.append((version.uid.lower(), version.state, version.sensitivity, content))
        weight += _ITEM_BYTES + len(content.payload) + len(content.vector or b"")
    dimension = CubeContent.FromString(cube.settings.payload).embedding_dimension
    return Added(row.revision, row.time, dimension, memories, weight)


class Handed:
    """Commits that were handed over, of all cubes; the newest are left out when there is no room for them."""

    def __init__(self, most: int = _HANDED_BYTES) -> None:
        """Keeps at most `most` bytes."""
        self._room = most
        self._of: dict[str, OrderedDict[int, Added]] = {}

    def put(self, cube_uid: str, commit: Added) -> None:
        """Keeps a commit, as long as there is room."""
        if commit.weight <= self._room:
            self._room -= commit.weight
            self._of.setdefault(cube_uid, OrderedDict())[commit.revision] = commit

    def after(self, cube_uid: str, revision: int) -> list[Added]:
        """Returns the commits that follow a revision without a gap, about as many as a batch has. Those up to it are
        forgotten."""
        kept = self._of.get(cube_uid)
        if kept is None:
            return []
        for old in [each for each in kept if each <= revision]:
            self._room += kept.pop(old).weight
        if not kept:
            del self._of[cube_uid]
        found: list[Added] = []
        count = 0
        while (following := kept.get(revision + 1)) is not None and (
            not count or count + len(following.memories) <= _BATCH
        ):
            found.append(following)
            revision, count = following.revision, count + len(following.memories)
        return found

    def forget(self, cube_uid: str) -> None:
        """Forgets the commits of a cube."""
        for commit in self._of.pop(cube_uid, {}).values():
            self._room += commit.weight


class Batches:
    """Makes batches."""

    def __init__(self, types: MemoryTypes) -> None:
        """`types` say what of a payload is indexed."""
        self._types = types

    def of_added(self, after: int, commits: Sequence[Added]) -> tuple[int, IndexBatch]:
        """Returns the dimension and the batch of commits that follow `after` without a gap."""
        contents: dict[bytes, IndexContent] = {}
        versions: list[IndexVersion] = []
        for commit in commits:
            time = commit.time / 1e6
            for uid, state, sensitivity, content in commit.memories:
                key = content.commitment
                versions.append(IndexVersion(uid, commit.revision, key, state, sensitivity, time, time))
                contents[key] = self._content(key, content.payload, content.vector)
        last = commits[-1]
        return last.dimension, IndexBatch(after, last.revision, list(contents.values()), versions)

    async def of_log(self, txn: Reader, cube_id: str, after: int) -> tuple[int, IndexBatch] | None:
        """Returns the dimension and the next batch of a cube's log; None when there is none."""
        cube = await txn.cube(cube_id)
        if cube is None or cube.revision <= after:
            return None
        contents: dict[bytes, IndexContent] = {}
        versions: list[IndexVersion] = []
        erased: list[bytes] = []
        revision, count = after, 0
        for commit in await txn.commits(cube.key, after + 1, OPEN, _STEP, newest_first=False):
            if count and count + commit.change_count > _BATCH:
                break
            sequence = -1
            while sequence < commit.change_count - 1:
                rows = await txn.changes(cube.key, commit.revision, sequence, _STEP, with_content=True)
                if not rows:
                    break  # rows were lost, which VerifyCube names; the rest is found all the same
                sequence = rows[-1].sequence
                await self._add(txn, cube, rows, contents, versions, erased)
            revision, count = commit.revision, count + commit.change_count
        dimension = CubeContent.FromString(cube.settings.payload).embedding_dimension
        return dimension, IndexBatch(after, revision, list(contents.values()), versions, erased)

    async def _add(
        self,
        txn: Reader,
        cube: CubeRow,
        rows: Sequence[ChangeRow],
        contents: dict[bytes, IndexContent],
        versions: list[IndexVersion],
        erased: list[bytes],
    ) -> None:
        memories = [row for row in rows if row.version.kind is Kind.MEMORY]
        vectors = await txn.vectors([row.version.content for row in memories if row.version.content is not None])
        for row in memories:
            version = row.version
            purged = version.current_state == MEMORY_STATE_PURGED
            key = version.commitment if version.payload and not purged else None
            versions.append(
                IndexVersion(
                    version.uid,
                    version.from_revision,
                    key,
                    version.state,
                    version.sensitivity,
                    version.create_time / 1e6,
                    version.time / 1e6,
                )
            )
            if version.state == MEMORY_STATE_PURGED:
                before = version.from_revision
                while past := await txn.history(cube.key, Kind.MEMORY, version.id, before, _STEP):
                    erased += [old.commitment for old in past if old.commitment]
                    before = past[-1].from_revision
            elif key is not None and Change.FromString(row.change).kind in (
                CHANGE_KIND_MEMORY_ADDED,
                CHANGE_KIND_MEMORY_UPDATED,
            ):
                contents[key] = self._content(key, version.payload, vectors.get(version.content or -1))

    def _content(self, key: bytes, payload: bytes, vector: bytes | None) -> IndexContent:
        memory = Memory.FromString(payload)
        text = indexed_text(self._types, memory)
        return IndexContent(
            key=key,
            terms=analyze(text),
            facets=filters.facets_of(memory),
            entities=entities(text),
            numbers=filters.numbers_of(memory),
            vector=np.frombuffer(vector, "<f4") if vector is not None else None,
        )
