"""The collections: their names, their properties and how they are made.

The schema is fixed, the same for all cubes: what a memory's labels and attributes are called is data, in one list of
tokens, so two cubes may use one name with two types. Whatever changes while a search may run is only ever *added* to
the indexes, since Weaviate takes an object's old value out of an index before it puts the new one in: a version that
is open has no `to_revision`, and is closed by giving it one.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from weaviate.classes.config import (
    Configure,
    DataType,
    Property,
    StopwordsPreset,
    Tokenization,
    VectorDistances,
)

FORMAT: Final = 2
"""Raised when the schema changes: the collections then have other names."""
NUMBERS: Final = ("create_time", "update_time", "valid_from", "valid_until", "confidence")
"""The numbers that filters compare."""

FLAT_UP_TO: Final = 40_000
"""Filters that leave fewer versions than this are searched without the graph, and exactly."""


def stem(prefix: str, version: str) -> str:
    """Returns what the names of a version's collections begin with.

    Args:
        prefix: The deployment's prefix.
        version: Of what is indexed. An old and a new server have their own collections.
    """
    return f"{prefix}_{hashlib.sha256(f'{FORMAT} {version}'.encode()).hexdigest()[:12]}"


def memories_name(stem_: str, dimension: int) -> str:
    """Returns the name of the collection of cubes whose vectors have a dimension; 0 for cubes without any."""
    return f"{stem_}_D{dimension}"


def heads_name(stem_: str) -> str:
    """Returns the name of the collection that says how far the cubes are indexed."""
    return f"{stem_}_Heads"


def _kept(name: str, kind: DataType) -> Property:
    return Property(name=name, data_type=kind, index_filterable=False, index_searchable=False)


def _compared(name: str, kind: DataType) -> Property:
    return Property(name=name, data_type=kind, index_filterable=False, index_searchable=False, index_range_filters=True)


def memories(name: str, k1: float, b: float) -> dict[str, Any]:
    """Returns the arguments that create a collection of versions."""
    return {
        "name": name,
        "description": "Versions of memories, one tenant per cube; derived from the record",
        "properties": [
            # All that is read of every object; the others are there to be compared, counted and sorted by.
            _kept("row", DataType.TEXT),
            _kept("uid", DataType.TEXT),
            _kept("length", DataType.INT),
            _compared("from_revision", DataType.INT),
            _compared("to_revision", DataType.INT),
            _compared("level", DataType.INT),
            *(_compared(each, DataType.NUMBER) for each in NUMBERS),
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
        "inverted_index_config": Configure.inverted_index(
            bm25_k1=k1, bm25_b=b, stopwords_preset=StopwordsPreset.NONE, index_timestamps=False
        ),
        "multi_tenancy_config": Configure.multi_tenancy(
            enabled=True, auto_tenant_creation=True, auto_tenant_activation=True
        ),
        # The vectors are of length 1, so their product is the cosine. "cosine" would store them normalised once more,
        # with other bits than the record has.
        "vector_config": Configure.Vectors.self_provided(
            vector_index_config=Configure.VectorIndex.hnsw(
                distance_metric=VectorDistances.DOT, flat_search_cutoff=FLAT_UP_TO
            )
        ),
    }


def heads(name: str) -> dict[str, Any]:
    """Returns the arguments that create the collection of heads."""
    return {
        "name": name,
        "description": "How far each cube is indexed; derived from the record",
        "properties": [
            Property(
                name="cube",
                data_type=DataType.TEXT,
                tokenization=Tokenization.FIELD,
                index_filterable=True,
                index_searchable=False,
            ),
            _kept("revision", DataType.INT),
            _kept("dimension", DataType.INT),
            _kept("objects", DataType.INT),
            _kept("erased", DataType.INT),
            _kept("totals", DataType.TEXT),
            _kept("marks", DataType.TEXT),
        ],
        "inverted_index_config": Configure.inverted_index(stopwords_preset=StopwordsPreset.NONE),
        "vector_config": Configure.Vectors.self_provided(
            vector_index_config=Configure.VectorIndex.flat(distance_metric=VectorDistances.DOT)
        ),
    }
