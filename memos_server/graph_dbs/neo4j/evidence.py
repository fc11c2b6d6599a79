"""What shows afterwards whether a transaction took effect whose commit was not answered."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

from neo4j import AsyncSession

from memos_server.graph_dbs.base import RequestKey
from memos_server.graph_dbs.neo4j.reader import request_parameters

# MERGE of something unique waits until the transaction that was making it has ended; what MERGE makes is rolled back.
_COMMIT: Final = "MERGE (m:Commit {cube: $cube, revision: $revision}) RETURN m.unit"
_REQUEST: Final = """MERGE
    (r:Request {principal: $principal, method: $method, resource: $resource, request_id: $request_id}) RETURN r.salt"""
_UNIT: Final = "MERGE (n:Unit {id: $id}) RETURN n.time"


class Evidence:
    """What one attempt of a unit of work leaves behind if it takes effect, and nobody else can.

    Attributes:
        missed: The request ids that the unit looked for and did not find.
    """

    def __init__(self) -> None:
        """Knows of nothing yet."""
        self.missed: list[RequestKey] = []
        self._left: tuple[str, dict[str, Any], Any] | None = None

    @property
    def found(self) -> bool:
        """Whether the attempt leaves anything behind."""
        return self._left is not None

    def commit(self, cube: int, revision: int) -> str:
        """Returns what a commit's node is to hold as `unit`."""
        # A commit is never changed, while a purge empties the salt of a request. Its digest would not do: two servers
        # may make the same change at the same time.
        unit = secrets.token_hex(8)
        self._left = _COMMIT, {"cube": cube, "revision": revision}, unit
        return unit

    def request(self, key: RequestKey, salt: bytes) -> None:
        """Notes a request id."""
        if self._left is None and salt:
            self._left = _REQUEST, dict(request_parameters(key)), salt

    def mark(self) -> dict[str, Any]:
        """Returns the properties of a mark, for a unit that leaves nothing else."""
        unit = {"id": secrets.token_hex(16), "time": time.time_ns() // 1000}
        self._left = _UNIT, {"id": unit["id"]}, unit["time"]
        return unit

    async def took_effect(self, session: AsyncSession, timeout_s: float) -> bool:
        """Returns whether the transaction took effect, once it has ended.

        Args:
            session: A session of its own.
            timeout_s: How long the database waits for the transaction to end.

        Raises:
            Neo4jError, DriverError: It cannot be found out now.
        """
        if self._left is None:
            return False
        query, parameters, expected = self._left
        async with await session.begin_transaction(timeout=timeout_s) as transaction:
            rows = await (await transaction.run(query, parameters)).values()
            await transaction.rollback()
        return bool(rows[0][0] == expected)
