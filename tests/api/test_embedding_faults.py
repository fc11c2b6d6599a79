"""What a faulty embedding model returns never gets into a cube, where one such vector would make it unsearchable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_VECTOR
from memos_server.embedders.service import EmbeddingService
from tests.conftest import World
from tests.support.mip import Cube, Mip, RpcError, Vector, text

TEA = Vector(data=np.array([1, 0, 0, 0], "<f4").tobytes(), dimension=4)


class Faulty:
    """An embedder that has no number for a text with `hole`."""

    name, max_tokens, runtime = "faulty", 128, "test"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        holes = np.array(["hole" in each for each in texts])[:, np.newaxis]
        return np.where(holes, np.nan, self.dimension**-0.5).repeat(self.dimension, axis=1).astype(np.float32)

    def close(self) -> None:
        pass


@pytest.fixture
async def cube(mip: Mip) -> str:
    """A cube of the model `faulty` with dimension 4, and a memory whose vector its caller supplied."""
    made = await mip.CreateCube(cube_id="c", cube=Cube(embedding_model="faulty", embedding_dimension=4))
    await mip.AddMemories(parent="cubes/c", memories=[text("tea", vectors=[TEA])])
    return str(made.cube.name)


@pytest.fixture(params=[4, 8])
async def dimension(world: World, request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """The dimension of the model that the server runs now."""
    embeddings, model = world.server.mos.embeddings, Faulty(request.param)
    service = embeddings._runner = EmbeddingService(model)
    embeddings.model = model
    yield request.param
    await service.close()


async def searchable(mip: Mip, cube: str) -> list[str]:
    found = await mip.SearchMemories(cubes=[cube], vector=TEA, mode=SEARCH_MODE_VECTOR)
    assert not found.stale
    assert not found.unreachable
    return [hit.memory.plaintext.text for hit in found.hits]


@pytest.mark.parametrize("dimension", [4], indirect=True)
async def test_a_vector_that_is_not_finite_is_refused_and_the_cube_stays_searchable(
    mip: Mip, cube: str, dimension: int
) -> None:
    for call in (
        mip.AddMemories(parent=cube, memories=[text("a hole")]),
        mip.SearchMemories(cubes=[cube], query="a hole"),
    ):
        with pytest.raises(RpcError, match="UNAVAILABLE/BACKEND_UNAVAILABLE: the model returns no vector"):
            await call
    await mip.AddMemories(parent=cube, memories=[text("coffee")])
    assert sorted(await searchable(mip, cube)) == ["coffee", "tea"]


@pytest.mark.parametrize("dimension", [8], indirect=True)
async def test_a_model_of_another_dimension_does_not_run_for_the_cube(mip: Mip, cube: str, dimension: int) -> None:
    await mip.AddMemories(parent=cube, memories=[text("coffee")])
    assert await searchable(mip, cube) == ["tea"]
    found = await mip.SearchMemories(cubes=[cube], query="coffee")
    assert [hit.memory.plaintext.text for hit in found.hits] == ["coffee"]
    assert list(found.notices) == [f"searched by words alone, as no embedding model runs here for: {cube}"]
    with pytest.raises(RpcError, match="EMBEDDER_UNAVAILABLE"):
        await mip.SearchMemories(cubes=[cube], query="coffee", mode=SEARCH_MODE_VECTOR)
