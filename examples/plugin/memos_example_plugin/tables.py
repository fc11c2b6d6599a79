"""The tables of one cube's index, and what is read from and written to them."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from memos_server.vec_dbs.base import OPEN, IndexBatch, IndexContent, IndexEntry, IndexQuery, IndexVersion

LAYOUT: Final = 1
"""The version of the tables (`user_version`); a file with another one is dropped and built anew."""

_SCHEMA: Final = """
CREATE TABLE progress (revision INTEGER NOT NULL);
INSERT INTO progress VALUES (0);
CREATE TABLE contents (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, length INTEGER NOT NULL, vector BLOB);
CREATE TABLE postings (term TEXT, content INTEGER, count INTEGER, PRIMARY KEY (term, content)) WITHOUT ROWID;
CREATE TABLE facets (facet TEXT, content INTEGER, PRIMARY KEY (facet, content)) WITHOUT ROWID;
CREATE TABLE entities (entity TEXT, content INTEGER, PRIMARY KEY (entity, content)) WITHOUT ROWID;
CREATE TABLE numbers (number TEXT, content INTEGER, value REAL, PRIMARY KEY (number, content)) WITHOUT ROWID;
CREATE INDEX posting_of ON postings (content);
CREATE INDEX facet_of ON facets (content);
CREATE INDEX entity_of ON entities (content);
CREATE INDEX number_of ON numbers (content);
CREATE TABLE versions (
  uid TEXT, from_revision INTEGER, to_revision INTEGER NOT NULL, content INTEGER, state INTEGER NOT NULL,
  sensitivity INTEGER NOT NULL, create_time REAL NOT NULL, update_time REAL NOT NULL, PRIMARY KEY (uid, from_revision)
) WITHOUT ROWID;
CREATE INDEX open_version ON versions (uid) WHERE to_revision = 4611686018427387904;
CREATE INDEX content_of ON versions (content);
"""

_SEEN: Final = """
SELECT v.uid, v.from_revision, v.content, v.state, v.create_time, v.update_time, c.length,
  max(v.sensitivity, now.sensitivity)
