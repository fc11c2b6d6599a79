"""States of memories: transitions, deletion and merges."""

from __future__ import annotations

from collections.abc import Sequence

from memos_server import names
from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.memory_pb2 import (
    MEMORY_STATE_ACTIVE,
    MEMORY_STATE_ARCHIVED,
    MEMORY_STATE_DELETED,
    MEMORY_STATE_PURGED,
    Memory,
)
from memos_server._pb.mip.v1.memory_service_pb2 import (
    DeleteMemoriesRequest,
    DeleteMemoriesResponse,
    TransitionMemoriesRequest,
    TransitionMemoriesResponse,
)
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import CubeRow, Kind, Reader, Version, Writer
from memos_server.mem_cube.changes import evolve
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.memories import ids_in, not_found
from memos_server.mem_os.mutation import Outcome, commit, expect_revision, locked_cube, mutate
from memos_server.mem_os.render import commit_of, visible_memories
from memos_server.mem_os.updating import check_etag
from memos_server.memories import states


async def seen_versions(txn: Reader, call: Call, cube: CubeRow, ids: Sequence[str]) -> list[Version]:
    """Returns the current versions of memories that the caller sees, in the order of the ids.

    Raises:
        MipError: MEMORY_NOT_FOUND.
    """
    found = await txn.versions(cube.key, Kind.MEMORY, ids)
    view = call.view(cube.id)
    for memory_id in ids:
        if memory_id not in found or not view.sees(found[memory_id]):
            raise not_found(cube.id, memory_id, None)
    return [found[memory_id] for memory_id in ids]


def require_transition(cube_id: str, version: Version, state: int) -> None:
    """Checks the table of permitted transitions.

    Raises:
        MipError: INVALID_TRANSITION, MEMORY_PURGED.
    """
    name = names.memory_name(cube_id, version.id)
    if version.state == MEMORY_STATE_PURGED:
        raise MipError("MEMORY_PURGED", f"{name} is purged", metadata={"revision": str(version.from_revision)})
    if not states.may_transition(version.state, state):
        raise MipError(
            "INVALID_TRANSITION",
            f"{name} is {states.name(version.state)} and cannot become {states.name(state)}",
            metadata={"state": states.name(version.state)},
        )


async def transition_memories(mos: Mos, call: Call, request: TransitionMemoriesRequest) -> TransitionMemoriesResponse:
    """See MemoryService.TransitionMemories."""
    cube_id = names.parse_cube(request.parent, "parent")
    ids = ids_in(cube_id, request.names, "names")
    if request.state not in (MEMORY_STATE_ACTIVE, MEMORY_STATE_ARCHIVED, MEMORY_STATE_DELETED):
        raise invalid_field("state", "must be ACTIVE, ARCHIVED or DELETED")
    deleting = request.state == MEMORY_STATE_DELETED
    kind = commit_pb2.CHANGE_KIND_MEMORY_DELETED if deleting else commit_pb2.CHANGE_KIND_MEMORY_TRANSITIONED

    async def work(txn: Writer) -> Outcome[TransitionMemoriesResponse]:
        cube = await locked_cube(txn, cube_id)
        changes = []
        versions = await seen_versions(txn, call, cube, ids)
        expect_revision(cube, request.expected_revision)
        for version in versions:
            require_transition(cube_id, version, request.state)
            changes.append(evolve(version, kind, state=request.state))
        row = await commit(txn, call, cube, changes, cause=request.cause, request_id=request.request_id)
        return Outcome(request.parent, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> TransitionMemoriesResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        return TransitionMemoriesResponse(
            memories=await _changed(txn, call, cube, revision, len(ids)),
            commit=await commit_of(txn, call, cube, revision),
            index_pending=mos.keeper.broken(cube.uid),
        )

    return await mutate(
        mos,
        call,
        resource=request.parent,
        request=request,
        request_id=request.request_id,
        work=work,
        respond=respond,
    )


async def _changed(txn: Reader, call: Call, cube: CubeRow, revision: int, count: int) -> list[Memory]:
    view = call.view(cube.id)
    rows = await txn.changes(cube.key, revision, -1, count)
    seen = [row.version for row in rows if view.sees(row.version)]
    return await visible_memories(txn, call, cube, seen, content=False)


async def delete_memories(mos: Mos, call: Call, request: DeleteMemoriesRequest) -> DeleteMemoriesResponse:
    """See MemoryService.DeleteMemories."""
    cube_id = names.parse_cube(request.parent, "parent")
    ids = ids_in(cube_id, request.names, "names")
    if request.etag and len(ids) != 1:
        raise invalid_field("etag", "goes with one name", "CONFLICTING_ARGUMENTS")

    async def work(txn: Writer) -> Outcome[DeleteMemoriesResponse]:
        cube = await locked_cube(txn, cube_id)
        changes = []
        versions = await seen_versions(txn, call, cube, ids)
        expect_revision(cube, request.expected_revision)
        for version in versions:
            check_etag(request.etag, version, names.memory_name(cube_id, version.id))
            require_transition(cube_id, version, MEMORY_STATE_DELETED)
            changes.append(evolve(version, commit_pb2.CHANGE_KIND_MEMORY_DELETED, state=MEMORY_STATE_DELETED))
        row = await commit(txn, call, cube, changes, cause=request.cause, request_id=request.request_id)
        return Outcome(request.parent, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> DeleteMemoriesResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        return DeleteMemoriesResponse(
            commit=await commit_of(txn, call, cube, revision), index_pending=mos.keeper.broken(cube.uid)
        )

    return await mutate(
        mos,
        call,
        resource=request.parent,
        request=request,
        request_id=request.request_id,
        work=work,
        respond=respond,
    )
