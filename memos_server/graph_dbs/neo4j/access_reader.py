"""Reads of principals, grants, tokens, the audit trail and jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memos_server.graph_dbs.base import AuditRow, GrantRow, JobRow, PrincipalAccess, PrincipalRow
from memos_server.graph_dbs.neo4j.statements import Statements

_PRINCIPAL = "p.key, p.id, p.display_name, p.created, p.disabled"
# `rights` is [role, max_sensitivity]: one property, as nobody may see one of the two changed without the other.
_GRANT = "g.key, g.principal, g.resource, g.rights, g.updated"
_AUDIT = "a.time, a.principal, a.method, a.resource, a.outcome, a.detail, a.count, a.revision, a.sequence"
_JOB = """j.cube_id, j.id, j.kind, j.state, j.principal, j.created, j.updated, j.done, j.total, j.error_reason,
    j.error_message, j.lease_owner, j.lease_until"""

_ACCESS = """OPTIONAL MATCH (p:Principal {id: $id})
    OPTIONAL MATCH (g:Grant) USING INDEX g:Grant(principal, resource)
    WHERE g.principal = $principal AND g.resource IS NOT NULL
    RETURN p.disabled, collect([g.resource, g.rights]),
      EXISTS { UNWIND $credentials AS id MATCH (t:Token {id: id}) }"""
_REVOKED = "MATCH (t:Token {id: $id}) RETURN t.time"
_PRINCIPALS = f"MATCH (p:Principal) WHERE p.key > $after RETURN {_PRINCIPAL} ORDER BY p.key LIMIT $limit"
_ONE_PRINCIPAL = f"MATCH (p:Principal {{id: $id}}) RETURN {_PRINCIPAL}"
_GRANTS_ON = f"""CALL () {{
      MATCH (g:Grant) WHERE g.resource = $resource RETURN g
      UNION ALL MATCH (g:Grant) WHERE g.resource STARTS WITH $below RETURN g }}
    WITH g WHERE g.key > $after RETURN {_GRANT} ORDER BY g.key LIMIT $limit"""
_ONE_GRANT = f"MATCH (g:Grant {{principal: $principal, resource: $resource}}) RETURN {_GRANT}"
_AUDITS = f"MATCH (a:Audit) WHERE a.sequence < $before RETURN {_AUDIT} ORDER BY a.sequence DESC LIMIT $limit"
_AUDITS_OF = f"""CALL () {{
      MATCH (a:Audit) WHERE a.resource = $resource AND a.sequence < $before RETURN a
      UNION ALL MATCH (a:Audit) WHERE a.resource STARTS WITH $below AND a.sequence < $before RETURN a }}
    RETURN {_AUDIT} ORDER BY a.sequence DESC LIMIT $limit"""
ONE_JOB = f"MATCH (j:Job {{cube_id: $cube_id, id: $id}}) RETURN {_JOB}"
LOCKED_JOB = f"MATCH (j:Job {{cube_id: $cube_id, id: $id}}) SET j.locked = true WITH j RETURN {_JOB}"
_JOBS = f"""MATCH (j:Job) WHERE j.cube_id = $cube_id AND j.id >= ''
    RETURN {_JOB} ORDER BY j.cube_id DESC, j.id DESC LIMIT $limit"""
_JOBS_BEFORE = f"""MATCH (j:Job) WHERE j.cube_id = $cube_id AND j.id < $before
    RETURN {_JOB} ORDER BY j.cube_id DESC, j.id DESC LIMIT $limit"""
_UNFINISHED = f"""MATCH (j:Job) WHERE j.unfinished = true AND j.created IS NOT NULL AND j.lease_until <= $now
    RETURN {_JOB} ORDER BY j.unfinished, j.created LIMIT $limit"""


def to_grant(row: Sequence[Any]) -> GrantRow:
    """Builds a GrantRow."""
    key, principal, resource, (role, level), updated = row
    return GrantRow(key, principal, resource, role, level, updated)


class AccessReader:
    """The part of a Reader that concerns access and jobs."""

    def __init__(self, statements: Statements) -> None:
        """Reads through `statements`."""
        self._statements = statements

    async def access(self, principal: str, credentials: Sequence[str] = ()) -> PrincipalAccess:
        """See Reader."""
        id_ = principal.removeprefix("principals/")
        rows = await self._statements.rows(_ACCESS, id=id_, principal=principal, credentials=list(credentials))
        disabled, grants, revoked = rows[0]
        return PrincipalAccess(
            principal,
            known=disabled is not None,
            disabled=bool(disabled),
            grants={resource: (rights[0], rights[1]) for resource, rights in grants if resource is not None},
            revoked=revoked,
        )

    async def token_revoked(self, token_id: str) -> int:
        """See Reader."""
        rows = await self._statements.rows(_REVOKED, id=token_id)
        return int(rows[0][0]) if rows else 0

    async def principals(self, after: int, limit: int) -> Sequence[PrincipalRow]:
        """See Reader."""
        return [PrincipalRow(*row) for row in await self._statements.rows(_PRINCIPALS, after=after, limit=limit)]

    async def principal(self, principal_id: str) -> PrincipalRow | None:
        """See Reader."""
        rows = await self._statements.rows(_ONE_PRINCIPAL, id=principal_id)
        return PrincipalRow(*rows[0]) if rows else None

    async def grants_on(self, resource: str, after: int, limit: int) -> Sequence[GrantRow]:
        """See Reader."""
        rows = await self._statements.rows(
            _GRANTS_ON, resource=resource, below=f"{resource}/", after=after, limit=limit
        )
        return [to_grant(row) for row in rows]

    async def grant(self, principal: str, resource: str) -> GrantRow | None:
        """See Reader."""
        rows = await self._statements.rows(_ONE_GRANT, principal=principal, resource=resource)
        return to_grant(rows[0]) if rows else None

    async def audit_events(self, resource: str, before: int, limit: int) -> Sequence[AuditRow]:
        """See Reader."""
        if resource:
            rows = await self._statements.rows(
                _AUDITS_OF, resource=resource, below=f"{resource}/", before=before, limit=limit
            )
        else:
            rows = await self._statements.rows(_AUDITS, before=before, limit=limit)
        return [AuditRow(*row) for row in rows]

    async def job(self, cube_id: str, job_id: str) -> JobRow | None:
        """See Reader."""
        rows = await self._statements.rows(ONE_JOB, cube_id=cube_id, id=job_id)
        return JobRow(*rows[0]) if rows else None

    async def jobs(self, cube_id: str, before: str, limit: int) -> Sequence[JobRow]:
        """See Reader."""
        if before:
            rows = await self._statements.rows(_JOBS_BEFORE, cube_id=cube_id, before=before, limit=limit)
        else:
            rows = await self._statements.rows(_JOBS, cube_id=cube_id, limit=limit)
        return [JobRow(*row) for row in rows]

    async def unfinished_jobs(self, now: int, limit: int) -> Sequence[JobRow]:
        """See Reader."""
        return [JobRow(*row) for row in await self._statements.rows(_UNFINISHED, now=now, limit=limit)]
