"""What BM25 needs to know of all versions that a search is about: how many, how long, and how many have a term.

Weaviate counts what a filter leaves by reading each object, ten microseconds apiece. So the counts of versions and
lengths lie in the cube's head, and the counts of terms, once asked for, are kept and brought along: what changed
between two revisions is a few objects. The past, and what single grants show, are counted as the difference to now.
Only versions that the caller may see are ever counted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weaviate import WeaviateAsyncClient
from weaviate.classes.aggregate import Metrics
from weaviate.classes.query import Filter

from memos_server.vec_dbs.base import IndexQuery
from memos_server.vec_dbs.weaviate import filters
from memos_server.vec_dbs.weaviate.connection import Connection, TooLargeError
from memos_server.vec_dbs.weaviate.heads import Head
from memos_server.vec_dbs.weaviate.reading import Reader
from memos_server.vec_dbs.weaviate.rows import RANKED, Row, term
from memos_server.vec_dbs.weaviate.tenants import Place, Tenants

_CHANGES = 1000
"""Up to how many changed versions counts are brought along; beyond, they are counted anew."""
_TERMS = 20_000
"""How many counts of terms are kept per cube."""
_CUBES = 512
"""Of how many cubes counts are kept."""
_PAST = 8
"""For how many past revisions, and sets of grants, per cube what differs is kept."""
_LISTED = 1000

Base = tuple[int, frozenset[int]]
"""A clearance and the states of the base."""


@dataclass(slots=True)
class Totals:
    """The statistics of a search.

    Attributes:
        versions: N.
        terms: The length of all of them together.
        having: Term -> how many have it; those that were asked for.
    """

    versions: int
    terms: int
    having: dict[str, int] = field(default_factory=dict)

    def add(self, row: Row, sign: int, words: Iterable[str]) -> None:
        """Counts a version, or no longer."""
        self.versions += sign
        self.terms += sign * row.length
        has = set(row.terms.split(" "))
        for word in words:
            if term(word) in has:
                self.having[word] = self.having.get(word, 0) + sign

    @property
    def mean(self) -> float:
        """The mean length; 1 where it is 0."""
        return (self.terms / self.versions if self.versions else 0.0) or 1.0


class _Cube:
    """What is known of one cube, at the revision of its head."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.having: dict[Base, dict[str, int]] = {}
        self.differs: OrderedDict[Any, Any] = OrderedDict()
        self.lock = asyncio.Lock()

    def forget(self, revision: int) -> None:
        self.revision = revision
        self.having.clear()
        self.differs.clear()


