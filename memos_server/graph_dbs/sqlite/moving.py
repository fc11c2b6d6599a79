"""The embedded record as one end of a move: opened beside its server, its mark, and its loose rows."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, Protocol, cast

from memos_server.configs.data_folder import FORMAT_VERSION, refuse_newer
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import fsync_folder, read_small, write_file
from memos_server.errors import MipError
from memos_server.graph_dbs.base import ChangeRow, Reader, RecordStore, Writer
from memos_server.graph_dbs.moving import COLUMNS, LooseKey, LooseRow, Table
from memos_server.graph_dbs.sqlite.reader import SqliteReader

MARK_FILE: Final = "migration.json"
"""The file of the mark, beside the record."""


class _Sql(NamedTuple):
    """How a table is read and written.

    Attributes:
        columns: What is selected, in the order of COLUMNS.
        source: Where from.
        after: The condition for keys above ?1, ?2, ….
        join: The condition for a row of `source` to have the key `w.value`.
        put: The statement that stores a row.
        drop: The statement that removes the row of a key.
    """

    columns: str
    source: str
    after: str
    join: str
    put: str = ""
    drop: str = ""


def _key(number: int) -> str:
    return f"json_extract(w.value, '$[{number}]')"


_CUBE: Final = "(SELECT key FROM cubes WHERE id = {})"
_BY_CUBE: Final = "u.id >= ?1 AND (u.id > ?1 OR {})"

# CROSS JOIN keeps the order: from the cubes by their ids to their rows, and from the wanted keys to the rows.
_TABLES: Final[Mapping[Table, _Sql]] = {
    Table.REQUESTS: _Sql(
        "t.principal, t.method, t.resource, t.request_id, t.salt, t.digest, t.result, t.revision,"
        " coalesce((SELECT id FROM cubes WHERE key = t.cube), ''), t.time",
        "requests t",
        "(t.principal, t.method, t.resource, t.request_id) > (?1, ?2, ?3, ?4)",
        f"t.principal = {_key(0)} AND t.method = {_key(1)} AND t.resource = {_key(2)} AND t.request_id = {_key(3)}",
        "INSERT OR REPLACE INTO requests (principal, method, resource, request_id, salt, digest, result, revision,"
        f" cube, time) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, coalesce({_CUBE.format('?9')}, 0), ?10)",
        "DELETE FROM requests WHERE principal = ? AND method = ? AND resource = ? AND request_id = ?",
    ),
    Table.REVOKED_TOKENS: _Sql(
        "t.id, t.time",
        "revoked_tokens t",
        "t.id > ?1",
        f"t.id = {_key(0)}",
        "INSERT OR REPLACE INTO revoked_tokens (id, time) VALUES (?, ?)",
        "DELETE FROM revoked_tokens WHERE id = ?",
    ),
    Table.GRANTS: _Sql(
        "t.key, t.principal, t.resource, t.role, t.max_sensitivity, t.updated",
        "grants t",
        "t.key > ?1",
        f"t.key = {_key(0)}",
    ),
    Table.AUDIT_EVENTS: _Sql(
        "t.sequence, t.time, t.principal, t.method, t.resource, t.outcome, t.detail, t.count, t.revision",
        "audit_events t",
        "t.sequence > ?1",
        f"t.sequence = {_key(0)}",
        "INSERT OR REPLACE INTO audit_events (sequence, time, principal, method, resource, outcome, detail, count,"
        " revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "DELETE FROM audit_events WHERE sequence = ?",
    ),
    Table.JOBS: _Sql(
        "t.cube, t.id, t.kind, t.state, t.principal, t.created, t.updated, t.done, t.total, t.error_reason,"
        " t.error_message, t.lease_owner, t.lease_until",
        "jobs t",
        "(t.cube, t.id) > (?1, ?2)",
        f"t.cube = {_key(0)} AND t.id = {_key(1)}",
        "INSERT OR REPLACE INTO jobs (cube, id, kind, state, principal, created, updated, done, total, error_reason,"
        " error_message, lease_owner, lease_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "DELETE FROM jobs WHERE cube = ? AND id = ?",
    ),
    Table.BLOBS: _Sql(
        "u.id, t.digest, t.size, t.time, t.doomed",
        "cubes u CROSS JOIN blobs t ON t.cube = u.key",
        _BY_CUBE.format("t.digest > ?2"),
        f"u.id = {_key(0)} AND t.digest = {_key(1)}",
        "INSERT OR REPLACE INTO blobs (cube, digest, size, time, doomed)"
        f" VALUES ({_CUBE.format('?1')}, ?2, ?3, ?4, ?5)",
        f"DELETE FROM blobs WHERE cube = {_CUBE.format('?1')} AND digest = ?2",
    ),
    Table.BLOB_PROOFS: _Sql(
        "u.id, t.digest, t.principal",
        "cubes u CROSS JOIN blob_proofs t ON t.cube = u.key",
        _BY_CUBE.format("(t.digest, t.principal) > (?2, ?3)"),
        f"u.id = {_key(0)} AND t.digest = {_key(1)} AND t.principal = {_key(2)}",
        "INSERT OR REPLACE INTO blob_proofs (cube, digest, principal)"
        f" VALUES ({_CUBE.format('?1')}, ?2, ?3)",
        f"DELETE FROM blob_proofs WHERE cube = {_CUBE.format('?1')} AND digest = ?2 AND principal = ?3",
    ),
}  # fmt: skip
_ORDER: Final[Mapping[Table, str]] = {
    table: ", ".join(sql.columns.split(", ")[: len(COLUMNS[table].key)]) for table, sql in _TABLES.items()
}


class _Record(RecordStore, Protocol):
    """What the methods below need of the store that they are a part of."""

    _path: Path
    _pool: ThreadPoolExecutor
    _beside: bool

    def _connect(self) -> sqlite3.Connection: ...


class MovingRecord:
    """The part of SqliteRecordStore that concerns moves."""

    _beside = False
    """Whether a server uses the record: it is then opened to read only."""

    async def open_beside(self: _Record) -> None:
        """See MovingStore."""
        self._beside = True
        await asyncio.get_running_loop().run_in_executor(self._pool, _look, self)

    async def mark(self: _Record) -> str:
        """See MovingStore: the mark is a file beside the record."""
        try:
            return read_small(self._path.with_name(MARK_FILE)).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    async def set_mark(self: _Record, text: str) -> None:
        """See MovingStore."""
        path = self._path.with_name(MARK_FILE)
        if text:
            write_file(path, text.encode())
            return
        path.unlink(missing_ok=True)
        fsync_folder(path.parent)

    async def changes_of(
        self: _Record, txn: Reader, cube: int, low: int, high: int
    ) -> Mapping[int, Sequence[ChangeRow]]:
        """See MovingStore; a call costs nothing here."""
        commits = await txn.commits(cube, low, high, high - low + 1, newest_first=False)
        return {
            row.revision: await txn.changes(cube, row.revision, -1, row.change_count, with_content=True)
            for row in commits
        }

    async def loose_rows(self: _Record, table: Table, after: LooseKey, limit: int) -> Sequence[LooseRow]:
        """See MovingStore."""
        sql = _TABLES[table]
        query = f"SELECT {sql.columns} FROM {sql.source} WHERE {sql.after} ORDER BY {_ORDER[table]} LIMIT ?"
        marks = len(after) + 1

        async def work(txn: Reader) -> list[LooseRow]:
            db = cast(SqliteReader, txn).connection
            return db.execute(f"{query}{marks}", (*after, limit)).fetchall()

        return await self.read(work)

    async def loose_rows_of(self: _Record, table: Table, keys: Sequence[LooseKey]) -> Sequence[LooseRow]:
        """See MovingStore."""
        sql = _TABLES[table]
        wanted = json.dumps([list(key) for key in keys])

        async def work(txn: Reader) -> list[LooseRow]:
            db = cast(SqliteReader, txn).connection
            query = f"SELECT {sql.columns} FROM json_each(?) w CROSS JOIN {sql.source} WHERE {sql.join}"
            return db.execute(query, (wanted,)).fetchall()

        return await self.read(work)

    async def put_loose_rows(self: _Record, table: Table, rows: Sequence[LooseRow]) -> None:
        """See MovingStore."""
        await _execute(self, _TABLES[table].put, rows)

    async def drop_loose_rows(self: _Record, table: Table, keys: Sequence[LooseKey]) -> None:
        """See MovingStore."""
        await _execute(self, _TABLES[table].drop, keys)


async def _execute(record: _Record, statement: str, parameters: Sequence[LooseRow]) -> None:
    if not statement:
        raise ValueError("grants are written through the port")

    async def work(txn: Writer) -> None:
        cast(SqliteReader, txn).connection.executemany(statement, parameters)

    await record.write(work)


def _look(record: _Record) -> None:
    """Makes sure that a record in use can be read by this version."""
    path = record._path
    try:
        (version,) = record._connect().execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        message = f"the record {path} cannot be read beside its server ({name}); look for errors of its disk"
        raise MipError("BACKEND_UNAVAILABLE", message) from error
    except sqlite3.DatabaseError as error:
        raise MipError("DATA_CORRUPT", f"the record {path} is damaged ({error})") from error
    refuse_newer(f"The record {path}", version)
    if version != FORMAT_VERSION:
        raise SetupError(
            f"The running server wrote the record {path} in format {version}; this version has {FORMAT_VERSION}.",
            "Stop that server; the migration then brings the record up to date, or start it with this version.",
        )
