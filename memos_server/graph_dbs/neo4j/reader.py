"""Reads of the record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any, Final

from memos_server.graph_dbs.base import (
    ChangeRow,
    Clearance,
    CommitRow,
    CubeRow,
    Kind,
    Misfit,
    RequestKey,
    RequestRow,
    Version,
    relative_name,
)
from memos_server.graph_dbs.neo4j.access_reader import AccessReader
from memos_server.graph_dbs.neo4j.pins import Pins
from memos_server.graph_dbs.neo4j.shapes import (
    AT,
    BARE,
    COLUMNS,
    CONTENT,
    CURRENT,
    KIND_LABELS,
    NOW,
    WHOLE,
    Held,
    first_handle,
    seen,
    seen_parameters,
    to_version,
)
from memos_server.graph_dbs.neo4j.soundness import misfits
from memos_server.graph_dbs.neo4j.statements import LongStatements, chunks

_ALL: Final = 2**31 - 1
"""A LIMIT that is none."""

_COMMITS: Final = """MATCH (m:Commit) WHERE m.cube = $cube AND m.revision >= $low AND m.revision <= $high
    RETURN m.revision, m.digest, m.header, m.time, m.change_count ORDER BY m.cube, m.revision LIMIT $limit"""
_COMMITS_BACK: Final = """MATCH (m:Commit) WHERE m.cube = $cube AND m.revision >= $low AND m.revision <= $high
    RETURN m.revision, m.digest, m.header, m.time, m.change_count ORDER BY m.cube DESC, m.revision DESC LIMIT $limit"""
_COMMIT_AT: Final = """MATCH (m:Commit) USING INDEX m:Commit(cube, time) WHERE m.cube = $cube AND m.time <= $time
    WITH m ORDER BY m.cube DESC, m.time DESC LIMIT 1 RETURN m.revision"""
_CHANGED: Final = """MATCH (m:Commit {cube: $cube, revision: $revision})
    MATCH (v:Version) WHERE v.key > m.first_version + $after AND v.key < m.first_version + m.change_count"""
_CHANGES: Final = f"""{_CHANGED} WITH m, v ORDER BY v.key LIMIT $limit
    MATCH (v)-[:VERSION_OF]->(i:Item) {CURRENT} {CONTENT}"""
_CHANGES_WHOLE: Final = f"{_CHANGES} RETURN {WHOLE}, v.key - m.first_version, v.change ORDER BY v.key"
_CHANGES_BARE: Final = f"{_CHANGES} RETURN {BARE}, v.key - m.first_version, v.change ORDER BY v.key"
_END_SEEN: Final = """EXISTS {{ MATCH (e:Item {{cube: $cube, uid: i.{end}}})
    CALL (e) {{ MATCH (ev:Version) USING INDEX ev:Version(item, from_revision)
      WHERE ev.item = e.key AND ev.from_revision <= $pin
      RETURN ev ORDER BY ev.item DESC, ev.from_revision DESC LIMIT 1 }}
    WITH e, ev WHERE {seen} }}"""
_COUNT: Final = f"""{_CHANGED} MATCH (v)-[:VERSION_OF]->(i:Item) {CURRENT}
    WITH i, CASE WHEN v.sensitivity > cv.sensitivity THEN v.sensitivity ELSE cv.sensitivity END AS label
    WHERE CASE i.kind WHEN {Kind.MEMORY:d} THEN {seen("label", "i")}
      WHEN {Kind.RELATION:d} THEN {_END_SEEN.format(end="source", seen=seen("ev.sensitivity", "e"))}
        AND {_END_SEEN.format(end="target", seen=seen("ev.sensitivity", "e"))}
      ELSE $whole END
    RETURN count(*)"""
_BY_ID: Final = "UNWIND $ids AS wanted MATCH (i:Item {cube: $cube, kind: $kind, id: wanted})"
_BY_UID: Final = "UNWIND $uids AS wanted MATCH (i:Item {cube: $cube, uid: wanted})"
_HISTORY: Final = f"""MATCH (i:Item {{cube: $cube, kind: $kind, id: $id}}) {CURRENT}
    MATCH (v:Version) USING INDEX v:Version(item, from_revision)
    WHERE v.item = i.key AND v.from_revision < $before AND v.from_revision <= $pin
    WITH i, cv, v ORDER BY v.item DESC, v.from_revision DESC LIMIT $limit {CONTENT}
    RETURN {WHOLE} ORDER BY v.from_revision DESC"""
_ITEMS_CHANGED: Final = """MATCH (lowest:Commit {cube: $cube, revision: $following})
    MATCH (highest:Commit {cube: $cube, revision: $pin})
    MATCH (w:Version) WHERE w.key >= lowest.first_version AND w.key < highest.first_version + highest.change_count
    MATCH (w)-[:VERSION_OF]->(i:Item) WITH DISTINCT i"""
_CHANGED_NOW: Final = f"{_ITEMS_CHANGED} {NOW} {CONTENT} RETURN {BARE} ORDER BY i.kind, i.key"
_CHANGED_THEN: Final = f"{_ITEMS_CHANGED} {AT} {CONTENT} RETURN {BARE}"
_VECTORS: Final = "UNWIND $keys AS k MATCH (v:Version {key: k}) WHERE v.vector IS NOT NULL RETURN k, v.vector"
_NAMES: Final = f"{_BY_UID} RETURN i.uid, i.kind, i.id"
REQUEST: Final = """MATCH
    (r:Request {principal: $principal, method: $method, resource: $resource, request_id: $request_id})
    RETURN r.salt, r.digest, r.result, r.revision, r.time, r.cube"""
_BLOBS: Final = """UNWIND $digests AS wanted MATCH (b:Blob {cube: $cube, digest: wanted})
    WHERE b.held AND b.doomed = 0 RETURN b.digest, b.size"""
_PROVEN: Final = """UNWIND $digests AS wanted
    MATCH (p:BlobProof {cube: $cube, digest: wanted, principal: $principal}) RETURN p.digest"""
_DOOMED: Final = "MATCH (b:Blob) WHERE b.cube = $cube AND b.doomed > 0 RETURN b.digest"
_USERS: Final = f"""MATCH (b:Blob {{cube: $cube, digest: $digest}})<-[:NAMES]-(c:Version)-[:VERSION_OF]->(i:Item)
    MATCH (i)<-[:VERSION_OF]-(v:Version) WHERE v.content = c.key AND v.from_revision <= $pin
    {CURRENT} RETURN {BARE}"""
_CUBE_BLOBS: Final = """MATCH (b:Blob) WHERE b.cube = $cube AND b.digest > $after WITH b ORDER BY b.cube, b.digest
    WHERE b.held AND b.doomed = 0 RETURN b.digest, b.size LIMIT $limit"""
_CONTENT_BLOBS: Final = "UNWIND $keys AS k MATCH (:Version {key: k})-[:NAMES]->(b:Blob) RETURN k, b.digest"
_FORKS: Final = "MATCH (u:Cube) WHERE u.forked_from = $uid RETURN u.id ORDER BY u.key"


def _listing(kind: Kind) -> str:
    return f"MATCH (i:{KIND_LABELS[kind]}) WHERE i.key > $after AND i.key < $end"


def _queries(start: str, end: str = "") -> dict[tuple[bool, bool], str]:
    """Returns (whether at a past revision, whether with content) -> a query for versions."""
    return {
        (past, whole): f"{start} {AT if past else NOW} {CONTENT} RETURN {WHOLE if whole else BARE} {end}"
        for past in (False, True)
        for whole in (False, True)
    }


_VERSIONS: Final = _queries(_BY_ID)
_VERSIONS_BY_UID: Final = _queries(_BY_UID)


def _lists(clearance: bool) -> dict[tuple[Kind, bool, bool], str]:
    label = "CASE WHEN v.sensitivity > cv.sensitivity THEN v.sensitivity ELSE cv.sensitivity END"
    where = f"WITH * WHERE {seen(label, 'i')}" if clearance else ""
    return {
        (kind, past, whole): f"""{_listing(kind)} {AT if past else NOW} {where} WITH * ORDER BY i.key LIMIT $limit
            {CONTENT} RETURN {WHOLE if whole else BARE} ORDER BY i.key"""
        for kind in Kind
        for past in (False, True)
        for whole in (False, True)
    }


_LISTS: Final = _lists(clearance=False)
_SEEN_LISTS: Final = _lists(clearance=True)


def _edges(end: str, *, typed: bool, past: bool) -> str:
    """Returns the query for relations at one end of memories: of each in order of creation, by that end's index."""
    types = "WHERE i.type IN $types" if typed else ""
    return f"""UNWIND $uids AS wanted CALL (wanted) {{
        MATCH (i:Relation) USING INDEX i:Relation(cube, {end}, key)
        WHERE i.cube = $cube AND i.{end} = wanted AND i.key > $after
        WITH i ORDER BY i.cube, i.{end}, i.key {types} {AT if past else NOW}
        WITH i, v, cv WHERE v.state = 1 RETURN i, v, cv LIMIT $limit }}
        WITH * LIMIT $limit {CONTENT} RETURN {BARE}"""


