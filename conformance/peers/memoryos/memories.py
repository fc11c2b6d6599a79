"""MemOS in MIP's terms: a cube is a `GeneralMemCube` with `general_text` memory, registered with its `UserManager`.

`general_text` is the one textual memory of MemOS that has vectors and needs neither a database server nor a language
model to add to it.
"""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from memos.configs.mem_cube import GeneralMemCubeConfig
from memos.embedders.factory import EmbedderFactory
from memos.mem_cube.general import GeneralMemCube
from memos.mem_user.user_manager import UserManager
from memos.memories.textual.item import TextualMemoryItem, TextualMemoryMetadata

from conformance.peers.memoryos.embedding import MiniLmEmbedder
from conformance.peers.shim import contract, fields
from conformance.peers.shim.embedder import DIMENSION, MODEL
from conformance.peers.shim.errors import Refusal, lacking
from conformance.peers.shim.filters import Condition, Filter, Group
from conformance.peers.shim.library import CALLER, Found, Library, cube_not_found, new_id, now

_USER = "admin"
_COLLECTION = "text_mem"
_STATUSES = {"ACTIVE": "activated", "ARCHIVED": "archived", "DELETED": "deleted"}
_STATES = {"activated": "ACTIVE", "resolving": "ACTIVE", "archived": "ARCHIVED", "deleted": "DELETED"}
_NATIVE = {"tags": "tags", "kind": "type", "attributes": "info"}
"""MIP's fields that MemOS has, in the same form. The others are extra fields, which its metadata permits."""
_ID = "mip_id"


