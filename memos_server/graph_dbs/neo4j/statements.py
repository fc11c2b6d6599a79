"""How statements are run: those of a reader each by itself, those of a writer in its transaction.

A reader's statements need no transaction: Neo4j is read-committed, so that one would give no snapshot (`pins.py` does).
They go through one session, which hands the bookmark of each on to the next: before it answers, the database has then
finished applying every commit of which the statement before could have seen a part.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

from neo4j import AsyncManagedTransaction, AsyncSession, Query

from memos_server.graph_dbs.neo4j.faults import NoAnswerError, is_conflict, is_lost

T = TypeVar("T")

CHUNK: Final = 1000
"""How many ids or handles one statement is given."""
_CHUNK_BYTES: Final = 4 * 2**20
"""How many bytes of content one statement is given."""
_READ_TRIES: Final = 4
READ_TIMEOUT_S: Final = 60.0
"""How long the database works on one statement of a reader."""
CHECK_TIMEOUT_S: Final = 600.0
"""How long it works on one that looks at all nodes of a sort, of which there may be millions."""
WRITE_TIMEOUT_S: Final = 150.0
"""How long a writer waits for one statement, which may wait for the cube's lock."""
_ON_THE_WAY_S: Final = 5.0

Row = Sequence[Any]


class Statements(Protocol):
    """Runs Cypher."""

    async def rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """Returns the rows of a statement; the text is constant, what varies are parameters."""


class LongStatements(Statements, Protocol):
    """Runs Cypher that may take long, too."""

    async def long_rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """Returns the rows of a statement that looks at all nodes of a sort, and may take minutes."""


class ReadStatements:
    """Runs each statement in a transaction of its own, again where the connection or another transaction failed it."""

    def __init__(self, session: AsyncSession, slots: asyncio.Semaphore) -> None:
        """Reads through `session`; `slots` bounds how many statements run at once."""
        self._session = session
        self._slots = slots

    async def rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """See Statements."""
        return await self._rows(query, READ_TIMEOUT_S, parameters)

    async def long_rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """See Statements."""
        return await self._rows(query, CHECK_TIMEOUT_S, parameters)

    async def _rows(self, query: str, timeout_s: float, parameters: dict[str, Any]) -> list[list[Any]]:
        # A caller that goes away closes its connection, and with it the statement; this is for one that hangs.
        limited = Query(query, timeout=timeout_s)
        for attempt in range(_READ_TRIES):
            try:
                async with self._slots, answering(self._session, timeout_s + _ON_THE_WAY_S):
                    result = await self._session.run(limited, parameters)
                    return await result.values()
            except Exception as error:
                if attempt == _READ_TRIES - 1 or not (is_lost(error) or is_conflict(error)):
                    raise
            await pause(attempt)
        raise AssertionError("the last attempt returns or raises")


class TransactionStatements:
    """Runs statements in a writer's transaction."""

    def __init__(self, session: AsyncSession, transaction: AsyncManagedTransaction) -> None:
        """Runs them in `transaction` of `session`."""
        self._session = session
        self._transaction = transaction

    async def rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """See Statements."""
        return await self._rows(query, WRITE_TIMEOUT_S, parameters)

    async def long_rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """See Statements."""
        return await self._rows(query, CHECK_TIMEOUT_S, parameters)

    async def _rows(self, query: str, timeout_s: float, parameters: dict[str, Any]) -> list[list[Any]]:
        async with answering(self._session, timeout_s):
            result = await self._transaction.run(query, parameters)
            return await result.values()


@asynccontextmanager
async def answering(session: AsyncSession, timeout_s: float) -> AsyncIterator[asyncio.Timeout]:
    """Bounds how long an answer is waited for: a network that swallows everything would never say so.

    Args:
        session: The session that waits; its connection is dropped without a word when the time is over.
        timeout_s: For how long.

    Raises:
        NoAnswerError: There was none in time; the connection is gone.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            yield limit
    except TimeoutError as error:
        # A word would be swallowed too, and waited for.
        session.cancel()
        raise NoAnswerError from error


async def pause(attempt: int, first_s: float = 0.01, most_s: float = 1.0) -> None:
    """Waits before an attempt is repeated: twice as long each time, between half of it and all of it by chance."""
    await asyncio.sleep(min(most_s, first_s * 2 ** min(attempt, 20)) * random.uniform(0.5, 1.0))  # noqa: S311


def chunks(values: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Yields pieces of at most `size` values."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def batches(rows: Sequence[T], weights: Sequence[int], size: int = CHUNK) -> Iterator[list[T]]:
    """Yields pieces of at most `size` rows whose weights, in bytes, stay within what one statement is given.

    A row that weighs more goes alone.
    """
    batch: list[T] = []
    weight = 0
    for row, bytes_ in zip(rows, weights, strict=True):
        if batch and (len(batch) >= size or weight + bytes_ > _CHUNK_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(row)
        weight += bytes_
    if batch:
        yield batch
