"""MergeMemories: several memories become one; the absorbed ones keep naming it."""

from __future__ import annotations

import asyncio
from functools import partial

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import (
    CHANGE_KIND_MEMORY_ADDED,
    CHANGE_KIND_MEMORY_MERGED,
    CHANGE_KIND_MEMORY_UPDATED,
)
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_INTERNAL
from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.memory_pb2 import (
    MEMORY_STATE_ACTIVE,
    MEMORY_STATE_ARCHIVED,
    MEMORY_STATE_MERGED,
    PROVENANCE_KIND_MEMORY,
    Memory,
    Provenance,
)
from memos_server._pb.mip.v1.memory_service_pb2 import MergeMemoriesRequest, MergeMemoriesResponse
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import CubeRow, Kind, NewVersion, Reader, Version, Writer, relative_name
from memos_server.mem_cube.changes import added, evolve, seal
from memos_server.mem_os.access import WRITER, denied, require_level
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.embedding import embed_missing, take_supplied
from memos_server.mem_os.lifecycle import require_transition, seen_versions
from memos_server.mem_os.memories import find, ids_in
from memos_server.mem_os.mutation import ChangedMeanwhileError, Outcome, commit, locked_cube, mutate, replayed
from memos_server.mem_os.render import commit_of, memory_message, visible_memories
from memos_server.mem_os.sealing import Draft, check_references, draft, inherited_sensitivity
from memos_server.mem_os.updating import check_etag, updatable
from memos_server.memories import states

_PROVENANCE = 64


async def merge_memories(mos: Mos, call: Call, request: MergeMemoriesRequest) -> MergeMemoriesResponse:
    """See MemoryService.MergeMemories."""
    cube_id = names.parse_cube(request.parent, "parent")
    ids = ids_in(cube_id, request.sources, "sources")
    target_id = _target(cube_id, ids, request)
    if not target_id and call.view(cube_id).rank < WRITER:
        # Grants on the sources alone do not make new memories.
        raise denied(request.parent)
    original = MergeMemoriesRequest()
    original.CopyFrom(request)

    async def respond(txn: Reader, result: str, revision: int) -> MergeMemoriesResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        version = await find(txn, call, cube, names.parse_memory(result)[1], revision)
        return MergeMemoriesResponse(
            memory=(await visible_memories(txn, call, cube, [version]))[0],
            commit=await commit_of(txn, call, cube, revision),
            index_pending=mos.keeper.broken(cube.uid),
        )

    async def before(txn: Reader) -> tuple[CubeRow, list[Version], Version | None, bool]:
        known = await replayed(txn, call, request.parent, original, request.request_id)
        cube = await existing_cube(txn, cube_id, deleted=known is not None)
        if known is not None:
            return cube, [], None, True
        target = await find(txn, call, cube, target_id) if target_id else None
        return cube, await seen_versions(txn, call, cube, ids), target, False

    while True:
        cube, sources, target, is_replay = await mos.read(before)
        prepared = None if is_replay else await _prepare(mos, cube, sources, target, request)

        async def work(
            txn: Writer,
            sources: list[Version] = sources,
            target: Version | None = target,
            prepared: Draft | None = prepared,
        ) -> Outcome[MergeMemoriesResponse]:
            assert prepared is not None
            cube = await locked_cube(txn, cube_id, request.expected_revision)
            now = await seen_versions(txn, call, cube, [*ids, *([target_id] if target_id else [])])
            then = [*sources, *([target] if target else [])]
            if [version.from_revision for version in now] != [version.from_revision for version in then]:
                raise ChangedMeanwhileError
            if target_id:
                check_etag(request.merged.etag, now[-1], request.target)
            await check_references(txn, call, cube, [prepared], "merged")
            changes = await _changes(txn, call, cube, now[: len(ids)], now[len(ids) :], prepared)
            row = await commit(txn, call, cube, changes, cause=request.cause, request_id=request.request_id)
            return Outcome(names.memory_name(cube_id, changes[0].id), cube, row.revision)

        try:
            return await mutate(
                mos,
                call,
                resource=request.parent,
                request=original,
                request_id=request.request_id,
                work=work,
                respond=respond,
            )
        except ChangedMeanwhileError:
            continue


