"""UpdateMemory: fields replaced under a mask, as a new version."""

from __future__ import annotations

from functools import partial

from google.protobuf.field_mask_pb2 import FieldMask

from memos_server import names
from memos_server._pb.mip.v1.commit_pb2 import CHANGE_KIND_MEMORY_UPDATED
from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.memory_pb2 import (
    MEMORY_STATE_DELETED,
    MEMORY_STATE_PURGED,
    Memory,
    Plaintext,
)
from memos_server._pb.mip.v1.memory_service_pb2 import UpdateMemoryRequest, UpdateMemoryResponse
from memos_server.errors import FieldViolation, MipError
from memos_server.graph_dbs.base import CubeRow, Kind, NewContent, Reader, Version, Writer
from memos_server.mem_cube.changes import evolve, seal
from memos_server.mem_os.access import require_level
from memos_server.mem_os.context import Call, Mos, existing_cube
from memos_server.mem_os.embedding import embed_missing, take_supplied
from memos_server.mem_os.memories import find, not_found
from memos_server.mem_os.mutation import ChangedMeanwhileError, Outcome, commit, locked_cube, mutate, replayed
from memos_server.mem_os.render import commit_of, etag_of, memory_message, visible_memories
from memos_server.mem_os.sealing import (
    Draft,
    check_references,
    content_bytes,
    draft,
    inherited_sensitivity,
    off_loop,
)
from memos_server.memories.indexed_text import indexed_text, payload_text

_PAYLOADS = ("plaintext", "activation", "parametric", "extension")
_CONTENT = (
    *_PAYLOADS,
    "tags",
    "labels",
    "attributes_json",
    "provenance",
    "valid_from",
    "valid_until",
    "confidence",
    "session",
)
_AROUND = ("sensitivity", "owner", "vectors")
_PLAINTEXT = tuple(f"plaintext.{field.name}" for field in Plaintext.DESCRIPTOR.fields)


def mask_paths(memory: Memory, mask: FieldMask) -> list[str]:
    """Returns the fields to change: those of the mask; for none, the populated ones; for `*`, all of the content.

    Raises:
        MipError: INVALID_MASK.
    """
    if not mask.paths:
        populated = [descriptor.name for descriptor, _ in memory.ListFields()]
        return [path for path in populated if path in _CONTENT or path in _AROUND]
    if list(mask.paths) == ["*"]:
        around = [path for path in _AROUND if getattr(memory, path)]
        return [*_CONTENT, *around]
    for path in mask.paths:
        if path not in _CONTENT and path not in _AROUND and path not in _PLAINTEXT:
            raise MipError(
                "INVALID_MASK",
                f"update_mask names {path!r}, which is no field that can be updated",
                violations=[FieldViolation("update_mask", f"{path!r} cannot be updated")],
            )
    return list(mask.paths)


def apply_mask(target: Memory, source: Memory, paths: list[str]) -> None:
    """Copies fields; an unset one of the source clears the target's."""
    payload = source.WhichOneof("payload")
    for path in paths:
        head, _, rest = path.partition(".")
        if rest:
            # A field of plaintext; another payload would be replaced by the empty rest of it.
            target.plaintext.__setattr__(rest, getattr(source.plaintext, rest))
        elif head in _PAYLOADS:
            if head == payload:
                getattr(target, head).CopyFrom(getattr(source, head))
            elif payload is None or head == target.WhichOneof("payload"):
                target.ClearField(head)
        elif head in ("tags", "labels", "provenance"):
            target.ClearField(head)
            getattr(target, head).extend(getattr(source, head))
        elif head in ("valid_from", "valid_until"):
            target.ClearField(head)
            if source.HasField(head):
                getattr(target, head).CopyFrom(getattr(source, head))
        elif head == "confidence":
            target.ClearField(head)
            if source.HasField(head):
                target.confidence = source.confidence
        elif head in ("attributes_json", "session"):
            setattr(target, head, getattr(source, head))


def updatable(version: Version, name: str) -> None:
    """Refuses a change to what is deleted or purged.

    Raises:
        MipError: INVALID_TRANSITION, MEMORY_PURGED.
    """
    if version.state == MEMORY_STATE_PURGED:
        raise MipError("MEMORY_PURGED", f"{name} is purged", metadata={"revision": str(version.from_revision)})
    if version.state == MEMORY_STATE_DELETED:
        raise MipError(
            "INVALID_TRANSITION", f"{name} is deleted; restore it before changing it", metadata={"state": "DELETED"}
        )


