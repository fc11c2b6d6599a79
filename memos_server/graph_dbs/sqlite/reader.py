"""Reads of the record. The methods are `async` by the port, but never suspend."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from memos_server.errors import MipError
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
from memos_server.graph_dbs.sqlite.access_reader import AccessReader
from memos_server.graph_dbs.sqlite.soundness import misfits

_VERSION = """
    i.key, i.kind, i.id, i.uid, v.from_revision, v.to_revision, v.state, v.sensitivity, v.owner, v.merged_into, v.time,
    i.create_time, cv.state, cv.sensitivity, cv.from_revision, v.content, i.source, i.target, i.type, v.weight"""
_CONTENT = "c.commitment, c.salt, c.payload"
_NO_CONTENT = "c.commitment, x'', x''"
# The version of item `i` that is valid now, or at :revision; `cv` is the item's current version, now `v` itself.
_VERSION_NOW = _VERSION.replace("cv.", "v.")
_JOIN_NOW = """
    JOIN versions v ON v.key = i.version LEFT JOIN contents c ON c.key = v.content"""
_JOIN_AT = """
    JOIN versions cv ON cv.key = i.version
    JOIN versions v ON v.item = i.key AND v.from_revision <= :revision AND v.to_revision > :revision
    LEFT JOIN contents c ON c.key = v.content"""
_CUBE = f"""
    SELECT u.key, u.id, u.uid, u.owner, u.revision, u.head_digest, u.head_time, u.create_time, u.forked_from,
    {_VERSION_NOW}, {_CONTENT}
    FROM cubes u JOIN items i ON i.cube = u.key AND i.kind = 0 AND i.key = u.settings {_JOIN_NOW}"""

_NOW = _VERSION_NOW, _JOIN_NOW
_AT = _VERSION, _JOIN_AT
_LIMIT_OF_VARIABLES = 500
_KNOWN_CUBES = 1000
# Queries by uid name their index: with a few uids, SQLite would rather go through all items of the cube.
_END_SEEN = """EXISTS (SELECT 1 FROM items e INDEXED BY items_uid CROSS JOIN versions ev ON ev.key = e.version
                WHERE e.cube = i.cube AND e.uid = i.{end} AND {seen})"""
_KINDS = {kind.value: kind for kind in Kind}


def _uuid(blob: bytes | None) -> str:
    if not blob:
        return ""
    if len(blob) != 16:
        raise ValueError("a uid has 16 bytes")
    text = blob.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid_bytes(text: str) -> bytes:
    """Returns the 16 bytes of a UUID's canonical text.

    Raises:
        ValueError: It is none.
    """
    raw = bytes.fromhex(text.replace("-", ""))
    if len(raw) != 16:
        raise ValueError("not a UUID")
    return raw


def to_version(row: Sequence[Any]) -> Version:
    """Builds a Version from the columns of _VERSION and _CONTENT."""
    return Version(
        row[0],
        _KINDS[row[1]],
        row[2],
        _uuid(row[3]),
        row[4],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        row[10],
        row[11],
        row[12],
        row[13],
        row[14],
        row[15],
        row[20] or b"",
        row[21] or b"",
        row[22] or b"",
        _uuid(row[16]),
        _uuid(row[17]),
        row[18] or "",
        row[19],
    )


def _to_cube(row: Sequence[Any]) -> CubeRow:
    if [type(value) for value in row[4:8]] != [int, bytes, int, int] or type(row[3]) is not str:
        raise _damaged(f"cubes/{row[1]}")
    try:
        return CubeRow(
            row[0], row[1], _uuid(row[2]), row[3], row[4], row[5], row[6], row[7], to_version(row[9:]), _uuid(row[8])
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(f"cubes/{row[1]}") from error


def _seen(clearance: Clearance, label: str, item: str) -> str:
    """Returns the SQL of whether an item is seen; its parameters are those of `_seen_parameters`.

    Args:
        clearance: By whom.
        label: The SQL of the item's label.
        item: The alias of its row in `items`.
    """
    # The alone granted by their levels, of which there are four: SQLite makes an index of each list once a statement.
    alone = [
        f"{label} <= {level} AND {item}.id IN (SELECT value FROM json_each(:granted{level}))"
        for level in sorted(set(clearance.granted.values()))
    ]
    return f"({' OR '.join([f'{label} <= :level', *alone])})"


def _seen_parameters(clearance: Clearance) -> dict[str, Any]:
    by_level: dict[int, list[str]] = {}
    for id_, level in clearance.granted.items():
        by_level.setdefault(level, []).append(id_)
    lists = {f"granted{level}": json.dumps(ids) for level, ids in by_level.items()}
    return {"level": clearance.level, **lists}


def _damaged(name: str) -> MipError:
    return MipError(
        "DATA_CORRUPT",
        f"the record of {name} has lost rows or holds values of another type, as only a hand in its file makes it;"
        " stop the server and restore the folder from a backup",
    )


class KnownCubes:
    """The cubes that a connection has read since the file last changed: nearly every call begins with one.

    Attributes:
        version: SQLite's number of the file's content, which grows with every commit of another connection.
        rows: Cube id -> row.
    """

    __slots__ = ("rows", "version")

    def __init__(self) -> None:
        """Knows nothing."""
        self.version = -1
        self.rows: dict[str, CubeRow] = {}


class SqliteReader(AccessReader):
    """Reads through one connection, inside the transaction that its owner has begun."""

    def __init__(self, connection: sqlite3.Connection, known: KnownCubes | None = None) -> None:
        """Reads through `connection`, which writes nothing itself where `known` is given."""
        super().__init__(connection)
        self._db = connection
        self._known = known

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for reads and writes that the port does not have."""
        return self._db

    async def cube(self, cube_id: str) -> CubeRow | None:
        """See Reader."""
        known = self._known
        if known is None:
            return self._cube(cube_id)
        # It begins the snapshot that the rest of the transaction reads.
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != known.version or len(known.rows) >= _KNOWN_CUBES:
            known.rows.clear()
            known.version = version
        found = known.rows.get(cube_id) or self._cube(cube_id)
        if found is not None:
            known.rows[cube_id] = found
        return found

    def _cube(self, cube_id: str) -> CubeRow | None:
        row = self._db.execute(f"{_CUBE} WHERE u.id = ?", (cube_id,)).fetchone()
        if row is None and self._db.execute("SELECT 1 FROM cubes WHERE id = ?", (cube_id,)).fetchone():
            raise _damaged(f"cubes/{cube_id}")
        return _to_cube(row) if row else None

    async def cubes(self, after: int, limit: int) -> Sequence[CubeRow]:
        """See Reader."""
        rows = self._db.execute(f"{_CUBE} WHERE u.key > ? ORDER BY u.key LIMIT ?", (after, limit))
        return [_to_cube(row) for row in rows]

    async def commits(self, cube: int, low: int, high: int, limit: int, *, newest_first: bool) -> Sequence[CommitRow]:
        """See Reader."""
        rows = self._db.execute(
            "SELECT revision, digest, header, time, change_count FROM commits"
            " WHERE cube = ? AND revision BETWEEN ? AND ?"
            f" ORDER BY revision {'DESC' if newest_first else 'ASC'} LIMIT ?",
            (cube, low, high, limit),
        )
        return [CommitRow(*row) for row in rows]

    async def commit_at(self, cube: int, time: int) -> int:
        """See Reader."""
        row = self._db.execute(
            "SELECT revision FROM commits WHERE cube = ? AND time <= ? ORDER BY time DESC LIMIT 1", (cube, time)
        ).fetchone()
        return row[0] if row else 0

    async def changes(
        self, cube: int, revision: int, after: int, limit: int, *, with_content: bool = False
    ) -> Sequence[ChangeRow]:
        """See Reader."""
        commit = self._db.execute(
            "SELECT first_version, change_count FROM commits WHERE cube = ? AND revision = ?", (cube, revision)
        ).fetchone()
        if commit is None:
            return []
        first, count = commit
        rows = self._db.execute(
            f"""SELECT {_VERSION}, {_CONTENT if with_content else _NO_CONTENT}, v.key, v.change FROM versions v
            JOIN items i ON i.cube = v.cube AND i.kind = v.kind AND i.key = v.item
            JOIN versions cv ON cv.key = i.version LEFT JOIN contents c ON c.key = v.content
            WHERE v.key BETWEEN ? AND ? ORDER BY v.key LIMIT ?""",
            (first + after + 1, first + count - 1, limit),
        )
        return [ChangeRow(row[23] - first, row[24], to_version(row)) for row in rows]

    async def versions(
        self, cube: int, kind: Kind, ids: Iterable[str], revision: int | None = None
    ) -> Mapping[str, Version]:
        """See Reader."""
        columns, join = _NOW if revision is None else _AT
        wanted = list(ids)
        if len(wanted) == 1:
            rows = self._db.execute(
                f"""SELECT {columns}, {_CONTENT} FROM items i {join}
                WHERE i.cube = :cube AND i.kind = :kind AND i.id = :id""",
                {"cube": cube, "kind": kind, "id": wanted[0], "revision": revision},
            )
        else:
            # CROSS JOIN keeps the order: from the wanted ids to the items, not through all items of the cube.
            rows = self._db.execute(
                f"""SELECT {columns}, {_CONTENT} FROM json_each(:ids) wanted
                CROSS JOIN items i ON i.cube = :cube AND i.kind = :kind AND i.id = wanted.value {join}""",
                {"cube": cube, "kind": kind, "ids": json.dumps(wanted), "revision": revision},
            )
        return {version.id: version for version in map(to_version, rows)}

    async def versions_by_uid(
        self, cube: int, uids: Iterable[str], revision: int | None = None, *, with_content: bool = True
    ) -> Mapping[str, Version]:
        """See Reader."""
        found: dict[str, Version] = {}
        wanted = [uuid_bytes(uid) for uid in dict.fromkeys(uids)]
        columns, join = _NOW if revision is None else _AT
        content = _CONTENT if with_content else _NO_CONTENT
        for start in range(0, len(wanted), _LIMIT_OF_VARIABLES):
            chunk = wanted[start : start + _LIMIT_OF_VARIABLES]
            marks = ",".join(f":u{number}" for number in range(len(chunk)))
            rows = self._db.execute(
                f"SELECT {columns}, {content} FROM items i INDEXED BY items_uid {join}"
                f" WHERE i.cube = :cube AND i.uid IN ({marks})",
                {"cube": cube, "revision": revision, **{f"u{number}": uid for number, uid in enumerate(chunk)}},
            )
            for row in rows:
                version = to_version(row)
                found[version.uid] = version
        return found

    async def count_changes(self, cube: int, revision: int, clearance: Clearance) -> int:
        """See Reader."""
        commit = self._db.execute(
            "SELECT first_version, change_count FROM commits WHERE cube = ? AND revision = ?", (cube, revision)
        ).fetchone()
        if commit is None:
            return 0
        ends = [_END_SEEN.format(end=end, seen=_seen(clearance, "ev.sensitivity", "e")) for end in ("source", "target")]
        # CROSS JOIN keeps the order: from the commit's versions, a range of keys, to their items and the items' ends.
        row = self._db.execute(
            f"""SELECT count(*) FROM versions v
            CROSS JOIN items i ON i.cube = v.cube AND i.kind = v.kind AND i.key = v.item
            CROSS JOIN versions cv ON cv.key = i.version
            WHERE v.key BETWEEN :first AND :last AND CASE v.kind
              WHEN {Kind.MEMORY:d} THEN {_seen(clearance, "max(v.sensitivity, cv.sensitivity)", "i")}
              WHEN {Kind.RELATION:d} THEN {" AND ".join(ends)}
              ELSE :whole END""",
            {
                **_seen_parameters(clearance),
                "first": commit[0],
                "last": commit[0] + commit[1] - 1,
                "whole": clearance.whole,
            },
        ).fetchone()
        return int(row[0])

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
        columns, join = _NOW if revision is None else _AT
        seen = ""
        parameters: dict[str, Any] = {}
        if clearance is not None and kind is Kind.MEMORY:
            label = "v.sensitivity" if revision is None else "max(v.sensitivity, cv.sensitivity)"
            seen, parameters = f" AND {_seen(clearance, label, 'i')}", _seen_parameters(clearance)
        rows = self._db.execute(
            f"SELECT {columns}, {_CONTENT if with_content else _NO_CONTENT} FROM items i {join}"
            f" WHERE i.cube = :cube AND i.kind = :kind AND i.key > :after{seen} ORDER BY i.key LIMIT :limit",
            {"cube": cube, "kind": kind, "after": after, "limit": limit, "revision": revision, **parameters},
        )
        return [to_version(row) for row in rows]

    async def history(self, cube: int, kind: Kind, id_: str, before: int, limit: int) -> Sequence[Version]:
        """See Reader."""
        rows = self._db.execute(
            f"""SELECT {_VERSION}, {_CONTENT} FROM items i JOIN versions cv ON cv.key = i.version
            JOIN versions v ON v.item = i.key LEFT JOIN contents c ON c.key = v.content
            WHERE i.cube = ? AND i.kind = ? AND i.id = ? AND v.from_revision < ?
            ORDER BY v.from_revision DESC LIMIT ?""",
            (cube, kind, id_, before, limit),
        )
        return [to_version(row) for row in rows]

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
        columns, join = _NOW if revision is None else _AT
        found: dict[int, Version] = {}
        ends = [uuid_bytes(uid) for uid in dict.fromkeys(uids)]
        bound = {
            "cube": cube,
            "revision": revision,
            "after": after,
            "kind": Kind.RELATION,
            "types": json.dumps([*types]),
        }
        where = "AND i.kind = :kind AND i.key > :after AND v.state = 1"
        if bound["types"] != "[]":
            where += " AND i.type IN (SELECT value FROM json_each(:types))"
        # Of one memory, the index has its relations in order; of several, they would have to be sorted first.
        order = "ORDER BY i.key" if len(ends) == 1 else ""
        for start in range(0, len(ends), _LIMIT_OF_VARIABLES):
            chunk = ends[start : start + _LIMIT_OF_VARIABLES]
            marks = ",".join(f":u{number}" for number in range(len(chunk)))
            for column, wanted in (("source", outgoing), ("target", incoming)):
                most = -1 if limit is None else limit if len(ends) == 1 else limit - len(found)
                if not wanted or not most:
                    continue
                rows = self._db.execute(
                    f"SELECT {columns}, {_NO_CONTENT} FROM items i INDEXED BY items_{column} {join}"
                    f" WHERE i.cube = :cube AND i.{column} IS NOT NULL AND i.{column} IN ({marks}) {where}"
                    f" {order} LIMIT :most",
                    {**bound, "most": most, **{f"u{number}": uid for number, uid in enumerate(chunk)}},
                )
                for row in rows:
                    found[row[0]] = to_version(row)
        return [found[key] for key in sorted(found)[:limit]]

    async def changed_items(self, cube: int, after_revision: int) -> Sequence[tuple[Version, Version | None]]:
        """See Reader."""
        # Ranges of version keys, one a commit: the cost is that of the changes, not of the cube.
        changed = """WITH changed AS (SELECT DISTINCT v.kind, v.item FROM commits m
            JOIN versions v ON v.key BETWEEN m.first_version AND m.first_version + m.change_count - 1
            WHERE m.cube = :cube AND m.revision > :revision)"""
        # CROSS JOIN keeps the order: from what changed to the items, not through all items of the cube.
        items = "FROM changed CROSS JOIN items i ON i.cube = :cube AND i.kind = changed.kind AND i.key = changed.item"
        bound = {"cube": cube, "revision": after_revision}
        order = "ORDER BY i.kind, i.key"
        columns = f"{_VERSION}, {_NO_CONTENT}"
        then = {
            row[0]: to_version(row) for row in self._db.execute(f"{changed} SELECT {columns} {items} {_JOIN_AT}", bound)
        }
        now_columns = f"{_VERSION_NOW}, {_NO_CONTENT}"
        now = self._db.execute(f"{changed} SELECT {now_columns} {items} {_JOIN_NOW} {order}", bound)
        return [(to_version(row), then.get(row[0])) for row in now]

    async def vectors(self, contents: Iterable[int]) -> Mapping[int, bytes]:
        """See Reader."""
        rows = self._db.execute(
            "SELECT content, data FROM vectors WHERE content IN (SELECT value FROM json_each(?))",
            (json.dumps(list(contents)),),
        )
        return dict(rows.fetchall())

    async def names(self, cube: int, uids: Iterable[str]) -> Mapping[str, str]:
        """See Reader."""
        wanted = [uuid_bytes(uid) for uid in dict.fromkeys(uids)]
        found: dict[str, str] = {}
        for start in range(0, len(wanted), _LIMIT_OF_VARIABLES):
            chunk = wanted[start : start + _LIMIT_OF_VARIABLES]
            marks = ",".join("?" * len(chunk))
            rows = self._db.execute(
                f"SELECT uid, kind, id FROM items INDEXED BY items_uid WHERE cube = ? AND uid IN ({marks})",
                (cube, *chunk),
            )
            found.update((_uuid(uid), relative_name(Kind(kind), id_)) for uid, kind, id_ in rows)
        return found

    async def request(self, key: RequestKey) -> RequestRow | None:
        """See Reader."""
        row = self._db.execute(
            """SELECT salt, digest, result, revision, time, cube FROM requests
            WHERE principal = ? AND method = ? AND resource = ? AND request_id = ?""",
            (key.principal, key.method, key.resource, key.request_id),
        ).fetchone()
        return RequestRow(*row) if row else None

    async def blobs(self, cube: int, digests: Iterable[str]) -> Mapping[str, int]:
        """See Reader."""
        rows = self._db.execute(
            "SELECT digest, size FROM blobs"
            " WHERE cube = ? AND NOT doomed AND digest IN (SELECT value FROM json_each(?))",
            (cube, json.dumps(list(digests))),
        )
        return dict(rows.fetchall())

    async def blobs_proven(self, cube: int, digests: Iterable[str], principal: str) -> Set[str]:
        """See Reader."""
        rows = self._db.execute(
            """SELECT p.digest FROM json_each(?) wanted CROSS JOIN blob_proofs p
            ON p.cube = ? AND p.digest = wanted.value AND p.principal = ?""",
            (json.dumps(list(digests)), cube, principal),
        )
        return {digest for (digest,) in rows}

    async def doomed_blobs(self, cube: int) -> Sequence[str]:
        """See Reader."""
        rows = self._db.execute("SELECT digest FROM blobs WHERE cube = ? AND doomed", (cube,))
        return [digest for (digest,) in rows]

    async def blob_users(self, cube: int, digest: str) -> Sequence[Version]:
        """See Reader."""
        rows = self._db.execute(
            f"""SELECT {_VERSION}, {_NO_CONTENT} FROM content_blobs b JOIN contents c ON c.key = b.content
            JOIN versions v ON v.item = c.item AND v.content = b.content
            JOIN items i ON i.cube = v.cube AND i.kind = v.kind AND i.key = v.item
            JOIN versions cv ON cv.key = i.version WHERE b.cube = ? AND b.digest = ?""",
            (cube, digest),
        )
        return [to_version(row) for row in rows]

    async def cube_blobs(self, cube: int, after: str, limit: int) -> Sequence[tuple[str, int]]:
        """See Reader."""
        return self._db.execute(
            "SELECT digest, size FROM blobs WHERE cube = ? AND NOT doomed AND digest > ? ORDER BY digest LIMIT ?",
            (cube, after, limit),
        ).fetchall()

    async def content_blobs(self, contents: Iterable[int]) -> Mapping[int, Set[str]]:
        """See Reader."""
        found: dict[int, set[str]] = {}
        for content, digest in self._db.execute(
            "SELECT content, digest FROM content_blobs WHERE content IN (SELECT value FROM json_each(?))",
            (json.dumps(list(contents)),),
        ):
            found.setdefault(content, set()).add(digest)
        return found

    async def misfits(self, cube: int, limit: int) -> Sequence[Misfit]:
        """See Reader."""
        return misfits(self._db, cube, limit)

    async def forks_of(self, cube_uid: str) -> Sequence[str]:
        """See Reader."""
        rows = self._db.execute("SELECT id FROM cubes WHERE forked_from = ? ORDER BY key", (uuid_bytes(cube_uid),))
        return [f"cubes/{id_}" for (id_,) in rows]
