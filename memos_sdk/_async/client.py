"""AsyncClient: a connection to a MIP server."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from memos_sdk import _stubs
from memos_sdk._async.access import AsyncAccess
from memos_sdk._async.caller import AsyncCaller
from memos_sdk._async.cube import AsyncCube
from memos_sdk._async.cubes import AsyncCubes
from memos_sdk._async.jobs import AsyncJobs
from memos_sdk._core.convert import generated
from memos_sdk._core.discovery import TLS, resolve
from memos_sdk._core.heads import HeadStore
from memos_sdk._core.names import cube_name
from memos_sdk._core.retry import RetryPolicy
from memos_sdk._core.searching import search_request
from memos_sdk.models import Capabilities, SearchResult

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class AsyncClient:
    """A connection to a MIP server, opened by the first call.

    Without arguments it finds the server of this machine: `MEMOS_TARGET` and `MEMOS_TOKEN`, then the local data
    folder, then 127.0.0.1:7600.

    Attributes:
        cubes: Creates, finds and lists cubes.
        access: Principals, tokens, grants and the audit trail.
        jobs: Long work.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        tls: bool | TLS | None = None,
        insecure: bool = False,
        data: str | Path | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        heads: HeadStore | str | Path | None = None,
    ) -> None:
        """Resolves the server; nothing is sent yet.

        Args:
            target: `host:port`, `host` or `unix:PATH`; of several servers over one record, their IP addresses parted by
                commas, or a name that resolves to all: calls are spread over those that serve.
            token: The bearer token. The local server's own is found by itself.
            tls: True for TLS with the system's authorities, or a TLS with your own.
            insecure: True permits sending the token in plaintext to another machine.
            data: The data folder of a local server, when it is not the default one.
            timeout: Seconds that a call may take, its repetitions included. Calls that grow with a cube's size take
                longer by default.
            retry: How calls are repeated.
            heads: Where the newest heads are remembered: a store to share, or a file.

        Raises:
            UsageError: The address is malformed, or the token would travel in plaintext to another machine.
        """
        endpoint = resolve(target, token=token, tls=tls, data=data, insecure=insecure)
        store = heads if isinstance(heads, HeadStore) else HeadStore(heads)
        self._caller = AsyncCaller(endpoint, timeout, retry or RetryPolicy(), store)
        self.cubes = AsyncCubes(self._caller)
        self.access = AsyncAccess(self._caller)
        self.jobs = AsyncJobs(self._caller)

    @property
    def target(self) -> str:
        """The address that calls go to."""
        return self._caller.endpoint.target

    @property
    def heads(self) -> HeadStore:
        """The newest heads that this client has seen."""
        return self._caller.heads

    def cube(self, name: str) -> AsyncCube:
        """Returns a handle on a cube, by id or name, without asking the server."""
        return AsyncCube(self._caller, cube_name(name))

    async def search(
        self,
        query: str | None = None,
        *,
        cubes: Iterable[str | AsyncCube],
        vector: mip.Vector | None = None,
        filter: str = "",
        top_k: int = 10,
        mode: mip.SearchMode | str = "hybrid",
        as_of: int | datetime.datetime | None = None,
        explain: bool = False,
        rerank: str = "",
        timeout: float | None = None,
    ) -> SearchResult:
        """Searches several cubes at once; see `Cube.search`.

        Args:
            query: What to look for, in words.
            cubes: The cubes, up to 100.
            vector: What to look for, as an embedding, instead of words.
            filter: A filter.
            top_k: The most hits, up to 1,000.
            mode: `hybrid`, `vector`, `lexical` or `graph`.
            as_of: A revision or a time, with one cube only.
            explain: True explains each hit.
            rerank: A reranker that the server lists.
            timeout: Seconds.
        """
        names = [cube_name(cube) if isinstance(cube, str) else cube.name for cube in cubes]
        request = search_request(names, query, vector, filter, top_k, mode, as_of, explain, rerank)
        return SearchResult(await self._caller.call(_stubs.SEARCH_MEMORIES, request, timeout))

    async def capabilities(self, *, timeout: float | None = None) -> Capabilities:
        """Returns what the server declares. It needs no token."""
        response = await self._caller.call(_stubs.GET_CAPABILITIES, _stubs.GET_CAPABILITIES(), timeout)
        return Capabilities(response)

    async def server_stats(self, *, timeout: float | None = None) -> mip.GetServerStatsResponse:
        """Returns what the server counts and measures of itself: calls, latencies, queues, index lag, health.

        Raises:
            PermissionDenied: You do not administer the server.
        """
        response = await self._caller.call(_stubs.GET_SERVER_STATS, _stubs.GET_SERVER_STATS(), timeout)
        return generated(response)

    async def close(self) -> None:
        """Closes the connection."""
        await self._caller.close()

    async def __aenter__(self) -> Self:
        """Returns the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection."""
        await self.close()

    def __repr__(self) -> str:
        """Shows the address."""
        return f"<{type(self).__name__} {self.target}>"
