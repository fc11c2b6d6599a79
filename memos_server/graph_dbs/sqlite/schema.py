"""The schema, as forward-only migrations; `PRAGMA user_version` counts those that have run.

It is the number of the data folder's format (`configs.data_folder`): a new migration raises FORMAT_VERSION, and needs a
fixture of a folder that it wrote (`tools/make_folder_fixture.py`).
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from memos_server.configs.data_folder import refuse_newer
from memos_server.configs.secret_files import fsync_folder
from memos_server.graph_dbs.sqlite.copying import copy_record

_LOG = logging.getLogger(__name__)

# Items are clustered by cube and kind, so that listing a cube reads neighbouring pages. Versions and contents are
# append-only in commit order: the changes of a commit are the `change_count` versions from `first_version` on.
# A blob's `doomed` is 0, 1 once no content names it, 2 while its bytes are being erased.
# Ids of principals, cubes and items are never deleted, which is why no table needs a cascade.
MIGRATIONS = [
    """
    CREATE TABLE cubes (
      key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, uid BLOB NOT NULL UNIQUE, owner TEXT NOT NULL,
      revision INTEGER NOT NULL, head_digest BLOB NOT NULL, head_time INTEGER NOT NULL, create_time INTEGER NOT NULL,
      settings INTEGER NOT NULL, forked_from BLOB);
    CREATE INDEX cubes_forked ON cubes (forked_from) WHERE forked_from IS NOT NULL;

    CREATE TABLE commits (
      cube INTEGER NOT NULL, revision INTEGER NOT NULL, digest BLOB NOT NULL, header BLOB NOT NULL,
      time INTEGER NOT NULL, first_version INTEGER NOT NULL, change_count INTEGER NOT NULL,
      PRIMARY KEY (cube, revision)) WITHOUT ROWID;
    CREATE INDEX commits_time ON commits (cube, time);

    CREATE TABLE items (
      cube INTEGER NOT NULL, kind INTEGER NOT NULL, key INTEGER NOT NULL, id TEXT NOT NULL, uid BLOB NOT NULL,
      create_time INTEGER NOT NULL, version INTEGER NOT NULL, source BLOB, target BLOB, type TEXT,
      PRIMARY KEY (cube, kind, key)) WITHOUT ROWID;
    CREATE UNIQUE INDEX items_id ON items (cube, kind, id);
    CREATE UNIQUE INDEX items_uid ON items (cube, uid);
    CREATE INDEX items_source ON items (cube, source) WHERE source IS NOT NULL;
    CREATE INDEX items_target ON items (cube, target) WHERE target IS NOT NULL;

    CREATE TABLE versions (
      key INTEGER PRIMARY KEY, cube INTEGER NOT NULL, kind INTEGER NOT NULL, item INTEGER NOT NULL,
      from_revision INTEGER NOT NULL, to_revision INTEGER NOT NULL, state INTEGER NOT NULL,
      sensitivity INTEGER NOT NULL, owner TEXT NOT NULL, merged_into TEXT NOT NULL, content INTEGER,
      weight REAL NOT NULL, time INTEGER NOT NULL, change BLOB NOT NULL);
    CREATE UNIQUE INDEX versions_item ON versions (item, from_revision);

    CREATE TABLE contents (
      key INTEGER PRIMARY KEY, item INTEGER NOT NULL, commitment BLOB NOT NULL, salt BLOB NOT NULL,
      digest BLOB NOT NULL, payload BLOB NOT NULL);
    CREATE TABLE vectors (content INTEGER PRIMARY KEY, data BLOB NOT NULL);

    CREATE TABLE blobs (
      cube INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, time INTEGER NOT NULL,
      doomed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (cube, digest)) WITHOUT ROWID;
    CREATE TABLE blob_proofs (
      cube INTEGER NOT NULL, digest TEXT NOT NULL, principal TEXT NOT NULL,
      PRIMARY KEY (cube, digest, principal)) WITHOUT ROWID;
    CREATE TABLE content_blobs (
      cube INTEGER NOT NULL, digest TEXT NOT NULL, content INTEGER NOT NULL,
      PRIMARY KEY (cube, digest, content)) WITHOUT ROWID;
    CREATE INDEX content_blobs_content ON content_blobs (content);

    CREATE TABLE requests (
      principal TEXT NOT NULL, method TEXT NOT NULL, resource TEXT NOT NULL, request_id TEXT NOT NULL,
      salt BLOB NOT NULL, digest BLOB NOT NULL, result TEXT NOT NULL, revision INTEGER NOT NULL,
      cube INTEGER NOT NULL, time INTEGER NOT NULL,
      PRIMARY KEY (principal, method, resource, request_id)) WITHOUT ROWID;
    CREATE INDEX requests_commit ON requests (cube, revision);
    CREATE INDEX requests_time ON requests (time);

    CREATE TABLE principals (
      key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, display_name TEXT NOT NULL, created INTEGER NOT NULL,
      disabled INTEGER NOT NULL);
    CREATE TABLE revoked_tokens (id TEXT PRIMARY KEY, time INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE grants (
      key INTEGER PRIMARY KEY, principal TEXT NOT NULL, resource TEXT NOT NULL, role INTEGER NOT NULL,
      max_sensitivity INTEGER NOT NULL, updated INTEGER NOT NULL, UNIQUE (principal, resource));
    CREATE INDEX grants_resource ON grants (resource);
    CREATE TABLE audit_events (
      sequence INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, principal TEXT NOT NULL, method TEXT NOT NULL,
      resource TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL, count INTEGER NOT NULL,
      revision INTEGER NOT NULL);
    CREATE INDEX audit_resource ON audit_events (resource, sequence);

    CREATE TABLE jobs (
      cube TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, state INTEGER NOT NULL, principal TEXT NOT NULL,
      created INTEGER NOT NULL, updated INTEGER NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL,
      error_reason TEXT NOT NULL, error_message TEXT NOT NULL, lease_owner TEXT NOT NULL, lease_until INTEGER NOT NULL,
      PRIMARY KEY (cube, id)) WITHOUT ROWID;
    CREATE INDEX jobs_unfinished ON jobs (created) WHERE state IN (1, 2);
    """,
]


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the schema up to date, each version in one transaction, after a copy of the record was put beside it.

    Raises:
        SetupError: A newer server wrote the record.
        sqlite3.Error: A migration could not be done; the record is as the version before left it.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    refuse_newer(f"The record {path}", version)
    if version == len(MIGRATIONS):
        return
    if version:
        _copy_before(connection, path, version)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;{script};PRAGMA user_version = {number};COMMIT;")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    # The file itself now states the version: an older server sees it before it opens the database.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy_before(connection: sqlite3.Connection, path: Path, version: int) -> None:
    copy = path.with_name(f"{path.stem}.v{version}{path.suffix}")
    temporary = copy.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    try:
        copy_record(connection, temporary)
        temporary.replace(copy)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
    _LOG.warning(
        "the record is brought from format %d to %d; as it was it lies in %s until you delete it, or a purge does",
        version,
        len(MIGRATIONS),
        copy,
    )


def drop_copies(path: Path) -> None:
    """Removes the copies that migrations of a record made, whole or cut off: what is purged must not stay in them.

    Args:
        path: The record.
    """
    copies = list(path.parent.glob(f"{path.stem}.v*"))
    for copy in copies:
        copy.unlink()
    if copies:
        fsync_folder(path.parent)
