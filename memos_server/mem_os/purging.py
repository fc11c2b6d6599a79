"""Purge: the only erasure. Content leaves the record, the index, the blobs and the files; the log keeps that it was."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from memos_server import names
from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.cube_service_pb2 import PurgeCubeRequest, PurgeCubeResponse
from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_PENDING
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_DELETED, MEMORY_STATE_PURGED, Memory
from memos_server._pb.mip.v1.memory_service_pb2 import PurgeMemoriesRequest, PurgeMemoriesResponse
from memos_server._pb.mip.v1.options_pb2 import PERMISSION_READ
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, JobRow, Kind, NewVersion, Reader, Version, Writer
from memos_server.mem_cube.changes import evolve
from memos_server.mem_cube.log import now_us
from memos_server.mem_cube.rollback import relation_ends
from memos_server.mem_os import filters
from memos_server.mem_os.access import CubeView, permits
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.lifecycle import seen_versions
from memos_server.mem_os.memories import ids_in
from memos_server.mem_os.mutation import Outcome, audit, commit, expect_revision, locked_cube, mutate
from memos_server.mem_os.render import commit_of, cube_message
from memos_server.vec_dbs.base import Some

_STEP = 1000
_DERIVED = 1000
_READ = 100
"""How many memories are read at once with what they hold, which may be 256 KiB each."""


async def purge_memories(mos: Mos, call: Call, request: PurgeMemoriesRequest) -> PurgeMemoriesResponse:
    """See MemoryService.PurgeMemories."""
    cube_id = names.parse_cube(request.parent, "parent")
    ids = ids_in(cube_id, request.names, "names")

    async def work(txn: Writer) -> Outcome[PurgeMemoriesResponse]:
        cube = await locked_cube(txn, cube_id)
        versions = await seen_versions(txn, call, cube, ids)
        expect_revision(cube, request.expected_revision)
        for version in versions:
            if version.state == MEMORY_STATE_PURGED:
                raise MipError(
                    "MEMORY_PURGED",
                    f"{names.memory_name(cube_id, version.id)} is purged already",
                    metadata={"revision": str(version.from_revision)},
                )
        changes = [_erased(version, commit_pb2.CHANGE_KIND_MEMORY_PURGED) for version in versions]
        changes += await _cut_relations(txn, cube, [version.uid for version in versions])
        row = await commit(txn, call, cube, changes, cause=request.reason, request_id=request.request_id)
        await txn.erase(cube.key, [version.item for version in versions])
        await order_compaction(txn, call, cube, row.revision)
        await audit(txn, call, request.parent, detail="purged memories", revision=row.revision)
        return Outcome(request.parent, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> PurgeMemoriesResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        uids = await _purged(txn, cube, revision)
        return PurgeMemoriesResponse(
            commit=await commit_of(txn, call, cube, revision),
            derived=await _derived(mos, txn, call, cube, revision, uids, derived_here),
            compaction_job=names.job_name(cube_id, compaction_of(revision)),
            index_pending=mos.keeper.broken(cube.uid),
        )

    derived_here = await _derived_memories(mos, call, cube_id, ids)
    response = await mutate(
        mos, call, resource=request.parent, request=request, request_id=request.request_id, work=work, respond=respond
    )
    await mos.jobs.run_now(cube_id, response.compaction_job.rpartition("/")[2])
    return response


async def purge_cube(mos: Mos, call: Call, request: PurgeCubeRequest) -> PurgeCubeResponse:
    """See CubeService.PurgeCube."""
    cube_id = names.parse_cube(request.name)

    async def work(txn: Writer) -> Outcome[PurgeCubeResponse]:
        cube = await locked_cube(txn, cube_id, request.expected_revision, deleted=True)
        if cube.settings.state == MEMORY_STATE_PURGED:
            raise MipError("CUBE_PURGED", f"{request.name} is purged already")
        items, changes = [cube.settings.item], []
        for kind in (Kind.MEMORY, Kind.SESSION, Kind.RELATION):
            after = 0
            while rows := await txn.list_versions(cube.key, kind, after, _STEP, with_content=False):
                after = rows[-1].item
                items += [version.item for version in rows]
                changes += await _erase_all(txn, cube, kind, rows)
        changes.append(_erased(cube.settings, commit_pb2.CHANGE_KIND_CUBE_PURGED))
        row = await commit(txn, call, cube, changes, cause=request.reason, request_id=request.request_id)
        await txn.erase(cube.key, items)
        for digest, _ in await txn.cube_blobs(cube.key, "", 1_000_000):
            await txn.doom_blob(cube.key, digest)
        await order_compaction(txn, call, cube, row.revision)
        await audit(txn, call, request.name, detail="purged the cube", revision=row.revision)
        return Outcome(request.name, cube, row.revision)

    async def respond(txn: Reader, _: str, revision: int) -> PurgeCubeResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        forks = [name for name in await txn.forks_of(cube.uid) if permits(call.access, PERMISSION_READ, name)]
        return PurgeCubeResponse(
            cube=cube_message(cube),
            commit=await commit_of(txn, call, cube, revision),
            derived=forks,
            compaction_job=names.job_name(cube_id, compaction_of(revision)),
        )

    response = await mutate(
        mos, call, resource=request.name, request=request, request_id=request.request_id, work=work, respond=respond
    )
    await mos.jobs.run_now(cube_id, response.compaction_job.rpartition("/")[2])
    return response


def _erased(version: Version, kind: int) -> NewVersion:
    return evolve(version, kind, state=MEMORY_STATE_PURGED, erase=True)


async def _erase_all(txn: Writer, cube: CubeRow, kind: Kind, rows: Sequence[Version]) -> list[NewVersion]:
    if kind is Kind.MEMORY:
        alive = [version for version in rows if version.state != MEMORY_STATE_PURGED]
        return [_erased(version, commit_pb2.CHANGE_KIND_MEMORY_PURGED) for version in alive]
    if kind is Kind.SESSION:
        return [_erased(version, commit_pb2.CHANGE_KIND_SESSION_ENDED) for version in rows]
    alive = [version for version in rows if version.state != MEMORY_STATE_DELETED]
    return await _ended(txn, cube, alive)


async def _cut_relations(txn: Writer, cube: CubeRow, uids: Sequence[str]) -> list[NewVersion]:
    return await _ended(txn, cube, await txn.relations(cube.key, uids, outgoing=True, incoming=True))


async def _ended(txn: Writer, cube: CubeRow, relations: Sequence[Version]) -> list[NewVersion]:
    ends = await txn.names(cube.key, {uid for version in relations for uid in (version.source, version.target)})
    kind = commit_pb2.CHANGE_KIND_RELATION_DELETED
    return [
        evolve(version, kind, state=MEMORY_STATE_DELETED, ends=relation_ends(version, ends)) for version in relations
    ]


def compaction_of(revision: int) -> str:
    """Returns the id of the compaction that the commit of a revision ordered."""
    return f"compaction-{revision:012d}"


async def order_compaction(txn: Writer, call: Call, cube: CubeRow, revision: int) -> None:
    """Records the job that erases what the commit of a revision has doomed; `compaction_of` names it."""
    now = now_us()
    await txn.put_job(
        JobRow(cube.id, compaction_of(revision), "compaction", JOB_STATE_PENDING, call.principal, now, now)
    )


async def _purged(txn: Reader, cube: CubeRow, revision: int) -> list[str]:
    uids, after = [], -1
    while rows := await txn.changes(cube.key, revision, after, _STEP):
        after = rows[-1].sequence
        uids += [row.version.uid for row in rows if row.version.kind is Kind.MEMORY]
    return uids


async def _derived_memories(mos: Mos, call: Call, cube_id: str, ids: Sequence[str]) -> list[str]:
    """Returns names of visible memories of the cube whose provenance names one of the memories.

    The index finds them; while it cannot tell, the record is read from one end to the other.
    """

    async def cube_of(txn: Reader) -> CubeRow:
        return await existing_cube(txn, cube_id, deleted=True)

    cube = await mos.read(cube_of)
    cited = {names.memory_name(cube_id, id_) for id_ in ids}
    cites = [filters.parse(f'provenance.source = "{name}"').pushdown() for name in sorted(cited)]
    view = call.view(cube_id)
    uids = await mos.keeper.matching(cube, view, Some(tuple(cites)), _DERIVED)
    if uids is None:
        uids = await _citing(mos, cube, view, cited)

    async def work(txn: Reader) -> list[str]:
        versions = await txn.versions_by_uid(cube.key, uids)
        return sorted(
            names.memory_name(cube_id, version.id)
            for version in versions.values()
            if version.id not in ids
            and version.state != MEMORY_STATE_PURGED
            and view.sees(version)
            and _cites(version, cited)
        )

    return await mos.read(work)


async def _citing(mos: Mos, cube: CubeRow, view: CubeView, cited: Collection[str]) -> list[str]:
    """Returns the uids of visible memories of the cube whose provenance names one of the memories, _DERIVED at most."""
    wanted = [name.encode() for name in cited]
    uids: list[str] = []
    after = 0
    while len(uids) < _DERIVED:

        async def some(txn: Reader, after: int = after) -> Sequence[Version]:
            return await txn.list_versions(cube.key, Kind.MEMORY, after, _READ)

        rows = await mos.read(some)
        if not rows:
            break
        after = rows[-1].item
        # Few memories cite any: most need not be parsed.
        likely = [version for version in rows if any(name in version.payload for name in wanted)]
        uids += [version.uid for version in likely if view.sees(version) and _cites(version, cited)]
    return uids[:_DERIVED]


def _cites(version: Version, cited: Collection[str]) -> bool:
    return any(item.source in cited for item in Memory.FromString(version.payload).provenance)


async def _derived(
    mos: Mos, txn: Reader, call: Call, cube: CubeRow, revision: int, uids: Sequence[str], here: Sequence[str]
) -> list[str]:
    """Returns what stays of erased content: memories that absorbed or cite it, and the copies in forks."""
    found = set(here)
    absorbing = set()
    for uid in uids:
        past = await _past(txn, cube, uid, revision)
        absorbing |= {version.merged_into.rpartition("/")[2] for version in past if version.merged_into}
    view_here = call.view(cube.id)
    for version in (await txn.versions(cube.key, Kind.MEMORY, absorbing)).values():
        if version.state != MEMORY_STATE_PURGED and view_here.sees(version):
            found.add(names.memory_name(cube.id, version.id))
    for fork in await txn.forks_of(cube.uid):
        if not permits(call.access, PERMISSION_READ, fork):
            continue
        copy = await existing_cube(txn, names.parse_cube(fork), deleted=True)
        view = call.view(copy.id)
        for version in (await txn.versions_by_uid(copy.key, uids)).values():
            if version.state != MEMORY_STATE_PURGED and view.sees(version):
                found.add(names.memory_name(copy.id, version.id))
    return sorted(found)[:_DERIVED]


async def _past(txn: Reader, cube: CubeRow, uid: str, revision: int) -> Sequence[Version]:
    version = (await txn.versions_by_uid(cube.key, [uid])).get(uid)
    return await txn.history(cube.key, Kind.MEMORY, version.id, revision, _STEP) if version else []
