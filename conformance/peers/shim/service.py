"""MIP's core level in terms of a library. What the library lacks, its port refuses; nothing is made up here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from conformance.peers.shim import contract, fields, filters
from conformance.peers.shim.embedder import DIMENSION, MAX_TOKENS, MODEL
from conformance.peers.shim.errors import Refusal, lacking
from conformance.peers.shim.library import CALLER, Library
from conformance.peers.shim.pages import MAX_PAGE, PAGE_BYTES, page_of

SERVICES = ("mip.v1.ServerService", "mip.v1.CubeService", "mip.v1.MemoryService")
LEVELS = ("core",)
FEATURES = ("search.vector", "search.embedding")
OF_ALL_CUBES = ("CreateCube", "ListCubes", "DeleteCube", "PurgeCube")
"""The RPCs that read or change the set of cubes."""
MAX_RESPONSE_BYTES = 4 * 1024 * 1024
MAX_REQUEST_BYTES = 3 * 1024 * 1024
"""So small that what AddMemories returns always fits: what is added must not be answered with an error."""
_MAX_BULK_MEMORIES, _MAX_BULK_BYTES = 10_000, 64 * 1024 * 1024


class Service:
    """The RPCs that a shim answers, each a method of the RPC's name: request in, response out."""

    def __init__(self, library: Library) -> None:
        """Serves a library."""
        self._library = library

    # ServerService

    def GetCapabilities(self, _: Any) -> Any:
        """Declares the core level, which is the least that a server declares, and what works of search."""
        response = contract.message_class("GetCapabilitiesResponse")(
            protocol_version=contract.PROTOCOL_VERSION,
            server_name=self._library.name,
            server_version=self._library.version,
            services=SERVICES,
            levels=LEVELS,
            features=FEATURES,
            payloads=["plaintext"],
            unknown_fields="UNKNOWN_FIELDS_REFUSED",
            notices=self._library.notices,
        )
        response.embedding_models.add(
            name=MODEL, dimension=DIMENSION, max_tokens=MAX_TOKENS, available=True, is_default=True, runtime="numpy"
        )
        response.limits.max_request_bytes = MAX_REQUEST_BYTES
        response.limits.max_response_bytes = MAX_RESPONSE_BYTES
        response.limits.max_batch_memories = 1000
        response.limits.max_page_size = MAX_PAGE
        response.limits.max_top_k = 1000
        response.limits.max_search_cubes = 100
        response.limits.max_bulk_memories = _MAX_BULK_MEMORIES
        response.limits.max_bulk_bytes = _MAX_BULK_BYTES
        return response

    # CubeService

    def CreateCube(self, request: Any) -> Any:
        """Makes a collection. Settings that the library cannot keep are refused, not dropped."""
        cube = request.cube
        if cube.embedding_model not in ("", MODEL):
            raise lacking(f"all cubes are embedded with {MODEL}", "cube.embedding_model")
        if cube.embedding_dimension not in (0, DIMENSION):
            raise Refusal("DIMENSION_MISMATCH", f"{MODEL} has {DIMENSION} dimensions", "cube.embedding_dimension")
        if cube.plaintext_profile == "tree":
            raise lacking("there is no tree of memories", "cube.plaintext_profile")
        if cube.plaintext_profile not in ("", "general"):
            raise Refusal("INVALID_FIELD", "there is no such profile", "cube.plaintext_profile")
        if cube.labels:
            raise lacking(f"{self._library.name} has no labels of collections", "cube.labels")
        made = _tagged(self._library.create_cube(request.cube_id, cube.display_name))
        return contract.message_class("CreateCubeResponse")(cube=made)

    def GetCube(self, request: Any) -> Any:
        """Returns a collection as a cube."""
        return contract.message_class("GetCubeResponse")(cube=_tagged(self._library.get_cube(_id(request.name))))

    def ListCubes(self, request: Any) -> Any:
        """Returns a page of the collections."""
        page, token = page_of(
            request, 50, [_tagged(cube) for cube in self._library.list_cubes()], lambda cube: cube.name
        )
        return contract.message_class("ListCubesResponse")(cubes=page, next_page_token=token)

    def UpdateCube(self, request: Any) -> Any:
        """Is refused: neither library changes what it keeps of a collection."""
        if not request.cube.name:
            raise Refusal("FIELD_REQUIRED", "cube.name must be set", "cube.name")
        for path in request.update_mask.paths:
            if path not in ("display_name", "labels", "*"):
                raise Refusal("INVALID_MASK", f"{path} cannot be updated", "update_mask")
        _compare(request.cube.etag, self._live(request.cube.name).etag)
        raise lacking(f"{self._library.name} cannot change a collection's settings")

    def DeleteCube(self, request: Any) -> Any:
        """Deletes a collection, where the library keeps what it deletes."""
        _refuse_revision(request)
        _compare(request.etag, self._live(request.name).etag)
        return contract.message_class("DeleteCubeResponse")(cube=_tagged(self._library.delete_cube(_id(request.name))))

    def UndeleteCube(self, request: Any) -> Any:
        """Is refused: neither library restores a collection."""
        self._library.get_cube(_id(request.name))
        raise lacking(f"{self._library.name} cannot restore a collection")

    def PurgeCube(self, request: Any) -> Any:
        """Erases a collection."""
        _refuse_revision(request)
        self._library.get_cube(_id(request.name))
        return contract.message_class("PurgeCubeResponse")(cube=_tagged(self._library.purge_cube(_id(request.name))))

    # MemoryService

    def AddMemories(self, request: Any) -> Any:
        """Adds memories one after the other, without the library's language model."""
        _refuse_revision(request)
        added = self._add(request.parent, request.memories, "memories")
        return contract.message_class("AddMemoriesResponse")(memories=added)

    def BulkAddMemories(self, gathered: tuple[Any, list[Any]]) -> Any:
        """Adds what `gather` returned."""
        header, memories = gathered
        _refuse_revision(header)
        self._add(header.parent, memories, "batch.memories")
        return contract.message_class("BulkAddMemoriesResponse")(memory_count=len(memories))

    def GetMemory(self, request: Any) -> Any:
        """Returns a memory as the library has it now."""
        _refuse_past(request)
        if request.view == contract.enum_number("View", "VIEW_SEALED"):
            raise lacking("there are no sealed bytes", "view")
        memory = self._memory(request.name, vectors=request.include_vectors)
        return contract.message_class("GetMemoryResponse")(memory=memory)

    def BatchGetMemories(self, request: Any) -> Any:
        """Returns several memories."""
        _refuse_past(request)
        memories = self._memories(request.parent, request.names, "names")
        return contract.message_class("BatchGetMemoriesResponse")(memories=memories)

    def ListMemories(self, request: Any) -> Any:
        """Returns a page of a collection, sorted by the times that the library has kept."""
        wanted = filters.parse(request.filter)
        _refuse_past(request)
        self._live(request.parent)
        memories = self._library.list_memories(_id(request.parent), wanted, deleted=request.show_deleted)
        page, token = page_of(request, 50, [_tagged(memory) for memory in memories], lambda memory: memory.uid)
        return contract.message_class("ListMemoriesResponse")(memories=page, next_page_token=token)

    def UpdateMemory(self, request: Any) -> Any:
        """Reads, compares the etag, applies the mask, writes: under one lock, as no library does it at once."""
        _refuse_revision(request)
        wanted = request.memory
        if not wanted.name:
            raise Refusal("FIELD_REQUIRED", "memory.name must be set", "memory.name")
        fields.masked(wanted, wanted, request.update_mask.paths)
        current = self._memory(wanted.name)
        if current.state == contract.enum_number("MemoryState", "MEMORY_STATE_DELETED"):
            raise Refusal("INVALID_TRANSITION", "the memory is deleted", metadata={"state": "DELETED"})
        _compare(wanted.etag, current.etag)
        result = fields.masked(current, wanted, request.update_mask.paths)
        result.ClearField("vectors")
        if not result.plaintext.text:
            raise Refusal("FIELD_REQUIRED", "memory.plaintext.text must be set", "memory.plaintext.text")
        fields.refuse_unsupported(result, "memory")
        updated = self._library.update(_id(wanted.name), result)
        return contract.message_class("UpdateMemoryResponse")(memory=_tagged(updated))

    def TransitionMemories(self, request: Any) -> Any:
        """Moves memories to a state, where the library has one."""
        _refuse_revision(request)
        state = contract.enum_name("MemoryState", request.state).removeprefix("MEMORY_STATE_")
        if state not in ("ACTIVE", "ARCHIVED", "DELETED"):
            raise Refusal("INVALID_FIELD", "memories move to ACTIVE, ARCHIVED or DELETED", "state")
        memories = self._memories(request.parent, request.names, "names")
        for memory in memories:
            if memory.state == request.state:
                raise Refusal("INVALID_TRANSITION", f"the memory is {state}", metadata={"state": state})
        moved = self._library.transition(_id(request.parent), memories, state)
        for memory in moved:
            for name in ("plaintext", "tags", "labels", "attributes_json", "provenance"):
                memory.ClearField(name)
        return contract.message_class("TransitionMemoriesResponse")(memories=moved)

    def MergeMemories(self, request: Any) -> Any:
        """Is refused: without a language model neither library lets one memory absorb another."""
        self._live(request.parent)
        raise lacking(f"{self._library.name} does not merge memories")

    def DeleteMemories(self, request: Any) -> Any:
        """Deletes memories."""
        _refuse_revision(request)
        memories = self._memories(request.parent, request.names, "names")
        if request.etag:
            if len(memories) > 1:
                raise Refusal("CONFLICTING_ARGUMENTS", "an etag goes with one name", "etag")
            _compare(request.etag, memories[0].etag)
        for memory in memories:
            if memory.state == contract.enum_number("MemoryState", "MEMORY_STATE_DELETED"):
                raise Refusal("INVALID_TRANSITION", "the memory is deleted", metadata={"state": "DELETED"})
        self._library.delete(_id(request.parent), memories)
        return contract.message_class("DeleteMemoriesResponse")()

    def PurgeMemories(self, request: Any) -> Any:
        """Erases memories."""
        _refuse_revision(request)
        memories = self._memories(request.parent, request.names, "names")
        self._library.purge(_id(request.parent), memories)
        return contract.message_class("PurgeMemoriesResponse")()

    def SearchMemories(self, request: Any) -> Any:
        """Searches by meaning; without words or vector, returns everything, newest first."""
        response = contract.message_class("SearchMemoriesResponse")()
        wanted = self._search_filter(request)
        top_k = min(request.top_k or 10, 1000)
        found: list[tuple[float, Any]] = []
        for name in request.cubes:
            self._live(name)
        for name in dict.fromkeys(request.cubes):
            if query := _query(request):
                hits = self._library.search(_id(name), query, wanted, top_k)
                found.extend((hit.score, hit.memory) for hit in hits)
            else:
                newest = reversed(self._library.list_memories(_id(name), wanted))
                found.extend((0.0, memory) for memory in newest)
        if not _query(request):
            found.sort(key=lambda hit: hit[1].create_time.ToNanoseconds(), reverse=True)
        found.sort(key=lambda hit: -hit[0])
        size = 0
        for rank, (score, memory) in enumerate(found[:top_k], 1):
            size += memory.ByteSize()
            if size > PAGE_BYTES:
                response.size_limited = True
                break
            hit = response.hits.add(memory=_tagged(memory), score=score)
            if request.explain and _query(request):
                hit.explanation.channels.add(channel="vector", rank=rank, score=score, contribution=score)
        if _query(request) and contract.enum_name("SearchMode", request.mode) != "SEARCH_MODE_VECTOR":
            response.notices.append("Searched by meaning alone: there is no search by words.")
        return response

    # What the methods share

    def _search_filter(self, request: Any) -> filters.Filter:
        wanted = filters.parse(request.filter)
        mode = contract.enum_name("SearchMode", request.mode)
        if mode in ("SEARCH_MODE_LEXICAL", "SEARCH_MODE_GRAPH"):
            raise lacking(f"there is no {mode}", "mode")
        if not mode:
            raise Refusal("INVALID_FIELD", "there is no such mode", "mode")
        if request.as_of_revision or request.HasField("as_of_time"):
            raise lacking("the past cannot be searched", "as_of_revision")
        if request.rerank:
            raise lacking("there is no reranker", "rerank")
        if request.WhichOneof("input") == "query" and not request.query.strip():
            raise Refusal("INVALID_FIELD", "the query has no words", "query")
        if any(condition.field == "state" for condition in filters.conditions(wanted)):
            return wanted
        return filters.Group("all", (filters.Condition("state", "", "=", "ACTIVE"), wanted))

    def _live(self, name: str) -> Any:
        cube = _tagged(self._library.get_cube(_id(name)))
        if cube.state == contract.enum_number("MemoryState", "MEMORY_STATE_DELETED"):
            raise Refusal("CUBE_DELETED", f"the cube {cube.name} is deleted")
        return cube

    def _memory(self, name: str, *, vectors: bool = False) -> Any:
        self._live(name)
        memory = self._library.get(_id(name), name.split("/")[3], vectors=vectors)
        if memory is None:
            raise Refusal("MEMORY_NOT_FOUND", f"there is no memory {name}")
        return _tagged(memory)

    def _memories(self, parent: str, names: Sequence[str], field: str) -> list[Any]:
        for number, name in enumerate(names):
            if not name.startswith(f"{parent}/memories/"):
                raise Refusal("INVALID_NAME", "the name is of another cube", f"{field}[{number}]")
        if len(set(names)) != len(names):
            raise Refusal("INVALID_FIELD", "a name is repeated", field)
        self._live(parent)
        return [self._memory(name) for name in names]

    def _add(self, parent: str, memories: Sequence[Any], field: str) -> list[Any]:
        names = set()
        for number, memory in enumerate(memories):
            path = f"{field}[{number}]"
            if memory.name and not memory.name.startswith(f"{parent}/memories/"):
                raise Refusal("INVALID_NAME", "the name is of another cube", f"{path}.name")
            if memory.name and memory.name in names:
                raise Refusal("INVALID_FIELD", "a name is repeated", f"{path}.name")
            names.add(memory.name)
            fields.refuse_unsupported(memory, path)
        self._live(parent)
        names.discard("")
        # One look at the whole collection is cheaper than many searches for a name.
        everything = filters.Group("all", ())
        whole = self._library.list_memories(_id(parent), everything, deleted=True) if len(names) > 4 else []
        taken = {memory.name for memory in whole}
        for name in names:
            if name in taken or (not whole and self._library.get(_id(parent), name.split("/")[3]) is not None):
                raise Refusal("ALREADY_EXISTS", f"there is a memory {name}")
        for memory in memories:
            memory.owner = memory.owner or CALLER
        return [_tagged(memory) for memory in self._library.add(_id(parent), memories)]


