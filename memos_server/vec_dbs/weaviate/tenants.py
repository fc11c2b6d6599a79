"""The cubes' tenants: which of them are loaded in Weaviate.

A loaded tenant holds open files there, and a Weaviate that runs out of files reports as written what is not. So each
server keeps at most so many loaded and lets go of those that it did not use for longest; Weaviate loads them again by
itself when they are asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

from weaviate import WeaviateAsyncClient

from memos_server.errors import MipError
from memos_server.vec_dbs.weaviate.connection import Connection, MissingError, NoCollectionError

_LOG = logging.getLogger(__name__)
_AT_ONCE = 100
_PAUSE_S = 1.0
"""How long after unloading failed it is not tried again, seconds."""

Place = tuple[str, str]
"""A collection's name and a tenant's."""


class Tenants:
    """The tenants that this server used, at most so many of them loaded."""

    def __init__(self, connection: Connection, most: int) -> None:
        """Keeps at most `most` loaded."""
        self._connection = connection
        self._most = most
        self._used: OrderedDict[Place, None] = OrderedDict()
        self._busy: dict[Place, int] = {}
        self._leaving: set[Place] = set()
        self._resting: asyncio.Task[None] | None = None
        self._failed = -_PAUSE_S

    @property
    def loaded(self) -> int:
        """How many this server has loaded."""
        return len(self._used)

    @asynccontextmanager
    async def using(self, place: Place) -> AsyncIterator[None]:
        """Keeps a tenant loaded while it is asked something. One that is being unloaded is waited for."""
        while place in self._leaving and self._resting is not None:
            await asyncio.wait([self._resting])
        self._used[place] = None
        self._used.move_to_end(place)
        self._busy[place] = self._busy.get(place, 0) + 1
        try:
            yield
        finally:
            self._busy[place] -= 1
            if not self._busy[place]:
                del self._busy[place]
            idle = self._resting is None or self._resting.done()
            if len(self._used) > self._most and idle and time.monotonic() - self._failed >= _PAUSE_S:
                self._resting = asyncio.create_task(self._rest(), name="weaviate tenants")

    def forget(self, place: Place) -> None:
        """Notes that a tenant is gone."""
        self._used.pop(place, None)

    async def close(self) -> None:
        """Waits for what is being unloaded."""
        if self._resting is not None:
            await asyncio.gather(self._resting, return_exceptions=True)

    async def adopt(self, collection: str) -> None:
        """Counts the tenants that are loaded already as this server's, as those that were not used for longest."""

        async def call(client: WeaviateAsyncClient) -> Any:
            return await client.collections.use(collection).tenants.get()

        try:
            found = await self._connection.ask(call, writes=True)
        except MissingError:
            return
        for name, tenant in found.items():
            if tenant.activity_status.name == "ACTIVE" and (collection, name) not in self._used:
                self._used[collection, name] = None
                self._used.move_to_end((collection, name), last=False)
        if len(self._used) > self._most:
            await self._rest()

    async def _rest(self) -> None:
        while (over := len(self._used) - self._most) > 0:
            # Some more than needed: one call for each cube that comes would be as slow as the cubes.
            count = min(max(over, self._most // 20), _AT_ONCE)
            oldest = list(islice((place for place in self._used if place not in self._busy), count))
            if not oldest:
                # All are being asked; the next one that was answered begins again.
                return
            by_collection: dict[str, list[str]] = {}
            for place in oldest:
                del self._used[place]
                by_collection.setdefault(place[0], []).append(place[1])
            self._leaving.update(oldest)
            loaded = set(oldest)
            try:
                for collection, names in by_collection.items():
                    with contextlib.suppress(NoCollectionError):
                        await self._unload(collection, names)
                    loaded.difference_update((collection, name) for name in names)
            except (MipError, MissingError) as error:
                _LOG.warning("%d cubes could not be unloaded from Weaviate: %s", len(loaded), error)
                self._failed = time.monotonic()
                return
            finally:
                self._leaving.difference_update(oldest)
                # What is loaded yet still counts, and is the first to go.
                for place in reversed(oldest):
                    if place in loaded and place not in self._used:
                        self._used[place] = None
                        self._used.move_to_end(place, last=False)

    async def _unload(self, collection: str, names: list[str]) -> None:
        async def call(client: WeaviateAsyncClient) -> Any:
            there = await client.collections.use(collection).tenants.get_by_names(names)
            if there:
                await client.collections.use(collection).tenants.deactivate(list(there))

        await self._connection.ask(call, writes=True)

    async def remove(self, collection: str, name: str) -> None:
        """Deletes a tenant with its files; nothing when it is not there."""
        self.forget((collection, name))

        async def call(client: WeaviateAsyncClient) -> Any:
            return await client.collections.use(collection).tenants.remove([name])

        try:
            await self._connection.ask(call, writes=True)
        except MissingError:
            return
        finally:
            self.forget((collection, name))

    async def objects(self, place: Place) -> int:
        """Returns how many objects a tenant has; 0 when it is not there."""
        collection, name = place

        async def call(client: WeaviateAsyncClient) -> Any:
            return await client.collections.use(collection).with_tenant(name).aggregate.over_all(total_count=True)

        try:
            async with self.using(place):
                return (await self._connection.ask(call)).total_count or 0
        except MissingError:
            return 0
