"""Units of work that write: run, run again after a conflict, and looked into when their commit was not answered."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from neo4j import AsyncDriver, AsyncManagedTransaction
from neo4j.exceptions import ConstraintError, Neo4jError

from memos_server.errors import MipError
from memos_server.graph_dbs.base import RequestKey, Writer
from memos_server.graph_dbs.neo4j.access_writer import Number
from memos_server.graph_dbs.neo4j.evidence import Evidence
from memos_server.graph_dbs.neo4j.faults import FAULTS, RETRY_AFTER_S, explained, is_conflict, is_lost, is_uncertain
from memos_server.graph_dbs.neo4j.reader import REQUEST, request_parameters
from memos_server.graph_dbs.neo4j.sequences import AuditClock
from memos_server.graph_dbs.neo4j.shapes import OvertakenError, PurgedMeanwhileError, overtaken
from memos_server.graph_dbs.neo4j.statements import Statements, TransactionStatements, answering, pause
from memos_server.graph_dbs.neo4j.writer import Neo4jWriter

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
BEGIN_S: Final = 30.0
"""How long a connection and the answer to BEGIN are waited for."""
TRANSACTION_S: Final = 600.0
"""After which the database ends a transaction whose server hangs, so that its locks are free again."""
_CONFLICTS_S: Final = 30.0
"""How long work is run again after conflicts."""
_CONSTRAINTS: Final = 8
"""How often it is run again because something unique was there already; the second time it should find it."""
_LOST_S: Final = 4.0
"""How long a connection is looked for before the caller hears that the database is away."""
_RESOLVE_S: Final = 30.0
"""How long it is tried to find out what became of a commit."""


@dataclass(slots=True)
class _Attempt(Generic[T]):
    """What is known of an attempt.

    Attributes:
        evidence: What it leaves behind.
        ended: Whether the work has ended, so that only the commit is left.
        raised: What the work raised.
        results: What it returned.
    """

    evidence: Evidence = field(default_factory=Evidence)
    ended: bool = False
    raised: Exception | None = None
    results: list[T] = field(default_factory=list)


class Units:
    """Runs units of work that write."""

    def __init__(self, driver: AsyncDriver, database: str, where: str, outside: Statements, number: Number) -> None:
        """Runs them through a driver.

        Args:
            driver: The driver.
            database: The database's name.
            where: The address, for messages.
            outside: Runs statements beside the transactions, on connections kept for that.
            number: Draws numbers.
        """
        self._driver = driver
        self._database = database
        self._where = where
        self._outside = outside
        self._number = number
        self._clock = AuditClock()

    async def run(self, work: Callable[[Writer], Awaitable[T]]) -> T:
        """Runs work in a transaction and returns its result once it is durable.

        Raises:
            MipError: BACKEND_UNAVAILABLE, STORAGE_FULL: what the database answers.
            Exception: What the work raised; nothing of it took effect.
        """
        began = time.monotonic()
        constraints = 0
        for number in itertools.count():
            attempt: _Attempt[T] = _Attempt()
            try:
                await self._once(work, attempt)
                return attempt.results[0]
            except Exception as error:
                constraints += isinstance(error, ConstraintError)
                elapsed = time.monotonic() - began
                if attempt.ended and is_uncertain(error):
                    if not attempt.evidence.found or await self._took_effect(attempt.evidence, error):
                        return attempt.results[0]
                    # It did not, which is sure now; whether to try again depends on what it was.
                    passes = is_lost(error) or not isinstance(error, Neo4jError)
                    if not passes or elapsed >= _CONFLICTS_S:
                        raise self._explained(error) from error
                elif isinstance(error, OvertakenError | PurgedMeanwhileError):
                    if elapsed >= _CONFLICTS_S:
                        raise overtaken() from error
                elif isinstance(error, FAULTS):
                    conflict = is_conflict(error) and elapsed < _CONFLICTS_S and constraints <= _CONSTRAINTS
                    if not conflict and not (is_lost(error) and elapsed < _LOST_S):
                        raise self._explained(error) from error
                elif not await self._made_meanwhile(attempt.evidence.missed):
                    raise
            await pause(number)
        raise AssertionError("a unit of work ends before that")

    async def _once(self, work: Callable[[Writer], Awaitable[T]], attempt: _Attempt[T]) -> None:
        async def in_transaction(transaction: AsyncManagedTransaction) -> None:
            limit.reschedule(asyncio.get_running_loop().time() + TRANSACTION_S)
            statements = TransactionStatements(session, transaction)
            writer = Neo4jWriter(statements, self._outside, self._number, self._clock)
            attempt.evidence = writer.evidence
            try:
                attempt.results.append(await work(writer))
                await writer.finish()
            except Exception as error:
                attempt.raised = error
                raise
            attempt.ended = True

        in_transaction.timeout = TRANSACTION_S  # type: ignore[attr-defined]
        async with self._driver.session(database=self._database) as session:
            try:
                # First the connection and BEGIN are waited for.
                async with answering(session, BEGIN_S) as limit:
                    await session.execute_write(in_transaction)
            except Exception:
                # The driver may raise another one while it rolls back, which would hide what the work met.
                if attempt.raised is None:
                    raise
        if attempt.raised is not None:
            raise attempt.raised

    def _explained(self, error: Exception) -> MipError:
        found = explained(error, self._where)
        assert found is not None
        return found

    async def _took_effect(self, evidence: Evidence, cause: Exception) -> bool:
        """Finds out whether a transaction took effect whose commit was not answered.

        Raises:
            MipError: BACKEND_UNAVAILABLE when the database does not say in time.
        """
        _LOG.warning("a commit was not answered (%s); looking for what became of it", type(cause).__name__)
        deadline = time.monotonic() + _RESOLVE_S
        number = 0
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                    async with self._driver.session(database=self._database) as session:
                        found = await evidence.took_effect(session, _RESOLVE_S)
            except (*FAULTS, TimeoutError) as error:
                if time.monotonic() >= deadline:
                    raise MipError(
                        "BACKEND_UNAVAILABLE",
                        f"Neo4j at {self._where} went away while it committed, and cannot be asked what became of it:"
                        " the call may have taken effect; repeat it with the same request_id, or look",
                        retry_after_s=RETRY_AFTER_S,
                    ) from error
                await pause(number, 0.05)
                number += 1
            else:
                _LOG.warning("the commit that was not answered %s", "took effect" if found else "did not take effect")
                return found

    async def _made_meanwhile(self, missed: Sequence[RequestKey]) -> bool:
        """Returns whether a request_id that the work did not find is there now: the same call was made twice at once,
        and what the work met is the other one's effect."""
        for key in missed:
            try:
                if await self._outside.rows(REQUEST, **request_parameters(key)):
                    return True
            except FAULTS:
                return False
        return False