class MemOs(Library):
    """The library `MemoryOS`, on local storage."""

    name = "MemOS"
    notices = (
        "MemOS with general_text memory: no language model, no extraction, no merging, no scheduler, no tree.",
        "request_id is ignored: a repeated call takes effect again.",
        "There is no log: responses carry no commit, memories no revision.",
        "Purging leaves no trace: the id of a purged memory is unknown.",
        "All texts are embedded as they are; search is by meaning alone.",
    )

    def __init__(self, folder: Path) -> None:
        """Opens an empty store in a folder."""
        self.version = importlib.metadata.version("MemoryOS")
        self._folder = folder
        # MemOS's own class for this backend imports sentence-transformers, and with it torch.
        EmbedderFactory.backend_to_class["sentence_transformer"] = MiniLmEmbedder
        self._users = UserManager(str(folder / "users.db"), user_id=_USER)
        self._cubes: dict[str, GeneralMemCube] = {}

    # Cubes

    def create_cube(self, cube: str, display_name: str) -> Any:
        """Makes a cube and registers it."""
        cube = cube or new_id()
        if self._users.get_cube(cube) is not None:
            raise Refusal("ALREADY_EXISTS", f"there is a cube {cube}")
        path = self._folder / "cubes" / cube
        path.mkdir(parents=True)
        self._cubes[cube] = GeneralMemCube(_config(cube, path))
        self._users.create_cube(cube_name=display_name, owner_id=_USER, cube_path=str(path), cube_id=cube)
        return self.get_cube(cube)

    def get_cube(self, cube: str) -> Any:
        """Returns what the UserManager has of a cube, inactive ones as deleted."""
        row = self._users.get_cube(cube)
        if row is None:
            raise cube_not_found(cube)
        return _cube(row)

    def list_cubes(self) -> list[Any]:
        """Returns the active cubes: MemOS lists no others."""
        return [_cube(row) for row in reversed(self._users.get_user_cubes(_USER))]

    def delete_cube(self, cube: str) -> Any:
        """Makes a cube inactive."""
        self._users.delete_cube(cube)
        return self.get_cube(cube)

    def purge_cube(self, cube: str) -> Any:
        """Drops the collection and makes the cube inactive: MemOS knows no purged cubes."""
        self._cubes[cube].text_mem.delete_all()
        self._users.delete_cube(cube)
        return self.get_cube(cube)

    # Memories

    def add(self, cube: str, memories: Sequence[Any]) -> list[Any]:
        """Adds all of them in one call."""
        items = [_item(memory, new_id(), "ACTIVE") for memory in memories]
        text = self._cubes[cube].text_mem
        text.add(items)
        stored = {item.id: item for item in text.get_by_ids([item.id for item in items])}
        return [_memory(cube, stored[item.id]) for item in items]

    def get(self, cube: str, memory: str, *, vectors: bool = False) -> Any:
        """Finds a memory by the id in its metadata, or by MemOS's own."""
        store = self._cubes[cube].text_mem.vector_db
        rows = store.get_by_filter({f"metadata.{_ID}": memory})
        if not rows and _is_uuid(memory):
            rows = [row for row in [store.get_by_id(memory)] if row and not row.payload["metadata"][_ID]]
        if not rows:
            return None
        found = _memory(cube, TextualMemoryItem(**rows[0].payload))
        if vectors:
            found.vectors.append(_vector(rows[0].vector))
        return found

    def list_memories(self, cube: str, wanted: Filter, *, deleted: bool = False) -> list[Any]:
        """Returns the memories that the store's filter passes."""
        found = _filters(wanted)
        if found is None:
            return []
        rows = self._cubes[cube].text_mem.vector_db.get_by_filter(found)
        items = sorted((TextualMemoryItem(**row.payload) for row in rows), key=lambda item: item.metadata.created_at)
        return [_memory(cube, item) for item in items if deleted or item.metadata.status != "deleted"]

    def update(self, cube: str, memory: Any) -> Any:
        """Replaces an item."""
        return self._replace(cube, memory, contract.enum_name("MemoryState", memory.state))

    def delete(self, cube: str, memories: Sequence[Any]) -> None:
        """Gives items the status `deleted`, one after the other; `text_mem.delete` would erase them."""
        self.transition(cube, memories, "DELETED")

    def transition(self, cube: str, memories: Sequence[Any], state: str) -> list[Any]:
        """Gives items a status, one after the other."""
        return [self._replace(cube, memory, state) for memory in memories]

    def purge(self, cube: str, memories: Sequence[Any]) -> None:
        """Erases items."""
        self._cubes[cube].text_mem.delete([memory.uid for memory in memories])

    def search(self, cube: str, query: str | Sequence[float], wanted: Filter, top_k: int) -> list[Found]:
        """Does what `text_mem.search` does, which takes no filter and drops the scores, one layer below it."""
        found = _filters(wanted)
        if found is None:
            return []
        text = self._cubes[cube].text_mem
        vector = text.embedder.embed([query])[0] if isinstance(query, str) else list(query)
        hits = text.vector_db.search(vector, top_k, filter=found)
        return [Found(_memory(cube, TextualMemoryItem(**hit.payload)), hit.score) for hit in hits]

    def _replace(self, cube: str, memory: Any, state: str) -> Any:
        text = self._cubes[cube].text_mem
        before = text.get(memory.uid)
        item = _item(memory, memory.uid, state.removeprefix("MEMORY_STATE_"))
        item.metadata.created_at = before.metadata.created_at
        item.metadata.mip_id = before.metadata.mip_id
        text.update(memory.uid, item)
        return _memory(cube, text.get(memory.uid))


def _config(cube: str, path: Path) -> GeneralMemCubeConfig:
    store = {"collection_name": _COLLECTION, "vector_dimension": DIMENSION, "distance_metric": "cosine"}
    return GeneralMemCubeConfig(
        user_id=_USER,
        cube_id=cube,
        text_mem={
            "backend": "general_text",
            "config": {
                # A language model must be configured; it is never called.
                "extractor_llm": {"backend": "openai", "config": {"model_name_or_path": "none", "api_key": "unused"}},
                "vector_db": {"backend": "qdrant", "config": {**store, "path": str(path / "qdrant")}},
                "embedder": {"backend": "sentence_transformer", "config": {"model_name_or_path": MODEL}},
            },
        },
    )


