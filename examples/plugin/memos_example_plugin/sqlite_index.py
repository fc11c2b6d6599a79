"""A search index in one SQLite file per cube: nothing is kept in memory, every search is an exact scan."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import operator
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from memos_example_plugin.tables import CubeTables, Seen
from memos_server.errors import MipError
from memos_server.vec_dbs.base import (
    All,
    Candidate,
    Compare,
    HasFacet,
    IndexBatch,
    IndexEntry,
    IndexQuery,
    IndexResult,
    Not,
    Predicate,
    Some,
    StateIn,
)

_K1: Final = 0.9
_B: Final = 0.4
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


class SqliteIndex:
    """A search index over SQLite files (the port `memos.vec_dbs`)."""

    name = "example-sqlite"

    def __init__(self, data_dir: str, *, wait_for_disk: bool = True, open_cubes: int = 64) -> None:
        """Makes the index; nothing is opened yet.

        Args:
            data_dir: The server's data folder; the files go into its `index/`, which is the indexes' own.
            wait_for_disk: Whether files survive a power loss whole. Without it they may have to be made anew after one.
            open_cubes: How many cubes' files stay open; beyond, those that were not used for longest are closed.

        Raises:
            ValueError: A setting is wrong.
        """
        if not isinstance(wait_for_disk, bool):
            raise ValueError("wait_for_disk must be true or false")
        if not isinstance(open_cubes, int) or open_cubes < 1:
            raise ValueError("open_cubes must be a number from 1 on")
        self._folder = Path(data_dir) / "index"
        self._wait = wait_for_disk
        self._most = open_cubes
        self._cubes: OrderedDict[str, CubeTables] = OrderedDict()
        # Answers for cubes that were never indexed.
        self._empty = CubeTables(Path(":memory:"), wait_for_disk=False)
        self._lock = threading.Lock()

    async def open(self, version: str = "") -> None:
        """Makes the folder. A cube's file is opened when it is first used; a damaged one is dropped then. Everything
        lies in the data folder, where the server removes what is of another version.
        """
        del version
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)

    async def close(self) -> None:
        """Closes the files."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            for cube in self._cubes.values():
                with cube.lock:
                    cube.close()
            self._cubes.clear()
            self._empty.close()

    async def indexed_revision(self, cube_uid: str) -> int:
        """Returns the revision that the cube's index reflects; 0 when there is none."""
        return await self._read(cube_uid, CubeTables.revision)

    async def apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        """Brings the index to `batch.to_revision`."""
        await asyncio.to_thread(self._apply, cube_uid, dimension, batch)

    def _apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        with self._using(cube_uid, make=True) as cube:
            cube.apply(dimension, batch)

    async def search(self, cube_uid: str, query: IndexQuery) -> IndexResult:
        """Returns the best candidates."""
        return await self._read(cube_uid, lambda cube: _search(cube, query))

    async def related(self, cube_uid: str, query: IndexQuery, uids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """Returns the visible memories that share an entity with each uid."""
        return await self._read(cube_uid, lambda cube: _related(cube, query, uids))

    async def entries(self, cube_uid: str) -> tuple[int, Sequence[IndexEntry]]:
        """Returns the indexed revision and every version."""
        return await self._read(cube_uid, CubeTables.entries)

    async def drop(self, cube_uid: str) -> None:
        """Erases the cube's index."""
        await asyncio.to_thread(self._drop, cube_uid)

    def _drop(self, cube_uid: str) -> None:
        with self._lock:
            cube = self._cubes.pop(cube_uid, None)
            if cube is not None:
                with cube.lock:
                    cube.close()
            self._remove(self._path(cube_uid))

    def _path(self, cube_uid: str) -> Path:
        return self._folder / f"{cube_uid}.sqlite"

    def _remove(self, path: Path) -> None:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def _using(self, cube_uid: str, *, make: bool = False) -> Iterator[CubeTables]:
        """Holds a cube's tables for one thread, opened if need be.

        Args:
            cube_uid: The cube.
            make: Whether to make the file of a cube that has none; else empty tables take its place.
        """
        while True:
            with self._lock:
                cube = self._opened(cube_uid, make=make)
                cube.users += 1
            try:
                with cube.lock:
                    # A cube that was dropped while this thread waited for it is looked up again.
                    if not cube.closed or cube is self._empty:
                        yield cube
                        return
            finally:
                with self._lock:
                    cube.users -= 1
                    # Those that were used at once may be more than stay open.
                    self._close_unused(self._most)

    def _close_unused(self, most: int) -> None:
        """Closes the files that nobody uses, those unused for longest first, until `most` are open; the lock held."""
        surplus = max(len(self._cubes) - most, 0)
        for unused in [uid for uid, cube in self._cubes.items() if not cube.users][:surplus]:
            self._cubes.pop(unused).close()

    def _opened(self, cube_uid: str, *, make: bool) -> CubeTables:
        """Returns a cube's tables, the lock held."""
        if cube_uid in self._cubes:
            self._cubes.move_to_end(cube_uid)
            return self._cubes[cube_uid]
        path = self._path(cube_uid)
        if not make and not path.exists():
            return self._empty
        self._close_unused(self._most - 1)
        try:
            cube = CubeTables(path, wait_for_disk=self._wait)
        except sqlite3.DatabaseError as error:
            _LOG.warning("%s is made anew: %s", path.name, error)
            self._remove(path)
            cube = CubeTables(path, wait_for_disk=self._wait)
        self._cubes[cube_uid] = cube
        return cube

    async def probe(self) -> None:
        """Tries whether the folder can be written to.

        Raises:
            MipError: BACKEND_UNAVAILABLE.
        """
        await asyncio.to_thread(self._probe)

    def _probe(self) -> None:
        try:
            trial = self._folder / "probe"
            trial.write_bytes(b"")
            trial.unlink()
        except OSError as error:
            raise MipError("BACKEND_UNAVAILABLE", f"The index folder cannot be written: {error.strerror}.") from error

    async def _read(self, cube_uid: str, read: Callable[[CubeTables], _T]) -> _T:
        def run() -> _T:
            try:
                with self._using(cube_uid) as cube:
                    return read(cube)
            except sqlite3.DatabaseError as error:
                raise MipError("BACKEND_UNAVAILABLE", f"The index cannot be read: {error}.") from error

        return await asyncio.to_thread(run)


def _matching(cube: CubeTables, seen: Mapping[int, Seen], where: Predicate) -> set[int]:
    """Returns the contents of the seen versions for which the predicate is true."""
    match where:
        case All(parts):
            found = set(seen)
            for part in parts:
                found &= _matching(cube, seen, part)
            return found
        case Some(parts):
            return {content for part in parts for content in _matching(cube, seen, part)}
        case Not(part):
            return set(seen) - _matching(cube, seen, part)
        case HasFacet(facet):
            return {content for content in cube.with_facet(facet) if content in seen}
        case StateIn(states):
            return {content for content, version in seen.items() if version.state in states}
        case Compare(number, op, value):
            holds = _OPERATORS[op]
            if number == "create_time":
                return {content for content, version in seen.items() if holds(version.create_time, value)}
            if number == "update_time":
                return {content for content, version in seen.items() if holds(version.update_time, value)}
            return {content for content, own in cube.with_number(number) if content in seen and holds(own, value)}


def _lexical(
    cube: CubeTables, seen: Mapping[int, Seen], passing: set[int], query: IndexQuery
) -> dict[int, tuple[float, tuple[str, ...]]]:
    """Returns the BM25 score and the matched terms of each passing content that has a term of the query."""
    base = {content for content, version in seen.items() if version.state in query.base}
    mean = sum(seen[content].length for content in base) / len(base) if base else 0.0
    scores: dict[int, float] = {}
    matched: dict[int, list[str]] = {}
    for term in dict.fromkeys(query.terms):
        counts = {content: count for content, count in cube.postings(term) if content in seen}
        frequency = sum(1 for content in counts if content in base)
        weight = math.log(1 + (len(base) - frequency + 0.5) / (frequency + 0.5))
        for content, count in counts.items():
            if content in passing:
                norm = _K1 * (1 - _B + _B * seen[content].length / (mean or 1.0))
                scores[content] = scores.get(content, 0.0) + weight * count / (count + norm)
                matched.setdefault(content, []).append(term)
    return {content: (score, tuple(matched[content])) for content, score in scores.items()}


def _cosines(cube: CubeTables, passing: set[int], vector: np.ndarray) -> dict[int, float]:
    """Returns the cosine of each passing content that has a vector."""
    # Each row is summed by itself: a product of matrices may round differently with other rows beside it.
    return {content: float((own * vector).sum()) for content, own in cube.vectors(passing)}


def _search(cube: CubeTables, query: IndexQuery) -> IndexResult:
    seen = cube.seen(query)
    passing = _matching(cube, seen, query.where)

    def best(scores: Mapping[int, float]) -> list[int]:
        return heapq.nsmallest(query.depth, scores, key=lambda content: (-scores[content], seen[content].uid))

    lexical = _lexical(cube, seen, passing, query) if query.terms else {}
    cosines = {} if query.vector is None else _cosines(cube, passing, query.vector)
    if query.terms or query.vector is not None:
        by_words = best({content: score for content, (score, _) in lexical.items()})
        by_vector = best(cosines)
        chosen = list(dict.fromkeys([*by_words, *by_vector]))
        exhausted = len(chosen) == len(lexical.keys() | cosines.keys())
    else:
        by_words = by_vector = []
        chosen = best({content: seen[content].create_time for content in passing})
        exhausted = len(chosen) == len(passing)
    candidates = []
    for content in chosen:
        score, terms = lexical.get(content, (0.0, ()))
        version = seen[content]
        candidates.append(Candidate(version.uid, version.from_revision, score, cosines.get(content), terms))
    return IndexResult(
        query.revision,
        candidates,
        lexical_top=lexical[by_words[0]][0] if by_words else 0.0,
        vector_top=cosines[by_vector[0]] if by_vector else 0.0,
        vector_floor=cosines[by_vector[-1]] if by_vector else 0.0,
        exhausted=exhausted,
    )


def _related(cube: CubeTables, query: IndexQuery, uids: Sequence[str]) -> dict[str, dict[str, float]]:
    seen = cube.seen(query)
    passing = _matching(cube, seen, query.where)
    content_of = {version.uid: content for content, version in seen.items()}
    result: dict[str, dict[str, float]] = {}
    for uid in uids:
        weights: dict[str, float] = {}
        for entity in cube.entities(content_of[uid]) if uid in content_of else ():
            sharing = [content for content in cube.with_entity(entity) if content in passing]
            if not sharing or len(sharing) > 0.02 * len(passing) + 5:
                continue
            for content in sharing:
                other = seen[content].uid
                if other != uid:
                    weights[other] = weights.get(other, 0.0) + math.log(1 + len(passing) / len(sharing))
        nearest = heapq.nsmallest(query.depth, weights, key=lambda other: (-weights[other], other))
        result[uid] = {other: weights[other] for other in nearest}
    return result