class Statistics:
    """The statistics of all cubes."""

    def __init__(self, connection: Connection, tenants: Tenants, reader: Reader) -> None:
        """Asks through a connection."""
        self._connection = connection
        self._tenants = tenants
        self._reader = reader
        self._cubes: OrderedDict[str, _Cube] = OrderedDict()

    def drop(self, cube_uid: str) -> None:
        """Forgets a cube."""
        self._cubes.pop(cube_uid, None)

    async def totals(self, place: Place, head: Head, query: IndexQuery, words: Sequence[str]) -> Totals:
        """Returns the statistics of a query's base at its revision.

        Args:
            place: The cube's tenant.
            head: The cube's head.
            query: The query; its revision is at most the head's.
            words: The terms that are to be counted.
        """
        base = (query.max_sensitivity, query.base)
        found = Totals(0, 0)
        for (state, label), (versions, terms) in head.cells.items():
            if state in query.base and label <= query.max_sensitivity:
                found.versions += versions
                found.terms += terms
        cube = self._cubes.setdefault(place[1], _Cube(head.revision))
        self._cubes.move_to_end(place[1])
        while len(self._cubes) > _CUBES:
            self._cubes.popitem(last=False)
        past = query.revision < head.revision
        special = filters.raised(query.max_sensitivity, query.granted)
        async with cube.lock:
            if cube.revision != head.revision:
                await self._bring(cube, place, head)
        jobs: list[Awaitable[Any]] = [self._having(cube, place, head, base, words)]
        if past:
            key = ("past", head.revision, query.revision)
            jobs.append(self._kept(cube, key, lambda: self._changed(place, query.revision, head.revision)))
        if special:
            granted = ("granted", head.revision, query.revision, frozenset(query.granted.items()))
            jobs.append(self._kept(cube, granted, lambda: self._shown(place, query, special)))
        having, *differences = await asyncio.gather(*jobs)
        found.having = {word: having[word] for word in words}
        if past:
            rows = differences.pop(0)
            if rows is None:
                found = await self._counted(place, query, words)
            else:
                for row in rows:
                    _differ(found, row, query, head.revision, words)
        for row in differences[0] if special else ():
            if row.state in query.base and row.content is not None:
                found.add(row, 1, words)
        return found

    async def _kept(self, cube: _Cube, key: Any, make: Callable[[], Awaitable[Any]]) -> Any:
        if key in cube.differs:
            cube.differs.move_to_end(key)
            return cube.differs[key]
        made = await make()
        cube.differs[key] = made
        while len(cube.differs) > _PAST:
            cube.differs.popitem(last=False)
        return made

    async def _bring(self, cube: _Cube, place: Place, head: Head) -> None:
        """Brings the counts of terms to the head."""
        rows: Sequence[Row] | None = None
        if cube.having and cube.revision < head.revision and head.erased <= cube.revision:
            rows = await self._changed(place, cube.revision, head.revision)
        if rows is None:
            cube.forget(head.revision)
            return
        for (level, base), having in cube.having.items():
            for row in rows:
                if row.content is None or row.state not in base or row.label > level:
                    continue
                # At a head a memory's version is its newest, so its own label is the one that counts.
                sign = int(row.current(head.revision)) - int(row.current(cube.revision))
                if sign:
                    for each in set(row.terms.split(" ")):
                        if each in having:
                            having[each] += sign
        cube.revision = head.revision
        cube.differs.clear()

    async def _having(
        self, cube: _Cube, place: Place, head: Head, base: Base, words: Sequence[str]
    ) -> Mapping[str, int]:
        """Returns word -> how many of the base's versions at the head have it."""
        if sum(map(len, cube.having.values())) > _TERMS:
            cube.having.clear()
        kept = cube.having.setdefault(base, {})
        indexed = {word: term(word) for word in words}
        missing = [each for each in dict.fromkeys(indexed.values()) if each not in kept]
        if missing:
            level, states = base
            labels = {label for _, label in head.cells if label <= level}
            where = [filters.current(head.revision), filters.labels(labels), filters.states(states)]
            counts = await asyncio.gather(*(self._count(place, where, each) for each in missing))
            if cube.revision == head.revision:
                kept.update(zip(missing, counts, strict=True))
            found = {**kept, **dict(zip(missing, counts, strict=True))}
            return {word: found[each] for word, each in indexed.items()}
        return {word: kept[each] for word, each in indexed.items()}

    async def _count(self, place: Place, where: Sequence[Any], word: str) -> int:
        having = Filter.by_property("terms").equal(word)
        found = await self._aggregate(place, filters.every([having, *where]), [])
        return found.total_count or 0 if found is not None else 0

    async def _aggregate(self, place: Place, where: Any, metrics: Sequence[Any]) -> Any:
        if where is False:
            return None
        collection, name = place

        async def call(client: WeaviateAsyncClient) -> Any:
            return (
                await client.collections.use(collection)
                .with_tenant(name)
                .aggregate.over_all(filters=where, total_count=True, return_metrics=list(metrics) or None)
            )

        async with self._tenants.using(place):
            return await self._connection.ask(call)

    async def passing(self, place: Place, head: Head, query: IndexQuery) -> int:
        """Returns how many versions pass a query's filter."""
        states = filters.only_states(query.where)
        special = filters.raised(query.max_sensitivity, query.granted)
        if states is not None and query.revision == head.revision and not special:
            return sum(
                versions
                for (state, label), (versions, _) in head.cells.items()
                if state in states and label <= query.max_sensitivity
            )
        where = filters.every(
            [
                filters.current(query.revision),
                filters.visible(query.max_sensitivity, query.granted),
                filters.pushed(query.where),
            ]
        )
        found = await self._aggregate(place, where, [])
        return found.total_count or 0 if found is not None else 0

    async def _counted(self, place: Place, query: IndexQuery, words: Sequence[str]) -> Totals:
        """Counts a past that differs in too much from now."""
        where = [
            filters.current(query.revision), filters.up_to(query.max_sensitivity), filters.states(query.base)
        ]  # fmt: skip
        total, *counts = await asyncio.gather(
            self._aggregate(place, filters.every(where), [Metrics("length").integer(sum_=True)]),
            *(self._count(place, where, term(word)) for word in words),
        )
        found = Totals(0, 0, dict(zip(words, counts, strict=True)))
        if total is not None and total.total_count:
            found.versions, found.terms = total.total_count, int(total.properties["length"].sum_ or 0)
        return found

    async def _changed(self, place: Place, low: int, high: int) -> Sequence[Row] | None:
        """Returns the versions that began or ended after one revision, up to another; None when they are too many."""
        began, ended = Filter.by_property("from_revision"), Filter.by_property("to_revision")
        where = Filter.any_of(
            [
                Filter.all_of([began.greater_than(low), began.less_or_equal(high)]),
                Filter.all_of([ended.greater_than(low), ended.less_or_equal(high)]),
            ]
        )
        try:
            rows = await self._reader.found(place, where, RANKED, limit=_CHANGES + 1)
        except TooLargeError:
            return None
        return rows if len(rows) <= _CHANGES else None

    async def _shown(self, place: Place, query: IndexQuery, special: Mapping[int, Sequence[str]]) -> Sequence[Row]:
        """Returns the versions that grants show, and the clearance does not."""
        found = []
        below = filters.opposite(filters.up_to(query.max_sensitivity))
        for level, uids in special.items():
            for at in range(0, len(uids), _LISTED):
                memories = filters.memories(uids[at : at + _LISTED])
                where = filters.every([filters.current(query.revision), memories, below, filters.up_to(level)])
                found += await self._reader.found(place, where, RANKED, limit=_LISTED)
        return [row for row in found if row.current(query.revision) and row.level > query.max_sensitivity]


def _differ(found: Totals, row: Row, query: IndexQuery, head: int, words: Sequence[str]) -> None:
    """Counts a version that began or ended between a past revision and the head as the past had it."""
    if row.content is None or row.state not in query.base:
        return
    then = row.current(query.revision) and row.level <= query.max_sensitivity
    now = row.current(head) and row.label <= query.max_sensitivity
    if then != now:
        found.add(row, 1 if then else -1, words)