def _cube(row: Any) -> Any:
    cube = contract.message_class("Cube")(
        name=f"cubes/{row.cube_id}",
        display_name=row.cube_name,
        owner=f"principals/{row.owner_id}",
        embedding_model=MODEL,
        embedding_dimension=DIMENSION,
        plaintext_profile="general",
        state="MEMORY_STATE_ACTIVE" if row.is_active else "MEMORY_STATE_DELETED",
    )
    for field, moment in ((cube.create_time, row.created_at), (cube.update_time, row.updated_at)):
        fields.set_time(field, moment.isoformat())
    return cube


def _item(memory: Any, uid: str, state: str) -> TextualMemoryItem:
    values = fields.plain(memory)
    moment = now()
    confidence = values.pop("confidence")
    native = {name: values.pop(field) for field, name in _NATIVE.items()}
    metadata = TextualMemoryMetadata(
        user_id=memory.owner.removeprefix("principals/"),
        status=_STATUSES[state],
        # MemOS counts confidence from 0 to 100.
        confidence=None if confidence is None else confidence * 100,
        updated_at=moment,
        created_at=moment,
        **{_ID: memory.name.rpartition("/")[2]},
        **native,
        **values,
    )
    return TextualMemoryItem(id=uid, memory=memory.plaintext.text, metadata=metadata)


def _memory(cube: str, item: TextualMemoryItem) -> Any:
    values = item.metadata.model_dump()
    for field, name in _NATIVE.items():
        values[field] = values[name]
    if values["confidence"] is not None:
        values["confidence"] /= 100
    memory = contract.message_class("Memory")(
        name=f"cubes/{cube}/memories/{values[_ID] or item.id}",
        uid=item.id,
        owner=f"principals/{values['user_id']}" if values["user_id"] else CALLER,
        state=f"MEMORY_STATE_{_STATES[values['status']]}",
    )
    fields.fill(memory, item.memory, values)
    fields.set_time(memory.create_time, values["created_at"])
    fields.set_time(memory.update_time, values["updated_at"])
    return memory


def _vector(numbers: Sequence[float]) -> Any:
    data = np.array(numbers, "<f4").tobytes()
    return contract.message_class("Vector")(model=MODEL, dtype="DTYPE_FLOAT32", dimension=len(numbers), data=data)


def _filters(wanted: Filter) -> dict[str, Any] | None:
    """Returns the store's filter, exact matches that all hold; None where nothing can pass it."""
    if isinstance(wanted, Group):
        if wanted.kind != "all":
            raise lacking("MemOS has neither OR nor NOT in filters", "filter")
        found: dict[str, Any] = {}
        for part in wanted.parts:
            more = _filters(part)
            if more is None:
                return None
            if more.keys() & found.keys():
                raise lacking("MemOS takes one condition on a field", "filter")
            found |= more
        return found
    return _exact_match(wanted)


def _exact_match(condition: Condition) -> dict[str, Any] | None:
    field, value = condition.field, condition.value
    if condition.operator not in ("=", ":") or value is None or isinstance(value, float):
        raise lacking("MemOS has exact matches of words and whole numbers alone", "filter")
    if field == "state":
        return {"metadata.status": _STATUSES[str(value)]} if value in _STATUSES else None
    if field == "owner":
        return {"metadata.user_id": str(value).removeprefix("principals/")}
    if field == "sensitivity":
        return {"metadata.sensitivity": f"SENSITIVITY_{value}"}
    if field == "payload":
        return {} if value == "plaintext" else None
    if field == "session":
        return None
    if field not in ("tags", "kind", "language", "media_type", "labels", "attributes") or (
        field == "labels" and not condition.key
    ):
        raise lacking(f"MemOS has no exact match of {field}", "filter")
    key = f"metadata.{_NATIVE.get(field, field)}"
    return {f"{key}.{condition.key}" if condition.key else key: value}


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
