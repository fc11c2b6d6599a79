"""RollbackCube and ForkCube: a cube brought back to a revision, or copied at one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from uuid_utils import uuid7

from memos_server import names
from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.commit_pb2 import Head
from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.cube_service_pb2 import (
    ForkCubeRequest,
    ForkCubeResponse,
    RollbackCubeRequest,
    RollbackCubeResponse,
    SkippedPurge,
)
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE, MEMORY_STATE_MERGED, MEMORY_STATE_PURGED, Memory
from memos_server._pb.mip.v1.options_pb2 import PERMISSION_CREATE_CUBE
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, Kind, NewContent, NewVersion, Reader, Version, Writer
from memos_server.mem_cube import commitments
from memos_server.mem_cube.changes import added, related, seal
from memos_server.mem_cube.log import append_commit
from memos_server.mem_cube.rollback import plan_rollback
from memos_server.mem_os.access import denied, permits
from memos_server.mem_os.context import Call, Mos, at_revision, existing_cube
from memos_server.mem_os.cubes import new_cube, settings_version
from memos_server.mem_os.fork_blobs import copied
from memos_server.mem_os.mutation import Outcome, audit, commit, locked_cube, mutate, replayed
from memos_server.mem_os.purging import compaction_of
from memos_server.mem_os.render import commit_of, cube_message

_STEP = 1000
_NAMED = 1000
_MOST_BLOBS = 1_000_000


async def rollback_cube(mos: Mos, call: Call, request: RollbackCubeRequest) -> RollbackCubeResponse:
    """See CubeService.RollbackCube."""
    cube_id = names.parse_cube(request.name)

    async def work(txn: Writer) -> Outcome[RollbackCubeResponse]:
        cube = await locked_cube(txn, cube_id, request.expected_revision)
        at_revision(cube, request.to_revision, "to_revision")
        changed = await txn.changed_items(cube.key, request.to_revision)
        ends = {uid for now, _ in changed if now.kind is Kind.RELATION for uid in (now.source, now.target)}
        plan = plan_rollback(changed, await txn.names(cube.key, ends))
        cause = request.cause or f"rollback to revision {request.to_revision}"
        row = await commit(txn, call, cube, plan.versions, cause=cause, request_id=request.request_id)
        await audit(txn, call, request.name, detail=f"to revision {request.to_revision}", revision=row.revision)
        return Outcome(request.name, cube, row.revision, await answer(txn, row.revision, plan.skipped))

    async def respond(txn: Reader, _: str, revision: int) -> RollbackCubeResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        changed = await txn.changed_items(cube.key, request.to_revision)
        # What was purged since then was not yet when the rollback took place.
        skipped = [now for now in plan_rollback(changed, {}).skipped if now.from_revision < revision]
        return await answer(txn, revision, skipped)

    async def answer(txn: Reader, revision: int, skipped: Sequence[Version]) -> RollbackCubeResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        view = call.view(cube_id)
        return RollbackCubeResponse(
            cube=cube_message(cube),
            commit=await commit_of(txn, call, cube, revision),
            skipped_purges=[
                SkippedPurge(name=names.memory_name(cube_id, now.id), purge_revision=now.from_revision)
                for now in skipped
                if view.sees(now)
            ][:_NAMED],
        )

    response = await mutate(
        mos, call, resource=request.name, request=request, request_id=request.request_id, work=work, respond=respond
    )
    response.index_pending = mos.keeper.broken(response.cube.uid)
    return response


async def fork_cube(mos: Mos, call: Call, request: ForkCubeRequest) -> ForkCubeResponse:
    """See CubeService.ForkCube."""
    if not permits(call.access, PERMISSION_CREATE_CUBE, ""):
        raise denied(request.name)
    source_id = names.parse_cube(request.name)
    call.view(source_id, whole=True)
    uid = str(uuid7())
    fork_id = request.cube_id or uid

    async def before(txn: Reader) -> tuple[CubeRow, int, dict[str, int], int]:
        known = await replayed(txn, call, request.name, request, request.request_id)
        source = await existing_cube(txn, source_id, deleted=known is not None)
        revision = at_revision(source, request.revision, "revision") or source.revision
        blobs = {} if known is not None else await _named_blobs(mos, txn, call, source, revision)
        return source, revision, blobs, sum(blobs.values())

    source, revision, blobs, total = await mos.read(before)
    # Whether what was copied holds bytes that were purged meanwhile.
    doomed = False

    async def work(txn: Writer) -> Outcome[ForkCubeResponse]:
        nonlocal doomed
        source = await locked_cube(txn, source_id)
        (head,) = await txn.commits(source.key, revision, revision, 1, newest_first=False)
        key = await new_cube(txn, call, fork_id, uid)
        copies = await _copies(mos, txn, call, source, revision)
        (then,) = [version async for version in _versions(txn, source, Kind.CUBE, revision)]
        settings = CubeContent.FromString(then.payload)
        settings.display_name = request.display_name or settings.display_name
        content = seal(settings.SerializeToString(deterministic=True))
        row = await append_commit(
            txn,
            key,
            uid,
            None,
            [settings_version(uid, content, call.principal), *copies],
            principal=call.principal,
            # By its uid: who may see the fork may not know that a cube of this name exists.
            cause=f"fork of cube {source.uid} at revision {revision}",
            request_id=request.request_id,
            merged_heads=[Head(cube_uid=source.uid, revision=revision, digest=head.digest)],
        )
        fork = await existing_cube(txn, fork_id)
        doomed = await bytes_.keep(txn, call, fork, _named(copies))
        await audit(txn, call, names.cube_name(fork_id), detail=f"forked from cube {source.uid}", revision=row.revision)
        return Outcome(names.cube_name(fork_id), fork, row.revision)

    async def respond(txn: Reader, result: str, revision: int) -> ForkCubeResponse:
        cube = await existing_cube(txn, names.parse_cube(result), deleted=True)
        return ForkCubeResponse(
            cube=cube_message(cube),
            # Its maker administers it from now on, and is shown the commit as such.
            commit=await commit_of(txn, await call.with_grants_of_now(txn), cube, revision),
            index_pending=mos.keeper.broken(cube.uid),
        )

    async with copied(mos, call, source.uid, uid, blobs, total) as bytes_:
        response = await mutate(
            mos, call, resource=request.name, request=request, request_id=request.request_id, work=work, respond=respond
        )
    if doomed:
        await mos.jobs.run_now(fork_id, compaction_of(1))
    return response


def _named(versions: Sequence[NewVersion]) -> set[str]:
    contents = [version.content for version in versions]
    return {digest for content in contents if isinstance(content, NewContent) for digest in content.blobs}


async def _named_blobs(mos: Mos, txn: Reader, call: Call, source: CubeRow, revision: int) -> dict[str, int]:
    """Returns digest -> size of the blobs that the memories to be copied name."""
    held = dict(await txn.cube_blobs(source.key, "", _MOST_BLOBS))
    if not held:
        return {}
    view = call.view(source.id)
    needed: dict[str, int] = {}
    async for version in _versions(txn, source, Kind.MEMORY, revision):
        if version.current_state != MEMORY_STATE_PURGED and view.sees(version):
            needed.update((digest, held[digest]) for digest in _blobs_of(mos, version) if digest in held)
    return needed


def _blobs_of(mos: Mos, version: Version) -> tuple[str, ...]:
    memory = Memory.FromString(version.payload)
    return tuple(blob.digest for blob in mos.types.for_memory(memory, "memory").blobs(memory))


async def _copies(mos: Mos, txn: Writer, call: Call, source: CubeRow, revision: int) -> list[NewVersion]:
    view = call.view(source.id)
    visible: dict[str, Version] = {}
    versions: list[NewVersion] = []
    async for version in _versions(txn, source, Kind.MEMORY, revision):
        if version.current_state != MEMORY_STATE_PURGED and view.sees(version):
            visible[version.uid] = version
    ids = {version.id for version in visible.values()}
    vectors = await txn.vectors([version.content for version in visible.values() if version.content is not None])
    for version in visible.values():
        # A merged memory whose absorbing one is not copied stands for itself again.
        merged = version.state == MEMORY_STATE_MERGED and version.merged_into.rpartition("/")[2] in ids
        state = MEMORY_STATE_ACTIVE if version.state == MEMORY_STATE_MERGED and not merged else version.state
        versions.append(
            added(
                commit_pb2.CHANGE_KIND_MEMORY_ADDED,
                Kind.MEMORY,
                version.id,
                version.uid,
                _copied(version, vectors.get(version.content or -1), _blobs_of(mos, version)),
                sensitivity=max(version.sensitivity, version.current_sensitivity),
                owner=version.owner,
                state=state,
                merged_into=version.merged_into if merged else "",
            )
        )
    async for session in _versions(txn, source, Kind.SESSION, revision):
        content = _copied(session, None, ())
        kind = commit_pb2.CHANGE_KIND_SESSION_CREATED
        versions.append(
            added(
                kind,
                Kind.SESSION,
                session.id,
                session.uid,
                content,
                sensitivity=session.sensitivity,
                owner=session.owner,
                state=session.state,
            )
        )
    async for edge in _versions(txn, source, Kind.RELATION, revision):
        ends = visible.get(edge.source), visible.get(edge.target)
        if edge.state == MEMORY_STATE_ACTIVE and ends[0] is not None and ends[1] is not None:
            versions.append(related(edge.id, edge.uid, ends[0], ends[1], edge.type, edge.weight, owner=edge.owner))
    return versions


async def _versions(txn: Reader, cube: CubeRow, kind: Kind, revision: int) -> AsyncIterator[Version]:
    after = 0
    while rows := await txn.list_versions(cube.key, kind, after, _STEP, revision):
        after = rows[-1].item
        for version in rows:
            yield version


def _copied(version: Version, vector: bytes | None, blobs: tuple[str, ...]) -> NewContent:
    """Returns the content with its salt and commitment, so that equal states stay equal across forks."""
    # A session without a name has empty content; the salt is what tells it from a lost one.
    if not version.salt:
        raise MipError("DATA_CORRUPT", f"the content of {version.id} is missing")
    digest = commitments.content_digest(version.payload)
    return NewContent(version.commitment, version.salt, digest, version.payload, vector, blobs)
