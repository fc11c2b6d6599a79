"""Cubes: create, read, change, delete, restore."""

from __future__ import annotations

from collections.abc import Sequence

from uuid_utils import uuid7

from memos_server import names
from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.access_pb2 import ROLE_ADMIN
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_INTERNAL, SENSITIVITY_SECRET
from memos_server._pb.mip.v1.cube_pb2 import Cube, CubeContent
from memos_server._pb.mip.v1.cube_service_pb2 import (
    CreateCubeRequest,
    CreateCubeResponse,
    DeleteCubeRequest,
    DeleteCubeResponse,
    GetCubeRequest,
    GetCubeResponse,
    ListCubesRequest,
    ListCubesResponse,
    UndeleteCubeRequest,
    UndeleteCubeResponse,
    UpdateCubeRequest,
    UpdateCubeResponse,
)
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE, MEMORY_STATE_DELETED, MEMORY_STATE_PURGED
from memos_server.errors import FieldViolation, MipError, invalid_field
from memos_server.graph_dbs.base import CubeRow, Kind, NewContent, NewVersion, Reader, Writer
from memos_server.mem_cube.changes import added, evolve, seal
from memos_server.mem_cube.log import append_commit, now_us
from memos_server.mem_os.access import is_server_admin
from memos_server.mem_os.context import Call, Mos, existing_cube, in_use
from memos_server.mem_os.embedding import NO_MODEL
from memos_server.mem_os.mutation import Outcome, audit, commit, locked_cube, mutate
from memos_server.mem_os.paging import Pages, fitting, page_size
from memos_server.mem_os.render import commit_of, cube_message
from memos_server.mem_os.updating import check_etag
from memos_server.memories import rules

PROFILES = ("general", "tree")
_STEP = 256


def settings_content(mos: Mos, cube: Cube) -> CubeContent:
    """Returns the settings of a new cube, checked and completed with the server's defaults.

    Raises:
        MipError: INVALID_FIELD, FIELD_REQUIRED.
    """
    content = CubeContent(
        display_name=cube.display_name,
        labels=rules.sorted_labels(cube.labels, "cube.labels"),
        plaintext_profile=cube.plaintext_profile or PROFILES[0],
        embedding_model=cube.embedding_model or mos.embeddings.default_model,
        embedding_dimension=cube.embedding_dimension,
    )
    if content.plaintext_profile not in PROFILES:
        raise invalid_field("cube.plaintext_profile", f"must be one of {', '.join(PROFILES)}")
    known = mos.embeddings.dimension_of(content.embedding_model)
    if content.embedding_model == NO_MODEL:
        if content.embedding_dimension:
            raise invalid_field("cube.embedding_dimension", "a cube without embedding model has none")
    elif known:
        if content.embedding_dimension not in (0, known):
            raise invalid_field("cube.embedding_dimension", f"{content.embedding_model} has {known}")
        content.embedding_dimension = known
    elif not 0 < content.embedding_dimension <= 8192:
        raise invalid_field(
            "cube.embedding_dimension",
            f"is needed, 1 to 8,192: this server does not know the model {content.embedding_model}",
            "FIELD_REQUIRED" if not content.embedding_dimension else "INVALID_FIELD",
        )
    return content


async def new_cube(txn: Writer, call: Call, cube_id: str, uid: str) -> int:
    """Makes a cube without commits, and the creator its administrator.

    Raises:
        MipError: ALREADY_EXISTS.
    """
    try:
        key = await txn.insert_cube(cube_id, uid, call.principal)
    except KeyError as taken:
        name = names.cube_name(cube_id)
        raise MipError("ALREADY_EXISTS", f"{name} exists, or existed", metadata={"name": name}) from taken
    await txn.put_grant(call.principal, names.cube_name(cube_id), ROLE_ADMIN, SENSITIVITY_SECRET, now_us())
    return key


def settings_version(uid: str, content: NewContent, owner: str) -> NewVersion:
    """Returns the first version of a cube's settings."""
    kind = commit_pb2.CHANGE_KIND_CUBE_CREATED
    return added(kind, Kind.CUBE, "", uid, content, sensitivity=SENSITIVITY_INTERNAL, owner=owner)


async def create_cube(mos: Mos, call: Call, request: CreateCubeRequest) -> CreateCubeResponse:
    """See CubeService.CreateCube."""
    uid = str(uuid7())
    cube_id = request.cube_id or uid
    settings = settings_content(mos, request.cube)

    async def work(txn: Writer) -> Outcome[CreateCubeResponse]:
        key = await new_cube(txn, call, cube_id, uid)
        content = seal(settings.SerializeToString(deterministic=True))
        row = await append_commit(
            txn,
            key,
            uid,
            None,
            [settings_version(uid, content, call.principal)],
            principal=call.principal,
            cause="create cube",
            request_id=request.request_id,
        )
        await audit(txn, call, names.cube_name(cube_id), revision=row.revision)
        return Outcome(names.cube_name(cube_id), await existing_cube(txn, cube_id), row.revision)

    async def respond(txn: Reader, result: str, revision: int) -> CreateCubeResponse:
        cube = await existing_cube(txn, names.parse_cube(result), deleted=True)
        # Its maker administers it from now on, and is shown the commit as such.
        maker = await call.with_grants_of_now(txn)
        return CreateCubeResponse(cube=cube_message(cube), commit=await commit_of(txn, maker, cube, revision))

    # The cube is not there yet, so the request is about the server, whatever id it asks for.
    return await mutate(
        mos, call, resource="cubes", request=request, request_id=request.request_id, work=work, respond=respond
    )


