"""AddMemories: a batch becomes one commit, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import CHANGE_KIND_MEMORY_ADDED
from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE, Memory
from memos_server._pb.mip.v1.memory_service_pb2 import AddMemoriesRequest, AddMemoriesResponse
from memos_server.errors import invalid_field, too_many
from memos_server.graph_dbs.base import OPEN, CommitRow, CubeRow, Kind, NewContent, NewVersion, Reader, Version, Writer
from memos_server.mem_cube.changes import added, seal
from memos_server.mem_cube.commitments import new_salts
from memos_server.mem_os.access import require_level
from memos_server.mem_os.context import Call, Mos, existing_cube, in_use
from memos_server.mem_os.embedding import embed_missing, take_all_supplied
from memos_server.mem_os.index_batches import added_alone
from memos_server.mem_os.mutation import Outcome, commit, locked_cube, mutate, replayed
from memos_server.mem_os.render import commit_of, memory_message, own_commit, visible_memories
from memos_server.mem_os.sealing import Draft, check_references, draft, inherited_sensitivities, off_loop


async def add_memories(mos: Mos, call: Call, request: AddMemoriesRequest) -> AddMemoriesResponse:
    """See MemoryService.AddMemories."""
    cube_id = names.parse_cube(request.parent, "parent")
    original = AddMemoriesRequest()
    original.CopyFrom(request)

    # Who repeats a call is told in its transaction; looking before that saves embedding, where there is any, and tells
    # who added to a cube that was deleted since.
    embeds = any(not memory.vectors for memory in request.memories)
    limit = mos.settings.limits.max_batch_memories
    over_limit = len(request.memories) > limit

    async def before(txn: Reader) -> tuple[CubeRow, bool]:
        cube = await existing_cube(txn, cube_id, deleted=True)
        gone = cube.settings.state != MEMORY_STATE_ACTIVE
        known = None
        if embeds or gone or over_limit:
            known = await replayed(txn, call, request.parent, original, request.request_id)
        return cube if known is not None else in_use(cube), known is not None

    cube, is_replay = await mos.read(before, brief=True)
    settings = CubeContent.FromString(cube.settings.payload)
    drafts: list[Draft] = []
    if not is_replay:
        if over_limit:
            raise invalid_field("memories", too_many(limit, len(request.memories)), "TOO_MANY_ITEMS")
        drafts = await drafts_of(mos, cube_id, settings, request.memories, "memories", set())

    async def work(txn: Writer) -> Outcome[AddMemoriesResponse]:
        cube = await locked_cube(txn, cube_id, request.expected_revision)
        versions = await new_versions(txn, call, cube, drafts)
        row = await commit(txn, call, cube, versions, cause=request.cause, request_id=request.request_id)

        def build() -> AddMemoriesResponse:
            return AddMemoriesResponse(
                memories=[memory_message(cube_id, _as_stored(version, row)) for version in versions],
                commit=own_commit(cube_id, row),
            )

        # The writer serves everybody: what need not be done in the transaction is done after it.
        return Outcome(
            request.parent,
            cube,
            row.revision,
            build=lambda: off_loop(mos, build, request.memories),
            added=added_alone(cube, row, versions),
        )

    async def respond(txn: Reader, _: str, revision: int) -> AddMemoriesResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        view = call.view(cube_id)
        changes = await txn.changes(cube.key, revision, -1, len(request.memories), with_content=True)
        seen = [change.version for change in changes if view.sees(change.version)]
        return AddMemoriesResponse(
            memories=await visible_memories(txn, call, cube, seen), commit=await commit_of(txn, call, cube, revision)
        )

    response = await mutate(
        mos,
        call,
        resource=request.parent,
        request=original,
        request_id=request.request_id,
        work=work,
        respond=respond,
    )
    response.index_pending = mos.keeper.broken(cube.uid)
    return response


async def drafts_of(
    mos: Mos, cube_id: str, settings: CubeContent, memories: Sequence[Memory], field: str, taken: set[str]
) -> list[Draft]:
    """Checks new memories, and seals and embeds them.

    Args:
        mos: The server.
        cube_id: The cube that they go into.
        settings: The cube's settings.
        memories: The memories as they came; their contents are brought into canonical form in place.
        field: The request's field that holds them, for errors.
        taken: The ids of the request's memories so far; theirs are added.

    Raises:
        MipError: INVALID_ARGUMENT with the field at fault.
    """

    def prepare() -> list[Draft]:
        drafts = []
        vectors = take_all_supplied(memories, settings, field)
        for number, memory in enumerate(memories):
            path = f"{field}[{number}]"
            item = draft(mos.types, cube_id, memory, path)
            item.vector = vectors[number]
            if item.id in taken:
                raise invalid_field(f"{path}.name", "is given to two memories of the request", "INVALID_NAME")
            taken.add(item.id)
            drafts.append(item)
        return drafts

    drafts = await off_loop(mos, prepare, memories)
    await embed_missing(mos, settings, drafts)
    return drafts


async def new_versions(txn: Writer, call: Call, cube: CubeRow, drafts: list[Draft]) -> list[NewVersion]:
    """Returns the first versions of new memories, for a commit of the cube.

    Raises:
        MipError: SESSION_NOT_FOUND, SESSION_ENDED, BLOB_NOT_FOUND, PERMISSION_DENIED above the caller's sensitivity.
    """
    await check_references(txn, call, cube, drafts)
    view = call.view(cube.id)
    labels = await inherited_sensitivities(txn, call, cube, [(item.message, item.sensitivity) for item in drafts])
    versions = []
    for item, salt, label in zip(drafts, new_salts(len(drafts)), labels, strict=True):
        require_level(view, label, cube.id, item.id)
        versions.append(
            added(
                CHANGE_KIND_MEMORY_ADDED,
                Kind.MEMORY,
                item.id,
                item.uid,
                seal(item.payload, vector=item.vector, blobs=item.blobs, salt=salt),
                sensitivity=label,
                owner=item.owner or call.principal,
            )
        )
    return versions


def _as_stored(new: NewVersion, row: CommitRow) -> Version:
    """Returns the version as a reader would find it; its handles are never used."""
    assert isinstance(new.content, NewContent)
    return Version(
        item=0,
        kind=Kind.MEMORY,
        id=new.id,
        uid=new.uid,
        from_revision=row.revision,
        to_revision=OPEN,
        state=MEMORY_STATE_ACTIVE,
        sensitivity=new.sensitivity,
        owner=new.owner,
        merged_into="",
        time=row.time,
        create_time=row.time,
        current_state=MEMORY_STATE_ACTIVE,
        current_sensitivity=new.sensitivity,
        current_revision=row.revision,
        content=None,
        commitment=new.content.commitment,
        salt=new.content.salt,
        payload=new.content.payload,
    )