def check_etag(asked: str, version: Version, name: str) -> None:
    """Compares a caller's etag; empty skips the check.

    Raises:
        MipError: ETAG_MISMATCH.
    """
    if asked and asked != etag_of(version):
        raise MipError("ETAG_MISMATCH", f"{name} has changed since", metadata={"etag": etag_of(version)})


async def update_memory(mos: Mos, call: Call, request: UpdateMemoryRequest) -> UpdateMemoryResponse:
    """See MemoryService.UpdateMemory."""
    name = request.memory.name
    cube_id, memory_id = names.parse_memory(name, "memory.name")
    paths = mask_paths(request.memory, request.update_mask)

    async def before(txn: Reader) -> tuple[CubeRow, Version | None]:
        known = await replayed(txn, call, name, request, request.request_id)
        cube = await existing_cube(txn, cube_id, deleted=known is not None)
        return cube, None if known is not None else await find(txn, call, cube, memory_id)

    async def respond(txn: Reader, _: str, revision: int) -> UpdateMemoryResponse:
        cube = await existing_cube(txn, cube_id, deleted=True)
        version = await find(txn, call, cube, memory_id, revision)
        return UpdateMemoryResponse(
            memory=(await visible_memories(txn, call, cube, [version]))[0],
            commit=await commit_of(txn, call, cube, revision),
        )

    while True:
        cube, seen = await mos.read(before, brief=True)
        prepared = await _prepare(mos, cube, seen, request, paths) if seen is not None else None

        async def work(
            txn: Writer, seen: Version | None = seen, prepared: Draft | None = prepared
        ) -> Outcome[UpdateMemoryResponse]:
            cube = await locked_cube(txn, cube_id, request.expected_revision)
            version = (await txn.versions(cube.key, Kind.MEMORY, [memory_id])).get(memory_id)
            if version is None or seen is None or prepared is None or not call.view(cube_id).sees(version):
                raise not_found(cube_id, memory_id, None)
            check_etag(request.memory.etag, version, name)
            updatable(version, name)
            if version.from_revision != seen.from_revision:
                raise ChangedMeanwhileError
            await check_references(txn, call, cube, [prepared], "memory")
            asked = request.memory.sensitivity if "sensitivity" in paths else version.sensitivity
            label = await inherited_sensitivity(txn, call, cube, prepared.message, asked)
            require_level(call.view(cube_id), label, cube_id, memory_id)
            content: NewContent | None = None
            if prepared.payload != version.payload or "vectors" in paths:
                content = seal(prepared.payload, vector=prepared.vector, blobs=prepared.blobs)
            owner = request.memory.owner if "owner" in paths and request.memory.owner else version.owner
            changes = []
            # What sets the values that are there makes no version: its commit says that it was asked for.
            if content is not None or (label, owner) != (version.sensitivity, version.owner):
                new = evolve(
                    version,
                    CHANGE_KIND_MEMORY_UPDATED,
                    sensitivity=label,
                    owner=owner,
                    merged_into=version.merged_into,
                    content=content,
                )
                changes.append(new)
            row = await commit(txn, call, cube, changes, cause=request.cause, request_id=request.request_id)
            return Outcome(name, cube, row.revision)

        try:
            response = await mutate(
                mos, call, resource=name, request=request, request_id=request.request_id, work=work, respond=respond
            )
        except ChangedMeanwhileError:
            # A blind write never conflicts: it is prepared again on what the memory is now.
            continue
        response.index_pending = mos.keeper.broken(cube.uid)
        return response


async def _prepare(mos: Mos, cube: CubeRow, seen: Version, request: UpdateMemoryRequest, paths: list[str]) -> Draft:
    updatable(seen, request.memory.name)
    check_etag(request.memory.etag, seen, request.memory.name)
    settings = CubeContent.FromString(cube.settings.payload)
    merged = memory_message(cube.id, seen)
    # What the server embeds has tags and speakers in it; a caller's vector is of the payload's text.
    text_of = indexed_text if mos.embeddings.runs(settings) else payload_text
    session_before, text_before = merged.session, text_of(mos.types, merged)
    apply_mask(merged, request.memory, paths)
    content_before = content_bytes(memory_message(cube.id, seen))
    merged.ClearField("owner")
    prepare = partial(draft, mos.types, cube.id, merged, "memory", session=session_before)
    item = await off_loop(mos, prepare, [merged])
    if "vectors" in paths:
        item.vector = take_supplied(request.memory, settings, "memory")
    elif text_of(mos.types, merged) == text_before and item.payload != content_before and seen.content is not None:
        item.vector = (await mos.read(lambda txn: txn.vectors([seen.content or 0]))).get(seen.content)
    if item.vector is None and (item.payload != content_before or "vectors" in paths):
        await embed_missing(mos, settings, [item])
    return item
