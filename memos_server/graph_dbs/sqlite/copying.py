"""A copy of a record while it is in use: one consistent state, whole on disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

_STEP_PAGES = 2048
"""How many pages are copied between two calls of `progress`: 8 MiB."""


def copy_record(
    source: sqlite3.Connection, target: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Copies the state of the record that a connection sees, durably.

    Where the connection is inside a transaction, the copy is what this transaction sees, however many writers go on
    meanwhile; else it is what the first page read belongs to, and others must not write.

    Args:
        source: A connection to the record.
        target: The file to make, readable by its owner only; it must not exist.
        progress: Called with the bytes copied and the bytes in all.

    Raises:
        OSError: The file exists, or cannot be written.
        sqlite3.Error: The record cannot be read, or the disk is full.
    """
    (page_size,) = source.execute("PRAGMA page_size").fetchone()
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        copy = sqlite3.connect(target, isolation_level=None)
        try:
            # A copy that is cut off is thrown away: it needs neither a journal nor fsync before its end.
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            source.backup(
                copy,
                pages=_STEP_PAGES,
                progress=lambda _, remaining, total: progress((total - remaining) * page_size, total * page_size),
                sleep=0.0,
            )
        finally:
            copy.close()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
