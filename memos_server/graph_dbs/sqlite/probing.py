"""Tries whether the record can be read and written, beside the connections that are at work."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from memos_server.errors import MipError
from memos_server.telemetry.probing import try_file, try_folder


def try_record(path: Path, known: tuple[int, int]) -> None:
    """Tries a record: its file is the one that was opened, a new connection reads it, its folder takes bytes.

    Nothing is locked that a write would wait for. The file is never opened but by SQLite: closing it would drop the
    locks of the whole process on it (sqlite.org/howtocorrupt.html, section 2.2).

    Args:
        path: The database.
        known: What `telemetry.probing.identity` returned when it was opened.

    Raises:
        MipError: BACKEND_UNAVAILABLE, STORAGE_FULL or DATA_CORRUPT.
    """
    try_file(path, known)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1.0)) as connection:
            connection.execute("SELECT count(*) FROM (SELECT 1 FROM principals LIMIT 1)").fetchone()
    except sqlite3.DatabaseError as error:
        # SQLite's name of the error; its text might quote a value.
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if isinstance(error, sqlite3.OperationalError):
            raise MipError(
                "BACKEND_UNAVAILABLE", f"{path} cannot be read ({name}); look for errors of its disk"
            ) from error
        raise MipError(
            "DATA_CORRUPT", f"{path} is damaged ({name}); stop the server and restore it from a backup"
        ) from error
    try_folder(path.parent)
