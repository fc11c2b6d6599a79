"""The rival of adding: the same rows, and FTS5 rows of the same texts, written by plain SQLite at synchronous=FULL."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memos_server.graph_dbs.sqlite.schema import migrate

_TABLES = {"items": 10, "versions": 14, "contents": 6, "vectors": 2, "commits": 7}


class RawSqlite:
    """A database with the server's own schema, and a table of words beside it."""

    def __init__(self, path: Path) -> None:
        """Makes it."""
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        self._db.execute("PRAGMA cache_size = -32768")
        migrate(self._db)
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='')")
        self._key = 1
        self._revision = 1

    def close(self) -> None:
        """Closes it."""
        self._db.close()

    def rows(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> dict[str, list[tuple[Any, ...]]]:
        """Returns what a commit of the server writes for such memories, ready to be written; no part of any time."""
        first, self._key = self._key, self._key + len(texts)
        revision, self._revision = self._revision, self._revision + 1
        keys = range(first, self._key)
        now = time.time_ns() // 1000
        uids = [os.urandom(16) for _ in keys]
        ids = [
            f"{uid.hex()[:8]}-{uid.hex()[8:12]}-{uid.hex()[12:16]}-{uid.hex()[16:20]}-{uid.hex()[20:]}" for uid in uids
        ]
        owner = "principals/local-admin"
        return {
            "items": [
                (1, 1, key, id_, uid, now, key, None, None, None) for key, id_, uid in zip(keys, ids, uids, strict=True)
            ],
            "versions": [
                (key, 1, 1, key, revision, 1 << 62, 1, 2, owner, "", key, 0.0, now, os.urandom(120)) for key in keys
            ],
            "contents": [
                (key, key, os.urandom(32), os.urandom(32), os.urandom(32), text.encode() + b"\0" * 6)
                for key, text in zip(keys, texts, strict=True)
            ],
            "vectors": [(key, vector.tobytes()) for key, vector in zip(keys, vectors, strict=True)],
            "commits": [(1, revision, os.urandom(32), os.urandom(200), now + revision, first, len(texts))],
            "words": list(zip(keys, texts, strict=True)),
        }

    def write(self, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        """Writes them as one durable transaction."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        for table, columns in _TABLES.items():
            db.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * columns)})", rows[table])
        db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows["words"])
        db.execute("COMMIT")


def fsyncs_a_second(folder: Path, seconds: float) -> float:
    """Returns how many pages a second can be written and synced one after the other: the limit of durable commits."""
    path = folder / "fsync"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        page = os.urandom(4096)
        count = 0
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < seconds:
            os.pwrite(descriptor, page, 4096 * (count % 1000))
            os.fdatasync(descriptor)
            count += 1
        return count / (now - began)
    finally:
        os.close(descriptor)
        path.unlink()
