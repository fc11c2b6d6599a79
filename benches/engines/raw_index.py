"""The index's part of the raw work: what a program would write to and ask of Weaviate for the same memories.

One collection, one tenant a cube, the properties and indexes that a version needs in the server's own collection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import weaviate
from numpy.typing import NDArray
from weaviate.classes.config import (
    Configure,
    DataType,
    Property,
    StopwordsPreset,
    Tokenization,
    VectorDistances,
)
from weaviate.classes.data import DataObject
from weaviate.classes.init import Auth
from weaviate.classes.query import Filter, MetadataQuery
from weaviate.classes.tenants import Tenant, TenantActivityStatus

# It would print every refused object, vectors and all; the errors are raised.
logging.getLogger("weaviate-client").setLevel(logging.CRITICAL)
NAME = "RawMemories"
_RETURNED = ["uid", "content", "state", "level", "from_revision", "to_revision"]


def _kept(name: str, kind: DataType) -> Property:
    return Property(name=name, data_type=kind, index_filterable=False, index_searchable=False)


def _compared(name: str, kind: DataType) -> Property:
    return Property(name=name, data_type=kind, index_filterable=False, index_searchable=False, index_range_filters=True)


class RawIndex:
    """Weaviate by its own client."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Takes the settings of the server's index."""
        self._client = weaviate.use_async_with_local(
            host=config["host"],
            port=config["http_port"],
            grpc_port=config["grpc_port"],
            auth_credentials=Auth.api_key(config["api_key"]),
        )
        self._collection: Any = None

    async def open(self) -> None:
        """Connects."""
        await self._client.connect()
        self._collection = self._client.collections.get(NAME)

    async def close(self) -> None:
        """Disconnects."""
        await self._client.close()

    async def prepare(self) -> None:
        """Makes the collection."""
        if await self._client.collections.exists(NAME):
            return
        await self._client.collections.create(
            NAME,
            properties=[
                _kept("uid", DataType.TEXT),
                _kept("content", DataType.TEXT),
                _kept("state", DataType.INT),
                _compared("level", DataType.INT),
                _compared("from_revision", DataType.INT),
                _compared("to_revision", DataType.INT),
                _compared("create_time", DataType.NUMBER),
                _compared("update_time", DataType.NUMBER),
                Property(
                    name="terms",
                    data_type=DataType.TEXT,
                    tokenization=Tokenization.WHITESPACE,
                    index_filterable=True,
                    index_searchable=True,
                ),
                Property(
                    name="tokens",
                    data_type=DataType.TEXT_ARRAY,
                    tokenization=Tokenization.FIELD,
                    index_filterable=True,
                    index_searchable=False,
                ),
            ],
            inverted_index_config=Configure.inverted_index(
                bm25_k1=0.9, bm25_b=0.4, stopwords_preset=StopwordsPreset.NONE
            ),
            multi_tenancy_config=Configure.multi_tenancy(
                enabled=True, auto_tenant_creation=True, auto_tenant_activation=True
            ),
            vector_config=Configure.Vectors.self_provided(
                vector_index_config=Configure.VectorIndex.hnsw(distance_metric=VectorDistances.DOT)
            ),
        )

    async def add(
        self,
        tenant: str,
        revision: int,
        now: float,
        uids: Sequence[str],
        terms: Sequence[str],
        tokens: Sequence[Sequence[str]],
        vectors: NDArray[np.float32],
    ) -> None:
        """Adds memories and looks at every object's error.

        Raises:
            RuntimeError: An object was refused.
        """
        objects = [
            DataObject(
                properties={
                    "uid": uid,
                    "content": uid,
                    "state": 1,
                    "level": 2,
                    "from_revision": revision,
                    "create_time": now,
                    "update_time": now,
                    "terms": text,
                    "tokens": [*facets, f"u:{uid}", "s:1"],
                },
                uuid=uid,
                vector=vector.tolist(),
            )
            for uid, text, facets, vector in zip(uids, terms, tokens, vectors, strict=True)
        ]
        answer = await self._collection.with_tenant(tenant).data.insert_many(objects)
        if answer.has_errors:
            raise RuntimeError(f"{len(answer.errors)} objects refused: {next(iter(answer.errors.values())).message}")

    async def search(
        self, tenant: str, revision: int, words: str, vector: NDArray[np.float32] | None, depth: int
    ) -> list[str]:
        """Returns the uids of what both channels find among what is active, visible and current, best rank first."""
        collection = self._collection.with_tenant(tenant)
        where = Filter.all_of(
            [
                Filter.by_property("tokens").contains_any(["s:1"]),
                Filter.by_property("level").less_or_equal(3),
                Filter.by_property("from_revision").less_or_equal(revision),
                Filter.not_(Filter.by_property("to_revision").less_or_equal(revision)),
            ]
        )
        asked = []
        if vector is not None:
            asked.append(
                collection.query.near_vector(
                    near_vector=vector.tolist(),
                    limit=depth,
                    filters=where,
                    return_properties=_RETURNED,
                    return_metadata=MetadataQuery(distance=True),
                )
            )
        if words:
            asked.append(
                collection.query.bm25(
                    query=words,
                    query_properties=["terms"],
                    limit=depth,
                    filters=where,
                    return_properties=_RETURNED,
                    return_metadata=MetadataQuery(score=True),
                )
            )
        answers = await asyncio.gather(*asked)
        best: dict[str, float] = {}
        for answer in answers:
            for rank, found in enumerate(answer.objects):
                uid = found.properties["uid"]
                best[uid] = best.get(uid, 0.0) + 1.0 / (60 + rank)
        return sorted(best, key=lambda uid: (-best[uid], uid))

    async def make_tenants(self, names: Sequence[str], *, active: bool = True) -> None:
        """Makes tenants."""
        status = TenantActivityStatus.ACTIVE if active else TenantActivityStatus.INACTIVE
        await self._collection.tenants.create([Tenant(name=name, activity_status=status) for name in names])

    async def switch(self, names: Sequence[str], *, active: bool) -> None:
        """Loads tenants, or unloads them."""
        status = TenantActivityStatus.ACTIVE if active else TenantActivityStatus.INACTIVE
        await self._collection.tenants.update([Tenant(name=name, activity_status=status) for name in names])

    async def drop(self, names: Sequence[str]) -> None:
        """Deletes tenants."""
        await self._collection.tenants.remove(list(names))

    async def count(self, tenant: str) -> int:
        """Returns how many objects a tenant has."""
        answer = await self._collection.with_tenant(tenant).aggregate.over_all(total_count=True)
        return int(answer.total_count)
