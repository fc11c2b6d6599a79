"""How far each cube is indexed, and the statistics of what it holds there.

A cube has one head per server that wrote to it, and the furthest counts. A server writes only its own, in the order in
which it applied batches, so none is ever lowered; one that a dead server left behind is passed by the others'.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weaviate import WeaviateAsyncClient
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter
from weaviate.collections.classes.grpc import _MetadataQuery

from memos_server.errors import MipError
from memos_server.vec_dbs.weaviate.connection import Connection, MissingError
from memos_server.vec_dbs.weaviate.rows import Row

_SERVERS = 1000
"""The most heads of one cube that are read."""
_TIDY = 8
"""From how many on the heads that others passed are removed."""
_PROPERTIES = ["revision", "dimension", "objects", "erased", "totals", "marks"]
_SETTLED_S = 150.0
"""After how long Weaviate has certainly written to files what was in its memory, seconds: it does after 60, by default
(PERSISTENCE_MEMTABLES_FLUSH_DIRTY_AFTER_SECONDS)."""

Cells = dict[tuple[int, int], tuple[int, int]]
"""(state, label) -> how many versions are current, and how many terms they have together."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far a cube is indexed.

    Attributes:
        revision: The revision that its index reflects; 0 when there is none.
        dimension: The dimension of its vectors, which names the collection that has it; 0 while it has none.
        objects: How many objects it has at least.
        erased: The last revision whose batch erased a content.
        cells: Its versions that are current at the revision and have a content, counted.
        marks: (when, seconds since the epoch; the revision that was reached then), oldest first, a few; the last one is
            of the last write.
    """

    revision: int = 0
    dimension: int = 0
    objects: int = 0
    erased: int = 0
    cells: Mapping[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    marks: Sequence[tuple[float, int]] = ()

    def settled(self) -> int:
        """Returns a revision up to which everything was written so long ago that Weaviate has it in files; 0 if none.

        What it has yet in memory alone its BM25 ranks wrongly: once it found as many as it was asked for, it passes
        over the rest (1.35.2, whose blocks in memory tell no greatest impact).
        """
        old = time.time() - _SETTLED_S
        return max((revision for when, revision in self.marks if when < old), default=0)

    def marked(self, revision: int) -> Sequence[tuple[float, int]]:
        """Returns the marks of the head that follows."""
        now = time.time()
        old = [mark for mark in self.marks if mark[0] < now - _SETTLED_S][-1:]
        new = [mark for mark in self.marks if mark[0] >= now - _SETTLED_S]
        # The last mark is that of the last write, so that a cube that nobody writes to settles as a whole.
        if len(new) > 1 and new[-1][0] - new[-2][0] < _SETTLED_S / 8:
            new.pop()
        return [*old, *new, (now, revision)]

    @property
    def versions(self) -> int:
        """How many versions with content are current."""
        return sum(count for count, _ in self.cells.values())


NONE = Head()


def count(cells: Cells, row: Row, sign: int) -> None:
    """Adds a version to the counts, or takes it out."""
    at = (row.state, row.label)
    versions, terms = cells.get(at, (0, 0))
    versions, terms = versions + sign, terms + sign * row.length
    if versions or terms:
        cells[at] = versions, terms
    else:
        cells.pop(at, None)


class Heads:
    """The heads of all cubes."""

    def __init__(self, connection: Connection, name: str) -> None:
        """Keeps heads in the collection `name`."""
        self._connection = connection
        self._name = name
        self._slot = uuid.uuid4()
        self._known: dict[str, tuple[float, Head]] = {}

    def known(self, cube_uid: str, age_s: float) -> Head | None:
        """Returns the head when it was read within the last `age_s` seconds."""
        found = self._known.get(cube_uid)
        return found[1] if found is not None and time.monotonic() - found[0] <= age_s else None

    def forget(self, cube_uid: str) -> None:
        """Has the head read anew."""
        self._known.pop(cube_uid, None)

    async def read(self, cube_uid: str) -> Head:
        """Returns the head as it is in Weaviate now; NONE when there is none.

        Raises:
            MipError: BACKEND_UNAVAILABLE.
        """
        try:
            return await self.read_written(cube_uid)
        except MissingError:
            self._known[cube_uid] = (time.monotonic(), NONE)
            return NONE

    async def read_written(self, cube_uid: str) -> Head:
        """Returns the head as `read` does, for one who will write it.

        Raises:
            MipError: BACKEND_UNAVAILABLE.
            MissingError: The collection is to be made first.
        """
        asked = time.monotonic()

        found = await self._all(cube_uid)
        head = NONE
        if found:
            head = _head(max(found, key=_revision).properties.non_ref_props.fields)
        last = self._known.get(cube_uid)
        if last is None or last[0] <= asked:
            self._known[cube_uid] = (asked, head)
        return head

    async def write(self, cube_uid: str, head: Head) -> None:
        """Raises the cube's head.

        Raises:
            MipError: BACKEND_UNAVAILABLE.
        """
        cells = {f"{state},{label}": list(counts) for (state, label), counts in sorted(head.cells.items())}
        properties = {
            "cube": cube_uid,
            "revision": head.revision,
            "dimension": head.dimension,
            "objects": head.objects,
            "erased": head.erased,
            "totals": json.dumps(cells, separators=(",", ":")),
            "marks": json.dumps(list(head.marks)),
        }
        own = uuid.uuid5(self._slot, cube_uid)

        async def call(client: WeaviateAsyncClient) -> Any:
            made: Any = DataObject(properties=properties, uuid=own)
            return await client.collections.use(self._name).data.insert_many([made])

        if (await self._connection.ask(call, writes=True)).has_errors:
            raise MipError("BACKEND_UNAVAILABLE", "Weaviate did not take how far a cube is indexed; see its log")
        self._known.pop(cube_uid, None)
        after = await self.read(cube_uid)
        if after.revision < head.revision:
            raise MipError("BACKEND_UNAVAILABLE", "Weaviate reported as written what it does not have; see its log")
        await self._tidy(cube_uid, after)

    async def _all(self, cube_uid: str) -> Sequence[Any]:
        def build(builder: Any) -> Any:
            return builder.get(
                limit=_SERVERS,
                filters=Filter.by_property("cube").equal(cube_uid),
                return_metadata=_MetadataQuery(vector=False),
                return_properties=_PROPERTIES,
            )

        return await self._connection.search(self._name, None, build)

    async def _tidy(self, cube_uid: str, head: Head) -> None:
        """Removes the heads that were passed, once there are many: every start of a server leaves one."""

        if head.revision % 64:
            return
        old = [each.metadata.id for each in await self._all(cube_uid) if _revision(each) < head.revision]
        if len(old) < _TIDY:
            return

        async def remove(client: WeaviateAsyncClient) -> Any:
            return await client.collections.use(self._name).data.delete_many(where=Filter.by_id().contains_any(old))

        await self._connection.ask(remove, writes=True)

    async def remove(self, cube_uid: str) -> None:
        """Has the cube at revision 0."""
        self.forget(cube_uid)

        async def call(client: WeaviateAsyncClient) -> Any:
            where = Filter.by_property("cube").equal(cube_uid)
            return await client.collections.use(self._name).data.delete_many(where=where)

        try:
            await self._connection.ask(call, writes=True)
        except MissingError:
            return
        finally:
            self.forget(cube_uid)


def _revision(result: Any) -> int:
    return int(result.properties.non_ref_props.fields["revision"].int_value)


def _head(have: Mapping[str, Any]) -> Head:
    cells: Cells = {}
    for at, (versions, terms) in json.loads(have["totals"].text_value).items():
        state, label = at.split(",")
        cells[int(state), int(label)] = (versions, terms)
    return Head(
        revision=have["revision"].int_value,
        dimension=have["dimension"].int_value,
        objects=have["objects"].int_value,
        erased=have["erased"].int_value,
        cells=cells,
        marks=[(float(when), int(revision)) for when, revision in json.loads(have["marks"].text_value or "[]")],
    )
