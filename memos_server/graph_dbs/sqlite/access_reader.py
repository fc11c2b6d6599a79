"""Reads of principals, grants, tokens, the audit trail and jobs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from memos_server.graph_dbs.base import AuditRow, GrantRow, JobRow, PrincipalAccess, PrincipalRow

_JOB = """cube, id, kind, state, principal, created, updated, done, total, error_reason, error_message, lease_owner,
    lease_until"""
_AUDIT = "time, principal, method, resource, outcome, detail, count, revision, sequence"


class AccessReader:
    """The part of a Reader that concerns access and jobs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Reads through `connection`."""
        self._access_db = connection

    async def access(self, principal: str, credentials: Sequence[str] = ()) -> PrincipalAccess:
        """See Reader."""
        row = self._access_db.execute(
            "SELECT disabled FROM principals WHERE id = ?", (principal.removeprefix("principals/"),)
        ).fetchone()
        grants = self._access_db.execute(
            "SELECT resource, role, max_sensitivity FROM grants WHERE principal = ?", (principal,)
        )
        return PrincipalAccess(
            principal,
            known=row is not None,
            disabled=bool(row and row[0]),
            grants={resource: (role, level) for resource, role, level in grants},
            revoked=any([await self.token_revoked(credential) for credential in credentials]),
        )

    async def token_revoked(self, token_id: str) -> int:
        """See Reader."""
        row = self._access_db.execute("SELECT time FROM revoked_tokens WHERE id = ?", (token_id,)).fetchone()
        return int(row[0]) if row else 0

    async def principals(self, after: int, limit: int) -> Sequence[PrincipalRow]:
        """See Reader."""
        rows = self._access_db.execute(
            "SELECT key, id, display_name, created, disabled FROM principals WHERE key > ? ORDER BY key LIMIT ?",
            (after, limit),
        )
        return [PrincipalRow(*row) for row in rows]

    async def principal(self, principal_id: str) -> PrincipalRow | None:
        """See Reader."""
        row = self._access_db.execute(
            "SELECT key, id, display_name, created, disabled FROM principals WHERE id = ?", (principal_id,)
        ).fetchone()
        return PrincipalRow(*row) if row else None

    async def grants_on(self, resource: str, after: int, limit: int) -> Sequence[GrantRow]:
        """See Reader."""
        # The upper bound of the range is the character after `/`: everything that begins with `resource/`.
        rows = self._access_db.execute(
            """SELECT key, principal, resource, role, max_sensitivity, updated FROM grants
            WHERE (resource = ?1 OR (resource > ?1 || '/' AND resource < ?1 || '0')) AND key > ?2
            ORDER BY key LIMIT ?3""",
            (resource, after, limit),
        )
        return [GrantRow(*row) for row in rows]

    async def grant(self, principal: str, resource: str) -> GrantRow | None:
        """See Reader."""
        row = self._access_db.execute(
            """SELECT key, principal, resource, role, max_sensitivity, updated FROM grants
            WHERE principal = ? AND resource = ?""",
            (principal, resource),
        ).fetchone()
        return GrantRow(*row) if row else None

    async def audit_events(self, resource: str, before: int, limit: int) -> Sequence[AuditRow]:
        """See Reader."""
        where = "(resource = ?1 OR (resource > ?1 || '/' AND resource < ?1 || '0')) AND " if resource else ""
        rows = self._access_db.execute(
            f"SELECT {_AUDIT} FROM audit_events WHERE {where} sequence < ?2 ORDER BY sequence DESC LIMIT ?3",
            (resource, before, limit),
        )
        return [AuditRow(*row) for row in rows]

    async def job(self, cube_id: str, job_id: str) -> JobRow | None:
        """See Reader."""
        row = self._access_db.execute(
            f"SELECT {_JOB} FROM jobs WHERE cube = ? AND id = ?", (cube_id, job_id)
        ).fetchone()
        return JobRow(*row) if row else None

    async def jobs(self, cube_id: str, before: str, limit: int) -> Sequence[JobRow]:
        """See Reader."""
        rows = self._access_db.execute(
            f"SELECT {_JOB} FROM jobs WHERE cube = ?1 AND (?2 = '' OR id < ?2) ORDER BY id DESC LIMIT ?3",
            (cube_id, before, limit),
        )
        return [JobRow(*row) for row in rows]

    async def unfinished_jobs(self, now: int, limit: int) -> Sequence[JobRow]:
        """See Reader."""
        rows = self._access_db.execute(
            f"SELECT {_JOB} FROM jobs WHERE state IN (1, 2) AND lease_until <= ? ORDER BY created LIMIT ?", (now, limit)
        )
        return [JobRow(*row) for row in rows]
