"""Search: Weaviate finds candidates, their scores are computed here, exactly as the port says."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from weaviate.classes.query import Filter, Sort

from memos_server.vec_dbs.base import Candidate, IndexQuery, IndexResult
from memos_server.vec_dbs.weaviate import filters
from memos_server.vec_dbs.weaviate.collections import Collections
from memos_server.vec_dbs.weaviate.connection import MissingError
from memos_server.vec_dbs.weaviate.heads import Head, Heads
from memos_server.vec_dbs.weaviate.reading import MOST, Reader
from memos_server.vec_dbs.weaviate.rows import FULL, LIGHT, RANKED, Row, object_id, term
from memos_server.vec_dbs.weaviate.statistics import Statistics, Totals
from memos_server.vec_dbs.weaviate.tenants import Place

_MARGIN = 8
"""How many candidates more than asked for show whether the last ones are equal."""
_SURPLUS = 16
"""One more candidate for so many: Weaviate's BM25 counts what is hidden and past too, and orders a little otherwise.
Each candidate costs Weaviate some forty microseconds, which is most of what a search costs."""
_VECTORS = 500
"""How many vectors are asked for at once."""
_KNOWN_S = 1.0
"""For how long a head is taken for the newest, seconds. A search asks for it again meanwhile."""


class MovedError(Exception):
    """The cube is not where its head said: it was dropped, or moved to another collection."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What a channel found.

    Attributes:
        rows: The versions, best first.
        complete: Whether they are all.
    """

    rows: Sequence[Row]
    complete: bool


class Searcher:
    """Searches cubes."""

    def __init__(
        self,
        collections: Collections,
        heads: Heads,
        reader: Reader,
        statistics: Statistics,
        k1: float,
        b: float,
    ) -> None:
        """Searches with the parameters of BM25."""
        self._collections = collections
        self._heads = heads
        self._reader = reader
        self._statistics = statistics
        self._k1 = k1
        self._b = b

    async def search(self, cube_uid: str, query: IndexQuery) -> IndexResult:
        """See SearchIndex."""
        if query.depth < 1:
            raise ValueError("depth must be at least 1")
        if query.vector is not None and not np.isfinite(query.vector).all():
            raise ValueError("the query vector has a component that is not finite")
        where = filters.every([filters.visible(query.max_sensitivity, query.granted), filters.pushed(query.where)])

        async def ask(head: Head, place: Place) -> IndexResult:
            if query.vector is not None and head.dimension not in (0, len(query.vector)):
                raise ValueError(f"the cube's vectors have dimension {head.dimension}, not {len(query.vector)}")
            if where is False:
                return IndexResult(query.revision, ())
            search = _Search(self, head, place, query, filters.every([filters.current(query.revision), where]))
            return await search.run()

        found: IndexResult = await self.at_head(cube_uid, query.revision, ask, empty=IndexResult(query.revision, ()))
        return found

    async def at_head(
        self,
        cube_uid: str,
        revision: int,
        ask: Callable[[Head, Place], Any],
        *,
        empty: Any,
    ) -> Any:
        """Asks a cube, while its head is read again: the one that is known may be of a Weaviate that lost its data.

        Raises:
            ValueError: The index has not reached the revision.
        """
        known = self._heads.known(cube_uid, _KNOWN_S)
        if known is None or known.revision < revision:
            known = await self._heads.read(cube_uid)
        for _ in range(3):
            if known.revision < revision:
                raise ValueError(f"the index is at revision {known.revision}, not at {revision} yet")
            if not known.revision or not known.objects:
                # What never held an object has no tenant that could be asked.
                return empty
            place = (self._collections.memories(known.dimension), cube_uid)
            asked = asyncio.ensure_future(ask(known, place))
            try:
                now = await self._heads.read(cube_uid)
                # A search that began at a head is right at its revision when the index only went on since.
                if now.revision >= revision and now.dimension == known.dimension:
                    return await asked
            except MissingError:
                # Dropped, or moved, after the head was read.
                self._heads.forget(cube_uid)
                now = await self._heads.read(cube_uid)
                if (now.revision, now.dimension) == (known.revision, known.dimension):
                    await self._heads.remove(cube_uid)
                    now = await self._heads.read(cube_uid)
            finally:
                if not asked.done():
                    asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
            known = now
        raise ValueError("the index is being made anew")

    @property
    def statistics(self) -> Statistics:
        """The statistics."""
        return self._statistics

    @property
    def reader(self) -> Reader:
        """Reads versions."""
        return self._reader

    def weigher(
        self, words: Mapping[str, str], idf: Mapping[str, float], mean: float
    ) -> Callable[[Row], tuple[float, tuple[str, ...]]]:
        """Returns what gives a version its BM25 score, and the terms that it has."""
        # Hundreds of texts are looked at for each search, by words that most of them have not: one look at the text
        # tells. Terms that follow themselves share a space, so that only the whole list counts them right.
        sought = [(word, each, f" {each} ", f" {each} {each} ", idf[word]) for word, each in words.items()]
        k1, b = self._k1, self._b

        def weigh(row: Row) -> tuple[float, tuple[str, ...]]:
            text = f" {row.terms} "
            norm = k1 * (1.0 - b + b * row.length / mean)
            score = 0.0
            matched = []
            for word, indexed, alone, twice, weight in sought:
                if alone in text:
                    times = row.terms.split(" ").count(indexed) if twice in text else text.count(alone)
                    matched.append(word)
                    score += weight * times / (times + norm)
            return score, tuple(matched)

        return weigh


@dataclass(slots=True)
class Scored:
    """A version with its scores."""

    row: Row
    lexical: float
    matched: tuple[str, ...]
    vector: float | None = None


class _Search:
    """One search on its way."""

    def __init__(self, searcher: Searcher, head: Head, place: Place, query: IndexQuery, where: Any) -> None:
        self._searcher = searcher
        self._head = head
        self._place = place
        self._query = query
        self._where = where
        # A term is scored as the caller wrote it, and found as it is indexed.
        self._words = {word: term(word) for word in dict.fromkeys(query.terms)}
        self._special = filters.raised(query.max_sensitivity, query.granted)
        self._grants = {uid: level for level, uids in self._special.items() for uid in uids}
        self._bare = False

    async def run(self) -> IndexResult:
        query = self._query
        if not self._words and query.vector is None:
            return await self._newest()
        if not self._head.dimension and not self._words:
            return IndexResult(query.revision, ())
        if query.depth + _MARGIN > MOST:
            return await self._all()
        by_vector = query.vector is not None and self._head.dimension > 0
        # What a cube of few versions has of a channel comes at once, and tells the statistics besides.
        few = self._head.objects < 2 * query.depth
        states = filters.only_states(query.where)
        tells = few and states is not None and states >= query.base
        lexical, vector, totals = await asyncio.gather(
            self._lexical(few=few, with_vectors=by_vector and not few),
            self._nearest(few=few) if by_vector else _nothing(),
            self._searcher.statistics.totals(self._place, self._head, query, [] if tells else list(self._words))
            if self._words
            else _no_totals(),
        )
        if self._words and tells:
            if lexical.complete:
                in_base = [row for row in lexical.rows if row.state in query.base]
                has = [set(row.terms.split(" ")) for row in in_base]
                totals.having = {word: sum(each in text for text in has) for word, each in self._words.items()}
            else:
                totals = await self._searcher.statistics.totals(self._place, self._head, query, list(self._words))
        if few and by_vector and not vector.complete:
            # More was written than the head knew.
            lexical = await self._lexical(few=False, with_vectors=True)
        return await self._result(lexical, vector, totals)

    async def _lexical(self, *, few: bool, with_vectors: bool) -> Hits:
        """Returns what has a term, in Weaviate's order, which is nearly the port's."""
        if not self._words:
            return Hits((), complete=True)
        text = " ".join(self._words.values())

        async def best(limit: int, where: Any = self._where) -> list[Row]:
            # Those of a few hundred come along; of thousands only the vectors of the best are asked for, later.
            inline = with_vectors and limit <= 4 * self._query.depth
            self._bare |= with_vectors and not inline
            return await self._searcher.reader.ranked(self._place, text, where, RANKED, limit=limit, vectors=inline)

        settled = self._head.settled()
        if few or not settled:
            return await self._widened(best, min(self._head.objects, MOST - _MARGIN))
        enough = self._query.depth + self._query.depth // _SURPLUS
        if settled >= self._head.revision:
            return await self._widened(best, enough)
        # What Weaviate has in memory alone it ranks wrongly unless all of it is asked for.
        past = self._query.revision < self._head.revision
        recent = filters.every([filters.since(settled, ended=past), self._where])
        old, new = await asyncio.gather(self._widened(best, enough), best(MOST, recent))
        if old.complete:
            return old
        return Hits(self._seen([*old.rows, *new]), complete=False)

    async def _nearest(self, *, few: bool) -> Hits:
        """Returns the nearest, at least as many as are asked for, and all that are as near as the last of them."""
        query = self._query
        assert query.vector is not None
        near = query.vector.astype(np.float32, copy=False).tolist()

        # Of few versions those with a term have all come already.
        properties = RANKED if self._words and not few else LIGHT

        async def best(limit: int) -> list[Row]:
            return await self._searcher.reader.nearest(self._place, near, self._where, properties, limit=limit)

        return await self._widened(best, self._head.objects if few else query.depth)

    async def _widened(self, best: Callable[[int], Awaitable[list[Row]]], limit: int) -> Hits:
        """Returns at least the best `depth` of a channel, and all that are as good as the last of them."""
        depth = self._query.depth
        limit += _MARGIN
        while True:
            most = min(limit, MOST)
            rows = await best(most)
            seen = self._seen(rows)
            complete = len(rows) < most
            if complete or most == MOST or (len(seen) > depth and seen[depth - 1].score > seen[-1].score):
                return Hits(seen, complete=complete)
            limit *= 4

    def _seen(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the versions that the caller may see, each memory once; what changed meanwhile is left out."""
        query = self._query
        best: dict[str, Row] = {}
        for row in rows:
            level = max(query.max_sensitivity, self._grants.get(row.uid, 0))
            if row.current(query.revision) and row.level <= level:
                # Two are current only while a server sets right what a slower one wrote.
                other = best.get(row.uid)
                if other is None or other.since < row.since:
                    best[row.uid] = row
        return [row for row in rows if best.get(row.uid) is row]

    async def _result(self, lexical: Hits, vector: Hits, totals: Totals) -> IndexResult:
        query = self._query
        idf = {
            word: math.log(1.0 + (totals.versions - having + 0.5) / (having + 0.5))
            for word, having in ((word, totals.having.get(word, 0)) for word in self._words)
        }
        weigh = self._searcher.weigher(self._words, idf, totals.mean)
        scored = {row.uid: Scored(row, *weigh(row)) for row in lexical.rows}
        # Where all that have a term came, the others have none.
        known = lexical.complete or not self._words
        for row in vector.rows:
            if row.uid not in scored:
                scored[row.uid] = Scored(row, 0.0, ()) if known else Scored(row, *weigh(row))
        cosines = {row.uid: row.score for row in vector.rows}
        by_words = sorted((scored[row.uid] for row in lexical.rows), key=lambda each: (-each.lexical, each.row.uid))
        by_words = [each for each in by_words if each.matched]
        by_vector = sorted(
            (scored[row.uid] for row in vector.rows), key=lambda each: (-cosines[each.row.uid], each.row.uid)
        )
        chosen = list({each.row.uid: each for each in [*by_words[: query.depth], *by_vector[: query.depth]]}.values())
        near = None if query.vector is None else query.vector.astype(np.float32, copy=False)
        if self._bare:
            await self._complete([each.row for each in chosen if each.row.uid not in cosines])
        for each in chosen:
            each.vector = cosines.get(each.row.uid)
            if each.vector is None and near is not None:
                each.vector = _cosine(near, each.row.vector)
        kept = [cosines[each.row.uid] for each in by_vector[: query.depth]]
        channels = {each.row.uid for each in by_words} | {each.row.uid for each in by_vector}
        return IndexResult(
            revision=query.revision,
            candidates=[
                Candidate(each.row.uid, each.row.since, each.lexical, each.vector, each.matched) for each in chosen
            ],
            lexical_top=by_words[0].lexical if by_words else 0.0,
            vector_top=kept[0] if kept else 0.0,
            vector_floor=kept[-1] if kept else 0.0,
            exhausted=lexical.complete and vector.complete and len(chosen) == len(channels),
        )

    async def _complete(self, rows: Sequence[Row]) -> None:
        """Reads the vectors of versions that came without."""
        lacking = {(row.uid, row.since): row for row in rows if row.vector is None}
        ids = [object_id(self._place[1], *at) for at in lacking]
        for low in range(0, len(ids), _VECTORS):
            where = Filter.by_id().contains_any(ids[low : low + _VECTORS])
            for row in await self._searcher.reader.found(self._place, where, LIGHT, limit=_VECTORS, vectors=True):
                lacking[row.uid, row.since].vector = row.vector

    async def _newest(self) -> IndexResult:
        query = self._query
        if query.depth >= MOST:
            return await self._all()
        order = Sort.by_property("create_time", ascending=False).by_property("uid")
        limit = query.depth + 1
        rows = await self._searcher.reader.found(self._place, self._where, LIGHT, limit=limit, sort=order)
        seen = self._seen(rows)
        return IndexResult(
            query.revision, _plain(seen[: query.depth]), exhausted=len(rows) < limit and len(seen) <= query.depth
        )

    async def _all(self) -> IndexResult:
        """Searches deeper than Weaviate goes, by reading the whole cube."""
        return await _Everything(self, self._searcher).run()

    @property
    def parts(self) -> tuple[Head, Place, IndexQuery, Mapping[str, str]]:
        """What a search of everything takes over."""
        return self._head, self._place, self._query, self._words

    seen = _seen
    result = _result


