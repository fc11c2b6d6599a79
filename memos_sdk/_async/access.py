"""AsyncAccess: who may do what, and who did."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from memos_sdk import _stubs
from memos_sdk._async.caller import AsyncCaller
from memos_sdk._core.build import sensitivity_of
from memos_sdk._core.convert import duration, enum_number, generated, time_of
from memos_sdk._core.names import grant_resource, principal_name
from memos_sdk.models import Token

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class AsyncAccess:
    """Principals, tokens, grants and the audit trail."""

    def __init__(self, caller: AsyncCaller) -> None:
        """Is made by the client."""
        self._caller = caller

    async def create_principal(
        self, id: str = "", *, display_name: str = "", request_id: str = "", timeout: float | None = None
    ) -> mip.Principal:
        """Makes a principal (a person, an agent, a device) without any grant; an empty id lets the server choose."""
        request = _stubs.CREATE_PRINCIPAL(
            principal_id=id, principal={"display_name": display_name}, request_id=request_id
        )
        response = await self._caller.call(_stubs.CREATE_PRINCIPAL, request, timeout)
        return generated(response.principal)

    async def principals(self, *, page_size: int = 0, timeout: float | None = None) -> AsyncIterator[mip.Principal]:
        """Yields all principals in the order of their creation."""
        request = _stubs.LIST_PRINCIPALS(page_size=page_size)
        async for principal in self._caller.pages(_stubs.LIST_PRINCIPALS, request, "principals", timeout):
            yield generated(principal)

    async def disable_principal(
        self, name: str, *, request_id: str = "", timeout: float | None = None
    ) -> mip.Principal:
        """Refuses all tokens of a principal from the next request on, for good.

        Raises:
            FailedPrecondition: It is the last administrator of the server.
        """
        request = _stubs.DISABLE_PRINCIPAL(name=principal_name(name), request_id=request_id)
        response = await self._caller.call(_stubs.DISABLE_PRINCIPAL, request, timeout)
        return generated(response.principal)

    async def issue_token(
        self,
        principal: str,
        *,
        ttl: datetime.timedelta | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Token:
        """Signs a token for a principal. The server does not keep it: it is shown once.

        This call is never repeated by itself.

        Args:
            principal: Whom the token speaks for.
            ttl: How long it holds; None means 30 days, at most 366 days.
            request_id: A UUID, kept in the audit trail.
            timeout: Seconds.
        """
        request = _stubs.ISSUE_TOKEN(principal=principal_name(principal), ttl=duration(ttl), request_id=request_id)
        return Token(await self._caller.call(_stubs.ISSUE_TOKEN, request, timeout))

    async def revoke_token(
        self, token_id: str, *, request_id: str = "", timeout: float | None = None
    ) -> datetime.datetime | None:
        """Refuses a token from the next request on, and returns when it was revoked first."""
        request = _stubs.REVOKE_TOKEN(token_id=token_id, request_id=request_id)
        response = await self._caller.call(_stubs.REVOKE_TOKEN, request, timeout)
        return time_of(response, "revoke_time")

    async def grant(
        self,
        principal: str,
        resource: str,
        role: mip.Role | str,
        *,
        max_sensitivity: mip.Sensitivity | str | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> mip.Grant:
        """Gives a principal a role on a resource, or replaces the one it has.

        Args:
            principal: Who.
            resource: `server`, a cube or a memory.
            role: `reader`, `writer`, `admin`, or on `server` `creator`.
            max_sensitivity: Up to which sensitivity; None means `internal`.
            request_id: A UUID that makes repeating safe; one is made when empty.
            timeout: Seconds.

        Raises:
            PermissionDenied: You do not administer the resource, or not up to that sensitivity.
        """
        grant = {
            "principal": principal_name(principal),
            "resource": grant_resource(resource),
            "role": enum_number("Role", role, "role"),
            "max_sensitivity": sensitivity_of(max_sensitivity),
        }
        request = _stubs.SET_GRANT(grant=grant, request_id=request_id)
        response = await self._caller.call(_stubs.SET_GRANT, request, timeout)
        return generated(response.grant)

    async def grants(
        self, resource: str = "server", *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncIterator[mip.Grant]:
        """Yields the grants on a resource; on a cube, also those on its memories."""
        request = _stubs.LIST_GRANTS(resource=grant_resource(resource), page_size=page_size)
        async for grant in self._caller.pages(_stubs.LIST_GRANTS, request, "grants", timeout):
            yield generated(grant)

    async def revoke_grant(
        self, principal: str, resource: str, *, request_id: str = "", timeout: float | None = None
    ) -> None:
        """Takes a principal's grant on a resource away, from the next request on.

        Raises:
            NotFound: There is no such grant.
        """
        request = _stubs.DELETE_GRANT(
            principal=principal_name(principal), resource=grant_resource(resource), request_id=request_id
        )
        await self._caller.call(_stubs.DELETE_GRANT, request, timeout)

    async def audit(
        self, resource: str = "server", *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncIterator[mip.AuditEvent]:
        """Yields audit events, newest first: of the whole server, or of one cube."""
        request = _stubs.LIST_AUDIT_EVENTS(resource=grant_resource(resource), page_size=page_size)
        async for event in self._caller.pages(_stubs.LIST_AUDIT_EVENTS, request, "events", timeout):
            yield generated(event)
