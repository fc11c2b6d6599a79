"""A search index that is written as the port reads, in plain Python: slow, and what the others are compared with."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memos_server.vec_dbs.base import (
    OPEN,
    All,
    Candidate,
    Compare,
    HasFacet,
    IndexBatch,
    IndexContent,
    IndexEntry,
    IndexQuery,
    IndexResult,
    IndexVersion,
    Not,
    Predicate,
    Some,
    StateIn,
)

OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


@dataclass
class Entry:
    """A version with the revision that ended it."""

    version: IndexVersion
    to_revision: int = OPEN


@dataclass
class Found:
    """A visible version with its content."""

    version: IndexVersion
    content: IndexContent


class NaiveIndex:
    """A SearchIndex in dictionaries. It keeps nothing on disk; BM25 has k1 0.9 and b 0.4."""

    name = "naive"

    def __init__(self, data_dir: str = "", **config: Any) -> None:
        self.revisions: dict[str, int] = {}
        self.contents_by_key: dict[str, dict[bytes, IndexContent]] = {}
        self.entries_of: dict[str, list[Entry]] = {}

    async def open(self, version: str = "") -> None:
        pass

    async def close(self) -> None:
        pass

    async def indexed_revision(self, cube_uid: str) -> int:
        return self.revisions.get(cube_uid, 0)

    async def apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        revision = self.revisions.get(cube_uid, 0)
        if batch.to_revision <= revision:
            return
        contents = self.contents_by_key.get(cube_uid, {})
        fresh = {content.key: content for content in batch.contents if content.key not in contents}
        shapes = {content.vector.shape for content in fresh.values() if content.vector is not None}
        if batch.from_revision != revision or shapes - {(dimension,)}:
            raise ValueError("the batch does not fit")
        if any(v.content is not None and v.content not in contents | fresh for v in batch.versions):
            raise ValueError("unknown content")
        contents = self.contents_by_key.setdefault(cube_uid, contents)
        contents.update(fresh)
        entries = self.entries_of.setdefault(cube_uid, [])
        for version in batch.versions:
            for entry in entries:
                if entry.version.uid == version.uid and entry.to_revision == OPEN:
                    entry.to_revision = version.from_revision
            entries.append(Entry(version))
        for key in batch.erased:
            contents.pop(key, None)
        self.revisions[cube_uid] = batch.to_revision

    async def search(self, cube_uid: str, query: IndexQuery) -> IndexResult:
        visible = list(self._visible(cube_uid, query))
        base = [found for found in visible if found.version.state in query.base]
        passing = [found for found in visible if holds(query.where, found)]
        terms = list(dict.fromkeys(query.terms))
        mean = sum(len(found.content.terms) for found in base) / len(base) if base else 0.0
        idf = {}
        for term in terms:
            df = sum(term in found.content.terms for found in base)
            idf[term] = math.log(1.0 + (len(base) - df + 0.5) / (df + 0.5))

        def candidate(found: Found) -> Candidate:
            score = 0.0
            norm = 0.9 * (1.0 - 0.4 + 0.4 * len(found.content.terms) / (mean or 1.0))
            for term in terms:
                count = list(found.content.terms).count(term)
                if count:
                    score += idf[term] * count / (count + norm)
            cosine = None
            if query.vector is not None and found.content.vector is not None:
                pairs = zip(query.vector.tolist(), found.content.vector.tolist(), strict=True)
                cosine = math.fsum(a * b for a, b in pairs)
            matched = tuple(term for term in terms if term in found.content.terms)
            return Candidate(found.version.uid, found.version.from_revision, score, cosine, matched)

        if not terms and query.vector is None:
            passing.sort(key=lambda found: (-found.version.create_time, found.version.uid))
            newest = [candidate(found) for found in passing[: query.depth]]
            return IndexResult(query.revision, newest, exhausted=len(newest) == len(passing))
        candidates = [candidate(found) for found in passing]
        lexical = sorted((c for c in candidates if c.matched), key=lambda c: (-c.lexical, c.uid))
        vector = sorted((c for c in candidates if c.vector is not None), key=lambda c: (-(c.vector or 0.0), c.uid))
        best = list(dict.fromkeys([*lexical[: query.depth], *vector[: query.depth]]))
        cosines = [c.vector or 0.0 for c in vector[: query.depth]] or [0.0]
        return IndexResult(
            revision=query.revision,
            candidates=best,
            lexical_top=lexical[0].lexical if lexical else 0.0,
            vector_top=cosines[0],
            vector_floor=cosines[-1],
            exhausted=len(best) == len({*lexical, *vector}),
        )

    async def related(self, cube_uid: str, query: IndexQuery, uids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        visible = {found.version.uid: found for found in self._visible(cube_uid, query)}
        passing = [found for found in visible.values() if holds(query.where, found)]
        mentions: dict[str, list[str]] = {}
        for found in passing:
            for entity in found.content.entities:
                mentions.setdefault(entity, []).append(found.version.uid)
        answer: dict[str, Mapping[str, float]] = {}
        for uid in uids:
            weights: dict[str, float] = {}
            for entity in sorted(visible[uid].content.entities) if uid in visible else ():
                others = mentions.get(entity, [])
                if others and len(others) <= 0.02 * len(passing) + 5:
                    for other in others:
                        weights[other] = weights.get(other, 0.0) + math.log(1.0 + len(passing) / len(others))
            weights.pop(uid, None)
            answer[uid] = dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[: query.depth])
        return answer

    async def entries(self, cube_uid: str) -> tuple[int, Sequence[IndexEntry]]:
        held = []
        for entry in self.entries_of.get(cube_uid, ()):
            version = entry.version
            content = self._content(cube_uid, version)
            key = None if content is None else content.key
            vector = b""
            if content is not None and content.vector is not None:
                vector = hashlib.sha256(content.vector.astype("<f4").tobytes()).digest()
            since = version.from_revision
            held.append(
                IndexEntry(version.uid, since, entry.to_revision, key, version.state, version.sensitivity, vector)
            )
        return self.revisions.get(cube_uid, 0), held

    async def drop(self, cube_uid: str) -> None:
        for table in (self.revisions, self.contents_by_key, self.entries_of):
            table.pop(cube_uid, None)  # type: ignore[attr-defined]

    async def probe(self) -> None:
        """See SearchIndex."""

    def _content(self, cube_uid: str, version: IndexVersion) -> IndexContent | None:
        return None if version.content is None else self.contents_by_key[cube_uid].get(version.content)

    def _visible(self, cube_uid: str, query: IndexQuery) -> Iterator[Found]:
        if query.revision > self.revisions.get(cube_uid, 0):
            raise ValueError("the index has not reached the revision")
        entries = self.entries_of.get(cube_uid, [])
        label = {entry.version.uid: entry.version.sensitivity for entry in entries}
        for entry in entries:
            version = entry.version
            content = self._content(cube_uid, version)
            level = max(query.max_sensitivity, query.granted.get(version.uid, 0))
            current = version.from_revision <= query.revision < entry.to_revision
            if current and content is not None and max(version.sensitivity, label[version.uid]) <= level:
                yield Found(version, content)


def holds(where: Predicate, found: Found) -> bool:
    """Returns whether a filter is true of a version."""
    match where:
        case All(parts):
            return all(holds(part, found) for part in parts)
        case Some(parts):
            return any(holds(part, found) for part in parts)
        case Not(part):
            return not holds(part, found)
        case HasFacet(facet):
            return facet in found.content.facets
        case StateIn(states):
            return found.version.state in states
        case Compare(number, op, value):
            times = {"create_time": found.version.create_time, "update_time": found.version.update_time}
            have = times.get(number, found.content.numbers.get(number))
            return have is not None and bool(OPERATORS[op](have, value))
