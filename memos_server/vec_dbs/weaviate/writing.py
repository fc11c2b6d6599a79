"""Applies batches, so that a search sees all of one or nothing, and several servers may apply the same ones at once.

New versions begin after the indexed revision and old ones are closed after it, so no search at or below that revision
sees any of it. Once everything is written *and read back* (Weaviate reports objects as written that are not, when it
runs out of files), the cube's head is raised, in one object. What is written follows from the log alone and each
version has its own id, so writing twice is writing once; a server that finds that another went past it sets right
what it may have undone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

from weaviate import WeaviateAsyncClient
from weaviate.classes.query import Filter
from weaviate.exceptions import WeaviateInsertManyAllFailedError

from memos_server.errors import MipError
from memos_server.vec_dbs.base import IndexBatch
from memos_server.vec_dbs.weaviate.applying import Application, MovedOnError
from memos_server.vec_dbs.weaviate.collections import Collections
from memos_server.vec_dbs.weaviate.connection import Connection, MissingError
from memos_server.vec_dbs.weaviate.heads import Head, Heads
from memos_server.vec_dbs.weaviate.reading import Reader
from memos_server.vec_dbs.weaviate.rows import (
    Row,
    emptied,
    to_object,
)
from memos_server.vec_dbs.weaviate.tenants import Place, Tenants

_LOG = logging.getLogger(__name__)

_OBJECTS = 200
"""How many objects go into one call that writes."""


class Writer:
    """Writes batches."""

    def __init__(
        self, connection: Connection, collections: Collections, heads: Heads, tenants: Tenants, reader: Reader
    ) -> None:
        """Writes through a connection."""
        self._connection = connection
        self._collections = collections
        self._heads = heads
        self._tenants = tenants
        self.reader = reader
        self._doubtful: dict[str, int] = {}
        """cube -> the revision after which it may have objects that this server emptied and did not write again."""

    async def apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        """See SearchIndex."""
        while True:
            try:
                return await self._apply(cube_uid, dimension, batch)
            except MovedOnError:
                continue

    async def _apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        try:
            head = await self._heads.read_written(cube_uid)
        except MissingError:
            await self._collections.make_heads()
            head = await self._heads.read_written(cube_uid)
        if cube_uid in self._doubtful:
            head = await self._checked(cube_uid)
        if batch.to_revision <= head.revision:
            return
        if batch.from_revision > head.revision:
            raise ValueError(f"the batch begins at {batch.from_revision}, the index is at {head.revision}")
        shapes = {content.vector.shape for content in batch.contents if content.vector is not None}
        if shapes - {(dimension,)} or (head.dimension and dimension not in (0, head.dimension)):
            raise ValueError(f"the batch has vectors of another dimension than {head.dimension or dimension}")
        application = Application(self, cube_uid, head, head.dimension or dimension, batch)
        try:
            await application.run()
        except BaseException:
            if application.emptied:
                # No search sees what is emptied, unless a server that was taken for dead lives and raises the head.
                self._doubtful.setdefault(cube_uid, head.revision)
                await asyncio.shield(asyncio.ensure_future(self._forsake(cube_uid)))
            raise
        if not application.passed_by:
            self._doubtful.pop(cube_uid, None)

    async def _checked(self, cube_uid: str) -> Head:
        """Returns the head of a cube of which emptied objects were left; one that has come past them is removed.

        Whoever brings the cube up then finds it at revision 0 and fills it anew.
        """
        low = self._doubtful[cube_uid]
        head = await self._heads.read(cube_uid)
        if head.revision > low:
            _LOG.warning("the index of cube %s lost objects as several servers wrote it; it is filled anew", cube_uid)
            await self._heads.remove(cube_uid)
            head = await self._heads.read(cube_uid)
        if head.revision < low:
            self._doubtful.pop(cube_uid, None)
        return head

    async def _forsake(self, cube_uid: str) -> None:
        try:
            await self._checked(cube_uid)
        except MipError as error:
            # The next batch for the cube looks again.
            _LOG.debug("cube %s could not be checked: %s", cube_uid, error)

    async def write(self, cube_uid: str, place: Place, rows: Sequence[Row], *, empty: bool = False) -> None:
        """Writes versions, over what is there of them; with `empty`, what will be written over.

        Raises:
            MipError: BACKEND_UNAVAILABLE when any was refused.
        """
        waiting = iter(rows)

        async def some() -> None:
            while chunk := list(islice(waiting, _OBJECTS)):
                make = emptied if empty else to_object
                await self._put(place, [make(cube_uid, row) for row in chunk])

        async with self._tenants.using(place):
            # Two at a time: one is analysed there while the other is on its way.
            await asyncio.gather(some(), some())
            embedded = next((row for row in rows if row.vector is not None), None)
            if embedded is not None and not empty:
                # Weaviate writes its journals before the vectors of a batch are in their graph, and would forget the
                # last ones when it is killed. The next batch writes them; here that is an object that does not change.
                await self._put(place, [to_object(cube_uid, embedded)])

    async def _put(self, place: Place, objects: Sequence[Any]) -> None:
        collection, name = place

        async def call(client: WeaviateAsyncClient) -> int:
            tenant = client.collections.use(collection).with_tenant(name)
            try:
                return len((await tenant.data.insert_many(objects)).errors)
            except WeaviateInsertManyAllFailedError as error:
                if "tenant" in str(error):
                    # It, or its collection, is not there.
                    raise
                return len(objects)

        refused = await self._connection.ask(call, writes=True)
        if refused:
            raise MipError(
                "BACKEND_UNAVAILABLE",
                f"Weaviate refused {refused} of {len(objects)} objects of a cube's index; see its log, "
                "the space on its disk and its limit of open files",
            )

    async def delete(self, place: Place, ids: Collection[Any]) -> None:
        """Deletes objects."""
        collection, name = place

        async def call(client: WeaviateAsyncClient) -> Any:
            tenant = client.collections.use(collection).with_tenant(name)
            return await tenant.data.delete_many(where=Filter.by_id().contains_any(list(ids)))

        async with self._tenants.using(place):
            await self._connection.ask(call, writes=True)

    @property
    def collections(self) -> Collections:
        """The collections."""
        return self._collections

    @property
    def heads(self) -> Heads:
        """The heads."""
        return self._heads

    @property
    def tenants(self) -> Tenants:
        """The tenants."""
        return self._tenants
