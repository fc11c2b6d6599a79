"""Vectors of new content: supplied by the caller, kept from the version before, or embedded here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memos_server._pb.mip.v1.cube_pb2 import CubeContent
from memos_server._pb.mip.v1.memory_pb2 import DTYPE_FLOAT32, DTYPE_UNSPECIFIED, Memory, Vector
from memos_server.embedders.base import Embedder
from memos_server.embedders.weights import DIMENSION, MODEL
from memos_server.errors import MipError, invalid_field
from memos_server.mem_os.context import Mos
from memos_server.mem_os.sealing import Draft
from memos_server.memories import rules
from memos_server.telemetry.calls import step

NO_MODEL = "none"

KNOWN_DIMENSIONS = {MODEL: DIMENSION}
"""Dimensions of models that a cube may name without the server having the weights at hand."""


class EmbeddingRunner(Protocol):
    """Runs a model in the background, batching concurrent callers."""

    async def embed(self, texts: Sequence[str]) -> Sequence[NDArray[np.float32]]:
        """Returns one L2-normalised float32 vector a text."""

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """Returns the vector of a query, ahead of bulk work."""

    @property
    def waiting(self) -> int:
        """The number of texts that are not embedded yet."""

    async def probe(self) -> None:
        """Tries whether the model embeds; raises MipError."""

    def forget(self) -> None:
        """Empties the cache of vectors."""


class Embeddings:
    """The server's embedding model, if it has one, as the use cases see it."""

    def __init__(self, model: Embedder | None, runner: EmbeddingRunner, default_model: str, missing: str = "") -> None:
        """Takes the model that runs.

        Args:
            model: The model; None when none runs.
            runner: What runs it; refuses work when there is none.
            default_model: The model of cubes that name none.
            missing: Why no model runs, for people.
        """
        self.model = model
        self.default_model = default_model
        self._runner = runner
        self._missing = missing

    def runs(self, settings: CubeContent) -> bool:
        """Returns whether texts of a cube with these settings can be embedded here.

        A model of the cube's name with another dimension is another model: one vector of it in the cube's index would
        make the whole cube unsearchable.
        """
        model, dimension = settings.embedding_model, settings.embedding_dimension
        return self.model is not None and (self.model.name, self.model.dimension) == (model, dimension)

    def dimension_of(self, name: str) -> int:
        """Returns the dimension of a model that this server knows; 0 for another."""
        if self.model is not None and self.model.name == name:
            return self.model.dimension
        return KNOWN_DIMENSIONS.get(name, 0)

    def notices(self) -> list[str]:
        """Returns what is missing, for GetCapabilities."""
        return [self._missing] if self._missing else []

    async def embed(self, texts: Sequence[str]) -> Sequence[NDArray[np.float32]]:
        """Returns one L2-normalised float32 vector a text."""
        with step("embed"):
            return await self._runner.embed(texts)

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """Returns the vector of a query."""
        with step("embed"):
            return await self._runner.embed_query(text)

    @property
    def waiting(self) -> int:
        """The number of texts that are not embedded yet."""
        return self._runner.waiting

    async def probe(self) -> None:
        """Tries whether the model embeds; raises MipError."""
        if self.model is None:
            raise MipError("EMBEDDER_UNAVAILABLE", self._missing or "no embedding model runs here")
        await self._runner.probe()

    def forget(self) -> None:
        """Empties the cache, which may hold vectors of purged texts."""
        self._runner.forget()


def take_supplied(memory: Memory, settings: CubeContent, field: str) -> bytes | None:
    """Returns the vector that came with a memory, as float32 little-endian, L2-normalised; None when none came.

    Raises:
        MipError: MODEL_MISMATCH, DIMENSION_MISMATCH, INVALID_VECTOR.
    """
    if not memory.vectors:
        return None
    if len(memory.vectors) > 1:
        raise invalid_field(
            f"{field}.vectors", f"a cube has one embedding model, {len(memory.vectors)} vectors came", "MODEL_MISMATCH"
        )
    return checked(memory.vectors[0], settings, f"{field}.vectors[0]").tobytes()


def take_all_supplied(memories: Sequence[Memory], settings: CubeContent, field: str) -> list[bytes | None]:
    """Returns what `take_supplied` returns of each memory, at a tenth of its cost where the vectors are alike.

    Args:
        memories: The memories as they came.
        settings: The cube's settings.
        field: The request's field that holds them, for errors.
    """
    given = [memory.vectors[0] for memory in memories if len(memory.vectors) == 1]
    dimension, model = settings.embedding_dimension, settings.embedding_model
    alike = all(
        vector.dimension == dimension
        and len(vector.data) == 4 * dimension
        and vector.dtype in (DTYPE_UNSPECIFIED, DTYPE_FLOAT32)
        and (not vector.model or vector.model == model)
        for vector in given
    )
    if dimension and alike and len(given) == len(memories):
        elements = np.frombuffer(b"".join(vector.data for vector in given), "<f4").reshape(-1, dimension)
        with np.errstate(all="ignore"):
            wide = elements.astype(np.float64)
            lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
            unit = (wide / lengths[:, np.newaxis]).astype("<f4")
        if np.isfinite(lengths).all() and lengths.all():
            return [row.tobytes() for row in unit]
    # Something is missing or wrong, and the error names it.
    return [take_supplied(memory, settings, f"{field}[{number}]") for number, memory in enumerate(memories)]


def checked(vector: Vector, settings: CubeContent, field: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Returns a caller's vector as float32 of shape (dimension,), L2-normalised."""
    if settings.embedding_model == NO_MODEL:
        raise invalid_field(field, "the cube has no embedding model", "MODEL_MISMATCH")
    if vector.model and vector.model != settings.embedding_model:
        error = invalid_field(f"{field}.model", f"the cube's model is {settings.embedding_model}", "MODEL_MISMATCH")
        error.metadata["embedding_model"] = settings.embedding_model
        raise error
    return rules.decode_vector(vector, field, settings.embedding_dimension or None)


async def embed_missing(mos: Mos, settings: CubeContent, drafts: Sequence[Draft]) -> None:
    """Embeds the drafts that have text and no vector, when the server runs the cube's model."""
    if not mos.embeddings.runs(settings):
        return
    waiting = [item for item in drafts if item.vector is None and item.text]
    if not waiting:
        return
    vectors = await mos.embeddings.embed([item.text for item in waiting])
    for item, vector in zip(waiting, vectors, strict=True):
        item.vector = np.ascontiguousarray(vector, dtype="<f4").tobytes()
