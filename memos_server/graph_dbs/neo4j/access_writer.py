"""Writes of principals, grants, tokens and jobs. What a write depends on is read under a lock: others write too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from memos_server.graph_dbs.base import GrantRow, JobRow, PrincipalRow
from memos_server.graph_dbs.neo4j.access_reader import LOCKED_JOB
from memos_server.graph_dbs.neo4j.reader import Neo4jReader
from memos_server.graph_dbs.neo4j.statements import LongStatements

Number = Callable[[str], Awaitable[int]]
"""Returns the next number of a counter, in a transaction of its own."""

_LOCK_ACCESS: Final = "MERGE (l:Lock {name: 'access'}) SET l.locked = true"
# What is there already is told from what is new by the key that was drawn for it.
_PUT_PRINCIPAL: Final = """MERGE (p:Principal {id: $id})
    ON CREATE SET p.key = $key, p.display_name = $display_name, p.created = $now, p.disabled = 0
    RETURN p.key = $key"""
_DISABLE: Final = """MATCH (p:Principal {id: $id}) SET p.locked = true
    WITH p WHERE p.disabled = 0 SET p.disabled = $now"""
_REVOKE: Final = "MERGE (t:Token {id: $id}) ON CREATE SET t.time = $now RETURN t.time"
_PUT_GRANT: Final = """MERGE (g:Grant {principal: $principal, resource: $resource})
    ON CREATE SET g.key = $key SET g.rights = $rights, g.updated = $now"""
_DELETE_GRANT: Final = """MATCH (g:Grant {principal: $principal, resource: $resource}) DELETE g RETURN count(*)"""
# A job that has ended leaves the index of unfinished ones, as `unfinished` is null then.
_PUT_JOB: Final = """MERGE (j:Job {cube_id: $cube_id, id: $id}) SET j += $row
    SET j.unfinished = CASE WHEN $row.state IN [1, 2] THEN true ELSE null END"""


class AccessWriter(Neo4jReader):
    """The part of a Writer that concerns access and jobs."""

    def __init__(self, statements: LongStatements, number: Number) -> None:
        """Writes through `statements`, numbering principals and grants with `number`."""
        super().__init__(statements)
        self._number = number
        self._changed = False
        self._access_changed = False
        self._access_locked = False

    async def _change(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """Runs a statement that changes something."""
        self._changed = True
        return await self._statements.rows(query, **parameters)

    async def _lock_access(self) -> None:
        """Makes other units that look before they change access wait until this one has ended."""
        if not self._access_locked:
            await self._statements.rows(_LOCK_ACCESS)
            self._access_locked = True

    async def principals(self, after: int, limit: int) -> Sequence[PrincipalRow]:
        """See Reader."""
        await self._lock_access()
        return await super().principals(after, limit)

    async def principal(self, principal_id: str) -> PrincipalRow | None:
        """See Reader."""
        await self._lock_access()
        return await super().principal(principal_id)

    async def grants_on(self, resource: str, after: int, limit: int) -> Sequence[GrantRow]:
        """See Reader."""
        await self._lock_access()
        return await super().grants_on(resource, after, limit)

    async def grant(self, principal: str, resource: str) -> GrantRow | None:
        """See Reader."""
        await self._lock_access()
        return await super().grant(principal, resource)

    async def put_principal(self, principal_id: str, display_name: str, now: int) -> None:
        """See Writer."""
        self._access_changed = True
        key = await self._number("principals")
        rows = await self._change(_PUT_PRINCIPAL, id=principal_id, key=key, display_name=display_name, now=now)
        if not rows[0][0]:
            raise KeyError(f"principals/{principal_id}")

    async def disable_principal(self, principal_id: str, now: int) -> None:
        """See Writer."""
        self._access_changed = True
        await self._change(_DISABLE, id=principal_id, now=now)

    async def revoke_token(self, token_id: str, now: int) -> int:
        """See Writer."""
        self._access_changed = True
        rows = await self._change(_REVOKE, id=token_id, now=now)
        return int(rows[0][0])

    async def put_grant(self, principal: str, resource: str, role: int, max_sensitivity: int, now: int) -> None:
        """See Writer."""
        self._access_changed = True
        key = await self._number("grants")
        rights = [int(role), int(max_sensitivity)]
        await self._change(_PUT_GRANT, principal=principal, resource=resource, key=key, rights=rights, now=now)

    async def delete_grant(self, principal: str, resource: str) -> bool:
        """See Writer."""
        self._access_changed = True
        rows = await self._change(_DELETE_GRANT, principal=principal, resource=resource)
        return bool(rows[0][0])

    async def job(self, cube_id: str, job_id: str) -> JobRow | None:
        """See Reader; the job is locked before it is read, so that one server alone takes its lease."""
        rows = await self._statements.rows(LOCKED_JOB, cube_id=cube_id, id=job_id)
        return JobRow(*rows[0]) if rows else None

    async def put_job(self, job: JobRow) -> None:
        """See Writer."""
        await self._change(_PUT_JOB, cube_id=job.cube_id, id=job.id, row=asdict(job))
