"""Building of search requests."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from memos_sdk import _stubs
from memos_sdk._core.build import as_of as split_as_of
from memos_sdk._core.convert import enum_number, to_wire
from memos_sdk._gen import wire
from memos_sdk.errors import UsageError

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


def search_request(
    cubes: list[str],
    query: str | None,
    vector: mip.Vector | None,
    filter: str,
    top_k: int,
    mode: mip.SearchMode | str,
    as_of: int | datetime.datetime | None,
    explain: bool,
    rerank: str,
) -> wire.SearchMemoriesRequest:
    """Makes the request; `Cube.search` documents the arguments.

    Raises:
        UsageError: Words and a vector are both given, or the mode is unknown.
    """
    if query is not None and vector is not None:
        raise UsageError(
            "a search takes words or a vector, not both",
            reason="CONFLICTING_ARGUMENTS",
            remedy="Pass query or vector.",
        )
    revision, time = split_as_of(as_of)
    return _stubs.SEARCH_MEMORIES(
        cubes=cubes,
        query=query,
        vector=None if vector is None else to_wire(vector, wire.Vector),
        filter=filter,
        top_k=top_k,
        mode=enum_number("SearchMode", mode, "search mode"),
        as_of_revision=revision,
        as_of_time=time,
        explain=explain,
        rerank=rerank,
    )
