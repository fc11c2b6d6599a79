"""Backends of the record store's port, and a short way to write cubes through it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from memos_server._pb.mip.v1.commit_pb2 import CommitHeader, Head
from memos_server.graph_dbs.base import (
    CommitRow,
    Kind,
    NewContent,
    NewVersion,
    Reader,
    RecordStore,
    Version,
    Writer,
)
from memos_server.graph_dbs.sqlite import SqliteRecordStore
from tests.ports.plugged import plugged
from tests.support import engines


@cache
def graph_of(folder: Path) -> dict[str, Any]:
    """Returns the settings of a graph that is empty when a test's folder is first named."""
    return engines.clean_neo4j()


def neo4j(folder: Path) -> RecordStore:
    """Makes a store in a graph that belongs to a test's folder."""
    from memos_server.graph_dbs.neo4j import Neo4jRecordStore

    return Neo4jRecordStore(str(folder), **graph_of(folder))


BACKENDS: dict[str, Callable[[Path], RecordStore]] = {
    "neo4j": neo4j,
    "sqlite": lambda folder: SqliteRecordStore(str(folder)),
    **plugged("memos.graph_dbs"),
}
"""name -> what makes a store; made again with the same folder, it holds what it held."""
NAMES = [pytest.param(name, marks=[pytest.mark.engines] if name == "neo4j" else []) for name in sorted(BACKENDS)]
"""The backends as parameters of tests: engines are started in `make test-engines` only."""

ACTIVE, MERGED, ARCHIVED, DELETED, PURGED = 1, 2, 3, 4, 5
INTERNAL, SECRET = 2, 4
OWNER = "principals/ann"


def uid(name: str) -> str:
    """Returns a UUID that stands for a name."""
    return str(uuid5(NAMESPACE_URL, name))


def moment(revision: int) -> int:
    """Returns the time that a commit gets, microseconds."""
    return revision * 1_000


def content(words: str, *, vector: bytes | None = None, blobs: tuple[str, ...] = ()) -> NewContent:
    """Returns content whose payload is some words."""
    payload = words.encode()
    digest = hashlib.sha256(payload).digest()
    salt = hashlib.sha256(b"salt of " + payload).digest()
    return NewContent(hashlib.sha256(salt + digest).digest(), salt, digest, payload, vector, blobs)


def commitment(words: str) -> bytes:
    """Returns the commitment of `content`."""
    return content(words).commitment


def settings(cube_id: str) -> NewVersion:
    """Returns the first version of a cube's settings."""
    new = content("settings")
    return NewVersion(b"settings", Kind.CUBE, "", uid(f"cubes/{cube_id}"), None, ACTIVE, INTERNAL, OWNER, content=new)


def memory(id_: str, words: str = "", *, vector: bytes | None = None, blobs: tuple[str, ...] = ()) -> NewVersion:
    """Returns the first version of a memory; its words are its id unless given."""
    new = content(words or id_, vector=vector, blobs=blobs)
    return NewVersion(f"added {id_}".encode(), Kind.MEMORY, id_, uid(id_), None, ACTIVE, INTERNAL, OWNER, content=new)


def relation(source: str, target: str, type_: str = "RELATES_TO", weight: float = 1.0) -> NewVersion:
    """Returns the first version of a relation with the id `SOURCE-TARGET`."""
    id_ = f"{source}-{target}"
    return NewVersion(
        f"related {id_}".encode(), Kind.RELATION, id_, uid(id_), None, ACTIVE, INTERNAL, OWNER,
        source=uid(source), target=uid(target), type=type_, weight=weight,
    )  # fmt: skip


def session(id_: str) -> NewVersion:
    """Returns the first version of a session."""
    return NewVersion(b"session", Kind.SESSION, id_, uid(id_), None, ACTIVE, INTERNAL, OWNER, content=content(id_))


def following(
    before: Version,
    *,
    words: str | None = None,
    state: int | None = None,
    sensitivity: int | None = None,
    merged_into: str = "",
    back_to: Version | None = None,
    erased: bool = False,
    weight: float | None = None,
) -> NewVersion:
    """Returns the next version of an item; what is not given stays."""
    new: NewContent | int | None = before.content
    if words is not None:
        new = content(words)
    elif back_to is not None:
        new = back_to.content
    elif erased:
        new = None
    return NewVersion(
        f"changed {before.id}".encode(),
        before.kind,
        before.id,
        before.uid,
        before.item,
        before.state if state is None else state,
        before.sensitivity if sensitivity is None else sensitivity,
        before.owner,
        merged_into,
        new,
        before.source,
        before.target,
        before.type,
        before.weight if weight is None else weight,
    )


async def append(
    txn: Writer, cube_id: str, versions: Sequence[NewVersion], *, cause: str = "", heads: Sequence[Head] = ()
) -> int:
    """Appends a commit to a cube whose lock is taken here, and returns its revision."""
    cube = await txn.lock_cube(cube_id)
    assert cube is not None
    return await _append(txn, cube.key, cube.revision + 1, versions, cause, heads)


async def _append(
    txn: Writer, key: int, revision: int, versions: Sequence[NewVersion], cause: str, heads: Sequence[Head]
) -> int:
    header = CommitHeader(revision=revision, cause=cause, merged_heads=heads).SerializeToString(deterministic=True)
    row = CommitRow(revision, hashlib.sha256(header).digest(), header, moment(revision), len(versions))
    await txn.append(key, row, versions)
    return revision


async def create(store: RecordStore, cube_id: str, *versions: NewVersion, heads: Sequence[Head] = ()) -> int:
    """Makes a cube whose first commit holds its settings and further items; returns the cube's key."""

    async def work(txn: Writer) -> int:
        key = await txn.insert_cube(cube_id, uid(f"cubes/{cube_id}"), OWNER)
        await _append(txn, key, 1, [settings(cube_id), *versions], "", heads)
        return key

    return await store.write(work)


async def commit(store: RecordStore, cube_id: str, *versions: NewVersion) -> int:
    """Makes one commit and returns its revision."""

    async def work(txn: Writer) -> int:
        return await append(txn, cube_id, versions)

    return await store.write(work)


async def change(store: RecordStore, cube_id: str, kind: Kind, ids: Sequence[str], **changes: object) -> int:
    """Makes one commit in which items get their next version; see `following`."""

    async def work(txn: Writer) -> int:
        cube = await txn.lock_cube(cube_id)
        assert cube is not None
        found = await txn.versions(cube.key, kind, ids)
        return await append(txn, cube_id, [following(found[id_], **changes) for id_ in ids])  # type: ignore[arg-type]

    return await store.write(work)


async def memories(store: RecordStore, key: int, revision: int | None = None) -> Mapping[str, tuple[int, str]]:
    """Returns id -> (state, words) of a cube's memories."""

    async def work(txn: Reader) -> Mapping[str, tuple[int, str]]:
        rows = await txn.list_versions(key, Kind.MEMORY, 0, 1000, revision)
        return {row.id: (row.state, row.payload.decode()) for row in rows}

    return await store.read(work)