def cubes_of(request: Any) -> list[str]:
    """Returns the ids of the cubes that a request, or what `gather` returned, names, sorted."""
    owners = [request[0] if isinstance(request, tuple) else request]
    owners += [getattr(owners[0], name) for name in ("memory", "cube") if name in owners[0].DESCRIPTOR.fields_by_name]
    names = list(owners[0].cubes) if "cubes" in owners[0].DESCRIPTOR.fields_by_name else []
    for owner in owners:
        names += [getattr(owner, name) for name in ("parent", "name") if name in owner.DESCRIPTOR.fields_by_name]
    return sorted({_id(name) for name in names if name})


def gather(frames: Iterator[Any]) -> tuple[Any, list[Any]]:
    """Returns header and memories of a BulkAddMemories stream.

    Raises:
        Refusal: The frames come in the wrong order, or are too many.
    """
    header, memories, size = None, [], 0
    out_of_order = Refusal("INVALID_STREAM", "the stream is a header, batches, then finish")
    for frame in frames:
        kind = frame.WhichOneof("frame")
        if kind is None or (kind == "header") != (header is None):
            raise out_of_order
        if kind == "header":
            header = frame.header
        elif kind == "batch":
            size += frame.ByteSize()
            memories.extend(frame.batch.memories)
            if size > _MAX_BULK_BYTES:
                raise Refusal("REQUEST_TOO_LARGE", f"a stream may have {_MAX_BULK_BYTES} bytes")
            if len(memories) > _MAX_BULK_MEMORIES:
                raise Refusal("TOO_MANY_ITEMS", f"a stream may have {_MAX_BULK_MEMORIES} memories", "batch.memories")
        elif not frame.finish or not memories or next(frames, None) is not None:
            raise out_of_order
        else:
            return header, memories
    raise out_of_order


