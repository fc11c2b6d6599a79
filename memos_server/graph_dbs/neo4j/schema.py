"""The schema of the graph, as forward-only migrations; `version` of the node `Schema` counts those that have run.

Labels: `Cube`; `Commit`; `Item` with one of `Settings`, `Memory`, `Relation`, `Session`; `Version`; `Blob`,
`BlobProof`; `Request`, `Unit`; `Principal`, `Grant`, `Token`, `Audit`; `Job`; `Counter`, `Lock`, `AccessChange`,
`Erasure`, `Schema`. Relationships: `(:Version)-[:VERSION_OF]->(:Item)`, `(:Version)-[:NAMES]->(:Blob)`, and between
memories `[:RELATES {type, …}]`, the relations that are active now. Only uniqueness constraints and range indexes are
used: the Community edition has no other constraints.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, NamedTuple

from neo4j import AsyncDriver, AsyncSession
from neo4j.exceptions import ClientError, TransientError

from memos_server.configs.errors import SetupError

_LOG = logging.getLogger(__name__)
_AWAIT_S: Final = 600
_TRIES: Final = 20


class Unique(NamedTuple):
    """A uniqueness constraint, with the range index that it brings."""

    name: str
    label: str
    properties: tuple[str, ...]

    def statement(self) -> str:
        """Returns the Cypher that makes it unless it is there."""
        listed = ", ".join(f"n.{name}" for name in self.properties)
        return f"CREATE CONSTRAINT {self.name} IF NOT EXISTS FOR (n:{self.label}) REQUIRE ({listed}) IS UNIQUE"


class UniqueEdge(NamedTuple):
    """A uniqueness constraint on relationships."""

    name: str
    label: str
    properties: tuple[str, ...]

    def statement(self) -> str:
        """Returns the Cypher that makes it unless it is there."""
        listed = ", ".join(f"n.{name}" for name in self.properties)
        return f"CREATE CONSTRAINT {self.name} IF NOT EXISTS FOR ()-[n:{self.label}]-() REQUIRE ({listed}) IS UNIQUE"


class Range(NamedTuple):
    """A range index."""

    name: str
    label: str
    properties: tuple[str, ...]

    def statement(self) -> str:
        """Returns the Cypher that makes it unless it is there."""
        listed = ", ".join(f"n.{name}" for name in self.properties)
        return f"CREATE RANGE INDEX {self.name} IF NOT EXISTS FOR (n:{self.label}) ON ({listed})"


Part = Unique | UniqueEdge | Range

# Published migrations never change. Each part is made by itself and only where it is missing: a migration that was cut
# off goes on where it stopped.
MIGRATIONS: Final[tuple[tuple[Part, ...], ...]] = (
    (
        Unique("memos_cube_id", "Cube", ("id",)),
        Unique("memos_cube_uid", "Cube", ("uid",)),
        Unique("memos_cube_key", "Cube", ("key",)),
        Range("memos_cube_forked", "Cube", ("forked_from",)),
        Unique("memos_commit", "Commit", ("cube", "revision")),
        Range("memos_commit_time", "Commit", ("cube", "time")),
        Unique("memos_item_id", "Item", ("cube", "kind", "id")),
        Unique("memos_item_uid", "Item", ("cube", "uid")),
        Unique("memos_settings", "Settings", ("key",)),
        Unique("memos_memory", "Memory", ("key",)),
        Unique("memos_relation", "Relation", ("key",)),
        Unique("memos_session", "Session", ("key",)),
        Range("memos_relation_source", "Relation", ("cube", "source", "key")),
        Range("memos_relation_target", "Relation", ("cube", "target", "key")),
        UniqueEdge("memos_relates", "RELATES", ("key",)),
        Unique("memos_version", "Version", ("key",)),
        Range("memos_version_item", "Version", ("item", "from_revision")),
        Unique("memos_blob", "Blob", ("cube", "digest")),
        Range("memos_blob_doomed", "Blob", ("cube", "doomed")),
        Unique("memos_blob_proof", "BlobProof", ("cube", "digest", "principal")),
        Unique("memos_request", "Request", ("principal", "method", "resource", "request_id")),
        Range("memos_request_commit", "Request", ("cube", "revision")),
        Range("memos_request_time", "Request", ("time",)),
        Unique("memos_unit", "Unit", ("id",)),
        Range("memos_unit_time", "Unit", ("time",)),
        Unique("memos_principal_id", "Principal", ("id",)),
        Unique("memos_principal_key", "Principal", ("key",)),
        Unique("memos_grant", "Grant", ("principal", "resource")),
        Unique("memos_grant_key", "Grant", ("key",)),
        Range("memos_grant_resource", "Grant", ("resource",)),
        Unique("memos_token", "Token", ("id",)),
        Unique("memos_audit", "Audit", ("sequence",)),
        Range("memos_audit_resource", "Audit", ("resource", "sequence")),
        Unique("memos_job", "Job", ("cube_id", "id")),
        Range("memos_job_unfinished", "Job", ("unfinished", "created")),
        Unique("memos_counter", "Counter", ("name",)),
        Unique("memos_lock", "Lock", ("name",)),
    ),
)

_SCHEMA: Final = Unique("memos_schema", "Schema", ("name",))
_VERSION: Final = "MATCH (s:Schema {name: 'memos'}) RETURN s.version"
_TAKE: Final = """MERGE (s:Schema {name: 'memos'}) ON CREATE SET s.version = 0 SET s.locked = true
    WITH s RETURN s.version"""
_STATE: Final = "MATCH (s:Schema {name: 'memos'}) SET s.version = $version"


def parts() -> list[Part]:
    """Returns everything that the migrations have made."""
    return [_SCHEMA, *(part for migration in MIGRATIONS for part in migration)]


async def migrate(driver: AsyncDriver, database: str, where: str) -> None:
    """Brings the schema up to date; servers that start at once wait for the one that does it.

    Args:
        driver: The driver.
        database: The database.
        where: Its address, for messages.

    Raises:
        SetupError: A newer server wrote the record.
        Neo4jError, DriverError: A migration could not be done; it goes on at the next start.
    """
    async with driver.session(database=database) as session:
        if _checked(await _single(session, _VERSION), where) == len(MIGRATIONS):
            return
        await _make(session, _SCHEMA)
        # The lock lasts as long as its transaction. What is made meanwhile needs transactions of its own, since
        # Neo4j changes data and schema apart; none of them concerns the label of the node that is locked.
        async with await session.begin_transaction() as lock:
            found = await (await lock.run(_TAKE)).values()
            version = _checked(found[0][0], where)
            async with driver.session(database=database) as making:
                for migration in MIGRATIONS[version:]:
                    for part in migration:
                        await _make(making, part)
                    await (await making.run("CALL db.awaitIndexes($seconds)", seconds=_AWAIT_S)).consume()
            await (await lock.run(_STATE, version=len(MIGRATIONS))).consume()
            await lock.commit()
        _LOG.info("the record's schema in Neo4j is version %d", len(MIGRATIONS))


async def _single(session: AsyncSession, query: str) -> Any:
    rows = await (await session.run(query)).values()
    return rows[0][0] if rows else 0


def _checked(version: Any, where: str) -> int:
    if not isinstance(version, int) or version > len(MIGRATIONS):
        raise SetupError(
            f"The record in Neo4j at {where} has schema {version}; this server reads up to {len(MIGRATIONS)}.",
            "Start the newer server that wrote it, or restore a backup of before the upgrade into a new database.",
        )
    return version


async def _make(session: AsyncSession, part: Part) -> None:
    """Makes a constraint or an index unless it is there; another server may be making the same one."""
    for attempt in range(_TRIES):
        try:
            await (await session.run(part.statement())).consume()
            return
        except TransientError:
            if attempt == _TRIES - 1:
                raise
        except ClientError as error:
            # Between the look whether it is there and its making, another one made it.
            if attempt == _TRIES - 1 or "AlreadyExists" not in (error.code or ""):
                raise
            if attempt and "IndexWithNameAlreadyExists" in (error.code or "") and isinstance(part, Unique):
                await _clear_away(session, part)
        await asyncio.sleep(0.05 * (attempt + 1))


async def _clear_away(session: AsyncSession, part: Unique) -> None:
    """Drops the index of a constraint that is not there: a database that was killed while it made one leaves that."""
    found = await _single(
        session,
        "SHOW INDEXES YIELD name, owningConstraint WHERE owningConstraint IS NULL"
        f" AND name = '{part.name}' RETURN count(*)",
    )
    if found:
        _LOG.warning("Neo4j holds half of the constraint %s, which is made anew", part.name)
        await (await session.run(f"DROP INDEX {part.name} IF EXISTS")).consume()


async def strangers(session: AsyncSession) -> list[str]:
    """Returns, in words, what of the schema is missing, not online, or not as the migrations make it."""
    query = (
        "SHOW INDEXES YIELD name, state, labelsOrTypes, properties, owningConstraint WHERE name STARTS WITH 'memos_'"
    )
    rows = await (await session.run(query)).values()
    there = {name: (state, labels, properties, owner) for name, state, labels, properties, owner in rows}
    wrong = []
    for part in parts():
        found = there.get(part.name)
        if found is None:
            wrong.append(f"the schema lacks {part.name}; start the server again after removing (:Schema)")
        elif found[0] != "ONLINE":
            wrong.append(f"the index {part.name} is {str(found[0]).lower()}; drop it and start the server again")
        elif (found[1], found[2]) != ([part.label], list(part.properties)) or (found[3] is None) != isinstance(
            part, Range
        ):
            wrong.append(f"the schema of {part.name} is not the one that this server makes")
    version = await _single(session, _VERSION)
    if version != len(MIGRATIONS):
        wrong.append(f"the schema's version is {version}, not {len(MIGRATIONS)}")
    return wrong