class _Everything:
    """A search that reads every version: for depths beyond what one answer of Weaviate holds."""

    def __init__(self, search: _Search, searcher: Searcher) -> None:
        self._search = search
        self._searcher = searcher

    async def run(self) -> IndexResult:
        head, place, query, words = self._search.parts
        passing: list[Row] = []
        async for page in self._searcher.reader.pages(place, FULL, vectors=query.vector is not None):
            passing += [row for row in self._search.seen(page) if filters.holds(query.where, row)]
        if not words and query.vector is None:
            passing.sort(key=lambda row: (-row.created, row.uid))
            return IndexResult(query.revision, _plain(passing[: query.depth]), exhausted=len(passing) <= query.depth)
        totals = await self._searcher.statistics.totals(place, head, query, list(words))
        near = [row for row in passing if row.vector is not None]
        if query.vector is not None:
            for row in near:
                row.score = _cosine(query.vector, row.vector) or 0.0
        indexed = set(words.values())
        lexical = [row for row in passing if not indexed.isdisjoint(row.terms.split(" "))]
        nearest = near if query.vector is not None else []
        return await self._search.result(Hits(lexical, complete=True), Hits(nearest, complete=True), totals)


async def _nothing() -> Hits:
    return Hits((), complete=True)


async def _no_totals() -> Totals:
    return Totals(0, 0)


def _plain(rows: Sequence[Row]) -> list[Candidate]:
    return [Candidate(row.uid, row.since, 0.0, None, ()) for row in rows]


def _cosine(near: NDArray[np.float32], vector: NDArray[np.float32] | None) -> float | None:
    return None if vector is None else float(np.dot(near, vector))
