"""Rows of the record that do not fit each other, as only a hand in the file makes them.

Readers follow a few paths: from a cube to its commits, from a commit to its versions, from an item to its current
version and its past ones, from a version to its content. A row that stands on no such path, or on two, or holds a value
of another type, is found here by its columns alone; what the rows *say* is compared with the chain by VerifyCube.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from memos_server._pb.mip.v1.commit_pb2 import Change
from memos_server.graph_dbs.base import OPEN, Kind, Misfit, relative_name
from memos_server.graph_dbs.sqlite.schema import MIGRATIONS

_INT, _TEXT, _BLOB, _REAL = "= 'integer'", "= 'text'", "= 'blob'", "= 'real'"


def _typed(column: str, type_: str, bytes_: Sequence[int] = (), *, optional: bool = False) -> str:
    """Returns the condition that a column holds no value of a type, or a blob of another length."""
    lengths = f" AND length({column}) IN ({','.join(map(str, bytes_))})" if bytes_ else ""
    absent = f"{column} IS NULL OR " if optional else ""
    return f"NOT ({absent}(typeof({column}) {type_}{lengths}))"


def _any(*conditions: str) -> str:
    return "(" + " OR ".join(conditions) + ")"


_COMMIT_TYPES = _any(
    *(_typed(f"m.{name}", _INT) for name in ("revision", "time", "first_version", "change_count")),
    _typed("m.digest", _BLOB, [32]),
    _typed("m.header", _BLOB),
)
_ITEM_TYPES = _any(
    "i.kind NOT IN (0, 1, 2, 3)",
    "(i.kind = 0 AND i.id IS NOT '')",
    "i.type = ''",
    *(_typed(f"i.{name}", _INT) for name in ("kind", "key", "create_time", "version")),
    _typed("i.id", _TEXT),
    _typed("i.uid", _BLOB, [16]),
    *(_typed(f"i.{name}", _BLOB, [16], optional=True) for name in ("source", "target")),
    _typed("i.type", _TEXT, optional=True),
)
_VERSION_TYPES = _any(
    *(_typed(f"v.{name}", _INT) for name in ("cube", "kind", "item", "from_revision", "to_revision", "time")),
    *(_typed(f"v.{name}", _INT) for name in ("state", "sensitivity")),
    "v.state NOT BETWEEN 1 AND 5",
    "v.sensitivity NOT BETWEEN 1 AND 4",
    *(_typed(f"v.{name}", _TEXT) for name in ("owner", "merged_into")),
    _typed("v.content", _INT, optional=True),
    _typed("v.weight", _REAL),
    _typed("v.change", _BLOB),
)
_CONTENT_TYPES = _any(
    _typed("c.item", _INT),
    _typed("c.commitment", _BLOB, [32]),
    _typed("c.salt", _BLOB, [0, 32]),
    _typed("c.digest", _BLOB, [0, 32]),
    _typed("c.payload", _BLOB),
)
_BLOB_TYPES = _any(
    _typed("b.digest", _TEXT),
    _typed("b.size", _INT),
    _typed("b.time", _INT),
    "(b.doomed IN (0, 1, 2)) IS NOT 1",
    "b.size < 0",
)
_ITEM = "i.kind, CAST(i.id AS BLOB)"
_VERSIONS = "FROM items i JOIN versions v ON v.item = i.key"


@dataclass(frozen=True, slots=True)
class _Rule:
    """A query for the misfits of a cube, `:cube`. Its rows are (kind of the item or NULL, id, revision)."""

    sort: str
    message: str
    query: str


_RULES = (
    _Rule(
        "state",
        "the cube's row holds a value of another type",
        f"""SELECT 0, x'', 0 FROM cubes u
        WHERE u.key = :cube AND {_typed("u.forked_from", _BLOB, [16], optional=True)}""",
    ),
    _Rule(
        "chain",
        "the commit's row holds a value of another type",
        f"SELECT NULL, 'commits/' || m.revision, m.revision FROM commits m WHERE m.cube = :cube AND {_COMMIT_TYPES}",
    ),
    _Rule(
        "state",
        "the item's row holds a value of another type",
        f"SELECT {_ITEM}, 0 FROM items i WHERE i.cube = :cube AND {_ITEM_TYPES}",
    ),
    _Rule(
        "state",
        "a version's row holds a value of another type",
        f"SELECT {_ITEM}, v.from_revision {_VERSIONS} WHERE i.cube = :cube AND {_VERSION_TYPES}",
    ),
    _Rule(
        "state",
        "the item's row is missing",
        """SELECT NULL, named(v.change), v.from_revision FROM commits m
        JOIN versions v ON v.key BETWEEN m.first_version AND m.first_version + m.change_count - 1
        LEFT JOIN items i ON i.cube = m.cube AND i.kind = v.kind AND i.key = v.item
        WHERE m.cube = :cube AND i.key IS NULL""",
    ),
    _Rule(
        "state",
        "the current version is missing, is another item's, or has ended",
        f"""SELECT {_ITEM}, v.from_revision FROM items i LEFT JOIN versions v ON v.key = i.version
        WHERE i.cube = :cube AND (v.key IS NULL OR v.item IS NOT i.key OR v.to_revision IS NOT {OPEN})""",
    ),
    _Rule(
        "state",
        "a version belongs to another cube or to an item of another kind",
        f"""SELECT {_ITEM}, v.from_revision {_VERSIONS}
        WHERE i.cube = :cube AND (v.cube IS NOT i.cube OR v.kind IS NOT i.kind)""",
    ),
    _Rule(
        "state",
        "a version does not end where the next one begins",
        f"""SELECT kind, id, since FROM (
          SELECT i.kind AS kind, CAST(i.id AS BLOB) AS id, v.from_revision AS since, v.to_revision AS until,
            lead(v.from_revision, 1, {OPEN}) OVER (PARTITION BY i.key ORDER BY v.from_revision) AS following
          {_VERSIONS} WHERE i.cube = :cube) WHERE until IS NOT following""",
    ),
    _Rule(
        "state",
        "a version stands in no commit",
        f"""SELECT {_ITEM}, v.from_revision {_VERSIONS}
        LEFT JOIN commits m ON m.cube = i.cube AND m.revision = v.from_revision WHERE i.cube = :cube
        AND (m.revision IS NULL OR v.key < m.first_version OR v.key >= m.first_version + m.change_count)""",
    ),
    _Rule(
        "content",
        "the content's row is missing, holds a value of another type, or belongs to another item",
        f"""SELECT {_ITEM}, v.from_revision {_VERSIONS} LEFT JOIN contents c ON c.key = v.content
        WHERE i.cube = :cube AND v.content IS NOT NULL
        AND (c.key IS NULL OR c.item IS NOT v.item OR {_CONTENT_TYPES})""",
    ),
    _Rule(
        "content",
        "the content's digest does not open its commitment, or was erased in part",
        f"""SELECT DISTINCT {_ITEM}, v.from_revision {_VERSIONS} JOIN contents c ON c.key = v.content
        WHERE i.cube = :cube AND NOT opens(c.salt, c.digest, c.commitment, length(c.payload))""",
    ),
    _Rule(
        "content",
        "the vector's row holds a value of another type",
        f"""SELECT DISTINCT {_ITEM}, v.from_revision {_VERSIONS} JOIN vectors x ON x.content = v.content
        WHERE i.cube = :cube AND ({_typed("x.data", _BLOB)} OR length(x.data) % 4 OR NOT length(x.data))""",
    ),
    _Rule(
        "blob",
        "the blob's row holds a value of another type",
        f"SELECT NULL, 'blobs/' || b.digest, 0 FROM blobs b WHERE b.cube = :cube AND {_BLOB_TYPES}",
    ),
    _Rule(
        "blob",
        "a memory names the blob, which the cube does not hold",
        """SELECT NULL, 'blobs/' || n.digest, 0 FROM content_blobs n
        LEFT JOIN blobs b ON b.cube = n.cube AND b.digest = n.digest
        WHERE n.cube = :cube AND (b.digest IS NULL OR b.doomed) GROUP BY n.digest""",
    ),
    _Rule(
        "blob",
        "a blob of the content is noted for another cube",
        f"""SELECT DISTINCT {_ITEM}, v.from_revision {_VERSIONS} JOIN content_blobs n ON n.content = v.content
        WHERE i.cube = :cube AND n.cube IS NOT i.cube""",
    ),
    _Rule(
        "blob",
        "the blob is kept for a content that the cube does not have",
        """SELECT NULL, 'blobs/' || n.digest, 0 FROM content_blobs n WHERE n.cube = :cube AND NOT EXISTS (
          SELECT 1 FROM contents c JOIN versions v ON v.item = c.item AND v.content = c.key
          WHERE c.key = n.content AND v.cube = n.cube)""",
    ),
    _Rule(
        "blob",
        "somebody has shown to have the blob, which the cube does not hold",
        """SELECT NULL, 'blobs/' || p.digest, 0 FROM blob_proofs p
        LEFT JOIN blobs b ON b.cube = p.cube AND b.digest = p.digest
        WHERE p.cube = :cube AND b.digest IS NULL GROUP BY p.digest""",
    ),
)

_STRAY: Mapping[str, str] = {
    "cubes without settings": """SELECT count(*) FROM cubes u LEFT JOIN items i
        ON i.cube = u.key AND i.kind = 0 AND i.key = u.settings WHERE i.key IS NULL""",
    "commits of no cube": "SELECT count(*) FROM commits WHERE cube NOT IN (SELECT key FROM cubes)",
    "items of no cube": "SELECT count(*) FROM items WHERE cube NOT IN (SELECT key FROM cubes)",
    "versions of no item": """SELECT count(*) FROM versions v LEFT JOIN items i
        ON i.cube = v.cube AND i.kind = v.kind AND i.key = v.item WHERE i.key IS NULL""",
    "contents of no version": """SELECT count(*) FROM contents c WHERE NOT EXISTS (
        SELECT 1 FROM versions v WHERE v.item = c.item AND v.content = c.key)""",
    "vectors of no content": "SELECT count(*) FROM vectors WHERE content NOT IN (SELECT key FROM contents)",
    "blobs of no cube": "SELECT count(*) FROM blobs WHERE cube NOT IN (SELECT key FROM cubes)",
    "named blobs of no content": "SELECT count(*) FROM content_blobs WHERE content NOT IN (SELECT key FROM contents)",
    "proofs of no blob": """SELECT count(*) FROM blob_proofs p LEFT JOIN blobs b
        ON b.cube = p.cube AND b.digest = p.digest WHERE b.digest IS NULL""",
}


def _opens(salt: object, digest: object, commitment: object, payload: object) -> bool:
    """Returns whether salt and digest open a commitment, or all of a content was erased."""
    if not isinstance(salt, bytes) or not isinstance(digest, bytes):
        return False
    if not salt:
        return not digest and not payload
    return hashlib.sha256(salt + digest).digest() == commitment


def _named(change: object) -> str:
    """Returns the item that a change names; empty for the cube, and for what is no change."""
    try:
        return Change.FromString(change).name if isinstance(change, bytes) else ""
    except DecodeError:
        return ""


def misfits(connection: sqlite3.Connection, cube: int, limit: int) -> list[Misfit]:
    """Returns the misfits of a cube; see `Reader.misfits`."""
    connection.create_function("opens", 4, _opens, deterministic=True)
    connection.create_function("named", 1, _named, deterministic=True)
    found: list[Misfit] = []
    for rule in _RULES:
        rows = connection.execute(f"{rule.query} LIMIT :limit", {"cube": cube, "limit": limit - len(found)})
        for kind, id_, revision in rows:
            found.append(
                Misfit(rule.sort, _name(kind, id_), revision if isinstance(revision, int) else 0, rule.message)
            )
        if len(found) >= limit:
            break
    return found


def _name(kind: Any, id_: object) -> str:
    """Returns a name relative to the cube, also of what is none: the row may have been tampered with."""
    text = id_.decode("utf-8", "replace") if isinstance(id_, bytes) else str(id_)
    if kind is None:
        return text
    return relative_name(Kind(kind), text) if kind in tuple(Kind) else f"items/{text}"


def stray_rows(connection: sqlite3.Connection) -> Iterator[str]:
    """Yields, in words, which rows of the file belong to nothing, and what of its schema no migration made."""
    for what, query in _STRAY.items():
        (count,) = connection.execute(query).fetchone()
        if count:
            yield f"rows that belong to nothing: {count} {what}"
    expected = sqlite3.connect(":memory:")
    try:
        for script in MIGRATIONS:
            expected.executescript(script)
        wanted, there = _objects(expected), _objects(connection)
    finally:
        expected.close()
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            yield f"the schema of {name} is not the one that this server makes"


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    return {f"{type_} {name}": sql for type_, name, sql in rows}
