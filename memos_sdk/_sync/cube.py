# Generated from memos_sdk/_async/cube.py by tools/gen_sync_client.py.
# fmt: off
# ruff: noqa: I001, UP028, RUF100
"""Cube: one cube, with everything that can be done with it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING

from memos_sdk import _stubs
from memos_sdk._sync.blobs import Blobs
from memos_sdk._sync.caller import Caller
from memos_sdk._sync.cube_base import CubeBase
from memos_sdk._sync.cube_graph import CubeGraph
from memos_sdk._sync.cube_history import CubeHistory
from memos_sdk._sync.cube_memories import CubeMemories
from memos_sdk._sync.sessions import Sessions, SessionScope
from memos_sdk._core.searching import search_request
from memos_sdk.models import CubeInfo, SearchResult

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class Cube(CubeMemories, CubeHistory, CubeGraph, CubeBase):
    """A handle on one cube. Memories are named by id (`m1`), by full name, or by a Memory.

    Attributes:
        name: The name, `cubes/{cube}`.
        sessions: The cube's sessions.
        blobs: The cube's blobs.
    """

    def __init__(self, caller: Caller, name: str, info: CubeInfo | None = None) -> None:
        """Is made by the client."""
        super().__init__(caller, name, info)
        self.sessions = Sessions(caller, name)
        self.blobs = Blobs(caller, name)

    def search(
        self,
        query: str | None = None,
        *,
        vector: mip.Vector | None = None,
        filter: str = "",
        top_k: int = 10,
        mode: mip.SearchMode | str = "hybrid",
        as_of: int | datetime.datetime | None = None,
        explain: bool = False,
        rerank: str = "",
        timeout: float | None = None,
    ) -> SearchResult:
        """Finds memories by words, meaning and relations, now or in the cube's past.

        Args:
            query: What to look for, in words. Neither words nor vector: all that passes the filter, newest first.
            vector: What to look for, as an embedding, instead of words.
            filter: A filter, such as `tags:"work" AND labels.project = "apollo"`. Without a condition on `state` only
                active memories are found.
            top_k: The most hits, up to 1,000.
            mode: `hybrid` (words and meaning), `vector`, `lexical` or `graph`.
            as_of: A revision or a time: searches the cube as it was.
            explain: True explains each hit: rank and score in each channel, matched terms, path.
            rerank: A reranker that the server lists.
            timeout: Seconds.

        Returns:
            The hits, best first.
        """
        request = search_request([self.name], query, vector, filter, top_k, mode, as_of, explain, rerank)
        return SearchResult(self._caller.call(_stubs.SEARCH_MEMORIES, request, timeout))

    def session(
        self,
        display_name: str = "",
        *,
        participants: tuple[str, ...] | list[str] = (),
        labels: Mapping[str, str] | None = None,
        id: str = "",
        request_id: str = "",
        timeout: float | None = None,
    ) -> SessionScope:
        """Returns a context that begins a session and ends it; memories name it with `session=`."""
        return SessionScope(self.sessions, display_name, participants, labels, id, request_id, timeout)