def _target(cube_id: str, ids: list[str], request: MergeMemoriesRequest) -> str:
    if not request.target and not request.HasField("merged"):
        raise invalid_field("target", "must be set, or merged: something absorbs the sources", "FIELD_REQUIRED")
    if not request.target:
        return ""
    parent, target_id = names.parse_memory(request.target, "target")
    if parent != cube_id:
        raise invalid_field("target", f"must lie in {names.cube_name(cube_id)}", "INVALID_NAME")
    if target_id in ids:
        raise invalid_field("target", "is one of the sources", "CONFLICTING_ARGUMENTS")
    if request.merged.name and request.merged.name != request.target:
        raise invalid_field("merged.name", "names another memory than target", "CONFLICTING_ARGUMENTS")
    return target_id


async def _prepare(
    mos: Mos, cube: CubeRow, sources: list[Version], target: Version | None, request: MergeMemoriesRequest
) -> Draft:
    settings = CubeContent.FromString(cube.settings.payload)
    for version in sources:
        require_mergeable(cube.id, version)
    if target is not None:
        updatable(target, request.target)
    # A thousand memories to parse and to join are no work for the event loop.
    join = partial(_joined, mos, cube, settings, sources, target, request)
    item = await asyncio.get_running_loop().run_in_executor(mos.cpu, join)
    await embed_missing(mos, settings, [item])
    return item


def _joined(
    mos: Mos,
    cube: CubeRow,
    settings: CubeContent,
    sources: list[Version],
    target: Version | None,
    request: MergeMemoriesRequest,
) -> Draft:
    if request.merged.WhichOneof("payload"):
        merged = Memory()
        merged.CopyFrom(request.merged)
    else:
        parts = [memory_message(cube.id, version) for version in ([target] if target else []) + sources]
        merged = mos.types.for_memory(parts[0], "merged").merge(parts)
        merged.name = request.merged.name
        # What stands around the content is the caller's to say, whoever joins the contents.
        merged.sensitivity = request.merged.sensitivity
        merged.owner = request.merged.owner
    known = {item.source for item in merged.provenance}
    for version in sources:
        name = names.memory_name(cube.id, version.id)
        if name not in known and len(merged.provenance) < _PROVENANCE:
            merged.provenance.append(
                Provenance(kind=PROVENANCE_KIND_MEMORY, source=name, revision=version.from_revision)
            )
    vector = take_supplied(merged, settings, "merged")
    item = draft(mos.types, cube.id, merged, "merged")
    item.vector = vector
    return item


def require_mergeable(cube_id: str, version: Version) -> None:
    """Checks that a memory may be absorbed: it is ACTIVE or ARCHIVED.

    Raises:
        MipError: INVALID_TRANSITION, MEMORY_PURGED.
    """
    if version.state not in (MEMORY_STATE_ACTIVE, MEMORY_STATE_ARCHIVED):
        require_transition(cube_id, version, MEMORY_STATE_MERGED)
        raise MipError(
            "INVALID_TRANSITION",
            f"{names.memory_name(cube_id, version.id)} is {states.name(version.state)} and cannot be merged",
            metadata={"state": states.name(version.state)},
        )


async def _changes(
    txn: Writer, call: Call, cube: CubeRow, sources: list[Version], targets: list[Version], item: Draft
) -> list[NewVersion]:
    highest = max([SENSITIVITY_INTERNAL, *(version.sensitivity for version in sources + targets)])
    label = max(highest, await inherited_sensitivity(txn, call, cube, item.message, item.sensitivity))
    require_level(call.view(cube.id), label, cube.id, targets[0].id if targets else item.id)
    content = seal(item.payload, vector=item.vector, blobs=item.blobs)
    if targets:
        target = targets[0]
        owner = item.owner or target.owner
        absorbing = evolve(
            target,
            CHANGE_KIND_MEMORY_UPDATED,
            state=MEMORY_STATE_ACTIVE,
            sensitivity=label,
            owner=owner,
            content=content,
        )
    else:
        absorbing = added(
            CHANGE_KIND_MEMORY_ADDED,
            Kind.MEMORY,
            item.id,
            item.uid,
            content,
            sensitivity=label,
            owner=item.owner or call.principal,
        )
    into = relative_name(Kind.MEMORY, absorbing.id)
    merged = [
        evolve(version, CHANGE_KIND_MEMORY_MERGED, state=MEMORY_STATE_MERGED, merged_into=into) for version in sources
    ]
    return [absorbing, *merged]
