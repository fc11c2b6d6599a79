"""From a memory as it came to the content that is sealed: checked, put in canonical form, serialized once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from uuid_utils import uuid7

from memos_server import names
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_INTERNAL
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE, PROVENANCE_KIND_MEMORY, Memory
from memos_server._pb.mip.v1.options_pb2 import FORMAT_MEMORY_NAME
from memos_server.errors import MipError, invalid_field
from memos_server.graph_dbs.base import CubeRow, Kind, Reader
from memos_server.mem_os.blob_access import known_blobs
from memos_server.mem_os.context import Call, Mos
from memos_server.memories import rules
from memos_server.memories.indexed_text import indexed_text
from memos_server.memories.registry import MemoryTypes

T = TypeVar("T")

_INLINE = 8
_INLINE_CHARACTERS = 2000
"""Up to so many memories, of so many characters each, are checked on the event loop; more would hold it for longer than
a millisecond."""
_SOURCES = 200
"""How many memories that others derive from are looked up at once."""
_ENVELOPE = [field.name for field in Memory.DESCRIPTOR.fields if field.number >= 32]


@dataclass(slots=True)
class Draft:
    """A memory that is ready to be stored.

    Attributes:
        id: The last part of its name.
        uid: Its uid.
        message: The memory, content in canonical form.
        payload: The sealed bytes.
        text: What of it is embedded; empty when nothing is.
        vector: float32 little-endian; None while it is not embedded.
        blobs: The digests of the blobs that it names.
        sensitivity: The Sensitivity number that was asked for, 0 for none.
        owner: The owner that was asked for; empty for the caller.
        session: The session that it is put into; empty for none and for the one that it is in already.
    """

    id: str
    uid: str
    message: Memory
    payload: bytes
    text: str
    vector: bytes | None
    blobs: tuple[str, ...]
    sensitivity: int
    owner: str
    session: str


def draft(types: MemoryTypes, cube_id: str, memory: Memory, field: str, *, session: str = "") -> Draft:
    """Checks a memory and serializes its content. CPU-bound.

    Args:
        types: The memory types.
        cube_id: The cube that it goes into.
        memory: The memory as it came; its content is brought into canonical form in place.
        field: Its path in the request, for errors.
        session: The session that the memory has already, which in a fork lies in the source; it may stay.

    Raises:
        MipError: INVALID_ARGUMENT with the field at fault.
    """
    uid = str(uuid7())
    id_ = uid
    if memory.name:
        owner_cube, id_ = names.parse_memory(memory.name, f"{field}.name")
        if owner_cube != cube_id:
            raise invalid_field(f"{field}.name", f"must lie in {names.cube_name(cube_id)}", "INVALID_NAME")
    new_session = memory.session if memory.session != session else ""
    if new_session and names.parse_session(memory.session, f"{field}.session")[0] != cube_id:
        raise invalid_field(f"{field}.session", f"must lie in {names.cube_name(cube_id)}", "INVALID_NAME")
    kind = types.for_memory(memory, field)
    kind.validate(memory, field)
    rules.normalise(memory, field)
    return Draft(
        id=id_,
        uid=uid,
        message=memory,
        payload=content_bytes(memory),
        text=indexed_text(types, memory),
        vector=None,
        blobs=tuple(blob.digest for blob in kind.blobs(memory)),
        sensitivity=memory.sensitivity,
        owner=memory.owner,
        session=new_session,
    )


async def off_loop(mos: Mos, prepare: Callable[[], T], memories: Sequence[Memory]) -> T:
    """Runs work on memories where it holds up no other call: on the loop only when it is a matter of microseconds."""
    small = len(memories) <= _INLINE and all(
        len(memory.plaintext.text)
        + len(memory.attributes_json)
        + len(memory.extension.data)
        + len(memory.extension.text)
        <= _INLINE_CHARACTERS
        for memory in memories
    )
    return prepare() if small else await asyncio.get_running_loop().run_in_executor(mos.cpu, prepare)


def content_bytes(memory: Memory) -> bytes:
    """Returns the sealed bytes: the memory without the fields around its content, unknown fields kept."""
    content = Memory()
    content.CopyFrom(memory)
    for name in _ENVELOPE:
        content.ClearField(name)
    return content.SerializeToString(deterministic=True)


async def check_references(
    txn: Reader, call: Call, cube: CubeRow, drafts: list[Draft], field: str = "memories"
) -> None:
    """Checks that sessions are open and blobs present.

    Raises:
        MipError: SESSION_NOT_FOUND, SESSION_ENDED, BLOB_NOT_FOUND.
    """
    for number, item in enumerate(drafts):
        session = item.session
        if not session:
            continue
        id_ = session.rpartition("/")[2]
        version = (await txn.versions(cube.key, Kind.SESSION, [id_])).get(id_)
        if version is None:
            raise MipError("SESSION_NOT_FOUND", f"{field}[{number}].session: {session} does not exist")
        if version.state != MEMORY_STATE_ACTIVE:
            raise MipError("SESSION_ENDED", f"{field}[{number}].session: {session} has ended")
    digests = {digest for item in drafts for digest in item.blobs}
    missing = sorted(digests - set(await known_blobs(txn, call, cube, digests))) if digests else []
    if missing:
        raise MipError("BLOB_NOT_FOUND", f"{names.cube_name(cube.id)} does not hold the blob {missing[0]}")


async def inherited_sensitivity(txn: Reader, call: Call, cube: CubeRow, memory: Memory, asked: int) -> int:
    """Returns the label of a new version: what was asked for, but at least that of every memory that it derives from;
    SENSITIVITY_INTERNAL when nothing was asked for."""
    return (await inherited_sensitivities(txn, call, cube, [(memory, asked)]))[0]


async def inherited_sensitivities(
    txn: Reader, call: Call, cube: CubeRow, memories: Sequence[tuple[Memory, int]]
) -> list[int]:
    """Returns the labels of new versions, as `inherited_sensitivity` does of one; each source is looked up once.

    Args:
        txn: The transaction.
        call: Who asks.
        cube: The cube of the memories.
        memories: Each with the label that was asked for, 0 for none.
    """
    sources = [_sources(memory) for memory, _ in memories]
    known = await _labels(txn, call, cube, {source for each in sources for source in each})
    return [
        max(asked or SENSITIVITY_INTERNAL, *(known.get(source, 0) for source in each), 0)
        for (_, asked), each in zip(memories, sources, strict=True)
    ]


def _sources(memory: Memory) -> set[tuple[str, str]]:
    """Returns the (cube, id) of the memories that a memory derives from."""
    return {
        names.parse_memory(item.source)
        for item in memory.provenance
        if item.kind == PROVENANCE_KIND_MEMORY and names.matches(FORMAT_MEMORY_NAME, item.source)
    }


async def _labels(txn: Reader, call: Call, cube: CubeRow, sources: Set[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Returns the labels of those memories that the caller sees. What the caller cannot see, it cannot derive from; a
    label that rose for it would tell of it."""
    by_cube: dict[str, list[str]] = {}
    for cube_id, memory_id in sorted(sources):
        by_cube.setdefault(cube_id, []).append(memory_id)
    found: dict[tuple[str, str], int] = {}
    for cube_id, ids in by_cube.items():
        row = cube if cube_id == cube.id else await txn.cube(cube_id)
        if row is None:
            continue
        view = call.view(cube_id)
        # In steps, as what is found comes with its content.
        for start in range(0, len(ids), _SOURCES):
            versions = await txn.versions(row.key, Kind.MEMORY, ids[start : start + _SOURCES])
            found.update(((cube_id, id_), each.sensitivity) for id_, each in versions.items() if view.sees(each))
    return found
