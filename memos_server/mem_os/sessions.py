"""Sessions: conversations of users and agents, in the cube's log."""

from __future__ import annotations

from uuid_utils import uuid7

from memos_server import names
from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_INTERNAL
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE, MEMORY_STATE_ARCHIVED
from memos_server._pb.mip.v1.session_pb2 import SessionContent
from memos_server._pb.mip.v1.session_service_pb2 import (
    CreateSessionRequest,
    CreateSessionResponse,
    EndSessionRequest,
    EndSessionResponse,
    GetSessionRequest,
    GetSessionResponse,
    ListSessionsRequest,
    ListSessionsResponse,
)
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, Kind, Reader, Version, Writer
from memos_server.mem_cube.changes import added, evolve, seal
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.mutation import Outcome, commit, locked_cube, mutate
from memos_server.mem_os.paging import Pages, fitting, page_size
from memos_server.mem_os.render import commit_of, session_message
from memos_server.memories import rules


async def _find(txn: Reader, cube: CubeRow, session_id: str, revision: int | None = None) -> Version:
    version = (await txn.versions(cube.key, Kind.SESSION, [session_id], revision)).get(session_id)
    if version is None:
        raise MipError("SESSION_NOT_FOUND", f"{names.session_name(cube.id, session_id)} does not exist")
    return version


async def create_session(mos: Mos, call: Call, request: CreateSessionRequest) -> CreateSessionResponse:
    """See SessionService.CreateSession."""
    cube_id = names.parse_cube(request.parent, "parent")
    uid = str(uuid7())
    session_id = request.session_id or uid
    content = SessionContent(
        display_name=request.session.display_name,
        participants=request.session.participants,
        labels=rules.sorted_labels(request.session.labels, "session.labels"),
    )

    async def work(txn: Writer) -> Outcome[CreateSessionResponse]:
        cube = await locked_cube(txn, cube_id)
        change = added(
            commit_pb2.CHANGE_KIND_SESSION_CREATED,
            Kind.SESSION,
            session_id,
            uid,
            seal(content.SerializeToString(deterministic=True)),
            sensitivity=SENSITIVITY_INTERNAL,
            owner=call.principal,
        )
        row = await commit(txn, call, cube, [change], cause="create session", request_id=request.request_id)
        return Outcome(names.session_name(cube_id, session_id), cube, row.revision)

    async def respond(txn: Reader, result: str, revision: int) -> CreateSessionResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        version = await _find(txn, cube, names.parse_session(result)[1], revision)
        return CreateSessionResponse(
            session=session_message(cube_id, version), commit=await commit_of(txn, call, cube, revision)
        )

    return await mutate(
        mos, call, resource=request.parent, request=request, request_id=request.request_id, work=work, respond=respond
    )


async def get_session(mos: Mos, call: Call, request: GetSessionRequest) -> GetSessionResponse:
    """See SessionService.GetSession."""
    cube_id, session_id = names.parse_session(request.name)

    async def work(txn: Reader) -> GetSessionResponse:
        cube = await existing_cube(txn, cube_id)
        return GetSessionResponse(session=session_message(cube_id, await _find(txn, cube, session_id)))

    return await mos.read(work)


async def list_sessions(mos: Mos, call: Call, request: ListSessionsRequest) -> ListSessionsResponse:
    """See SessionService.ListSessions."""
    cube_id = names.parse_cube(request.parent, "parent")
    call.view(cube_id, whole=True)
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    after = pages.number(request.page_token, "after", 0)

    async def work(txn: Reader) -> ListSessionsResponse:
        cube = await existing_cube(txn, cube_id)
        rows = await txn.list_versions(cube.key, Kind.SESSION, after, size + 1)
        sessions = [session_message(cube_id, row) for row in rows[:size]]
        shown = fitting(sessions)
        token = pages.token(after=rows[shown - 1].item) if len(rows) > shown else ""
        return ListSessionsResponse(sessions=sessions[:shown], next_page_token=token)

    return await mos.read(work)


async def end_session(mos: Mos, call: Call, request: EndSessionRequest) -> EndSessionResponse:
    """See SessionService.EndSession."""
    cube_id, session_id = names.parse_session(request.name)

    async def work(txn: Writer) -> Outcome[EndSessionResponse]:
        cube = await locked_cube(txn, cube_id)
        version = await _find(txn, cube, session_id)
        if version.state != MEMORY_STATE_ACTIVE:
            raise MipError("SESSION_ENDED", f"{request.name} has ended already")
        change = evolve(version, commit_pb2.CHANGE_KIND_SESSION_ENDED, state=MEMORY_STATE_ARCHIVED)
        row = await commit(txn, call, cube, [change], cause="end session", request_id=request.request_id)
        return Outcome(request.name, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> EndSessionResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        version = await _find(txn, cube, session_id, revision)
        return EndSessionResponse(
            session=session_message(cube_id, version), commit=await commit_of(txn, call, cube, revision)
        )

    return await mutate(
        mos, call, resource=request.name, request=request, request_id=request.request_id, work=work, respond=respond
    )
