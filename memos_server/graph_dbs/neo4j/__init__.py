"""The record store over Neo4j 5.26 or later: one property graph, many servers."""

from memos_server.graph_dbs.neo4j.store import Neo4jRecordStore

__all__ = ["Neo4jRecordStore"]
