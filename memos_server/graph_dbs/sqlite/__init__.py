"""The embedded record store: one SQLite file, one writer thread with group commit, readers on snapshots."""

from memos_server.graph_dbs.sqlite.store import SqliteRecordStore

__all__ = ["SqliteRecordStore"]
