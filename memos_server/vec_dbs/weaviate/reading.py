"""Reads versions from a cube's tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from weaviate.collections.classes.grpc import _MetadataQuery

from memos_server.vec_dbs.weaviate.connection import Connection, TooLargeError
from memos_server.vec_dbs.weaviate.rows import Row, from_results
from memos_server.vec_dbs.weaviate.tenants import Place, Tenants

MOST: Final = 10_000
"""The most objects that Weaviate returns at once (QUERY_MAXIMUM_RESULTS)."""
_PAGE: Final = 500


class Reader:
    """Reads from the tenants of cubes, which count as used by it."""

    def __init__(self, connection: Connection, tenants: Tenants) -> None:
        """Reads through a connection."""
        self._connection = connection
        self._tenants = tenants

    async def found(
        self,
        place: Place,
        where: Any,
        properties: Sequence[str],
        *,
        limit: int = MOST,
        vectors: bool = False,
        sort: Any = None,
    ) -> list[Row]:
        """Returns the versions that a filter finds, at most `limit`.

        Raises:
            MipError: BACKEND_UNAVAILABLE.
            MissingError: The tenant is not there.
        """
        wanted = _MetadataQuery(vector=vectors)

        def build(builder: Any) -> Any:
            return builder.get(
                limit=limit, filters=where, sort=sort, return_metadata=wanted, return_properties=properties
            )

        return from_results(await self._results(place, build), properties)

    async def nearest(
        self, place: Place, vector: Sequence[float], where: Any, properties: Sequence[str], *, limit: int
    ) -> list[Row]:
        """Returns the versions nearest to a vector, nearest first, with their cosines as scores."""
        wanted = _MetadataQuery(vector=False, distance=True)

        def build(builder: Any) -> Any:
            return builder.near_vector(
                near_vector=vector, limit=limit, filters=where, return_metadata=wanted, return_properties=properties
            )

        return from_results(await self._results(place, build), properties)

    async def ranked(
        self, place: Place, text: str, where: Any, properties: Sequence[str], *, limit: int, vectors: bool
    ) -> list[Row]:
        """Returns the versions with a word of a text, by Weaviate's own BM25, whose scores they have."""
        wanted = _MetadataQuery(score=True, vector=vectors)

        def build(builder: Any) -> Any:
            return builder.bm25(
                query=text,
                properties=["terms"],
                limit=limit,
                filters=where,
                return_metadata=wanted,
                return_properties=properties,
            )

        return from_results(await self._results(place, build), properties)

    async def pages(
        self, place: Place, properties: Sequence[str], *, vectors: bool = False
    ) -> AsyncIterator[Sequence[Row]]:
        """Reads all objects of a tenant, in the order of their ids, page by page.

        Raises:
            MipError: BACKEND_UNAVAILABLE.
            MissingError: It is not there.
        """
        after: str | None = None
        wanted = _MetadataQuery(vector=vectors)
        size = _PAGE
        while True:

            def build(builder: Any, last: str | None = after, most: int = size) -> Any:
                return builder.get(limit=most, after=last, return_metadata=wanted, return_properties=properties)

            try:
                results = await self._results(place, build)
            except TooLargeError:
                if size == 1:
                    raise
                size //= 2
                continue
            if not results:
                return
            after = results[-1].metadata.id
            yield from_results(results, properties)

    async def _results(self, place: Place, build: Any) -> Sequence[Any]:
        async with self._tenants.using(place):
            return await self._connection.search(*place, build)
