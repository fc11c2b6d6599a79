"""The record's part of the raw work: what a program would write to and read from Neo4j for the same memories.

The nodes, properties, constraints and indexes are those that a version of a memory needs in the server's own graph: an
item, its first version with content and vector, a commit, and the cube that is locked by writing it. One statement does
all of a batch, so it costs one round trip and a commit.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from neo4j import AsyncDriver, AsyncGraphDatabase, AsyncManagedTransaction

OPEN = 2**62
_SCHEMA = (
    "CREATE CONSTRAINT raw_cube IF NOT EXISTS FOR (n:RawCube) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT raw_commit IF NOT EXISTS FOR (n:RawCommit) REQUIRE (n.cube, n.revision) IS UNIQUE",
    "CREATE CONSTRAINT raw_item_id IF NOT EXISTS FOR (n:RawItem) REQUIRE (n.cube, n.kind, n.id) IS UNIQUE",
    "CREATE CONSTRAINT raw_item_uid IF NOT EXISTS FOR (n:RawItem) REQUIRE (n.cube, n.uid) IS UNIQUE",
    "CREATE CONSTRAINT raw_memory IF NOT EXISTS FOR (n:RawMemory) REQUIRE n.key IS UNIQUE",
    "CREATE CONSTRAINT raw_version IF NOT EXISTS FOR (n:RawVersion) REQUIRE n.key IS UNIQUE",
    "CREATE RANGE INDEX raw_version_item IF NOT EXISTS FOR (n:RawVersion) ON (n.item, n.from_revision)",
    "CREATE RANGE INDEX raw_commit_time IF NOT EXISTS FOR (n:RawCommit) ON (n.cube, n.time)",
)
_CUBE = "MERGE (u:RawCube {id: $id}) ON CREATE SET u.key = $key, u.revision = 0, u.items = 0"
_ADD = """MATCH (u:RawCube {id: $cube}) SET u.revision = u.revision + 1, u.items = u.items + size($rows)
    CREATE (:RawCommit {cube: u.key, revision: u.revision, digest: $digest, header: $header, time: $time,
                        change_count: size($rows)})
    WITH u, u.revision AS revision, u.key * 68719476736 + u.items - size($rows) AS first
    CALL (u, revision, first) {
      UNWIND range(0, size($rows) - 1) AS n WITH u, revision, first + n AS key, $rows[n] AS r
      CREATE (i:RawItem:RawMemory {key: key, cube: u.key, kind: 2, id: r.uid, uid: r.uid, create_time: $time})
      CREATE (v:RawVersion {key: key, item: key, from_revision: revision, to_revision: $open, state: 1, sensitivity: 2,
        owner: $owner, time: $time, content: key, commitment: r.commitment, salt: r.salt, digest: r.digest,
        payload: r.payload, vector: r.vector, change: r.change})
      CREATE (v)-[:RAW_VERSION_OF]->(i) }
    RETURN revision"""
_FETCH = """UNWIND $uids AS wanted
    MATCH (i:RawItem {cube: $cube, uid: wanted})
    MATCH (v:RawVersion) USING INDEX v:RawVersion(item, from_revision)
    WHERE v.item = i.key AND v.from_revision <= $revision AND v.to_revision > $revision
    RETURN i.uid, i.id, i.create_time, v.from_revision, v.state, v.sensitivity, v.owner, v.time, v.commitment, v.salt,
      v.payload"""


class RawRecord:
    """Neo4j by its own driver."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Takes the settings of the server's record; connects when it is used."""
        self._driver: AsyncDriver = AsyncGraphDatabase.driver(
            config["uri"],
            auth=(config["user"], config["password"]),
            notifications_min_severity="OFF",
            telemetry_disabled=True,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._driver.close()

    async def prepare(self) -> None:
        """Makes constraints and indexes."""
        for statement in _SCHEMA:
            await self._driver.execute_query(statement, database_="neo4j")
        await self._driver.execute_query("CALL db.awaitIndexes(300)", database_="neo4j")

    async def make_cube(self, cube: str, key: int) -> None:
        """Makes a cube."""
        await self._driver.execute_query(_CUBE, id=cube, key=key, database_="neo4j")

    async def add(self, cube: str, payloads: Sequence[bytes], vectors: Sequence[bytes]) -> tuple[int, list[str]]:
        """Adds memories in one durable transaction; returns its revision and the memories' uids."""
        uids = [str(uuid.uuid4()) for _ in payloads]
        rows = [
            {
                "uid": uid,
                "payload": payload,
                "vector": vector,
                "commitment": os.urandom(32),
                "salt": os.urandom(32),
                "digest": os.urandom(32),
                "change": os.urandom(120),
            }
            for uid, payload, vector in zip(uids, payloads, vectors, strict=True)
        ]
        bound = {
            "cube": cube,
            "rows": rows,
            "digest": os.urandom(32),
            "header": os.urandom(200),
            "time": time.time_ns() // 1000,
            "open": OPEN,
            "owner": "principals/local-admin",
        }

        async def work(transaction: AsyncManagedTransaction) -> int:
            result = await transaction.run(_ADD, bound)
            found = await result.values()
            return int(found[0][0])

        async with self._driver.session(database="neo4j") as session:
            return await session.execute_write(work), uids

    async def fetch(self, cube_key: int, uids: Sequence[str], revision: int) -> list[list[Any]]:
        """Returns the memories as they are at a revision."""
        async with self._driver.session(database="neo4j", default_access_mode="READ") as session:
            result = await session.run(_FETCH, cube=cube_key, uids=list(uids), revision=revision)
            return await result.values()