_EDGES: Final = {
    (end, typed, past): _edges(end, typed=typed, past=past)
    for end in ("source", "target")
    for typed in (False, True)
    for past in (False, True)
}


class Neo4jReader(AccessReader):
    """Reads through some statements, each cube at the head that it had when it was first read."""

    def __init__(self, statements: LongStatements, pinned: Iterable[Held] = ()) -> None:
        """Reads through `statements`; cubes that are `pinned` as they were then."""
        super().__init__(statements)
        self._long = statements
        self._pins = Pins(statements)
        self._pins.resume(pinned)

    @property
    def pinned(self) -> Collection[Held]:
        """The cubes that were read, as they were then."""
        return self._pins.pinned

    async def _head(self, cube: int) -> int:
        """Returns the revision at which a cube is read."""
        return await self._pins.head(cube)

    async def cube(self, cube_id: str) -> CubeRow | None:
        """See Reader."""
        return await self._pins.by_id(cube_id)

    async def cubes(self, after: int, limit: int) -> Sequence[CubeRow]:
        """See Reader."""
        return await self._pins.after(after, limit)

    async def commits(self, cube: int, low: int, high: int, limit: int, *, newest_first: bool) -> Sequence[CommitRow]:
        """See Reader."""
        high = min(high, await self._head(cube))
        if low > high:
            return []
        query = _COMMITS_BACK if newest_first else _COMMITS
        return [
            CommitRow(*row) for row in await self._statements.rows(query, cube=cube, low=low, high=high, limit=limit)
        ]

    async def commit_at(self, cube: int, time: int) -> int:
        """See Reader."""
        head = await self._head(cube)
        rows = await self._statements.rows(_COMMIT_AT, cube=cube, time=time)
        # Times grow with revisions: what is newer than the pinned head hides nothing that is older.
        return min(int(rows[0][0]), head) if rows else 0

    async def changes(
        self, cube: int, revision: int, after: int, limit: int, *, with_content: bool = False
    ) -> Sequence[ChangeRow]:
        """See Reader."""
        pin = await self._head(cube)
        if revision > pin:
            return []
        rows = await self._statements.rows(
            _CHANGES_WHOLE if with_content else _CHANGES_BARE,
            cube=cube,
            revision=revision,
            after=after,
            limit=limit,
            pin=pin,
        )
        return [ChangeRow(row[COLUMNS], row[COLUMNS + 1], to_version(row, pin)) for row in rows]

    async def count_changes(self, cube: int, revision: int, clearance: Clearance) -> int:
        """See Reader."""
        pin = await self._head(cube)
        if revision > pin:
            return 0
        rows = await self._statements.rows(
            _COUNT,
            cube=cube,
            revision=revision,
            after=-1,
            pin=pin,
            whole=clearance.whole,
            **seen_parameters(clearance),
        )
        return int(rows[0][0])

    async def _versions(
        self,
        queries: Mapping[tuple[bool, bool], str],
        cube: int,
        revision: int | None,
        wanted: Mapping[str, Sequence[Any]],
        *,
        whole: bool,
        **parameters: Any,
    ) -> list[Version]:
        """Returns the versions that a query finds for a list of ids, uids or handles, which is given in pieces."""
        pin = await self._head(cube)
        query = queries[_is_past(revision, pin), whole]
        ((name, values),) = wanted.items()
        found: list[Version] = []
        for chunk in chunks(values):
            rows = await self._statements.rows(
                query, cube=cube, pin=pin, revision=_at(revision, pin), **{name: chunk}, **parameters
            )
            found += [to_version(row, pin) for row in rows]
        return found

    async def versions(
        self, cube: int, kind: Kind, ids: Iterable[str], revision: int | None = None
    ) -> Mapping[str, Version]:
        """See Reader."""
        wanted = {"ids": list(dict.fromkeys(ids))}
        rows = await self._versions(_VERSIONS, cube, revision, wanted, whole=True, kind=int(kind))
        return {row.id: row for row in rows}

    async def versions_by_uid(
        self, cube: int, uids: Iterable[str], revision: int | None = None, *, with_content: bool = True
    ) -> Mapping[str, Version]:
        """See Reader."""
        wanted = {"uids": _distinct(uids)}
        rows = await self._versions(_VERSIONS_BY_UID, cube, revision, wanted, whole=with_content)
        return {row.uid: row for row in rows}

    async def list_versions(
        self,
        cube: int,
        kind: Kind,
        after: int,
        limit: int,
        revision: int | None = None,
        *,
        with_content: bool = True,
        clearance: Clearance | None = None,
    ) -> Sequence[Version]:
        """See Reader."""
        pin = await self._head(cube)
        shape = kind, _is_past(revision, pin), with_content
        judged = clearance if kind is Kind.MEMORY else None
        rows = await self._statements.rows(
            _LISTS[shape] if judged is None else _SEEN_LISTS[shape],
            after=max(after, first_handle(cube)),
            end=first_handle(cube + 1),
            limit=limit,
            pin=pin,
            revision=_at(revision, pin),
            **(seen_parameters(judged) if judged is not None else {}),
        )
        return [to_version(row, pin) for row in rows]

    async def history(self, cube: int, kind: Kind, id_: str, before: int, limit: int) -> Sequence[Version]:
        """See Reader."""
        pin = await self._head(cube)
        rows = await self._statements.rows(
            _HISTORY, cube=cube, kind=int(kind), id=id_, before=before, limit=limit, pin=pin
        )
        return [to_version(row, pin) for row in rows]

    async def relations(
        self,
        cube: int,
        uids: Sequence[str],
        *,
        outgoing: bool,
        incoming: bool,
        revision: int | None = None,
        types: Iterable[str] = (),
        after: int = 0,
        limit: int | None = None,
    ) -> Sequence[Version]:
        """See Reader."""
        ends, wanted_types = _distinct(uids), list(types)
        pin = await self._head(cube)
        found: dict[int, Version] = {}
        for chunk in chunks(ends):
            for end, wanted in (("source", outgoing), ("target", incoming)):
                most = _ALL if limit is None else limit if len(ends) == 1 else limit - len(found)
                if not wanted or most <= 0:
                    continue
                rows = await self._statements.rows(
                    _EDGES[end, bool(wanted_types), _is_past(revision, pin)],
                    cube=cube,
                    uids=chunk,
                    after=max(after, first_handle(cube)),
                    types=wanted_types,
                    limit=most,
                    pin=pin,
                    revision=_at(revision, pin),
                )
                for row in rows:
                    found[row[0]] = to_version(row, pin)
        return [found[key] for key in sorted(found)[:limit]]

    async def changed_items(self, cube: int, after_revision: int) -> Sequence[tuple[Version, Version | None]]:
        """See Reader."""
        pin = await self._head(cube)
        if after_revision >= pin:
            return []
        bound = {"cube": cube, "following": max(after_revision, 0) + 1, "pin": pin, "revision": after_revision}
        rows = await self._statements.rows(_CHANGED_THEN, **bound)
        then = {row[0]: to_version(row, pin) for row in rows}
        return [(to_version(row, pin), then.get(row[0])) for row in await self._statements.rows(_CHANGED_NOW, **bound)]

    async def vectors(self, contents: Iterable[int]) -> Mapping[int, bytes]:
        """See Reader."""
        found: dict[int, bytes] = {}
        for chunk in chunks(list(contents)):
            found.update(await self._pairs(_VECTORS, keys=chunk))
        return found

    async def _pairs(self, query: str, **parameters: Any) -> list[tuple[Any, Any]]:
        return [(row[0], row[1]) for row in await self._statements.rows(query, **parameters)]

    async def names(self, cube: int, uids: Iterable[str]) -> Mapping[str, str]:
        """See Reader."""
        found: dict[str, str] = {}
        for chunk in chunks(_distinct(uids)):
            rows = await self._statements.rows(_NAMES, cube=cube, uids=chunk)
            found.update((uid, relative_name(Kind(kind), id_)) for uid, kind, id_ in rows)
        return found

    async def request(self, key: RequestKey) -> RequestRow | None:
        """See Reader."""
        rows = await self._statements.rows(REQUEST, **request_parameters(key))
        if not rows:
            return None
        salt, digest, *rest = rows[0]
        return RequestRow(salt or b"", digest or b"", *rest)

    async def blobs(self, cube: int, digests: Iterable[str]) -> Mapping[str, int]:
        """See Reader."""
        found: dict[str, int] = {}
        for chunk in chunks(list(digests)):
            found.update(await self._pairs(_BLOBS, cube=cube, digests=chunk))
        return found

    async def blobs_proven(self, cube: int, digests: Iterable[str], principal: str) -> Set[str]:
        """See Reader."""
        found: set[str] = set()
        for chunk in chunks(list(digests)):
            rows = await self._statements.rows(_PROVEN, cube=cube, digests=chunk, principal=principal)
            found.update(row[0] for row in rows)
        return found

    async def doomed_blobs(self, cube: int) -> Sequence[str]:
        """See Reader."""
        return [row[0] for row in await self._statements.rows(_DOOMED, cube=cube)]

    async def blob_users(self, cube: int, digest: str) -> Sequence[Version]:
        """See Reader."""
        pin = await self._head(cube)
        return [to_version(row, pin) for row in await self._statements.rows(_USERS, cube=cube, digest=digest, pin=pin)]

    async def cube_blobs(self, cube: int, after: str, limit: int) -> Sequence[tuple[str, int]]:
        """See Reader."""
        return await self._pairs(_CUBE_BLOBS, cube=cube, after=after, limit=limit)

    async def content_blobs(self, contents: Iterable[int]) -> Mapping[int, Set[str]]:
        """See Reader."""
        found: dict[int, set[str]] = {}
        for chunk in chunks(list(contents)):
            for content, digest in await self._pairs(_CONTENT_BLOBS, keys=chunk):
                found.setdefault(content, set()).add(digest)
        return found

    async def misfits(self, cube: int, limit: int) -> Sequence[Misfit]:
        """See Reader."""
        return await misfits(self._long, cube, await self._head(cube), limit)

    async def forks_of(self, cube_uid: str) -> Sequence[str]:
        """See Reader."""
        return [f"cubes/{row[0]}" for row in await self._statements.rows(_FORKS, uid=cube_uid.lower())]


def request_parameters(key: RequestKey) -> dict[str, str]:
    """Returns the parameters that name a request."""
    return {
        "principal": key.principal,
        "method": key.method,
        "resource": key.resource,
        "request_id": key.request_id,
    }


def _is_past(revision: int | None, pin: int) -> bool:
    """Returns whether a revision is another one than the head, whose versions take half the look-ups."""
    return revision is not None and revision < pin


def _at(revision: int | None, pin: int) -> int:
    return pin if revision is None else min(revision, pin)


def _distinct(uids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(uid.lower() for uid in uids))
