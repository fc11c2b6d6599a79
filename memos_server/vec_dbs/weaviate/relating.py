"""Memories that mention the same things."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

from weaviate.classes.query import Filter

from memos_server.vec_dbs.base import IndexQuery
from memos_server.vec_dbs.weaviate import filters
from memos_server.vec_dbs.weaviate.heads import Head
from memos_server.vec_dbs.weaviate.reading import MOST
from memos_server.vec_dbs.weaviate.rows import ENTITY, LIGHT, Row
from memos_server.vec_dbs.weaviate.searching import Searcher
from memos_server.vec_dbs.weaviate.tenants import Place

_AT_ONCE = 2000
"""How many versions are read together for all entities; more are read entity by entity."""
_NAMED = [*LIGHT, "tokens"]
_SHARE = 0.02
_FEW = 5
"""An entity that more than _SHARE of all passing versions and _FEW mention says nothing of their kinship."""


async def related(
    searcher: Searcher, head: Head, place: Place, query: IndexQuery, uids: Sequence[str]
) -> Mapping[str, Mapping[str, float]]:
    """Returns uid -> neighbour's uid -> weight, best first; see the port.

    N and df are taken over the visible memories for which the filter is true, so what it excludes has no influence.
    """
    asked = list(dict.fromkeys(uids))
    visible = [filters.current(query.revision), filters.visible(query.max_sensitivity, query.granted)]
    passing = filters.every([*visible, filters.pushed(query.where)])
    if passing is False or not asked:
        return {uid: {} for uid in asked}
    levels = {uid: max(query.max_sensitivity, level) for uid, level in query.granted.items()}

    def seen(rows: Sequence[Row]) -> dict[str, Row]:
        return {
            row.uid: row
            for row in rows
            if row.current(query.revision) and row.level <= levels.get(row.uid, query.max_sensitivity)
        }

    async def seeds() -> dict[str, Row]:
        found: list[Row] = []
        for at in range(0, len(asked), _AT_ONCE):
            where = filters.every([*visible, filters.memories(asked[at : at + _AT_ONCE])])
            found += await _rows(searcher, place, where, MOST)
        return seen(found)

    named, total = await asyncio.gather(seeds(), searcher.statistics.passing(place, head, query))
    entities = sorted({each for row in named.values() for each in row.words if each[0] == ENTITY})
    most = int(_SHARE * total + _FEW)
    sharing = {
        each: found
        for each, rows in (await _mentions(searcher, place, passing, entities, most)).items()
        if 0 < len(found := seen(rows)) <= most
    }
    answer: dict[str, Mapping[str, float]] = {}
    for uid in asked:
        weights: dict[str, float] = {}
        for each in sorted(named[uid].words) if uid in named else ():
            if each in sharing:
                for other in sharing[each]:
                    weights[other] = weights.get(other, 0.0) + math.log(1.0 + total / len(sharing[each]))
        weights.pop(uid, None)
        answer[uid] = dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[: query.depth])
    return answer


async def _mentions(
    searcher: Searcher, place: Place, passing: object, entities: Sequence[str], most: int
) -> Mapping[str, Sequence[Row]]:
    """Returns entity -> the versions that mention it; of one that more than `most` mention, at least that many."""
    if not entities:
        return {}
    found: dict[str, list[Row]] = {each: [] for each in entities}
    together = await _rows(searcher, place, filters.every([passing, filters.has(*entities)]), _AT_ONCE)
    if len(together) < _AT_ONCE:
        for row in together:
            for each in row.words:
                if each in found:
                    found[each].append(row)
        return found
    limit = min(most + 1, MOST)
    for at in range(0, len(entities), 16):
        some = entities[at : at + 16]
        mentioning = [filters.every([passing, filters.has(each)]) for each in some]
        answers = await asyncio.gather(*(_rows(searcher, place, where, limit) for where in mentioning))
        found.update(zip(some, answers, strict=True))
    return found


async def _rows(searcher: Searcher, place: Place, where: Filter, limit: int) -> list[Row]:
    return await searcher.reader.found(place, where, _NAMED, limit=limit)
