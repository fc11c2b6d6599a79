"""Relations between memories: create, delete, list, traverse."""

from __future__ import annotations

from collections.abc import Sequence, Set
from uuid import UUID, uuid5

from memos_server import names
from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.graph_service_pb2 import (
    DIRECTION_BOTH,
    DIRECTION_INCOMING,
    DIRECTION_OUTGOING,
    DIRECTION_UNSPECIFIED,
    CreateRelationsRequest,
    CreateRelationsResponse,
    DeleteRelationsRequest,
    DeleteRelationsResponse,
    ListRelationsRequest,
    ListRelationsResponse,
    TraverseRequest,
    TraverseResponse,
    Visit,
)
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE, MEMORY_STATE_DELETED, MEMORY_STATE_PURGED
from memos_server._pb.mip.v1.relation_pb2 import Relation
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import CubeRow, Kind, NewVersion, Reader, Version, Writer, relative_name
from memos_server.mem_cube.changes import evolve, related
from memos_server.mem_os.access import CubeView
from memos_server.mem_os.context import Call, Mos, at_revision, existing_cube
from memos_server.mem_os.lifecycle import seen_versions
from memos_server.mem_os.memories import id_in, ids_in, not_found, state_of
from memos_server.mem_os.mutation import Outcome, commit, expect_revision, locked_cube, mutate
from memos_server.mem_os.paging import RESPONSE_BYTES, Pages, page_size
from memos_server.mem_os.render import commit_of, relation_message, visible_memories
from memos_server.mem_os.updating import updatable

PARENT_OF = "PARENT_OF"
MAX_WEIGHT = 1_000_000.0
_STEP = 500
_SCAN = 5000
"""The most relations that one page examines; a page of a rare type ends early, with a token to go on."""
_MAX_DEPTH = 16
_CONTENTS = 100
"""How many memories' contents a traversal reads at once; what does not fit the answer is not read."""
_EXPLORED = 10_000
"""The most edges that one traversal looks at."""


def relation_id(source_uid: str, target_uid: str, type_: str) -> str:
    """Returns the id of the one relation of a type between two memories in a direction: a UUIDv5 of the three."""
    return str(uuid5(UUID(source_uid), f"{type_} {target_uid}"))


def _ends(cube_id: str, relations: Sequence[Relation]) -> list[tuple[str, str, Relation]]:
    found, seen = [], set()
    for number, relation in enumerate(relations):
        field = f"relations[{number}]"
        source = id_in(cube_id, relation.source, f"{field}.source")
        target = id_in(cube_id, relation.target, f"{field}.target")
        if source == target:
            raise invalid_field(f"{field}.target", "is the source itself")
        if relation.weight > MAX_WEIGHT:
            raise invalid_field(f"{field}.weight", "must be at most 1,000,000")
        if (source, target, relation.type) in seen:
            raise invalid_field(field, "is given twice")
        seen.add((source, target, relation.type))
        found.append((source, target, relation))
    return found


