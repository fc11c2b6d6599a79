"""Nodes of the record that do not fit each other, as only a hand in the database makes them.

The rules are those of the embedded store (`sqlite/soundness.py`), as far as a graph can break them: a cube's nodes are
read in the order of their handles, and compared with what they name. What the nodes *say* is compared with the chain by
VerifyCube.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from memos_server._pb.mip.v1.commit_pb2 import Change
from memos_server.graph_dbs.base import OPEN, Kind, Misfit, relative_name
from memos_server.graph_dbs.neo4j.shapes import KIND_LABELS, first_handle
from memos_server.graph_dbs.neo4j.statements import LongStatements, Statements

_STEP: Final = 500

_CUBE: Final = "MATCH (u:Cube {key: $cube}) RETURN u.forked_from"
_COMMITS: Final = """MATCH (m:Commit) WHERE m.cube = $cube AND m.revision > $after
    RETURN m.revision, m.digest, m.header, m.time, m.first_version, m.change_count
    ORDER BY m.cube, m.revision LIMIT $limit"""
_ITEMS: Final = """MATCH (i:Item) USING INDEX i:Item(cube, uid) WHERE i.cube = $cube AND i.uid > $after
    CALL (i) { OPTIONAL MATCH (v:Version) USING INDEX v:Version(item, from_revision)
      WHERE v.item = i.key AND v.from_revision >= 0
      RETURN v.to_revision AS until ORDER BY v.item DESC, v.from_revision DESC LIMIT 1 }
    RETURN i.uid, i.kind, i.id, i.key, i.create_time, i.source, i.target, i.type, labels(i), until
    ORDER BY i.cube, i.uid LIMIT $limit"""
_VERSIONS: Final = """MATCH (v:Version) WHERE v.key > $after AND v.key < $end WITH v ORDER BY v.key LIMIT $limit
    OPTIONAL MATCH (v)-[:VERSION_OF]->(i:Item) WITH v, head(collect(i)) AS i, count(i) AS owners
    CALL (v) { OPTIONAL MATCH (n:Version) USING INDEX n:Version(item, from_revision)
      WHERE n.item = v.item AND n.from_revision > v.from_revision
      RETURN n.from_revision AS following ORDER BY n.item, n.from_revision LIMIT 1 }
    CALL (v) { OPTIONAL MATCH (t:Version) USING INDEX t:Version(item, from_revision)
      WHERE t.item = v.item AND t.from_revision = v.from_revision RETURN count(t) AS twins }
    OPTIONAL MATCH (m:Commit {cube: $cube, revision: v.from_revision})
    OPTIONAL MATCH (c:Version {key: v.content})
    RETURN v.key, v.item, v.from_revision, v.to_revision, v.state, v.sensitivity, v.owner, v.merged_into, v.time,
      v.weight, v.change, v.content, i.key, i.kind, i.id, i.cube, owners, following, twins, m.first_version,
      m.change_count, c.key, c.item, c.commitment, c.salt, c.digest, c.payload, c.vector, c.erased
    ORDER BY v.key"""
_BLOBS: Final = """MATCH (b:Blob) WHERE b.cube = $cube AND b.digest > $after
    RETURN b.digest, b.size, b.time, b.held, b.doomed, EXISTS { (b)<-[:NAMES]-(:Version) } ORDER BY b.cube, b.digest
    LIMIT $limit"""
_FOREIGN_BLOBS: Final = """MATCH (b:Blob)<-[:NAMES]-(v:Version) WHERE b.cube = $cube AND b.digest IS NOT NULL
    AND (v.key <= $first OR v.key >= $end) RETURN DISTINCT b.digest LIMIT $limit"""
_PROOFS: Final = """MATCH (p:BlobProof) USING INDEX p:BlobProof(cube, digest, principal)
    WHERE p.cube = $cube AND p.digest IS NOT NULL AND p.principal IS NOT NULL
    AND NOT EXISTS { MATCH (b:Blob {cube: p.cube, digest: p.digest}) WHERE b.held }
    RETURN DISTINCT p.digest LIMIT $limit"""
_UNRELATED: Final = """MATCH (i:Relation) WHERE i.key > $first AND i.key < $end
    CALL (i) { MATCH (v:Version) USING INDEX v:Version(item, from_revision)
      WHERE v.item = i.key AND v.from_revision <= $pin
      RETURN v ORDER BY v.item DESC, v.from_revision DESC LIMIT 1 }
    WITH i, v WHERE v.to_revision > $pin AND v.state = 1
    MATCH (s:Item {cube: i.cube, uid: i.source}) MATCH (t:Item {cube: i.cube, uid: i.target})
    WITH i, v, s, t WHERE NOT EXISTS { MATCH (s)-[e:RELATES]->(t) WHERE e.key = i.key AND e.type = i.type }
    RETURN i.id, v.from_revision LIMIT $limit"""

_STRAY: Final[Mapping[str, str]] = {
    "cubes without settings": """MATCH (u:Cube) WHERE NOT EXISTS { MATCH (i:Settings {key: u.settings}) }
        RETURN count(u)""",
    "commits of no cube": "MATCH (m:Commit) WHERE NOT EXISTS { MATCH (u:Cube {key: m.cube}) } RETURN count(m)",
    "items of no cube": "MATCH (i:Item) WHERE NOT EXISTS { MATCH (u:Cube {key: i.cube}) } RETURN count(i)",
    "versions of no item": "MATCH (v:Version) WHERE NOT EXISTS { (v)-[:VERSION_OF]->(:Item) } RETURN count(v)",
    "blobs of no cube": "MATCH (b:Blob) WHERE NOT EXISTS { MATCH (u:Cube {key: b.cube}) } RETURN count(b)",
    "proofs of no blob": """MATCH (p:BlobProof) WHERE NOT EXISTS { MATCH (b:Blob {cube: p.cube, digest: p.digest}) }
        RETURN count(p)""",
}


async def misfits(statements: LongStatements, cube: int, pin: int, limit: int) -> list[Misfit]:
    """Returns the misfits of a cube up to a revision; see `Reader.misfits`."""
    found: list[Misfit] = []
    async for misfit in _all(statements, cube, pin, limit):
        found.append(misfit)
        if len(found) >= limit:
            break
    return found


async def _all(statements: LongStatements, cube: int, pin: int, limit: int) -> AsyncIterator[Misfit]:
    for row in await statements.rows(_CUBE, cube=cube):
        if not isinstance(row[0], str | None):
            yield Misfit("state", "", 0, "the cube's node holds a value of another type")
    async for row in _paged(statements, _COMMITS, 0, cube=cube):
        for misfit in _commit(row, pin):
            yield misfit
    async for row in _paged(statements, _ITEMS, "", cube=cube):
        for misfit in _item(row):
            yield misfit
    first, end = first_handle(cube), first_handle(cube + 1)
    async for row in _paged(statements, _VERSIONS, first, cube=cube, end=end):
        # What a commit after the pinned head has made is being written, or is read by the next verification.
        if not isinstance(row[2], int) or row[2] <= pin:
            for misfit in _version(row, cube, pin):
                yield misfit
    async for row in _paged(statements, _BLOBS, "", cube=cube):
        for misfit in _blob(row):
            yield misfit
    for row in await statements.long_rows(_FOREIGN_BLOBS, cube=cube, first=first, end=end, limit=limit):
        yield Misfit("blob", f"blobs/{row[0]}", 0, "the blob is kept for a content that the cube does not have")
    for row in await statements.long_rows(_PROOFS, cube=cube, limit=limit):
        yield Misfit("blob", f"blobs/{row[0]}", 0, "somebody has shown to have the blob, which the cube does not hold")
    for row in await statements.long_rows(_UNRELATED, first=first, end=end, pin=pin, limit=limit):
        name = relative_name(Kind.RELATION, str(row[0]))
        yield Misfit("state", name, row[1], "the relation is no relationship between its memories")


async def _paged(statements: Statements, query: str, after: int | str, **parameters: int) -> AsyncIterator[list[Any]]:
    while rows := await statements.rows(query, after=after, limit=_STEP, **parameters):
        for row in rows:
            yield row
        after = rows[-1][0]


def _commit(row: Sequence[Any], pin: int) -> Iterator[Misfit]:
    revision, digest, header, time, first, count = row
    name = f"commits/{revision}"
    whole = all(type(value) is int for value in (revision, time, first, count))
    if not whole or not _bytes(digest, 32) or not isinstance(header, bytes):
        yield Misfit("chain", name, _number(revision), "the commit's node holds a value of another type")
    del pin


def _item(row: Sequence[Any]) -> Iterator[Misfit]:
    uid, kind, id_, key, created, source, target, type_, labels, until = row
    name = _name(kind, id_)
    typed = (
        isinstance(id_, str)
        and isinstance(uid, str)
        and type(key) is int
        and type(created) is int
        and kind in tuple(Kind)
        and (kind != Kind.CUBE or id_ == "")
        and all(value is None or (isinstance(value, str) and value) for value in (source, target, type_))
    )
    if not typed or sorted(labels) != sorted(["Item", KIND_LABELS[Kind(kind)]]):
        yield Misfit("state", name, 0, "the item's node holds a value of another type")
    elif until is None or until != OPEN:
        yield Misfit("state", name, 0, "the current version is missing, is another item's, or has ended")


def _version(row: Sequence[Any], cube: int, pin: int) -> Iterator[Misfit]:
    (key, item, since, until, state, sensitivity, owner, merged, time, weight, change, content) = row[:12]
    (item_key, kind, id_, item_cube, owners, following, twins, first, count) = row[12:21]
    if item_key is None:
        yield Misfit("state", _named(change), _number(since), "the item's node is missing")
        return
    name, at = _name(kind, id_), _number(since)
    numbers = all(type(value) is int for value in (item, since, until, state, sensitivity, time))
    if (
        not numbers
        or not 1 <= state <= 5
        or not 1 <= sensitivity <= 4
        or not isinstance(owner, str)
        or not isinstance(merged, str | None)
        or not (content is None or type(content) is int)
        or not (weight is None or type(weight) is float)
        or not isinstance(change, bytes)
    ):
        yield Misfit("state", name, at, "a version's node holds a value of another type")
        return
    if owners != 1 or item != item_key or item_cube != cube:
        yield Misfit("state", name, at, "a version belongs to another cube or to another item")
    if twins != 1 or until != (OPEN if following is None else following):
        yield Misfit("state", name, at, "a version does not end where the next one begins")
    if type(first) is not int or type(count) is not int or not first <= key < first + count:
        yield Misfit("state", name, at, "a version stands in no commit")
    if content is not None:
        yield from _content(row[21:], name, at, item)
    del pin


def _content(row: Sequence[Any], name: str, at: int, item: int) -> Iterator[Misfit]:
    key, owner, commitment, salt, digest, payload, vector, erased = row
    typed = (
        _bytes(commitment, 32)
        and (salt is None or _bytes(salt, 32))
        and (digest is None or _bytes(digest, 32))
        and isinstance(payload, bytes | None)
        and (erased is None or type(erased) is int)
    )
    if key is None or owner != item or not typed:
        message = "the content is missing, holds a value of another type, or belongs to another item"
        yield Misfit("content", name, at, message)
        return
    whole = salt is not None and digest is not None and payload is not None and erased is None
    gone = salt is None and digest is None and payload is None and vector is None and erased is not None
    if not gone and not (whole and hashlib.sha256(salt + digest).digest() == commitment):
        message = "the content's digest does not open its commitment, or was erased in part"
        yield Misfit("content", name, at, message)
    if vector is not None and (not isinstance(vector, bytes) or not vector or len(vector) % 4):
        yield Misfit("content", name, at, "the vector holds a value of another type")


def _blob(row: Sequence[Any]) -> Iterator[Misfit]:
    digest, size, time, held, doomed, named = row
    name = f"blobs/{digest}"
    numbers = type(size) is int and type(time) is int and size >= 0
    if not numbers or not isinstance(held, bool) or doomed not in (0, 1, 2):
        yield Misfit("blob", name, 0, "the blob's node holds a value of another type")
    elif named and (not held or doomed):
        yield Misfit("blob", name, 0, "a memory names the blob, which the cube does not hold")


def _bytes(value: object, length: int) -> bool:
    return isinstance(value, bytes) and len(value) == length


def _number(value: object) -> int:
    return value if type(value) is int else 0


def _named(change: object) -> str:
    """Returns the item that a change names; empty for the cube, and for what is no change."""
    try:
        return Change.FromString(change).name if isinstance(change, bytes) else ""
    except DecodeError:
        return ""


def _name(kind: Any, id_: object) -> str:
    """Returns a name relative to the cube, also of what is none: the node may have been tampered with."""
    return relative_name(Kind(kind), str(id_)) if kind in tuple(Kind) else f"items/{id_}"


async def stray_nodes(statements: LongStatements) -> AsyncIterator[str]:
    """Yields, in words, which nodes belong to nothing."""
    for what, query in _STRAY.items():
        ((count,),) = await statements.long_rows(query)
        if count:
            yield f"nodes that belong to nothing: {count} {what}"