def _id(name: str) -> str:
    """Returns the cube's id of a name."""
    return name.split("/")[1]


def _tagged(resource: Any) -> Any:
    resource.etag = fields.etag(resource)
    return resource


def _compare(given: str, current: str) -> None:
    if given and given != current:
        raise Refusal("ETAG_MISMATCH", "the resource has changed")


def _refuse_revision(request: Any) -> None:
    if request.expected_revision:
        raise lacking("cubes have no revisions", "expected_revision")


def _refuse_past(request: Any) -> None:
    if request.as_of_revision:
        raise lacking("the past cannot be read", "as_of_revision")


def _query(request: Any) -> str | list[float] | None:
    kind = request.WhichOneof("input")
    if kind != "vector":
        return str(request.query) if kind else None
    vector = request.vector
    if vector.model not in ("", MODEL):
        raise Refusal("MODEL_MISMATCH", f"the model is {MODEL}", "vector.model")
    wide = contract.enum_name("Dtype", vector.dtype) != "DTYPE_FLOAT16"
    if len(vector.data) != vector.dimension * (4 if wide else 2):
        raise Refusal("INVALID_VECTOR", "the bytes do not fit dtype and dimension", "vector.data")
    numbers = np.frombuffer(vector.data, "<f4" if wide else "<f2").astype(np.float32)
    if not len(numbers) or not np.isfinite(numbers).all() or not numbers.any():
        raise Refusal("INVALID_VECTOR", "the numbers are not finite or all zero", "vector.data")
    if vector.dimension != DIMENSION:
        raise Refusal("DIMENSION_MISMATCH", f"{MODEL} has {DIMENSION} dimensions", "vector.dimension")
    return [float(number) for number in numbers]