async def get_cube(mos: Mos, call: Call, request: GetCubeRequest) -> GetCubeResponse:
    """See CubeService.GetCube."""
    cube_id = names.parse_cube(request.name)

    async def work(txn: Reader) -> GetCubeResponse:
        return GetCubeResponse(cube=cube_message(await existing_cube(txn, cube_id, deleted=True)))

    return await mos.read(work, brief=True)


async def list_cubes(mos: Mos, call: Call, request: ListCubesRequest) -> ListCubesResponse:
    """See CubeService.ListCubes."""
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    after = pages.number(request.page_token, "after", 0)
    gone = () if request.show_deleted else (MEMORY_STATE_DELETED, MEMORY_STATE_PURGED)

    async def work(txn: Reader) -> ListCubesResponse:
        kept: list[CubeRow] = []
        position = after
        while len(kept) <= size and (rows := await _readable(txn, call, position, min(size + 1, _STEP))):
            position = rows[-1].key
            kept += [row for row in rows if row.settings.state not in gone]
        cubes = [cube_message(row) for row in kept[:size]]
        shown = fitting(cubes)
        token = pages.token(after=kept[shown - 1].key) if len(kept) > shown else ""
        return ListCubesResponse(cubes=cubes[:shown], next_page_token=token)

    return await mos.read(work)


async def _readable(txn: Reader, call: Call, position: int, limit: int) -> Sequence[CubeRow]:
    """Returns the next cubes that the caller may read. But for an administrator of the server these are found by its
    grants: what a list costs does not depend on what others have."""
    if is_server_admin(call.access):
        return await txn.cubes(position, limit)
    granted = {names.parse_grant_resource(resource).cube for resource in call.access.grants}
    rows = [await txn.cube(cube_id) for cube_id in granted if cube_id is not None]
    return sorted((row for row in rows if row is not None and row.key > position), key=lambda row: row.key)[:limit]


async def update_cube(mos: Mos, call: Call, request: UpdateCubeRequest) -> UpdateCubeResponse:
    """See CubeService.UpdateCube."""
    name = request.cube.name
    cube_id = names.parse_cube(name, "cube.name")
    updatable = ("display_name", "labels")
    paths = list(request.update_mask.paths) or [path for path in updatable if getattr(request.cube, path)]
    paths = list(updatable) if paths == ["*"] else paths
    for path in paths:
        if path not in updatable:
            raise MipError(
                "INVALID_MASK",
                f"update_mask names {path!r}, which is no field that can be updated",
                violations=[FieldViolation("update_mask", f"{path!r} cannot be updated")],
            )

    async def work(txn: Writer) -> Outcome[UpdateCubeResponse]:
        cube = await locked_cube(txn, cube_id)
        check_etag(request.cube.etag, cube.settings, name)
        settings = CubeContent.FromString(cube.settings.payload)
        if "display_name" in paths:
            settings.display_name = request.cube.display_name
        if "labels" in paths:
            del settings.labels[:]
            settings.labels.extend(rules.sorted_labels(request.cube.labels, "cube.labels"))
        payload = settings.SerializeToString(deterministic=True)
        changes = []
        if payload != cube.settings.payload:
            changes.append(evolve(cube.settings, commit_pb2.CHANGE_KIND_CUBE_UPDATED, content=seal(payload)))
        row = await commit(txn, call, cube, changes, cause="update cube", request_id=request.request_id)
        return Outcome(name, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> UpdateCubeResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        return UpdateCubeResponse(cube=cube_message(cube), commit=await commit_of(txn, call, cube, revision))

    return await mutate(
        mos, call, resource=name, request=request, request_id=request.request_id, work=work, respond=respond
    )


async def delete_cube(mos: Mos, call: Call, request: DeleteCubeRequest) -> DeleteCubeResponse:
    """See CubeService.DeleteCube."""
    cube_id = names.parse_cube(request.name)

    async def work(txn: Writer) -> Outcome[DeleteCubeResponse]:
        cube = await locked_cube(txn, cube_id, request.expected_revision)
        check_etag(request.etag, cube.settings, request.name)
        change = evolve(cube.settings, commit_pb2.CHANGE_KIND_CUBE_DELETED, state=MEMORY_STATE_DELETED)
        row = await commit(txn, call, cube, [change], cause="delete cube", request_id=request.request_id)
        await audit(txn, call, request.name, revision=row.revision)
        return Outcome(request.name, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> DeleteCubeResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        return DeleteCubeResponse(cube=cube_message(cube), commit=await commit_of(txn, call, cube, revision))

    return await mutate(
        mos, call, resource=request.name, request=request, request_id=request.request_id, work=work, respond=respond
    )


async def undelete_cube(mos: Mos, call: Call, request: UndeleteCubeRequest) -> UndeleteCubeResponse:
    """See CubeService.UndeleteCube."""
    cube_id = names.parse_cube(request.name)

    async def work(txn: Writer) -> Outcome[UndeleteCubeResponse]:
        cube = await locked_cube(txn, cube_id, deleted=True)
        changes = []
        if cube.settings.state == MEMORY_STATE_DELETED:
            kind = commit_pb2.CHANGE_KIND_CUBE_UNDELETED
            changes.append(evolve(cube.settings, kind, state=MEMORY_STATE_ACTIVE))
        else:
            in_use(cube)
        row = await commit(txn, call, cube, changes, cause="undelete cube", request_id=request.request_id)
        await audit(txn, call, request.name, revision=row.revision)
        return Outcome(request.name, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> UndeleteCubeResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        return UndeleteCubeResponse(cube=cube_message(cube), commit=await commit_of(txn, call, cube, revision))

    return await mutate(
        mos, call, resource=request.name, request=request, request_id=request.request_id, work=work, respond=respond
    )
