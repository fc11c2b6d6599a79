"""What other servers write to a shared record reaches those who wait for it here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from memos_server.errors import MipError
from memos_server.graph_dbs.base import News, RecordStore
from memos_server.mem_os import watching
from memos_server.mem_os.watching import AccessChanges, Heads, hear_of_others


class Others:
    """A record to which others write."""

    def __init__(self) -> None:
        self.heads = {"a": 1, "b": 1}
        self.access = 1
        self.erased = 1
        self.forgotten = 0
        self.asked: list[set[str]] = []
        self.away = False

    def forget(self) -> None:
        self.forgotten += 1

    async def news(self, cubes: Collection[str]) -> News:
        self.asked.append(set(cubes))
        if self.away:
            raise MipError("BACKEND_UNAVAILABLE", "away")
        return News(self.access, self.erased, {cube: self.heads[cube] for cube in cubes})


@asynccontextmanager
async def hearing(others: Others, heads: Heads, access: AccessChanges) -> AsyncIterator[None]:
    task = asyncio.create_task(hear_of_others(cast(RecordStore, others), heads, access, others.forget, 0.01))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def settled(others: Others) -> None:
    """Waits for two looks, the second of which began after the call."""
    seen = len(others.asked)
    while len(others.asked) < seen + 2:  # noqa: ASYNC110  nothing tells of a look
        await asyncio.sleep(0.005)


async def test_a_commit_of_another_server_wakes_who_watches_its_cube_and_nobody_else() -> None:
    others, heads = Others(), Heads()
    a, b = heads.subscribe("a"), heads.subscribe("b")
    async with hearing(others, heads, AccessChanges()):
        await settled(others)
        a.clear()
        b.clear()
        others.heads["a"] = 2
        async with asyncio.timeout(5):
            await a.wait()
        await settled(others)
        assert not b.is_set()


async def test_the_record_is_asked_seldom_while_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "IDLE_S", 0.3)
    others, heads = Others(), Heads()
    async with hearing(others, heads, AccessChanges()):
        await asyncio.sleep(0.2)
        assert len(others.asked) == 1
        event = heads.subscribe("a")
        await settled(others)
        heads.unsubscribe("a", event)
        await asyncio.sleep(0.05)
        seen = len(others.asked)
        await asyncio.sleep(0.2)
        assert len(others.asked) <= seen + 1


async def test_caches_forget_what_another_server_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "IDLE_S", 0.02)
    others = Others()
    async with hearing(others, Heads(), AccessChanges()):
        await settled(others)
        assert others.forgotten == 1  # what was erased before the first look is not known
        others.erased = 2
        await settled(others)
        assert others.forgotten == 2


async def test_changed_access_wakes_open_streams() -> None:
    others, access = Others(), AccessChanges()
    async with hearing(others, Heads(), access), asyncio.timeout(5):
        first = asyncio.create_task(access.wait(access.generation))
        await first  # the first look tells in any case: what changed before it is not known
        waiting = asyncio.create_task(access.wait(access.generation))
        await settled(others)
        assert not waiting.done()
        others.access = 2
        await waiting


async def test_a_record_that_is_away_ends_nothing() -> None:
    others, heads = Others(), Heads()
    event = heads.subscribe("a")
    async with hearing(others, heads, AccessChanges()):
        await settled(others)
        event.clear()
        others.away = True
        await settled(others)
        assert not event.is_set()
        others.away, others.heads["a"] = False, 2
        async with asyncio.timeout(5):
            await event.wait()
