"""The record in a Neo4j database: units of work on the official driver, many servers on one graph."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from neo4j import AsyncDriver
from neo4j.exceptions import AuthError, ClientError

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, News, Reader, Writer
from memos_server.graph_dbs.neo4j.connection import Endpoint
from memos_server.graph_dbs.neo4j.copying import MovingRecord
from memos_server.graph_dbs.neo4j.faults import FAULTS, explained, is_conflict, is_lost
from memos_server.graph_dbs.neo4j.pins import Moments
from memos_server.graph_dbs.neo4j.reader import Neo4jReader
from memos_server.graph_dbs.neo4j.schema import migrate, strangers
from memos_server.graph_dbs.neo4j.sequences import next_number
from memos_server.graph_dbs.neo4j.shapes import PurgedMeanwhileError
from memos_server.graph_dbs.neo4j.soundness import stray_nodes
from memos_server.graph_dbs.neo4j.statements import ReadStatements, answering, pause
from memos_server.graph_dbs.neo4j.units import Units

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_OPEN_S: Final = 20.0
"""How long a server that starts waits for the database, which may be starting too."""
_PROBE_S: Final = 5.0
_BESIDE: Final = 4
"""How many statements run at once beside the units of work."""
_PROBE: Final = "MERGE (l:Lock {name: 'probe'}) SET l.time = $now WITH l RETURN l.time"
_CHECKPOINT: Final = "CALL db.checkpoint()"
_NO_CHECKPOINT: Final = ("Neo.ClientError.Procedure.ProcedureNotFound", "Neo.ClientError.Security.Forbidden")
_NEWS: Final = """CALL () { MATCH (n:AccessChange) RETURN count(n) AS access }
    CALL () { MATCH (n:Erasure) RETURN count(n) AS erased }
    RETURN access, erased, COLLECT { UNWIND $cubes AS id MATCH (u:Cube {id: id}) RETURN [id, u.head[0]] }"""
_SETTLED: Final = "RETURN 1"


class Neo4jRecordStore(MovingRecord):
    """The record in a database of Neo4j 5.26 or later, Community or Enterprise.

    Args:
        data_dir: The data folder; nothing of the record is kept in it.
        uri: `bolt://HOST:PORT`, or `neo4j://` for a cluster; `+s` for TLS, such as `bolt+s://db.example.org:7687`.
        user: The user; empty where the database asks for none.
        password: The password.
        password_file: A file that only its owner may read, with the password; instead of `password`.
        database: The database's name.
        ca_file: Certificates, PEM, of the authorities that may have signed the database's; the system's without it.
        connections: The most connections of this server for units of work, half of them for those that write.
    """

    name = "neo4j"

    def __init__(
        self,
        data_dir: str,
        *,
        uri: str,
        user: str = "neo4j",
        password: str | None = None,
        password_file: str | None = None,
        database: str = "neo4j",
        ca_file: str | None = None,
        connections: int = 64,
    ) -> None:
        """Prepares the store; `open` connects.

        Raises:
            ValueError: A setting is wrong.
            SetupError: `password_file` cannot be used.
        """
        del data_dir
        self._endpoint = Endpoint(
            uri,
            user=user,
            password=password,
            password_file=password_file,
            database=database,
            ca_file=ca_file,
            connections=connections,
        )
        self._writes = asyncio.Semaphore(connections // 2)
        self._reads = asyncio.Semaphore(connections - connections // 2)
        self._beside = asyncio.Semaphore(_BESIDE)
        self._waiting = 0
        self._told = (0, 0)
        self._working: set[asyncio.Task[Any]] = set()
        self._driver: AsyncDriver | None = None
        self._units: Units | None = None
        self._moments = Moments()

    @property
    def access_generation(self) -> int | None:
        """See RecordStore: other servers change access too."""
        return None

    async def open(self) -> None:
        """See RecordStore; waits for a database that is starting.

        Raises:
            SetupError: The database refuses the user, or a newer server wrote the record.
            MipError: BACKEND_UNAVAILABLE.
        """
        driver = self._endpoint.driver()
        try:
            await self._reached(driver)
        except BaseException:
            await driver.close()
            raise
        self._driver = driver
        self._units = Units(driver, self._endpoint.database, self._endpoint.shown, self, self._number)

    async def _reached(self, driver: AsyncDriver) -> None:
        where = self._endpoint.shown
        deadline = time.monotonic() + _OPEN_S
        number = 0
        while True:
            try:
                await migrate(driver, self._endpoint.database, where)
                return
            except AuthError as error:
                raise SetupError(
                    f"Neo4j at {where} refuses the user.", "Correct user and password_file in [record.config]."
                ) from error
            except FAULTS as error:
                if time.monotonic() >= deadline or not (is_lost(error) or is_conflict(error)):
                    raise self._explained(error) from error
            await pause(number, 0.1)
            number += 1

    async def close(self) -> None:
        """See RecordStore."""
        self._units = None
        if self._working:
            await asyncio.wait(self._working)
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()

    async def news(self, cubes: Collection[str]) -> News:
        """See RecordStore."""
        try:
            async with self._ready().session(database=self._endpoint.database) as session:
                statements = ReadStatements(session, self._beside)
                ((access, erased, heads),) = await statements.rows(_NEWS, cubes=list(cubes))
                if (access, erased) != self._told:
                    # The number may be there before the last of what it tells of; the session's next statement waits.
                    await statements.rows(_SETTLED)
                    self._told = access, erased
        except FAULTS as error:
            raise self._explained(error) from error
        return News(access, erased, dict(heads))

    async def read(
        self, work: Callable[[Reader], Awaitable[T]], *, brief: bool = False, again: Sequence[CubeRow] = ()
    ) -> T:
        """See RecordStore."""
        del brief  # whatever goes over the network is awaited
        if again:
            with contextlib.suppress(PurgedMeanwhileError):
                return await self._read(work, again)
        try:
            return await self._read(work)
        except PurgedMeanwhileError as error:
            raise MipError(
                "BACKEND_UNAVAILABLE", "what is read was purged meanwhile; try again", retry_after_s=0.1
            ) from error

    async def _read(self, work: Callable[[Reader], Awaitable[T]], again: Sequence[CubeRow] = ()) -> T:
        pinned, after = self._moments.of(again)
        try:
            async with self._ready().session(database=self._endpoint.database, bookmarks=after) as session:
                reader = Neo4jReader(ReadStatements(session, self._reads), pinned)
                result = await work(reader)
                if len(reader.pinned) > len(pinned):
                    self._moments.note(reader.pinned, await session.last_bookmarks())
                return result
        except FAULTS as error:
            raise self._explained(error) from error

    async def write(self, work: Callable[[Writer], Awaitable[T]]) -> T:
        """See RecordStore."""
        if self._units is None:
            raise MipError("SHUTTING_DOWN", "the server is shutting down")
        self._waiting += 1
        try:
            await self._writes.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._written(work)
        finally:
            self._writes.release()

    async def _written(self, work: Callable[[Writer], Awaitable[T]]) -> T:
        units = self._units
        if units is None:
            raise MipError("SHUTTING_DOWN", "the server is shutting down")
        task = asyncio.create_task(units.run(work), name="record write")
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _ready(self) -> AsyncDriver:
        if self._driver is None:
            raise MipError("SHUTTING_DOWN", "the server is shutting down")
        return self._driver

    async def rows(self, query: str, /, **parameters: Any) -> list[list[Any]]:
        """Runs a statement in a transaction of its own, on one of the connections kept for that."""
        async with self._ready().session(database=self._endpoint.database) as session:
            return await ReadStatements(session, self._beside).rows(query, **parameters)

    async def _number(self, name: str) -> int:
        return await next_number(self, name)

    def _explained(self, error: BaseException) -> MipError:
        found = explained(error, self._endpoint.shown)
        assert found is not None
        return found

    @property
    def waiting_writes(self) -> int:
        """See RecordStore."""
        return self._waiting

    async def probe(self) -> None:
        """See RecordStore."""
        now = time.time_ns()
        try:
            opened = self._ready().session(database=self._endpoint.database)
            async with opened as session, answering(session, _PROBE_S):
                await (await session.run(_PROBE, now=now)).values()
        except FAULTS as error:
            raise self._explained(error) from error

    async def compact(self) -> bool:
        """See RecordStore: what Neo4j offers is a checkpoint, after which transaction logs beyond its retention go.

        What was erased stays in free records of the store's files until they are used again, see ADR 0014.
        """
        try:
            await self.rows(_CHECKPOINT)
        except ClientError as error:
            if error.code not in _NO_CHECKPOINT:
                raise self._explained(error) from error
            # The Community edition makes them by itself, every fifteen minutes unless it is told otherwise.
            _LOG.debug("no checkpoint on demand: %s", error.code)
        except FAULTS as error:
            raise self._explained(error) from error
        return True

    async def check(self) -> Sequence[str]:
        """See RecordStore."""
        try:
            async with self._ready().session(database=self._endpoint.database) as session:
                wrong = await strangers(session)
                statements = ReadStatements(session, self._beside)
                return [*wrong, *[found async for found in stray_nodes(statements)]]
        except FAULTS as error:
            raise self._explained(error) from error
