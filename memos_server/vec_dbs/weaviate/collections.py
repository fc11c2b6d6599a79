"""Makes the collections where they are missing, and deletes them."""

from __future__ import annotations

import asyncio
from typing import Any

from weaviate import WeaviateAsyncClient
from weaviate.exceptions import UnexpectedStatusCodeError

from memos_server.vec_dbs.weaviate import schema
from memos_server.vec_dbs.weaviate.connection import Connection


class Collections:
    """The collections of one version of the index.

    Weaviate makes a collection by itself when it is written to and is not there, with a schema that it guesses; so
    everything that writes finds out first whether it is.
    """

    def __init__(self, connection: Connection, stem: str, k1: float, b: float) -> None:
        """Names them."""
        self._connection = connection
        self._stem = stem
        self._bm25 = (k1, b)
        self._lock = asyncio.Lock()

    @property
    def heads(self) -> str:
        """The collection of heads."""
        return schema.heads_name(self._stem)

    def memories(self, dimension: int) -> str:
        """The collection of the cubes whose vectors have a dimension."""
        return schema.memories_name(self._stem, dimension)

    async def make_heads(self) -> None:
        """Makes the collection of heads unless it is there."""
        await self._make(schema.heads(self.heads))

    async def make_memories(self, dimension: int) -> None:
        """Makes a collection of versions unless it is there."""
        await self._make(schema.memories(self.memories(dimension), *self._bm25))

    async def with_memories(self) -> list[str]:
        """Returns the collections of versions that are there."""

        async def call(client: WeaviateAsyncClient) -> Any:
            return await client.collections.list_all()

        found = await self._connection.ask(call, writes=True)
        return sorted(name for name in found if name.startswith(f"{self._stem}_D"))

    async def _make(self, arguments: dict[str, Any]) -> None:
        name = arguments["name"]

        async def call(client: WeaviateAsyncClient) -> None:
            if await client.collections.exists(name):
                return
            try:
                await client.collections.create(**arguments)
            except UnexpectedStatusCodeError:
                # Another server made it at the same moment.
                if not await client.collections.exists(name):
                    raise

        async with self._lock:
            await self._connection.ask(call, writes=True)
