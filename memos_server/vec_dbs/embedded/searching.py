"""Search and neighbours over one cube's index."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from memos_server.vec_dbs.base import Candidate, IndexQuery, IndexResult
from memos_server.vec_dbs.embedded import bm25
from memos_server.vec_dbs.embedded.cube_index import UID_BYTES, CubeIndex
from memos_server.vec_dbs.embedded.predicates import passing
from memos_server.vec_dbs.embedded.views import View, make_view, statistics

VIEWS = 4
"""How many views are kept for the next search of the same revision and clearance: 16 to 144 bytes per content each."""

_ViewKey = tuple[int, int, int, frozenset[tuple[str, int]]]


class CubeSearcher:
    """Searches a cube's index. Safe to use from several threads while the index does not change."""

    def __init__(self, cube: CubeIndex, k1: float, b: float) -> None:
        """Makes a searcher with the parameters of BM25."""
        self._cube = cube
        self._k1 = k1
        self._b = b
        self._views: OrderedDict[_ViewKey, View] = OrderedDict()
        self._lock = threading.Lock()

    def search(self, query: IndexQuery) -> IndexResult:
        """Returns the best candidates: the lexical channel's first, best first, then those of the vector channel alone.

        Raises:
            ValueError: The query does not fit the index.
        """
        cube = self._cube
        if query.depth < 1:
            raise ValueError("depth must be at least 1")
        if query.vector is not None and cube.vectors.dimension not in (0, len(query.vector)):
            raise ValueError(f"the cube's vectors have dimension {cube.vectors.dimension}, not {len(query.vector)}")
        if query.vector is not None and not np.isfinite(query.vector).all():
            raise ValueError("the query vector has a component that is not finite")
        view = self._view(query)
        wanted = passing(cube, view, query.where)
        if not wanted.any():
            return IndexResult(query.revision, ())
        if not query.terms and query.vector is None:
            return self._newest(query, view, wanted)
        stats = statistics(cube, view, query.base, self._k1, self._b)
        terms = bm25.query_terms(cube.terms, stats, query.terms)

        lexical = partial(bm25.exact, terms, stats, cube.contents.length.values, k1=self._k1, b=self._b)
        by_words: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        scores: NDArray[np.float64] = np.empty(0, dtype=np.float64)
        matched = np.zeros((len(terms), 0), dtype=np.bool_)
        found = np.zeros(len(wanted), dtype=np.bool_)
        if terms:
            rough = bm25.approximate(terms, stats)
            found = (rough > 0) & wanted
            near = _nearly_best(rough, found, query.depth, relative=bm25.slack(terms))
            scores, matched = lexical(near)
            order = self._order(view, near, scores, query.depth)
            by_words, scores, matched = near[order], scores[order], matched[:, order]

        by_vector: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        cosines: NDArray[np.float64] = np.empty(0, dtype=np.float64)
        if query.vector is not None:
            vector = query.vector.astype(np.float32, copy=False)
            embedded = wanted & cube.contents.has_vector.values
            near = _nearly_best(
                cube.vectors.approximate(vector, embedded), embedded, query.depth, absolute=cube.vectors.slack
            )
            exact = cube.vectors.exact(vector, near)
            order = self._order(view, near, exact, query.depth)
            by_vector, cosines = near[order], exact[order]
            found |= embedded

        # Each channel's own candidates have their score in it already; the other one's is computed for them.
        lexical_top = float(scores[0]) if len(scores) else 0.0
        alone = ~np.isin(by_vector, by_words) if len(by_words) else np.ones(len(by_vector), dtype=np.bool_)
        chosen = np.concatenate([by_words, by_vector[alone]])
        if len(chosen) > len(by_words):
            more, also = lexical(by_vector[alone])
            scores, matched = np.concatenate([scores, more]), np.concatenate([matched, also], axis=1)
        similar: list[float | None] = [None] * len(chosen)
        if query.vector is not None:
            similar = self._similarities(query.vector, by_words, by_vector, cosines) + cosines[alone].tolist()
        return IndexResult(
            revision=query.revision,
            candidates=self._candidates(view, chosen, scores, similar, [term.term for term in terms], matched),
            lexical_top=lexical_top,
            vector_top=float(cosines[0]) if len(cosines) else 0.0,
            vector_floor=float(cosines[-1]) if len(cosines) else 0.0,
            exhausted=len(chosen) == int(np.count_nonzero(found)),
        )

    def _similarities(
        self,
        query: NDArray[np.float32],
        contents: NDArray[np.int64],
        known: NDArray[np.int64],
        cosines: NDArray[np.float64],
    ) -> list[float | None]:
        """Returns the cosines of contents, None where one has no vector; those of `known` contents are given."""
        if not len(contents):
            return []
        by_content = dict(zip(known.tolist(), cosines.tolist(), strict=True))
        found: list[float | None] = [by_content.get(content) for content in contents.tolist()]
        missing = np.array([cosine is None for cosine in found]) & self._cube.contents.has_vector.values[contents]
        places = np.flatnonzero(missing)
        if len(places):
            exact = self._cube.vectors.exact(query.astype(np.float32, copy=False), contents[places])
            for place, cosine in zip(places.tolist(), exact.tolist(), strict=True):
                found[place] = cosine
        return found

    def related(self, query: IndexQuery, uids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """Returns uid -> neighbour's uid -> weight, best first; see the port.

        N and df are taken over the visible memories for which the filter is true, so what it excludes has no influence.
        """
        cube = self._cube
        view = self._view(query)
        wanted = passing(cube, view, query.where)
        total = int(np.count_nonzero(wanted))
        asked = dict.fromkeys(uids)
        seeds = self._visible_contents(view, asked)
        names: dict[int, list[str]] = {}
        for ordinal, name in cube.entities.tokens_of(np.array(sorted(seeds.values()), dtype=np.int32)):
            names.setdefault(ordinal, []).append(name)
        sharing: dict[str, NDArray[np.int32]] = {}
        for name in {name for entities in names.values() for name in entities}:
            ordinals = cube.entities.get(name)[0]
            ordinals = ordinals[wanted[ordinals]]
            if 0 < len(ordinals) <= 0.02 * total + 5:
                sharing[name] = ordinals
        found: dict[str, Mapping[str, float]] = {}
        for uid in asked:
            seed = seeds.get(uid)
            entities = [] if seed is None else sorted(name for name in names.get(seed, ()) if name in sharing)
            if seed is None or not entities:
                found[uid] = {}
                continue
            weights = [float(np.log(1.0 + total / len(sharing[name]))) for name in entities]
            neighbours, places = np.unique(np.concatenate([sharing[name] for name in entities]), return_inverse=True)
            summed = np.bincount(places, weights=np.repeat(weights, [len(sharing[name]) for name in entities]))
            others = neighbours != seed
            best = neighbours[others].astype(np.int64)
            order = np.lexsort((self._uids(view, best), -summed[others]))[: query.depth]
            texts: list[bytes] = self._uids(view, best[order]).tolist()
            found[uid] = dict(zip((t.decode() for t in texts), summed[others][order].tolist(), strict=True))
        return found

    def _view(self, query: IndexQuery) -> View:
        key = (self._cube.generation, query.revision, query.max_sensitivity, frozenset(query.granted.items()))
        with self._lock:
            view = self._views.get(key)
            if view is not None:
                self._views.move_to_end(key)
                return view
        view = make_view(self._cube, query.revision, query.max_sensitivity, query.granted)
        with self._lock:
            for old in [old for old in self._views if old[0] != key[0]]:
                del self._views[old]
            self._views[key] = view
            while len(self._views) > VIEWS:
                self._views.popitem(last=False)
        return view

    def forget(self) -> None:
        """Lets go of everything that was computed from the index."""
        with self._lock:
            self._views.clear()

    def _visible_contents(self, view: View, uids: Mapping[str, None]) -> dict[str, int]:
        """Returns uid -> content ordinal of the memories that are visible."""
        versions, items = self._cube.versions, self._cube.items
        ordinals = [items.ordinals[uid] for uid in uids if uid in items.ordinals]
        if not ordinals:
            return {}
        rows = view.version[view.visible]
        rows = rows[np.isin(versions.item.values[rows], ordinals)]
        texts: list[bytes] = items.uid.values[versions.item.values[rows]].tolist()
        return dict(zip((t.decode() for t in texts), versions.content.values[rows].tolist(), strict=True))

    def _uids(self, view: View, contents: NDArray[np.int64]) -> NDArray[np.bytes_]:
        uids: NDArray[np.bytes_] = self._cube.items.uid.values[self._cube.versions.item.values[view.version[contents]]]
        return uids

    def _order(
        self, view: View, contents: NDArray[np.int64], scores: NDArray[np.float64], depth: int
    ) -> NDArray[np.int64]:
        """Returns the places of the best contents, best first, ties by uid."""
        return np.lexsort((self._uids(view, contents), -scores))[:depth]

    def _newest(self, query: IndexQuery, view: View, wanted: NDArray[np.bool_]) -> IndexResult:
        rows = np.flatnonzero(wanted)
        created = np.zeros(len(wanted), dtype=np.float64)
        created[rows] = self._cube.versions.created.values[view.version[rows]]
        near = _nearly_best(created, wanted, query.depth)
        chosen = near[self._order(view, near, created[near], query.depth)]
        nothing = np.zeros((0, len(chosen)), dtype=np.bool_)
        candidates = self._candidates(view, chosen, np.zeros(len(chosen)), [None] * len(chosen), [], nothing)
        return IndexResult(query.revision, candidates, exhausted=len(chosen) == len(rows))

    def _candidates(
        self,
        view: View,
        chosen: NDArray[np.int64],
        lexical: NDArray[np.float64],
        cosines: Sequence[float | None],
        terms: Sequence[str],
        matched: NDArray[np.bool_],
    ) -> list[Candidate]:
        uids: list[bytes] = self._uids(view, chosen).tolist()
        since: list[int] = self._cube.versions.since.values[view.version[chosen]].tolist()
        names: Sequence[tuple[str, ...]] = [()] * len(chosen)
        if terms:
            width = len(terms)
            hits = matched.T.tobytes()
            patterns = [hits[at : at + width] for at in range(0, width * len(chosen), width)]
            known = {pattern: tuple(compress(terms, pattern)) for pattern in set(patterns)}
            names = [known[pattern] for pattern in patterns]
        texts = b"".join(uids).decode("ascii")
        return list(
            map(
                Candidate,
                (texts[at : at + UID_BYTES] for at in range(0, len(texts), UID_BYTES)),
                since,
                lexical.tolist(),
                cosines,
                names,
            )
        )


def _nearly_best(
    scores: NDArray[np.float32] | NDArray[np.float64],
    among: NDArray[np.bool_],
    depth: int,
    *,
    absolute: float = 0.0,
    relative: float = 0.0,
) -> NDArray[np.int64]:
    """Returns every content that may be one of the best `depth`, given the error of the scores, ascending."""
    rows = np.flatnonzero(among)
    if len(rows) <= depth:
        return rows
    values = scores[rows]
    least = float(np.partition(values, len(values) - depth)[len(values) - depth])
    return rows[values >= least - absolute - relative * abs(least)]