async def create_relations(mos: Mos, call: Call, request: CreateRelationsRequest) -> CreateRelationsResponse:
    """See GraphService.CreateRelations."""
    cube_id = names.parse_cube(request.parent, "parent")
    edges = _ends(cube_id, request.relations)

    async def work(txn: Writer) -> Outcome[CreateRelationsResponse]:
        cube = await locked_cube(txn, cube_id)
        ids = list(dict.fromkeys(id_ for source, target, _ in edges for id_ in (source, target)))
        memories = dict(zip(ids, await seen_versions(txn, call, cube, ids), strict=True))
        expect_revision(cube, request.expected_revision)
        for memory_id, version in memories.items():
            updatable(version, names.memory_name(cube_id, memory_id))
        await _check_tree(txn, cube, [(memories[s], memories[t]) for s, t, edge in edges if edge.type == PARENT_OF])
        wanted = {
            relation_id(memories[s].uid, memories[t].uid, e.type): (memories[s], memories[t], e) for s, t, e in edges
        }
        existing = await txn.versions(cube.key, Kind.RELATION, wanted)
        changes: list[NewVersion] = []
        for id_, (source, target, edge) in wanted.items():
            weight = edge.weight or 1.0
            before = existing.get(id_)
            if before is None:
                changes.append(related(id_, id_, source, target, edge.type, weight, owner=call.principal))
                continue
            ends = relative_name(Kind.MEMORY, source.id), relative_name(Kind.MEMORY, target.id)
            kind = commit_pb2.CHANGE_KIND_RELATION_CREATED
            label = max(source.sensitivity, target.sensitivity)
            changes.append(evolve(before, kind, state=MEMORY_STATE_ACTIVE, weight=weight, ends=ends, sensitivity=label))
        row = await commit(txn, call, cube, changes, cause=request.cause, request_id=request.request_id)
        return Outcome(request.parent, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> CreateRelationsResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        rows = await txn.changes(cube.key, revision, -1, len(edges))
        return CreateRelationsResponse(
            relations=await _messages(txn, call.view(cube_id), cube, [row.version for row in rows]),
            commit=await commit_of(txn, call, cube, revision),
            index_pending=mos.keeper.broken(cube.uid),
        )

    return await mutate(
        mos, call, resource=request.parent, request=request, request_id=request.request_id, work=work, respond=respond
    )


async def _check_tree(txn: Reader, cube: CubeRow, edges: Sequence[tuple[Version, Version]]) -> None:
    """Checks that the tree stays one: a memory has at most one parent, and no cycle closes.

    Raises:
        MipError: INVALID_FIELD.
    """
    parents: dict[str, str] = {}
    for source, target in edges:
        if parents.get(target.uid, source.uid) != source.uid:
            raise invalid_field("relations", f"give {names.memory_name(cube.id, target.id)} two parents")
        parents[target.uid] = source.uid
    for child in list(parents):
        for edge in await _parents(txn, cube, child):
            if edge.source != parents[child]:
                name = names.memory_name(cube.id, (await txn.names(cube.key, [child]))[child].rpartition("/")[2])
                text = f"give {name} a second parent; delete the first relation before, also of a deleted parent"
                raise invalid_field("relations", text)
    for start in list(parents):
        position, seen = start, {start}
        while position:
            if position not in parents:
                parents[position] = next((edge.source for edge in await _parents(txn, cube, position)), "")
            position = parents[position]
            if position in seen:
                raise invalid_field("relations", "close a cycle of PARENT_OF")
            seen.add(position)


async def _parents(txn: Reader, cube: CubeRow, child: str) -> Sequence[Version]:
    return await txn.relations(cube.key, [child], outgoing=False, incoming=True, types=[PARENT_OF], limit=2)


async def delete_relations(mos: Mos, call: Call, request: DeleteRelationsRequest) -> DeleteRelationsResponse:
    """See GraphService.DeleteRelations."""
    cube_id = names.parse_cube(request.parent, "parent")
    edges = _ends(cube_id, request.relations)

    async def work(txn: Writer) -> Outcome[DeleteRelationsResponse]:
        cube = await locked_cube(txn, cube_id)
        ids = list(dict.fromkeys(id_ for source, target, _ in edges for id_ in (source, target)))
        memories = dict(zip(ids, await seen_versions(txn, call, cube, ids), strict=True))
        expect_revision(cube, request.expected_revision)
        changes = []
        for source, target, edge in edges:
            id_ = relation_id(memories[source].uid, memories[target].uid, edge.type)
            before = (await txn.versions(cube.key, Kind.RELATION, [id_])).get(id_)
            if before is None or before.state != MEMORY_STATE_ACTIVE:
                raise MipError("RELATION_NOT_FOUND", f"no {edge.type} leads from {edge.source} to {edge.target}")
            ends = relative_name(Kind.MEMORY, source), relative_name(Kind.MEMORY, target)
            changes.append(
                evolve(before, commit_pb2.CHANGE_KIND_RELATION_DELETED, state=MEMORY_STATE_DELETED, ends=ends)
            )
        row = await commit(txn, call, cube, changes, cause=request.cause, request_id=request.request_id)
        return Outcome(request.parent, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> DeleteRelationsResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        return DeleteRelationsResponse(
            commit=await commit_of(txn, call, cube, revision), index_pending=mos.keeper.broken(cube.uid)
        )

    return await mutate(
        mos, call, resource=request.parent, request=request, request_id=request.request_id, work=work, respond=respond
    )


def present(view: CubeView, version: Version | None) -> bool:
    """Returns whether a memory is there for a reader of relations: visible, and neither deleted nor purged."""
    return (
        version is not None
        and view.sees(version)
        and state_of(version) not in (MEMORY_STATE_DELETED, MEMORY_STATE_PURGED)
    )


async def _messages(
    txn: Reader, view: CubeView, cube: CubeRow, versions: Sequence[Version], revision: int | None = None
) -> list[Relation]:
    uids = {uid for version in versions for uid in (version.source, version.target)}
    ends = await txn.versions_by_uid(cube.key, uids, revision, with_content=False)
    return [
        relation_message(
            cube.id,
            version,
            relative_name(Kind.MEMORY, ends[version.source].id),
            relative_name(Kind.MEMORY, ends[version.target].id),
        )
        for version in versions
        if present(view, ends.get(version.source)) and present(view, ends.get(version.target))
    ]


async def list_relations(mos: Mos, call: Call, request: ListRelationsRequest) -> ListRelationsResponse:
    """See GraphService.ListRelations."""
    cube_id = names.parse_cube(request.parent, "parent")
    memory_id = id_in(cube_id, request.memory, "memory") if request.memory else ""
    size = page_size(mos, request.page_size)
    pages = Pages(mos.pages, call, request)
    after = pages.number(request.page_token, "after", 0)
    types = set(request.types)
    outgoing, incoming = _directions(request.direction if request.direction else DIRECTION_BOTH)

    async def work(txn: Reader) -> ListRelationsResponse:
        cube = await existing_cube(txn, cube_id)
        revision = at_revision(cube, request.as_of_revision)
        view = call.view(cube_id)
        found: list[Relation] = []
        position, scanned, more = after, 0, True
        while more:
            if memory_id:
                version = (await txn.versions(cube.key, Kind.MEMORY, [memory_id], revision)).get(memory_id)
                if version is None or not view.sees(version):
                    raise not_found(cube_id, memory_id, revision)
                rows = await txn.relations(
                    cube.key,
                    [version.uid],
                    outgoing=outgoing,
                    incoming=incoming,
                    revision=revision,
                    types=types,
                    after=position,
                    limit=_STEP,
                )
            else:
                rows = await txn.list_versions(cube.key, Kind.RELATION, position, _STEP, revision, with_content=False)
            more = len(rows) == _STEP
            wanted = [row for row in rows if row.state == MEMORY_STATE_ACTIVE and (not types or row.type in types)]
            shown = {message.uid: message for message in await _messages(txn, view, cube, wanted, revision)}
            for row in rows:
                message = shown.get(row.uid)
                if message is not None and len(found) == size:
                    return ListRelationsResponse(relations=found, next_page_token=pages.token(after=position))
                found += [message] if message is not None else []
                position = row.item
            scanned += len(rows)
            if more and scanned >= _SCAN:
                return ListRelationsResponse(relations=found, next_page_token=pages.token(after=position))
        return ListRelationsResponse(relations=found)

    return await mos.read(work)


def _directions(direction: int) -> tuple[bool, bool]:
    """Returns (follow outgoing, follow incoming)."""
    if direction in (DIRECTION_UNSPECIFIED, DIRECTION_OUTGOING):
        return True, False
    return direction == DIRECTION_BOTH, direction in (DIRECTION_INCOMING, DIRECTION_BOTH)


async def traverse(mos: Mos, call: Call, request: TraverseRequest) -> TraverseResponse:
    """See GraphService.Traverse."""
    cube_id = names.parse_cube(request.parent, "parent")
    starts = ids_in(cube_id, request.starts, "starts")
    limit = min(request.limit or 100, 1000)
    depth_limit = min(request.max_depth or 1, _MAX_DEPTH)
    types = set(request.types)
    outgoing, incoming = _directions(request.direction)

    async def work(txn: Reader) -> TraverseResponse:
        cube = await existing_cube(txn, cube_id)
        revision = at_revision(cube, request.as_of_revision)
        view = call.view(cube_id)
        found = await txn.versions(cube.key, Kind.MEMORY, starts, revision)
        for memory_id in starts:
            if memory_id not in found or not view.sees(found[memory_id]):
                raise not_found(cube_id, memory_id, revision)
        reached: dict[str, tuple[Version, int, Version | None]] = {
            found[id_].uid: (found[id_], 0, None) for id_ in starts if present(view, found[id_])
        }
        frontier, truncated, explored = list(reached), False, 0
        for depth in range(1, depth_limit + 1):
            edges = await txn.relations(
                cube.key,
                frontier,
                outgoing=outgoing,
                incoming=incoming,
                revision=revision,
                types=types,
                limit=_EXPLORED + 1 - explored,
            )
            explored += len(edges)
            known = set(frontier)
            hops = [(edge, end) for edge in edges for end in _next(edge, known, outgoing, incoming)]
            unknown = {end for _, end in hops if end not in reached}
            versions = await txn.versions_by_uid(cube.key, unknown, revision, with_content=False)
            frontier = []
            for edge, end in hops:
                version = versions.get(end)
                if end in reached or version is None or not present(view, version):
                    continue
                if len(reached) >= limit:
                    truncated = True
                    break
                reached[end] = version, depth, edge
                frontier.append(end)
            if not frontier or truncated or explored > _EXPLORED:
                truncated = truncated or explored > _EXPLORED
                break
        return await _visits(txn, call, cube, list(reached.values()), revision, truncated=truncated)

    return await mos.read(work)


def _next(edge: Version, known: Set[str], outgoing: bool, incoming: bool) -> list[str]:
    ends = []
    if outgoing and edge.source in known:
        ends.append(edge.target)
    if incoming and edge.target in known:
        ends.append(edge.source)
    return ends


async def _visits(
    txn: Reader,
    call: Call,
    cube: CubeRow,
    reached: Sequence[tuple[Version, int, Version | None]],
    revision: int | None,
    *,
    truncated: bool,
) -> TraverseResponse:
    vias = await _messages(txn, call.view(cube.id), cube, [via for _, _, via in reached if via is not None], revision)
    by_uid = {via.uid: via for via in vias}
    response = TraverseResponse(truncated=truncated)
    filled = 0
    for start in range(0, len(reached), _CONTENTS):
        some = reached[start : start + _CONTENTS]
        whole = await txn.versions_by_uid(cube.key, [version.uid for version, _, _ in some], revision)
        messages = await visible_memories(txn, call, cube, [whole[version.uid] for version, _, _ in some])
        for message, (_, depth, via) in zip(messages, some, strict=True):
            filled += message.ByteSize() + 512
            if filled > RESPONSE_BYTES:
                response.truncated = True
                return response
            response.visits.append(Visit(memory=message, depth=depth, via=by_uid.get(via.uid) if via else None))
    return response
