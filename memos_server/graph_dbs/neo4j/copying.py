"""The record in Neo4j as one end of a move: its mark, and its loose rows.

Every statement here may run twice with the same effect, so each is a transaction of its own that is repeated when the
connection is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

from memos_server.errors import MipError
from memos_server.graph_dbs import moving
from memos_server.graph_dbs.base import ChangeRow, Reader, RecordStore
from memos_server.graph_dbs.moving import LooseKey, LooseRow, Table
from memos_server.graph_dbs.neo4j.faults import FAULTS
from memos_server.graph_dbs.neo4j.reader import Neo4jReader
from memos_server.graph_dbs.neo4j.shapes import COLUMNS, CONTENT, CURRENT, WHOLE, to_version

# The node that counts the schema's migrations is there from the first start on, once in a database.
_MARK: Final = "MATCH (s:Schema {name: 'memos'}) RETURN s.mark"
_SET_MARK: Final = "MATCH (s:Schema {name: 'memos'}) SET s.mark = $text RETURN 1"
_CHANGES: Final = f"""MATCH (m:Commit) WHERE m.cube = $cube AND m.revision >= $low AND m.revision <= $high
    MATCH (v:Version) WHERE v.key >= m.first_version AND v.key < m.first_version + m.change_count
    MATCH (v)-[:VERSION_OF]->(i:Item) {CURRENT} {CONTENT}
    RETURN {WHOLE}, v.key - m.first_version, v.change ORDER BY v.key"""
_CUBE_KEY: Final = "MATCH (u:Cube {id: $id}) RETURN u.key"


class _Kept(NamedTuple):
    """How the rows of a table are kept.

    Attributes:
        label: The nodes' label.
        key: The properties of the key, which an index has in this order.
        rest: The expressions of the other columns; `n` is the node.
        put: What follows `UNWIND $rows AS r` to store row `r`.
        drop: What follows `UNWIND $keys AS k` and the match of `n` to remove it.
    """

    label: str
    key: tuple[str, ...]
    rest: str
    put: str = ""
    drop: str = "DELETE n"

    @property
    def by_cube(self) -> bool:
        """Whether the key begins with a cube: its id in a row, its handle in a node."""
        return self.key[0] == "cube"


def _put(label: str, key: Sequence[str], rest: Sequence[str], more: str = "") -> str:
    """Returns the statement that stores rows whose values stand in the node as they are."""
    found = ", ".join(f"{name}: r[{place}]" for place, name in enumerate(key))
    values = ", ".join(f"n.{name} = r[{place}]" for place, name in enumerate(rest, len(key)))
    return f"MERGE (n:{label} {{{found}}}) SET {values}{more}"


_JOB_KEY: Final = ("cube_id", "id")
_KEPT: Final[Mapping[Table, _Kept]] = {
    Table.REQUESTS: _Kept(
        "Request",
        moving.COLUMNS[Table.REQUESTS].key,
        """n.salt, n.digest, n.result, n.revision,
            coalesce(COLLECT { MATCH (u:Cube {key: n.cube}) RETURN u.id }[0], ''), n.time""",
        """MERGE (n:Request {principal: r[0], method: r[1], resource: r[2], request_id: r[3]})
            SET n.salt = r[4], n.digest = r[5], n.result = r[6], n.revision = r[7], n.time = r[9],
            n.cube = coalesce(COLLECT { MATCH (u:Cube {id: r[8]}) RETURN u.key }[0], 0)""",
    ),
    Table.REVOKED_TOKENS: _Kept("Token", ("id",), "n.time", _put("Token", ("id",), ("time",))),
    Table.GRANTS: _Kept("Grant", ("key",), "n.principal, n.resource, n.rights[0], n.rights[1], n.updated"),
    Table.AUDIT_EVENTS: _Kept(
        "Audit",
        ("sequence",),
        ", ".join(f"n.{name}" for name in moving.COLUMNS[Table.AUDIT_EVENTS].rest),
        _put("Audit", ("sequence",), moving.COLUMNS[Table.AUDIT_EVENTS].rest),
    ),
    # A job that has ended leaves the index of unfinished ones, as `unfinished` is null then.
    Table.JOBS: _Kept(
        "Job",
        _JOB_KEY,
        ", ".join(f"n.{name}" for name in moving.COLUMNS[Table.JOBS].rest),
        _put(
            "Job",
            _JOB_KEY,
            moving.COLUMNS[Table.JOBS].rest,
            ", n.unfinished = CASE WHEN r[3] IN [1, 2] THEN true END",
        ),
    ),
    # A node without `held` is only named by contents; as such it stays when its row goes.
    Table.BLOBS: _Kept(
        "Blob",
        ("cube", "digest"),
        "n.size, n.time, n.doomed",
        """MATCH (u:Cube {id: r[0]}) MERGE (n:Blob {cube: u.key, digest: r[1]})
            SET n.size = r[2], n.time = r[3], n.doomed = r[4], n.held = true""",
        """SET n.held = false, n.doomed = 0, n.size = 0, n.time = 0
            WITH n WHERE NOT EXISTS { (n)<-[:NAMES]-() } DELETE n""",
    ),
    Table.BLOB_PROOFS: _Kept(
        "BlobProof",
        ("cube", "digest", "principal"),
        "",
        "MATCH (u:Cube {id: r[0]}) MERGE (:BlobProof {cube: u.key, digest: r[1], principal: r[2]})",
    ),
}


def _columns(kept: _Kept) -> str:
    key = [f"n.{name}" for name in kept.key]
    if kept.by_cube:
        key[0] = "u.id"
    return ", ".join([*key, kept.rest] if kept.rest else key)


_BY_CUBE: Final = " MATCH (u:Cube {key: n.cube})"


def _held(kept: _Kept) -> str:
    return "n.held AND " if kept.label == "Blob" else ""


def _pages(kept: _Kept) -> list[str]:
    """Returns the statements that together list what comes after a key: first what shares all of it but the last part,
    then all but the last two, and so on. Each reads one range of the index, in its order."""
    statements = []
    order = ", ".join(f"n.{name}" for name in kept.key)
    index = f"USING INDEX n:{kept.label}({', '.join(kept.key)})"
    for shared in range(len(kept.key) - 1, -1, -1):
        parts = [f"n.{name} = $k{place}" for place, name in enumerate(kept.key[:shared])]
        parts.append(f"n.{kept.key[shared]} > $k{shared}")
        parts += [f"n.{name} IS NOT NULL" for name in kept.key[shared + 1 :]]
        statements.append(
            f"MATCH (n:{kept.label}) {index} WHERE {' AND '.join(parts)} WITH n ORDER BY {order}"
            f"{' WHERE n.held' if _held(kept) else ''} WITH n LIMIT $limit"
            f"{_BY_CUBE if kept.by_cube else ''} RETURN {_columns(kept)} ORDER BY {order}"
        )
    return statements


def _of(kept: _Kept) -> str:
    """Returns the match of the nodes that have a key `k`."""
    begin = "MATCH (u:Cube {id: k[0]}) " if kept.by_cube else ""
    parts = [
        f"{name}: {'u.key' if kept.by_cube and not place else f'k[{place}]'}" for place, name in enumerate(kept.key)
    ]
    held = " WHERE n.held" if _held(kept) else ""
    return f"UNWIND $keys AS k {begin}MATCH (n:{kept.label} {{{', '.join(parts)}}}){held}"


_LISTED: Final = {table: _pages(kept) for table, kept in _KEPT.items()}
_FOUND: Final = {table: f"{_of(kept)} RETURN {_columns(kept)}" for table, kept in _KEPT.items()}
_PUT: Final = {table: f"UNWIND $rows AS r {kept.put}" for table, kept in _KEPT.items() if kept.put}
_DROP: Final = {table: f"{_of(kept)} {kept.drop}" for table, kept in _KEPT.items() if kept.put}


class _Record(RecordStore, Protocol):
    """What the methods below need of the store that they are a part of."""

    async def rows(self, query: str, /, **parameters: Any) -> list[list[Any]]: ...

    def _explained(self, error: BaseException) -> MipError: ...


class MovingRecord:
    """The part of Neo4jRecordStore that concerns moves."""

    async def open_beside(self: _Record) -> None:
        """See MovingStore: servers share the database anyway."""
        await self.open()

    async def mark(self: _Record) -> str:
        """See MovingStore: the mark is a property of the schema's node."""
        rows = await _rows(self, _MARK)
        return str(rows[0][0] or "") if rows else ""

    async def set_mark(self: _Record, text: str) -> None:
        """See MovingStore."""
        await _rows(self, _SET_MARK, text=text or None)

    async def changes_of(
        self: _Record, txn: Reader, cube: int, low: int, high: int
    ) -> Mapping[int, Sequence[ChangeRow]]:
        """See MovingStore: the versions of neighbouring commits have neighbouring handles."""
        reader = cast(Neo4jReader, txn)
        pin = await reader._head(cube)
        found: dict[int, list[ChangeRow]] = {}
        for row in await reader._statements.rows(_CHANGES, cube=cube, low=low, high=min(high, pin), pin=pin):
            version = to_version(row, pin)
            found.setdefault(version.from_revision, []).append(ChangeRow(row[COLUMNS], row[COLUMNS + 1], version))
        return found

    async def loose_rows(self: _Record, table: Table, after: LooseKey, limit: int) -> Sequence[LooseRow]:
        """See MovingStore."""
        key = list(after)
        if _KEPT[table].by_cube:
            known = await _rows(self, _CUBE_KEY, id=key[0])
            key[0] = known[0][0] if known else 0
        found: list[LooseRow] = []
        bound = {f"k{place}": value for place, value in enumerate(key)}
        for statement in _LISTED[table]:
            if len(found) < limit:
                found += map(_row, await _rows(self, statement, **bound, limit=limit - len(found)))
        return found

    async def loose_rows_of(self: _Record, table: Table, keys: Sequence[LooseKey]) -> Sequence[LooseRow]:
        """See MovingStore."""
        return [_row(row) for row in await _rows(self, _FOUND[table], keys=[list(key) for key in keys])]

    async def put_loose_rows(self: _Record, table: Table, rows: Sequence[LooseRow]) -> None:
        """See MovingStore."""
        # What a purge has emptied is not there: a property takes no null.
        given = [[None if value == b"" else value for value in row] for row in rows]
        await _rows(self, _statement(_PUT, table), rows=given)

    async def drop_loose_rows(self: _Record, table: Table, keys: Sequence[LooseKey]) -> None:
        """See MovingStore."""
        await _rows(self, _statement(_DROP, table), keys=[list(key) for key in keys])


def _row(row: Sequence[Any]) -> LooseRow:
    return cast(LooseRow, tuple(b"" if value is None else value for value in row))


def _statement(statements: Mapping[Table, str], table: Table) -> str:
    if table not in statements:
        raise ValueError("grants are written through the port")
    return statements[table]


async def _rows(record: _Record, query: str, /, **parameters: Any) -> list[list[Any]]:
    try:
        return await record.rows(query, **parameters)
    except FAULTS as error:
        raise record._explained(error) from error
