"""Writes of the record, inside the transaction of the one writer thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from memos_server._pb.mip.v1.commit_pb2 import CommitHeader
from memos_server.graph_dbs.base import (
    OPEN,
    AuditRow,
    CommitRow,
    CubeRow,
    JobRow,
    Kind,
    NewContent,
    NewVersion,
    RequestKey,
    RequestRow,
    relative_name,
)
from memos_server.graph_dbs.sqlite.reader import SqliteReader, uuid_bytes


class KeyCounters:
    """The next free keys of the tables whose rows this process numbers itself, so that batches insert in one call."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Reads the counters of a store."""
        self._db = connection
        self.reload()

    def reload(self) -> None:
        """Reads the counters again, after a transaction was undone."""
        self.version = self._next("SELECT max(key) FROM versions")
        self.content = self._next("SELECT max(key) FROM contents")
        # Items have no rowid; their newest one is the item of the newest versions, or an older one.
        self.item = self._next("SELECT max(item) FROM versions")

    def _next(self, query: str) -> int:
        (largest,) = self._db.execute(query).fetchone()
        return int(largest or 0) + 1


class SqliteWriter(SqliteReader):
    """One caller's unit of work within the writer's transaction."""

    def __init__(self, connection: sqlite3.Connection, keys: KeyCounters) -> None:
        """Writes through `connection`, numbering rows with `keys`."""
        super().__init__(connection)
        self._keys = keys
        self.access_changed = False
        self.erased = False

    async def lock_cube(self, cube_id: str) -> CubeRow | None:
        """See Writer; the writer thread is the lock."""
        return await self.cube(cube_id)

    async def insert_cube(self, cube_id: str, uid: str, owner: str) -> int:
        """See Writer."""
        if self._db.execute("SELECT 1 FROM cubes WHERE id = ?", (cube_id,)).fetchone():
            raise KeyError(f"cubes/{cube_id}")
        cursor = self._db.execute(
            "INSERT INTO cubes (id, uid, owner, revision, head_digest, head_time, create_time, settings)"
            " VALUES (?, ?, ?, 0, x'', 0, 0, 0)",
            (cube_id, uuid_bytes(uid), owner),
        )
        return int(cursor.lastrowid or 0)

    async def append(self, cube: int, commit: CommitRow, versions: Sequence[NewVersion]) -> None:
        """See Writer."""
        db, keys = self._db, self._keys
        first_version = keys.version
        new_items: list[tuple[Any, ...]] = []
        replaced: list[tuple[int, int, int, int]] = []
        rows: list[tuple[Any, ...]] = []
        contents: list[tuple[Any, ...]] = []
        vectors: list[tuple[int, bytes]] = []
        blobs: list[tuple[int, str, int]] = []
        for change in versions:
            version_key, item = keys.version, change.item
            keys.version += 1
            if item is None:
                item = keys.item
                keys.item += 1
                new_items.append(
                    (
                        cube,
                        change.kind,
                        item,
                        change.id,
                        uuid_bytes(change.uid),
                        commit.time,
                        version_key,
                        uuid_bytes(change.source) if change.source else None,
                        uuid_bytes(change.target) if change.target else None,
                        change.type or None,
                    )
                )
            else:
                replaced.append((version_key, cube, change.kind, item))
            content = change.content
            if isinstance(content, NewContent):
                key = keys.content
                keys.content += 1
                contents.append((key, item, content.commitment, content.salt, content.digest, content.payload))
                if content.vector is not None:
                    vectors.append((key, content.vector))
                blobs.extend((cube, digest, key) for digest in dict.fromkeys(content.blobs))
                content = key
            rows.append(
                (
                    version_key,
                    cube,
                    change.kind,
                    item,
                    commit.revision,
                    OPEN,
                    change.state,
                    change.sensitivity,
                    change.owner,
                    change.merged_into,
                    content,
                    change.weight,
                    commit.time,
                    change.change,
                )
            )
        if replaced:
            db.executemany(
                """UPDATE versions SET to_revision = ? WHERE key =
                (SELECT version FROM items WHERE cube = ? AND kind = ? AND key = ?)""",
                [(commit.revision, *item) for _, *item in replaced],
            )
            db.executemany("UPDATE items SET version = ? WHERE cube = ? AND kind = ? AND key = ?", replaced)
        try:
            db.executemany("INSERT INTO items VALUES (?,?,?,?,?,?,?,?,?,?)", new_items)
        except sqlite3.IntegrityError as error:
            raise KeyError(self._taken(cube, versions)) from error
        db.executemany("INSERT INTO versions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", rows)
        db.executemany("INSERT INTO contents VALUES (?,?,?,?,?,?)", contents)
        db.executemany("INSERT INTO vectors VALUES (?,?)", vectors)
        db.executemany("INSERT INTO content_blobs VALUES (?,?,?)", blobs)
        db.execute(
            "INSERT INTO commits VALUES (?,?,?,?,?,?,?)",
            (cube, commit.revision, commit.digest, commit.header, commit.time, first_version, len(versions)),
        )
        db.execute(
            "UPDATE cubes SET revision = ?, head_digest = ?, head_time = ? WHERE key = ?",
            (commit.revision, commit.digest, commit.time, cube),
        )
        if commit.revision == 1:
            self._first_commit(cube, commit, new_items)

    def _first_commit(self, cube: int, commit: CommitRow, new_items: Sequence[tuple[object, ...]]) -> None:
        settings = next(row[2] for row in new_items if row[1] == Kind.CUBE)
        heads = CommitHeader.FromString(commit.header).merged_heads
        self._db.execute(
            "UPDATE cubes SET create_time = ?, settings = ?, forked_from = ? WHERE key = ?",
            (commit.time, settings, uuid_bytes(heads[0].cube_uid) if heads else None, cube),
        )

    def _taken(self, cube: int, versions: Sequence[NewVersion]) -> str:
        seen = set()
        new = [change for change in versions if change.item is None]
        first_item = self._keys.item - len(new)
        for change in new:
            name = relative_name(change.kind, change.id)
            exists = self._db.execute(
                "SELECT 1 FROM items WHERE cube = ? AND kind = ? AND id = ? AND key < ?",
                (cube, change.kind, change.id, first_item),
            ).fetchone()
            if exists or name in seen:
                return name
            seen.add(name)
        return ""

    async def erase(self, cube: int, items: Sequence[int]) -> None:
        """See Writer."""
        self.erased = True
        # The commitment stays, as the chain holds it anyway; salt, digest and payload are overwritten with zeros.
        chosen = "(SELECT value FROM json_each(?))"
        marks = json.dumps(list(items))
        contents = json.dumps(
            [
                key
                for (key,) in self._db.execute(
                    f"SELECT DISTINCT content FROM versions WHERE item IN {chosen} AND content IS NOT NULL", (marks,)
                )
            ]
        )
        self._db.execute(
            f"""UPDATE requests SET salt = x'', digest = x'' WHERE cube = ? AND revision IN
            (SELECT from_revision FROM versions WHERE item IN {chosen})""",
            (cube, marks),
        )
        self._db.execute(
            f"UPDATE contents SET salt = x'', digest = x'', payload = x'' WHERE key IN {chosen}", (contents,)
        )
        self._db.execute(f"DELETE FROM vectors WHERE content IN {chosen}", (contents,))
        named = self._db.execute(
            f"SELECT DISTINCT digest FROM content_blobs WHERE cube = ? AND content IN {chosen}", (cube, contents)
        ).fetchall()
        self._db.execute(f"DELETE FROM content_blobs WHERE content IN {chosen}", (contents,))
        self._db.executemany(
            """UPDATE blobs SET doomed = 1 WHERE cube = ?1 AND digest = ?2 AND NOT doomed
            AND NOT EXISTS (SELECT 1 FROM content_blobs WHERE cube = ?1 AND digest = ?2)""",
            [(cube, digest) for (digest,) in named],
        )

    async def put_request(self, key: RequestKey, row: RequestRow) -> None:
        """See Writer."""
        self._db.execute(
            "INSERT INTO requests VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                key.principal,
                key.method,
                key.resource,
                key.request_id,
                row.salt,
                row.digest,
                row.result,
                row.revision,
                row.cube,
                row.time,
            ),
        )

    async def forget_requests(self, before: int) -> int:
        """See Writer."""
        return self._db.execute("DELETE FROM requests WHERE time < ?", (before,)).rowcount

    async def put_principal(self, principal_id: str, display_name: str, now: int) -> None:
        """See Writer."""
        self.access_changed = True
        if await self.principal(principal_id):
            raise KeyError(f"principals/{principal_id}")
        self._db.execute(
            "INSERT INTO principals (id, display_name, created, disabled) VALUES (?, ?, ?, 0)",
            (principal_id, display_name, now),
        )

    async def disable_principal(self, principal_id: str, now: int) -> None:
        """See Writer."""
        self.access_changed = True
        self._db.execute("UPDATE principals SET disabled = ? WHERE id = ? AND disabled = 0", (now, principal_id))

    async def revoke_token(self, token_id: str, now: int) -> int:
        """See Writer."""
        self.access_changed = True
        self._db.execute("INSERT INTO revoked_tokens VALUES (?, ?) ON CONFLICT DO NOTHING", (token_id, now))
        return await self.token_revoked(token_id)

    async def put_grant(self, principal: str, resource: str, role: int, max_sensitivity: int, now: int) -> None:
        """See Writer."""
        self.access_changed = True
        self._db.execute(
            """INSERT INTO grants (principal, resource, role, max_sensitivity, updated) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (principal, resource) DO UPDATE SET
            role = excluded.role, max_sensitivity = excluded.max_sensitivity, updated = excluded.updated""",
            (principal, resource, role, max_sensitivity, now),
        )

    async def delete_grant(self, principal: str, resource: str) -> bool:
        """See Writer."""
        self.access_changed = True
        cursor = self._db.execute("DELETE FROM grants WHERE principal = ? AND resource = ?", (principal, resource))
        return cursor.rowcount > 0

    async def put_audit(self, event: AuditRow) -> None:
        """See Writer."""
        self._db.execute(
            "INSERT INTO audit_events (time, principal, method, resource, outcome, detail, count, revision)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (
                event.time,
                event.principal,
                event.method,
                event.resource,
                event.outcome,
                event.detail,
                event.count,
                event.revision,
            ),
        )

    async def put_job(self, job: JobRow) -> None:
        """See Writer."""
        self._db.execute(
            "INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                job.cube_id,
                job.id,
                job.kind,
                job.state,
                job.principal,
                job.created,
                job.updated,
                job.done,
                job.total,
                job.error_reason,
                job.error_message,
                job.lease_owner,
                job.lease_until,
            ),
        )

    async def put_blob(self, cube: int, digest: str, size: int, now: int) -> bool:
        """See Writer."""
        cursor = self._db.execute(
            """INSERT INTO blobs VALUES (?1, ?2, ?3, ?4, 0) ON CONFLICT (cube, digest) DO UPDATE SET
            size = ?3, time = ?4, doomed = 0 WHERE doomed < 2""",
            (cube, digest, size, now),
        )
        return cursor.rowcount > 0

    async def begin_erasing_blob(self, cube: int, digest: str) -> bool:
        """See Writer."""
        cursor = self._db.execute(
            "UPDATE blobs SET doomed = 2 WHERE cube = ? AND digest = ? AND doomed", (cube, digest)
        )
        return cursor.rowcount > 0

    async def delete_blob(self, cube: int, digest: str) -> None:
        """See Writer."""
        cursor = self._db.execute("DELETE FROM blobs WHERE cube = ? AND digest = ? AND doomed", (cube, digest))
        if cursor.rowcount:
            self._db.execute("DELETE FROM blob_proofs WHERE cube = ? AND digest = ?", (cube, digest))

    async def put_blob_proof(self, cube: int, digest: str, principal: str) -> None:
        """See Writer."""
        self._db.execute("INSERT OR IGNORE INTO blob_proofs VALUES (?,?,?)", (cube, digest, principal))

    async def doom_blob(self, cube: int, digest: str) -> None:
        """See Writer."""
        self._db.execute("UPDATE blobs SET doomed = 1 WHERE cube = ? AND digest = ? AND NOT doomed", (cube, digest))
