"""Writes of the record, inside one transaction.

What needs no answer (the commit itself, request ids, audit events) waits for the transaction's last statement, so
that a commit takes few round trips; anything that is read before that has it written first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from neo4j.exceptions import ConstraintError

from memos_server.graph_dbs.base import (
    AuditRow,
    CommitRow,
    CubeRow,
    Kind,
    NewVersion,
    RequestKey,
    RequestRow,
    relative_name,
)
from memos_server.graph_dbs.neo4j.access_writer import AccessWriter, Number
from memos_server.graph_dbs.neo4j.commit_batch import CommitBatch
from memos_server.graph_dbs.neo4j.evidence import Evidence
from memos_server.graph_dbs.neo4j.pins import LockedCubes
from memos_server.graph_dbs.neo4j.reader import request_parameters
from memos_server.graph_dbs.neo4j.sequences import AuditClock
from memos_server.graph_dbs.neo4j.shapes import KIND_LABELS, damaged
from memos_server.graph_dbs.neo4j.statements import LongStatements, Statements, batches, chunks

_NEW_CUBE: Final = """CREATE (:Cube {id: $id, uid: $uid, key: $key, owner: $owner, head: [0, 0], create_time: 0,
    items: 0, versions: 0, locked: true})"""
_NEW: Final = {
    kind: f"""UNWIND $rows AS r
        CREATE (i:Item:{label}) SET i = r.item
        CREATE (v:Version) SET v = r.version
        CREATE (v)-[:VERSION_OF]->(i)"""
    for kind, label in KIND_LABELS.items()
}
_NEXT: Final = {
    kind: f"""UNWIND $rows AS r
        MATCH (i:{label} {{key: r.item}})
        CALL (r) {{ MATCH (o:Version) USING INDEX o:Version(item, from_revision)
          WHERE o.item = r.item AND o.from_revision < $revision
          RETURN o ORDER BY o.item DESC, o.from_revision DESC LIMIT 1 }}
        SET o.to_revision = $revision
        CREATE (v:Version) SET v = r.version
        CREATE (v)-[:VERSION_OF]->(i)
        RETURN count(*)"""
    for kind, label in KIND_LABELS.items()
}
_NAMES: Final = """UNWIND $rows AS r MATCH (v:Version {key: r.key})
    MERGE (b:Blob {cube: $cube, digest: r.digest})
    ON CREATE SET b.held = false, b.doomed = 0, b.size = 0, b.time = 0
    CREATE (v)-[:NAMES]->(b)"""
# Relations that are active now are relationships between their memories too.
_RELATE: Final = """UNWIND $rows AS r
    MATCH (s:Item {cube: $cube, uid: r.source}) MATCH (t:Item {cube: $cube, uid: r.target})
    MERGE (s)-[e:RELATES {key: r.key}]->(t) SET e.type = r.type, e.weight = r.weight"""
_UNRELATE: Final = "UNWIND $keys AS k MATCH ()-[e:RELATES {key: k}]->() DELETE e"
_LAST: Final = """CALL () { UNWIND $heads AS h MATCH (u:Cube {key: h.key}) SET u += h.values }
    CALL () { UNWIND $commits AS row CREATE (m:Commit) SET m = row }
    CALL () { UNWIND $requests AS row CREATE (r:Request) SET r = row }
    CALL () { UNWIND $audits AS row CREATE (a:Audit) SET a = row }
    CALL () { UNWIND $units AS row CREATE (n:Unit) SET n = row }
    FOREACH (_ IN range(1, $access) | CREATE (:AccessChange))
    FOREACH (_ IN range(1, $erasures) | CREATE (:Erasure))"""
_TAKEN: Final = "UNWIND $ids AS wanted MATCH (i:Item {cube: $cube, kind: $kind, id: wanted}) RETURN i.id"
_ERASE: Final = """UNWIND $items AS k MATCH (v:Version) USING INDEX v:Version(item, from_revision)
    WHERE v.item = k AND v.from_revision >= 0 AND v.content = v.key
    SET v.erased = $revision, v.salt = null, v.digest = null, v.payload = null, v.vector = null"""
_ERASED_BLOBS: Final = """UNWIND $items AS k MATCH (v:Version) USING INDEX v:Version(item, from_revision)
    WHERE v.item = k AND v.from_revision >= 0
    MATCH (v)-[n:NAMES]->(b:Blob) DELETE n WITH DISTINCT b
    SET b.locked = true WITH b WHERE NOT EXISTS { (b)<-[:NAMES]-() }
    FOREACH (_ IN CASE WHEN b.held AND b.doomed = 0 THEN [1] ELSE [] END | SET b.doomed = 1)
    FOREACH (_ IN CASE WHEN b.held THEN [] ELSE [1] END | DELETE b)"""
_ERASED_REQUESTS: Final = """UNWIND $items AS k MATCH (v:Version) USING INDEX v:Version(item, from_revision)
    WHERE v.item = k AND v.from_revision >= 0 WITH DISTINCT v.from_revision AS revision
    MATCH (r:Request) USING INDEX r:Request(cube, revision) WHERE r.cube = $cube AND r.revision = revision
    SET r.salt = null, r.digest = null"""
_FORGET: Final = """MATCH (r:Request) WHERE r.time < $before
    CALL (r) { DELETE r } IN TRANSACTIONS OF 5000 ROWS RETURN count(*)"""
_FORGET_UNITS: Final = """MATCH (n:Unit) WHERE n.time < $before
    CALL (n) { DELETE n } IN TRANSACTIONS OF 5000 ROWS RETURN count(*)"""
# `doomed` is 0, 1 once no content names the blob, 2 while its bytes are being erased.
_PUT_BLOB: Final = """MERGE (b:Blob {cube: $cube, digest: $digest}) ON CREATE SET b.doomed = 0 SET b.locked = true
    WITH b WHERE b.doomed < 2 SET b.size = $size, b.time = $now, b.held = true, b.doomed = 0 RETURN true"""
_PUT_PROOF: Final = "MERGE (:BlobProof {cube: $cube, digest: $digest, principal: $principal})"
_DOOM: Final = """MATCH (b:Blob {cube: $cube, digest: $digest}) SET b.locked = true
    WITH b WHERE b.held AND b.doomed = 0 SET b.doomed = 1"""
_BEGIN_ERASING: Final = """MATCH (b:Blob {cube: $cube, digest: $digest}) SET b.locked = true
    WITH b WHERE b.doomed > 0 SET b.doomed = 2 RETURN true"""
# A blob that contents still name stays as what they name, no longer held.
_DELETE_BLOB: Final = """MATCH (b:Blob {cube: $cube, digest: $digest}) SET b.locked = true WITH b WHERE b.doomed > 0
    SET b.held = false, b.doomed = 0
    WITH b OPTIONAL MATCH (p:BlobProof) USING INDEX p:BlobProof(cube, digest, principal)
    WHERE p.cube = $cube AND p.digest = $digest AND p.principal IS NOT NULL
    DELETE p WITH DISTINCT b WHERE NOT EXISTS { (b)<-[:NAMES]-() } DELETE b"""


class Neo4jWriter(AccessWriter):
    """One attempt of a unit of work.

    Attributes:
        evidence: What tells afterwards whether the transaction took effect.
    """

    def __init__(self, statements: LongStatements, outside: Statements, number: Number, clock: AuditClock) -> None:
        """Writes in a transaction.

        Args:
            statements: Runs statements in it.
            outside: Runs them beside it.
            number: Draws numbers for cubes, principals and grants.
            clock: Draws numbers for audit events.
        """
        self._open = statements
        self._outside = outside
        super().__init__(self, number)
        self._pins = self._cubes = LockedCubes(self)
        self._clock = clock
        self._heads: dict[int, dict[str, Any]] = {}
        self._commits: list[dict[str, Any]] = []
        self._requests: list[dict[str, Any]] = []
        self._audits: list[dict[str, Any]] = []
        self._made: dict[int, set[tuple[int, str]]] = {}
        self._erased = False
        self.evidence = Evidence()

    # Statements

    async def rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """Runs a statement after what waits has been written."""
        if self._waits():
            await self._write_last()
        return await self._open.rows(query, **parameters)

    async def long_rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """Runs a long statement after what waits has been written."""
        if self._waits():
            await self._write_last()
        return await self._open.long_rows(query, **parameters)

    def _waits(self) -> bool:
        return bool(self._heads or self._requests or self._audits)

    async def _write_last(self, units: Sequence[dict[str, Any]] = ()) -> None:
        heads = [{"key": key, "values": values} for key, values in self._heads.items()]
        bound = {"heads": heads, "commits": self._commits, "requests": self._requests, "audits": self._audits}
        self._heads, self._commits, self._requests, self._audits = {}, [], [], []
        # Nodes that are counted: others see by their number that there is news, and nobody waits for a counter.
        signs = {"access": int(self._access_changed), "erasures": int(self._erased)}
        self._access_changed = self._erased = False
        await self._open.rows(_LAST, **bound, **signs, units=units)

    async def finish(self) -> None:
        """Writes what waits, and what shows afterwards that the transaction took effect."""
        units = []
        if not self.evidence.found and self._changed:
            units.append(self.evidence.mark())
        if self._waits() or self._access_changed or self._erased or units:
            await self._write_last(units)

    # Cubes

    async def lock_cube(self, cube_id: str) -> CubeRow | None:
        """See Writer."""
        return await self._cubes.lock(cube_id)

    async def insert_cube(self, cube_id: str, uid: str, owner: str) -> int:
        """See Writer."""
        key = await self._number("cubes")
        try:
            await self._change(_NEW_CUBE, id=cube_id, uid=uid.lower(), key=key, owner=owner)
        except ConstraintError as error:
            raise KeyError(f"cubes/{cube_id}") from error
        self._cubes.inserted(key, cube_id)
        return key

    async def append(self, cube: int, commit: CommitRow, versions: Sequence[NewVersion]) -> None:
        """See Writer."""
        held = await self._cubes.held(cube)
        if held is None:
            raise damaged(f"the cube {cube}")
        batch = CommitBatch(cube, commit, held.items, held.versions)
        for change in versions:
            batch.take(change)
        await self._write_items(cube, commit, batch, versions)
        for chunk in chunks(batch.blobs):
            await self._change(_NAMES, rows=chunk, cube=cube)
        for chunk in chunks(batch.related):
            await self._change(_RELATE, rows=chunk, cube=cube)
        for keys in chunks(batch.unrelated):
            await self._change(_UNRELATE, keys=keys)
        self._commits.append({**batch.commit_node(), "unit": self.evidence.commit(cube, commit.revision)})
        self._heads[cube] = batch.head(held)
        self._made.setdefault(cube, set()).update(batch.names)
        self._cubes.moved(cube, commit, batch.items, batch.versions, settings=batch.settings is not None)

    async def _write_items(
        self, cube: int, commit: CommitRow, batch: CommitBatch, versions: Sequence[NewVersion]
    ) -> None:
        for kind, replacing in batch.next.items():
            for rows in batches(replacing.rows, replacing.weights):
                done = await self._change(_NEXT[kind], rows=rows, revision=commit.revision)
                if done[0][0] != len(rows):
                    raise damaged(f"items of the cube {cube}")
        try:
            for kind, new in batch.new.items():
                for rows in batches(new.rows, new.weights):
                    await self._change(_NEW[kind], rows=rows)
        except ConstraintError as error:
            raise KeyError(await self._taken(cube, versions)) from error

    async def _taken(self, cube: int, versions: Sequence[NewVersion]) -> str:
        """Returns the relative name of the first new item whose id is taken; the transaction itself is broken now."""
        made = set(self._made.get(cube, ()))
        new = [change for change in versions if change.item is None]
        for kind in Kind:
            for chunk in chunks([change.id for change in new if change.kind is kind]):
                rows = await self._outside.rows(_TAKEN, cube=cube, kind=int(kind), ids=chunk)
                made.update((int(kind), row[0]) for row in rows)
        for change in new:
            if (int(change.kind), change.id) in made:
                return relative_name(change.kind, change.id)
            made.add((int(change.kind), change.id))
        return ""

    async def erase(self, cube: int, items: Sequence[int]) -> None:
        """See Writer."""
        revision = await self._head(cube)
        self._erased = True
        for chunk in chunks(list(items)):
            await self._change(_ERASED_REQUESTS, items=chunk, cube=cube)
            await self._change(_ERASE, items=chunk, revision=revision)
            await self._change(_ERASED_BLOBS, items=chunk)

    # What stands around the cubes

    async def request(self, key: RequestKey) -> RequestRow | None:
        """See Reader."""
        found = await super().request(key)
        if found is None:
            self.evidence.missed.append(key)
        return found

    async def put_request(self, key: RequestKey, row: RequestRow) -> None:
        """See Writer."""
        self._requests.append({**request_parameters(key), **row._asdict()})
        self.evidence.request(key, row.salt)

    async def forget_requests(self, before: int) -> int:
        """See Writer; they are dropped in transactions of their own, as there may be millions."""
        await self._outside.rows(_FORGET_UNITS, before=before)
        rows = await self._outside.rows(_FORGET, before=before)
        return int(rows[0][0])

    async def put_audit(self, event: AuditRow) -> None:
        """See Writer."""
        self._changed = True
        self._audits.append({**asdict(event), "sequence": self._clock.next()})

    async def put_blob(self, cube: int, digest: str, size: int, now: int) -> bool:
        """See Writer."""
        return bool(await self._change(_PUT_BLOB, cube=cube, digest=digest, size=size, now=now))

    async def put_blob_proof(self, cube: int, digest: str, principal: str) -> None:
        """See Writer."""
        await self._change(_PUT_PROOF, cube=cube, digest=digest, principal=principal)

    async def doom_blob(self, cube: int, digest: str) -> None:
        """See Writer."""
        await self._change(_DOOM, cube=cube, digest=digest)

    async def begin_erasing_blob(self, cube: int, digest: str) -> bool:
        """See Writer."""
        return bool(await self._change(_BEGIN_ERASING, cube=cube, digest=digest))

    async def delete_blob(self, cube: int, digest: str) -> None:
        """See Writer."""
        await self._change(_DELETE_BLOB, cube=cube, digest=digest)
