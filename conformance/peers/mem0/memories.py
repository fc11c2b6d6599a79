"""mem0 in MIP's terms: a cube is a `Memory` with a collection and a history database of its own."""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

from conformance.peers.mem0 import embedding
from conformance.peers.mem0.filtering import mem0_filters
from conformance.peers.shim import contract, fields
from conformance.peers.shim.embedder import DIMENSION, MODEL
from conformance.peers.shim.errors import Refusal, lacking
from conformance.peers.shim.filters import Filter
from conformance.peers.shim.library import Found, Library, cube_not_found, new_id
from mem0 import Memory
from mem0.utils.factory import EmbedderFactory

_ALL = 1_000_000
"""More memories than a collection has: `get_all` returns 20 unless told how many."""
_ID, _OWNER = "mip_id", "owner"
"""Keys of the metadata: the id that a caller chose, since mem0 makes its own, and the owner."""


class Mem0(Library):
    """The library `mem0ai`, on local storage."""

    name = "mem0"
    notices = (
        "mem0 with infer=False: no language model, no extraction, no merging.",
        "request_id is ignored: a repeated call takes effect again.",
        "There is no log: responses carry no commit, memories no revision.",
        "Deleting a memory erases its metadata; its text stays in the history and cannot be purged.",
        "All texts are embedded as they are; search is by meaning alone.",
    )

    def __init__(self, folder: Path) -> None:
        """Opens an empty store in a folder."""
        self.version = importlib.metadata.version("mem0ai")
        self._folder = folder
        # mem0's own class for this provider imports sentence-transformers, and with it torch.
        EmbedderFactory.provider_to_class["huggingface"] = embedding.CLASS_PATH
        self._client = QdrantClient(path=str(folder / "qdrant"))
        self._cubes: dict[str, Any] = {}

    # Cubes

    def create_cube(self, cube: str, display_name: str) -> Any:
        """Makes a collection. mem0 keeps nothing of it but its name."""
        if display_name:
            raise lacking("mem0 has no names of collections for people", "cube.display_name")
        cube = cube or new_id()
        if self._client.collection_exists(cube):
            raise Refusal("ALREADY_EXISTS", f"there is a cube {cube}")
        vectors = {"collection_name": cube, "embedding_model_dims": DIMENSION, "client": self._client}
        self._cubes[cube] = Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": vectors},
                "embedder": {"provider": "huggingface", "config": {"model": MODEL}},
                # A language model must be configured; it is never called.
                "llm": {"provider": "openai", "config": {"api_key": "unused"}},
                "history_db_path": str(self._folder / f"{cube}.history.db"),
            }
        )
        return self.get_cube(cube)

    def get_cube(self, cube: str) -> Any:
        """Returns a collection as a cube."""
        if not self._client.collection_exists(cube):
            raise cube_not_found(cube)
        return contract.message_class("Cube")(
            name=f"cubes/{cube}",
            embedding_model=MODEL,
            embedding_dimension=DIMENSION,
            plaintext_profile="general",
            state="MEMORY_STATE_ACTIVE",
        )

    def list_cubes(self) -> list[Any]:
        """Returns the collections."""
        return [self.get_cube(collection.name) for collection in self._client.get_collections().collections]

    def purge_cube(self, cube: str) -> Any:
        """Drops collection and history. mem0 remembers nothing of them: the cube is unknown from then on."""
        memory = self._cubes.pop(cube)
        memory.reset()
        memory.vector_store.delete_col()
        memory.close()
        return contract.message_class("Cube")(name=f"cubes/{cube}", state="MEMORY_STATE_PURGED")

    # Memories

    def add(self, cube: str, memories: Sequence[Any]) -> list[Any]:
        """Adds one after the other: mem0 has no transaction."""
        library = self._cubes[cube]
        added = []
        for memory in memories:
            metadata = {_ID: memory.name.rpartition("/")[2], _OWNER: memory.owner, **fields.plain(memory)}
            message = {"role": "user", "content": memory.plaintext.text}
            result = library.add([message], user_id=cube, metadata=metadata, infer=False)
            added.append(_memory(cube, library.get(result["results"][0]["id"])))
        return added

    def get(self, cube: str, memory: str, *, vectors: bool = False) -> Any:
        """Finds a memory by the id in its metadata, or by mem0's own. `get` returns no vectors."""
        library = self._cubes[cube]
        named = library.get_all(filters={"user_id": cube, _ID: memory}, top_k=1, show_expired=True)["results"]
        if named:
            return _memory(cube, named[0])
        if not _is_uuid(memory):
            return None
        item = library.get(memory)
        if item is not None:
            return None if item["metadata"][_ID] else _memory(cube, item)
        history = library.history(memory)
        return _deleted(cube, memory, history) if history and history[-1]["is_deleted"] else None

    def list_memories(self, cube: str, wanted: Filter, *, deleted: bool = False) -> list[Any]:
        """Returns what is not deleted: mem0 lists no deleted memories."""
        items = self._cubes[cube].get_all(filters=mem0_filters(cube, wanted), top_k=_ALL, show_expired=True)["results"]
        return [_memory(cube, item) for item in sorted(items, key=lambda item: (item["created_at"], item["id"]))]

    def update(self, cube: str, memory: Any) -> Any:
        """Replaces text and metadata."""
        metadata = {_OWNER: memory.owner, **fields.plain(memory)}
        self._cubes[cube].update(memory.uid, text=memory.plaintext.text, metadata=metadata)
        return _memory(cube, self._cubes[cube].get(memory.uid))

    def delete(self, cube: str, memories: Sequence[Any]) -> None:
        """Deletes one after the other, for good but for the text in the history."""
        for memory in memories:
            self._cubes[cube].delete(memory.uid)

    def search(self, cube: str, query: str | Sequence[float], wanted: Filter, top_k: int) -> list[Found]:
        """Searches by meaning; mem0 leaves out what has a cosine below 0."""
        found = mem0_filters(cube, wanted)
        library = self._cubes[cube]
        if isinstance(query, str):
            hits = library.search(query, top_k=top_k, filters=found, threshold=0.0, show_expired=True)["results"]
            return [Found(_memory(cube, hit), hit["score"]) for hit in hits]
        # `Memory.search` takes words only; the store below it takes vectors. Its hits have ids, `Memory.get` the rest.
        points = library.vector_store.search(query="", vectors=list(query), top_k=top_k, filters=found)
        return [Found(_memory(cube, library.get(point.id)), point.score) for point in points]


def _memory(cube: str, item: dict[str, Any]) -> Any:
    """Returns what `get`, `get_all` and `search` return as a memory."""
    metadata = item["metadata"]
    memory = contract.message_class("Memory")(
        name=f"cubes/{cube}/memories/{metadata[_ID] or item['id']}",
        uid=item["id"],
        owner=metadata[_OWNER],
        state="MEMORY_STATE_ACTIVE",
    )
    fields.fill(memory, item["memory"], metadata)
    fields.set_time(memory.create_time, item["created_at"])
    fields.set_time(memory.update_time, item["updated_at"])
    return memory


def _deleted(cube: str, memory: str, history: Sequence[dict[str, Any]]) -> Any:
    """Returns what the history still has of a deleted memory: its text and its times."""
    last = history[-1]
    found = contract.message_class("Memory")(
        name=f"cubes/{cube}/memories/{memory}", uid=memory, state="MEMORY_STATE_DELETED"
    )
    found.plaintext.text = last["old_memory"]
    fields.set_time(found.create_time, last["created_at"])
    fields.set_time(found.update_time, last["updated_at"])
    return found


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