FROM versions v JOIN contents c ON c.id = v.content
JOIN versions now ON now.uid = v.uid AND now.to_revision = 4611686018427387904
WHERE v.from_revision <= :revision AND v.to_revision > :revision
"""


class Seen(NamedTuple):
    """A version that the caller may see at the searched revision."""

    uid: str
    from_revision: int
    content: int
    state: int
    create_time: float
    update_time: float
    length: int


class CubeTables:
    """The index of one cube: a database file with one connection.

    Attributes:
        path: The file.
        lock: Held by the thread that uses the tables.
        users: Threads that hold the lock or wait for it.
        closed: Whether `close` was called.
    """

    def __init__(self, path: Path, *, wait_for_disk: bool) -> None:
        """Opens the file, or makes it.

        Args:
            path: The file.
            wait_for_disk: Whether the file survives a power loss whole.

        Raises:
            sqlite3.DatabaseError: It is damaged or of another layout.
        """
        self.lock = threading.Lock()
        self.users = 0
        self.closed = False
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            # What a power loss takes is replayed by the server, so commits never wait for the disk (NORMAL, not FULL).
            synchronous = "NORMAL" if wait_for_disk else "OFF"
            for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "secure_delete = ON"):
                self._db.execute(f"PRAGMA {pragma}")
            if self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("the file is damaged")
            layout = self._db.execute("PRAGMA user_version").fetchone()[0]
            if layout == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {LAYOUT}; COMMIT;")
            elif layout != LAYOUT:
                raise sqlite3.DatabaseError(f"the file has layout {layout}")
        except sqlite3.Error:
            self._db.close()
            raise

    def close(self) -> None:
        """Closes the file; its write-ahead log goes with it."""
        self.closed = True
        self._db.close()

    def revision(self) -> int:
        """Returns the revision that the tables reflect."""
        return int(self._db.execute("SELECT revision FROM progress").fetchone()[0])

    def apply(self, dimension: int, batch: IndexBatch) -> None:
        """Brings the tables to the batch's revision in one transaction, and erased contents off the disk.

        Raises:
            ValueError: The batch does not begin where the tables are, names a content that they lack, or brings a
                vector of another dimension.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            revision = self.revision()
            if batch.to_revision > revision:
                if batch.from_revision != revision:
                    raise ValueError(f"a batch from {batch.from_revision} for an index at {revision}")
                for content in batch.contents:
                    self._add(content, dimension)
                for version in batch.versions:
                    self._open(version)
                for key in batch.erased:
                    self._erase(key)
                self._db.execute("UPDATE progress SET revision = ?", (batch.to_revision,))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        if batch.erased:
            # `secure_delete` leaves remains within pages that were rearranged; a rewritten file has none.
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _add(self, content: IndexContent, dimension: int) -> None:
        if content.vector is not None and content.vector.shape != (dimension,):
            raise ValueError(f"a vector of shape {content.vector.shape} for the dimension {dimension}")
        vector = None if content.vector is None else content.vector.astype("<f4").tobytes()
        added = self._db.execute(
            "INSERT INTO contents (key, length, vector) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
            (content.key, len(content.terms), vector),
        ).fetchone()
        if added is None:
            return
        (number,) = added
        counts: dict[str, int] = {}
        for term in content.terms:
            counts[term] = counts.get(term, 0) + 1
        many = self._db.executemany
        many("INSERT INTO postings VALUES (?, ?, ?)", [(term, number, count) for term, count in counts.items()])
        many("INSERT INTO facets VALUES (?, ?)", [(facet, number) for facet in content.facets])
        many("INSERT INTO entities VALUES (?, ?)", [(entity, number) for entity in content.entities])
        many("INSERT INTO numbers VALUES (?, ?, ?)", [(name, number, value) for name, value in content.numbers.items()])

    def _open(self, version: IndexVersion) -> None:
        content = None
        if version.content is not None:
            known = self._db.execute("SELECT id FROM contents WHERE key = ?", (version.content,)).fetchone()
            if known is None:
                raise ValueError("a version names a content that the index lacks")
            (content,) = known
        self._db.execute(
            "UPDATE versions SET to_revision = ? WHERE uid = ? AND to_revision = ?",
            (version.from_revision, version.uid, OPEN),
        )
        self._db.execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                version.uid,
                version.from_revision,
                OPEN,
                content,
                version.state,
                version.sensitivity,
                version.create_time,
                version.update_time,
            ),
        )

    def _erase(self, key: bytes) -> None:
        found = self._db.execute("SELECT id FROM contents WHERE key = ?", (key,)).fetchone()
        if found is None:
            return
        self._db.execute("UPDATE versions SET content = NULL WHERE content = ?", found)
        self._db.execute("DELETE FROM postings WHERE content = ?", found)
        self._db.execute("DELETE FROM facets WHERE content = ?", found)
        self._db.execute("DELETE FROM entities WHERE content = ?", found)
        self._db.execute("DELETE FROM numbers WHERE content = ?", found)
        self._db.execute("DELETE FROM contents WHERE id = ?", found)

    def seen(self, query: IndexQuery) -> dict[int, Seen]:
        """Returns the versions with content that the caller may see at the searched revision, by their content."""
        if query.revision > self.revision():
            raise ValueError(f"the index has not reached revision {query.revision}")
        found = {}
        for uid, from_revision, content, state, created, updated, length, label in self._db.execute(
            _SEEN, {"revision": query.revision}
        ):
            if label <= max(query.max_sensitivity, query.granted.get(uid, query.max_sensitivity)):
                found[content] = Seen(uid, from_revision, content, state, created, updated, length)
        return found

    def postings(self, term: str) -> Iterable[tuple[int, int]]:
        """Returns (content, count) for each content that has the term."""
        return self._db.execute("SELECT content, count FROM postings WHERE term = ?", (term,))

    def with_facet(self, facet: str) -> Iterable[int]:
        """Returns the contents that have the facet."""
        return (row[0] for row in self._db.execute("SELECT content FROM facets WHERE facet = ?", (facet,)))

    def with_number(self, number: str) -> Iterable[tuple[int, float]]:
        """Returns (content, value) for each content that has the number."""
        return self._db.execute("SELECT content, value FROM numbers WHERE number = ?", (number,))

    def with_entity(self, entity: str) -> Iterable[int]:
        """Returns the contents that have the entity."""
        return (row[0] for row in self._db.execute("SELECT content FROM entities WHERE entity = ?", (entity,)))

    def entities(self, content: int) -> list[str]:
        """Returns the entities of a content, sorted."""
        rows = self._db.execute("SELECT entity FROM entities WHERE content = ? ORDER BY entity", (content,))
        return [row[0] for row in rows]

    def vectors(self, contents: Iterable[int]) -> Iterable[tuple[int, np.ndarray]]:
        """Returns (content, vector) for each of the contents that has a vector."""
        for content in contents:
            (vector,) = self._db.execute("SELECT vector FROM contents WHERE id = ?", (content,)).fetchone()
            if vector is not None:
                yield content, np.frombuffer(vector, "<f4")

    def entries(self) -> tuple[int, Sequence[IndexEntry]]:
        """Returns the revision and every version."""
        rows = self._db.execute(
            "SELECT v.uid, v.from_revision, v.to_revision, c.key, v.state, v.sensitivity, c.vector"
            " FROM versions v LEFT JOIN contents c ON c.id = v.content"
        )
        found = [
            IndexEntry(uid, since, until, key, state, label, b"" if vector is None else hashlib.sha256(vector).digest())
            for uid, since, until, key, state, label, vector in rows
        ]
        return self.revision(), found
