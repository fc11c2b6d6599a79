"""The backend `weaviate`: the port's methods, each by the part that does it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.vec_dbs.base import OPEN, IndexBatch, IndexEntry, IndexQuery, IndexResult
from memos_server.vec_dbs.weaviate import schema
from memos_server.vec_dbs.weaviate.collections import Collections
from memos_server.vec_dbs.weaviate.config import WeaviateConfig
from memos_server.vec_dbs.weaviate.connection import Connection, MissingError
from memos_server.vec_dbs.weaviate.heads import Head, Heads
from memos_server.vec_dbs.weaviate.reading import Reader
from memos_server.vec_dbs.weaviate.relating import related
from memos_server.vec_dbs.weaviate.rows import LIGHT, PARKED
from memos_server.vec_dbs.weaviate.searching import Searcher
from memos_server.vec_dbs.weaviate.statistics import Statistics
from memos_server.vec_dbs.weaviate.tenants import Place, Tenants
from memos_server.vec_dbs.weaviate.writing import Writer

_FRESH_S = 1.0
"""For how long the revision that was read last is given as the index's, seconds. A search reads it anew."""


class WeaviateIndex:
    """A SearchIndex in Weaviate. It keeps nothing on this machine, and several servers may share it."""

    name = "weaviate"

    def __init__(self, data_dir: str, **config: Any) -> None:
        """Makes the backend.

        Args:
            data_dir: The data folder, in which it keeps nothing.
            config: The fields of WeaviateConfig.

        Raises:
            TypeError: A setting is unknown.
            ValueError: A setting is out of range.
            SetupError: The key's file cannot be read, or others may read it.
        """
        del data_dir
        self._config = WeaviateConfig(**config)
        self._connection = Connection(self._config)
        self._use(schema.stem(self._config.prefix, ""))

    def _use(self, stem: str) -> None:
        config, connection = self._config, self._connection
        self._collections = Collections(connection, stem, config.k1, config.b)
        self._heads = Heads(connection, self._collections.heads)
        self._tenants = Tenants(connection, config.active_tenants)
        self._reader = Reader(connection, self._tenants)
        self._statistics = Statistics(connection, self._tenants, self._reader)
        self._writer = Writer(connection, self._collections, self._heads, self._tenants, self._reader)
        self._searcher = Searcher(self._collections, self._heads, self._reader, self._statistics, config.k1, config.b)

    async def open(self, version: str) -> None:
        """Uses the collections of a version, which are made when something is written.

        A Weaviate that is away does not keep the server from starting: searches say `unreachable` until it is there.

        Raises:
            SetupError: The settings are wrong.
        """
        self._use(schema.stem(self._config.prefix, version))
        await self._connection.open()
        try:
            for collection in await self._collections.with_memories():
                await self._tenants.adopt(collection)
        except MipError:
            # It is away, which `open` has said; the next searches say it again.
            return

    async def close(self) -> None:
        """Lets go of the connection."""
        await self._tenants.close()
        await self._connection.close()

    async def indexed_revision(self, cube_uid: str) -> int:
        """Returns the revision that the cube's index reflects; 0 when there is none.

        Raises:
            MipError: BACKEND_UNAVAILABLE.
        """
        known = self._heads.known(cube_uid, _FRESH_S)
        return (known if known is not None and known.revision else await self._heads.read(cube_uid)).revision

    async def apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        """See SearchIndex."""
        await self._writer.apply(cube_uid, dimension, batch)

    async def search(self, cube_uid: str, query: IndexQuery) -> IndexResult:
        """See SearchIndex."""
        return await self._searcher.search(cube_uid, query)

    async def related(self, cube_uid: str, query: IndexQuery, uids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """See SearchIndex."""

        async def ask(head: Head, place: Place) -> Mapping[str, Mapping[str, float]]:
            return await related(self._searcher, head, place, query, uids)

        found: Mapping[str, Mapping[str, float]] = await self._searcher.at_head(
            cube_uid, query.revision, ask, empty={uid: {} for uid in uids}
        )
        return found

    async def entries(self, cube_uid: str) -> tuple[int, Sequence[IndexEntry]]:
        """See SearchIndex. What is written meanwhile is left out."""
        head = await self._heads.read(cube_uid)
        if not head.objects:
            return head.revision, []
        found = []
        place = (self._collections.memories(head.dimension), cube_uid)
        try:
            async for page in self._reader.pages(place, LIGHT, vectors=True):
                for row in page:
                    if row.since <= head.revision and row.since != PARKED:
                        if row.until > head.revision:
                            row.until = OPEN
                        found.append(row.entry())
        except MissingError:
            return 0, []
        return head.revision, found

    async def drop(self, cube_uid: str) -> None:
        """Erases the cube's index: its head first, so that nobody searches what is half gone, then its tenant."""
        await self._heads.remove(cube_uid)
        self._statistics.drop(cube_uid)
        for collection in await self._collections.with_memories():
            await self._tenants.remove(collection, cube_uid)

    async def probe(self) -> None:
        """Tries whether Weaviate answers, over REST and over gRPC.

        Raises:
            MipError: BACKEND_UNAVAILABLE or STORAGE_FULL.
        """
        try:
            await asyncio.gather(
                self._heads.read("probe"), self._connection.ask(lambda client: client.collections.exists("Probe"))
            )
        except SetupError as error:
            raise MipError("BACKEND_UNAVAILABLE", str(error)) from error
