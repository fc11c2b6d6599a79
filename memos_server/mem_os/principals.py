"""AccessService: principals, tokens, grants and the audit trail."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from uuid_utils import uuid7

from memos_server import names
from memos_server._pb.mip.v1.access_pb2 import (
    ROLE_ADMIN,
    ROLE_CREATOR,
    ROLE_READER,
    ROLE_WRITER,
    AuditEvent,
    Grant,
    Principal,
    Role,
)
from memos_server._pb.mip.v1.access_service_pb2 import (
    CreatePrincipalRequest,
    CreatePrincipalResponse,
    DeleteGrantRequest,
    DeleteGrantResponse,
    DisablePrincipalRequest,
    DisablePrincipalResponse,
    IssueTokenRequest,
    IssueTokenResponse,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    ListGrantsRequest,
    ListGrantsResponse,
    ListPrincipalsRequest,
    ListPrincipalsResponse,
    RevokeTokenRequest,
    RevokeTokenResponse,
    SetGrantRequest,
    SetGrantResponse,
)
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_INTERNAL, SENSITIVITY_SECRET, Sensitivity
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import OPEN, AuditRow, GrantRow, Kind, PrincipalRow, Reader, Writer
from memos_server.mem_cube.log import now_us, timestamp
from memos_server.mem_os.access import SERVER, denied
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.memories import not_found
from memos_server.mem_os.mutation import Outcome, audit, mutate
from memos_server.mem_os.paging import Pages, page_size
from memos_server.mem_os.render import commit_of

DAY_S = 86_400
DEFAULT_TTL_S = 30 * DAY_S
MAX_TTL_S = 366 * DAY_S


class TokenIssuer(Protocol):
    """Signs tokens."""

    def issue(self, principal: str, ttl_s: int) -> tuple[str, str, int]:
        """Returns (token, token id, expiry in seconds since the epoch)."""


def _principal_message(row: PrincipalRow) -> Principal:
    message = Principal(
        name=names.principal_name(row.id), display_name=row.display_name, create_time=timestamp(row.created)
    )
    if row.disabled:
        message.disable_time.CopyFrom(timestamp(row.disabled))
    return message


def _grant_message(row: GrantRow) -> Grant:
    return Grant(
        principal=row.principal,
        resource=row.resource,
        role=row.role,  # type: ignore[arg-type]
        max_sensitivity=row.max_sensitivity,  # type: ignore[arg-type]
        update_time=timestamp(row.updated),
    )


def _word(enum: EnumTypeWrapper, number: int) -> str:
    """Returns the word of an enum value, such as `reader`."""
    return str(enum.Name(number)).partition("_")[2].lower()


async def _existing_principal(txn: Reader, name: str) -> PrincipalRow:
    row = await txn.principal(names.parse_principal(name))
    if row is None:
        raise MipError("PRINCIPAL_NOT_FOUND", f"{name} does not exist")
    return row


async def create_principal(mos: Mos, call: Call, request: CreatePrincipalRequest) -> CreatePrincipalResponse:
    """See AccessService.CreatePrincipal."""
    principal_id = request.principal_id or str(uuid7())
    name = names.principal_name(principal_id)

    async def work(txn: Writer) -> Outcome[CreatePrincipalResponse]:
        try:
            await txn.put_principal(principal_id, request.principal.display_name, now_us())
        except KeyError as taken:
            raise MipError("ALREADY_EXISTS", f"{name} exists", metadata={"name": name}) from taken
        await audit(txn, call, name)
        return Outcome(name)

    async def respond(txn: Reader, result: str, _: int) -> CreatePrincipalResponse:
        return CreatePrincipalResponse(principal=_principal_message(await _existing_principal(txn, result)))

    resource = name if request.principal_id else "principals"
    return await mutate(
        mos, call, resource=resource, request=request, request_id=request.request_id, work=work, respond=respond
    )


async def list_principals(mos: Mos, call: Call, request: ListPrincipalsRequest) -> ListPrincipalsResponse:
    """See AccessService.ListPrincipals."""
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    after = pages.number(request.page_token, "after", 0)

    async def work(txn: Reader) -> ListPrincipalsResponse:
        rows = await txn.principals(after, size + 1)
        token = pages.token(after=rows[size - 1].key) if len(rows) > size else ""
        return ListPrincipalsResponse(
            principals=[_principal_message(row) for row in rows[:size]], next_page_token=token
        )

    return await mos.read(work)


async def disable_principal(mos: Mos, call: Call, request: DisablePrincipalRequest) -> DisablePrincipalResponse:
    """See AccessService.DisablePrincipal."""

    async def work(txn: Writer) -> Outcome[DisablePrincipalResponse]:
        row = await _existing_principal(txn, request.name)
        await _keep_an_admin(txn, request.name)
        await txn.disable_principal(row.id, now_us())
        await audit(txn, call, request.name)
        return Outcome(request.name)

    async def respond(txn: Reader, result: str, _: int) -> DisablePrincipalResponse:
        return DisablePrincipalResponse(principal=_principal_message(await _existing_principal(txn, result)))

    return await mutate(
        mos,
        call,
        resource=request.name,
        request=request,
        request_id=request.request_id,
        work=work,
        respond=respond,
        changes_access=True,
    )


async def _keep_an_admin(txn: Reader, losing: str) -> None:
    """Refuses to take the last administrator's rights away.

    Raises:
        MipError: LAST_ADMIN.
    """
    after, others = 0, 0
    while rows := await txn.grants_on(SERVER, after, 1000):
        after = rows[-1].key
        for row in rows:
            if row.role != ROLE_ADMIN:
                continue
            if row.principal == losing:
                others -= 1
                continue
            holder = await txn.principal(row.principal.removeprefix("principals/"))
            others += 1_000_000 if holder is not None and not holder.disabled else 0
    if others == -1:
        raise MipError("LAST_ADMIN", f"{losing} is the server's last administrator")


async def issue_token(mos: Mos, call: Call, request: IssueTokenRequest) -> IssueTokenResponse:
    """See AccessService.IssueToken."""
    ttl = request.ttl.seconds if request.HasField("ttl") else DEFAULT_TTL_S
    if not 1 <= ttl <= MAX_TTL_S:
        raise invalid_field("ttl", "must be between 1 second and 366 days")
    issued: list[IssueTokenResponse] = []

    async def work(txn: Writer) -> Outcome[IssueTokenResponse]:
        row = await _existing_principal(txn, request.principal)
        if row.disabled:
            raise MipError("PRINCIPAL_DISABLED", f"{request.principal} is disabled")
        token, token_id, expiry = mos.issuer.issue(request.principal, ttl)
        await audit(txn, call, request.principal, detail=f"token {token_id} for {ttl} s")
        issued.append(IssueTokenResponse(token=token, token_id=token_id, expire_time=timestamp(expiry * 1_000_000)))
        return Outcome(request.principal, response=issued[-1])

    async def respond(txn: Reader, result: str, _: int) -> IssueTokenResponse:
        del txn, result
        raise invalid_field("request_id", "issued a token already, which is shown once", "REQUEST_ID_REUSED")

    return await mutate(
        mos,
        call,
        resource=request.principal,
        request=request,
        request_id=request.request_id,
        work=work,
        respond=respond,
    )


async def revoke_token(mos: Mos, call: Call, request: RevokeTokenRequest) -> RevokeTokenResponse:
    """See AccessService.RevokeToken."""
    token_id = request.token_id.lower()

    async def work(txn: Writer) -> Outcome[RevokeTokenResponse]:
        await txn.revoke_token(token_id, now_us())
        await audit(txn, call, SERVER, detail=f"token {token_id}")
        return Outcome(token_id)

    async def respond(txn: Reader, result: str, _: int) -> RevokeTokenResponse:
        return RevokeTokenResponse(revoke_time=timestamp(await txn.token_revoked(result)))

    return await mutate(
        mos,
        call,
        resource=token_id,
        request=request,
        request_id=request.request_id,
        work=work,
        respond=respond,
        changes_access=True,
    )


async def _require_resource(txn: Reader, call: Call, resource: str) -> None:
    """Checks that what grants are about exists and, where it is a memory, is seen by the caller."""
    found = names.parse_grant_resource(resource)
    if found.cube is None:
        return
    cube = await existing_cube(txn, found.cube, deleted=True)
    if found.memory is None:
        return
    version = (await txn.versions(cube.key, Kind.MEMORY, [found.memory])).get(found.memory)
    if version is None or not call.view(found.cube).sees(version):
        raise not_found(found.cube, found.memory, None)


def _own_level(call: Call, resource: str) -> int:
    """Returns the level up to which the caller sees what a resource names, which is the most that it can grant."""
    found = names.parse_grant_resource(resource)
    if found.cube is None:
        return call.access.grants.get(SERVER, (0, 0))[1]
    return call.view(found.cube).ceiling(found.memory or "")


async def set_grant(mos: Mos, call: Call, request: SetGrantRequest) -> SetGrantResponse:
    """See AccessService.SetGrant."""
    grant = request.grant
    level = grant.max_sensitivity or SENSITIVITY_INTERNAL
    allowed = (ROLE_ADMIN, ROLE_CREATOR) if grant.resource == SERVER else (ROLE_READER, ROLE_WRITER, ROLE_ADMIN)
    if grant.role not in allowed:
        raise invalid_field("grant.role", f"is not a role on {grant.resource}")
    if not SENSITIVITY_INTERNAL - 1 <= level <= SENSITIVITY_SECRET:
        raise invalid_field("grant.max_sensitivity", "is not a level")
    if level > _own_level(call, grant.resource):
        raise denied(grant.resource)

    async def work(txn: Writer) -> Outcome[SetGrantResponse]:
        await _require_resource(txn, call, grant.resource)
        await _existing_principal(txn, grant.principal)
        if grant.resource == SERVER and grant.role != ROLE_ADMIN:
            await _keep_an_admin(txn, grant.principal)
        await txn.put_grant(grant.principal, grant.resource, grant.role, level, now_us())
        granted = f"{_word(Role, grant.role)} up to {_word(Sensitivity, level)}"
        await audit(txn, call, grant.resource, detail=f"{grant.principal} becomes {granted}")
        return Outcome(grant.resource)

    async def respond(txn: Reader, result: str, _: int) -> SetGrantResponse:
        row = await txn.grant(grant.principal, result)
        if row is None:
            raise MipError("GRANT_NOT_FOUND", f"{grant.principal} has no grant on {result} any more")
        return SetGrantResponse(grant=_grant_message(row))

    return await mutate(
        mos,
        call,
        resource=grant.resource,
        request=request,
        request_id=request.request_id,
        work=work,
        respond=respond,
        changes_access=True,
    )


async def list_grants(mos: Mos, call: Call, request: ListGrantsRequest) -> ListGrantsResponse:
    """See AccessService.ListGrants."""
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    after = pages.number(request.page_token, "after", 0)

    async def work(txn: Reader) -> ListGrantsResponse:
        await _require_resource(txn, call, request.resource)
        kept: list[GrantRow] = []
        position = after
        while len(kept) <= size and (rows := await txn.grants_on(request.resource, position, 1000)):
            position = rows[-1].key
            kept += [row for row in rows if await _visible(txn, call, row.resource)]
        token = pages.token(after=kept[size - 1].key) if len(kept) > size else ""
        return ListGrantsResponse(grants=[_grant_message(row) for row in kept[:size]], next_page_token=token)

    return await mos.read(work)


async def _visible(txn: Reader, call: Call, resource: str) -> bool:
    """Returns whether a grant or an event on a resource may be shown: not when it names a hidden memory."""
    if "/memories/" not in resource:
        return True
    cube_id, memory_id = names.parse_memory(resource)
    view = call.view(cube_id)
    if view.full:
        return True
    cube = await txn.cube(cube_id)
    version = (await txn.versions(cube.key, Kind.MEMORY, [memory_id])).get(memory_id) if cube else None
    return version is not None and view.sees(version)


async def _told(txn: Reader, call: Call, row: AuditRow) -> bool:
    """Returns whether an event may be shown to a caller who sees the resource: not a purge of hidden memories alone."""
    cube_id = row.resource.partition("/")[2]
    if not row.method.endswith("/PurgeMemories") or not row.revision or call.view(cube_id).full:
        return True
    cube = await txn.cube(cube_id)
    return cube is not None and (await commit_of(txn, call, cube, row.revision)).change_count > 0


async def delete_grant(mos: Mos, call: Call, request: DeleteGrantRequest) -> DeleteGrantResponse:
    """See AccessService.DeleteGrant."""

    async def work(txn: Writer) -> Outcome[DeleteGrantResponse]:
        if request.resource == SERVER:
            await _keep_an_admin(txn, request.principal)
        if names.parse_grant_resource(request.resource).memory is not None:
            await _require_resource(txn, call, request.resource)
        if not await txn.delete_grant(request.principal, request.resource):
            raise MipError("GRANT_NOT_FOUND", f"{request.principal} has no grant on {request.resource}")
        await audit(txn, call, request.resource, detail=f"{request.principal} lost its grant")
        return Outcome(request.resource)

    async def respond(txn: Reader, result: str, _: int) -> DeleteGrantResponse:
        del txn, result
        return DeleteGrantResponse()

    return await mutate(
        mos,
        call,
        resource=request.resource,
        request=request,
        request_id=request.request_id,
        work=work,
        respond=respond,
        changes_access=True,
    )


async def list_audit_events(mos: Mos, call: Call, request: ListAuditEventsRequest) -> ListAuditEventsResponse:
    """See AccessService.ListAuditEvents."""
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    before = pages.number(request.page_token, "before", OPEN)
    resource = "" if request.resource == SERVER else request.resource

    async def work(txn: Reader) -> ListAuditEventsResponse:
        if names.parse_grant_resource(request.resource).memory is not None:
            await _require_resource(txn, call, request.resource)
        kept: list[AuditRow] = []
        position = before
        while len(kept) <= size and (rows := await txn.audit_events(resource, position, size + 1)):
            position = rows[-1].sequence
            kept += [row for row in rows if await _visible(txn, call, row.resource) and await _told(txn, call, row)]
        token = pages.token(before=kept[size - 1].sequence) if len(kept) > size else ""
        events = [
            AuditEvent(
                sequence=row.sequence,
                time=timestamp(row.time),
                principal=row.principal,
                method=row.method,
                resource=row.resource,
                outcome=row.outcome,
                count=row.count,
                detail=row.detail,
                revision=row.revision,
            )
            for row in kept[:size]
        ]
        return ListAuditEventsResponse(events=events, next_page_token=token)

    return await mos.read(work)
