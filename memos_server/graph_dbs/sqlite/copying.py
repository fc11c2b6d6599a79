"""A copy of a record while it is in use: one consistent state, whole on disk, and what is read from such a copy."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar
from uuid import UUID

T = TypeVar("T")

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


class CopiedCube(NamedTuple):
    """A cube of a copied record: its id, its uid, and its head."""

    id: str
    uid: str
    revision: int
    digest: bytes


class CopiedBlob(NamedTuple):
    """A blob that a copied record names: the uid of the cube that holds it, its digest, its size in bytes."""

    cube_uid: str
    digest: str
    size: int


@contextmanager
def _reading(copy: Path) -> Iterator[sqlite3.Connection]:
    # A file that nobody writes is read without locks, and without the files that a database in use has beside it.
    with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None)) as db:
        yield db


def _is(kind: type[T], value: object) -> T:
    """Returns a value of the type that its column has; a hand in the file can put any other there."""
    if not isinstance(value, kind):
        raise sqlite3.DatabaseError(f"a value is no {kind.__name__}")
    return value


def _uid(value: object) -> str:
    found = _is(bytes, value)
    if len(found) != 16:
        raise sqlite3.DatabaseError("a uid has not 16 bytes")
    return str(UUID(bytes=found))


def copied_version(copy: Path) -> int:
    """Returns the number of a copied record's format; raises sqlite3.DatabaseError."""
    with _reading(copy) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return int(version)


def copied_damage(copy: Path) -> str:
    """Returns what is damaged in the structure of a copied record; empty when nothing is."""
    with _reading(copy) as db:
        try:
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return str(error)
        return "" if found == "ok" else str(found)


def copied_cubes(copy: Path) -> list[CopiedCube]:
    """Returns the cubes of a copied record in order of creation; raises sqlite3.DatabaseError."""
    with _reading(copy) as db:
        rows = db.execute("SELECT id, uid, revision, head_digest FROM cubes ORDER BY key")
        return [
            CopiedCube(_is(str, id_), _uid(uid), _is(int, revision), _is(bytes, digest))
            for id_, uid, revision, digest in rows
        ]


def copied_blobs(copy: Path) -> Iterator[CopiedBlob]:
    """Yields the blobs that a copied record names, without those whose erasure has begun."""
    with _reading(copy) as db:
        rows = db.execute("SELECT u.uid, b.digest, b.size FROM blobs b JOIN cubes u ON u.key = b.cube WHERE NOT doomed")
        for uid, digest, size in rows:
            yield CopiedBlob(_uid(uid), _is(str, digest), _is(int, size))


def holds_blob(record: sqlite3.Connection, blob: CopiedBlob) -> bool:
    """Returns whether a record in use still holds a blob that a copy of it names."""
    query = "SELECT 1 FROM blobs b JOIN cubes u ON u.key = b.cube WHERE u.uid = ? AND b.digest = ? AND NOT b.doomed"
    return record.execute(query, (UUID(blob.cube_uid).bytes, blob.digest)).fetchone() is not None
