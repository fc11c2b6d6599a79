"""An inverted index in numpy: token -> the ordinals of the contents that have it, with counts.

It is a small log-structured merge: every batch becomes an immutable *segment* sorted by token, and neighbouring
segments of similar size are merged, so a posting is moved O(log n) times and no batch ever rewrites more than
SEGMENT_CAP postings. Ordinals only grow, so the segments of one token concatenate in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEGMENT_CAP = 1 << 19
"""Segments are not merged beyond this many postings, which bounds the time that a batch can take."""

COUNT_MAX = 65535
"""Counts are stored in 16 bits and stop there; BM25 has saturated long before."""

EMPTY_ORDINALS: NDArray[np.int32] = np.empty(0, dtype=np.int32)
EMPTY_COUNTS: NDArray[np.uint16] = np.empty(0, dtype=np.uint16)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Postings of a range of ordinals.

    Attributes:
        ids: Token ids, int32, ascending, unique.
        starts: int32, one more than ids: postings of ids[i] lie in [starts[i], starts[i + 1]).
        ordinals: int32, ascending within a token.
        counts: uint16, beside the ordinals.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ordinals: NDArray[np.int32]
    counts: NDArray[np.uint16]

    def expanded(self) -> NDArray[np.int32]:
        """Returns the token id of every posting."""
        return np.repeat(self.ids, np.diff(self.starts))

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return self.ids.nbytes + self.starts.nbytes + self.ordinals.nbytes + self.counts.nbytes


def make_segment(ids: NDArray[np.int32], ordinals: NDArray[np.int32], counts: NDArray[np.uint16]) -> Segment:
    """Returns the segment of postings that are sorted by token id, then ordinal."""
    first = np.flatnonzero(np.diff(ids, prepend=-1)).astype(np.int32)
    starts = np.append(first, np.int32(len(ids))).astype(np.int32)
    return Segment(ids[first], starts, ordinals, counts)


def merge_segments(segments: Sequence[Segment]) -> Segment:
    """Returns one segment with the postings of several, given in order of their ordinals."""
    ids = np.concatenate([segment.expanded() for segment in segments])
    # The input is a few sorted runs, which a stable sort of numpy (timsort) merges in linear time.
    order = np.argsort(ids, kind="stable")
    ordinals = np.concatenate([segment.ordinals for segment in segments])
    counts = np.concatenate([segment.counts for segment in segments])
    return make_segment(ids[order], ordinals[order], counts[order])


class Vocabulary(dict[str, int]):
    """token -> id; asking for an unknown token by subscript gives it the next id."""

    def __init__(self, names: Iterable[str | None] = ()) -> None:
        """Makes a vocabulary; the id of a token is its place in `names`, None marks an id that is not used any more."""
        self.names: list[str | None] = list(names)
        super().__init__((name, number) for number, name in enumerate(self.names) if name is not None)

    def __missing__(self, token: str) -> int:
        """Adds a token."""
        number = self[token] = len(self.names)
        self.names.append(token)
        return number

    def forget(self, number: int) -> None:
        """Removes a token; its id is not given again."""
        name = self.names[number]
        if name is not None:
            self.names[number] = None
            del self[name]


class Postings:
    """The inverted index of one kind of token (terms, facets, entities)."""

    def __init__(self, vocabulary: Vocabulary | None = None, segments: Iterable[Segment] = ()) -> None:
        """Makes an index, empty or from a snapshot's parts."""
        self.vocabulary = Vocabulary() if vocabulary is None else vocabulary
        self.segments: list[Segment] = list(segments)

    def __len__(self) -> int:
        """Returns the number of tokens that some content has."""
        return len(self.vocabulary)

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays, and about those of the vocabulary (string, dict and list entry: 150 each)."""
        return sum(segment.nbytes for segment in self.segments) + 150 * len(self.vocabulary.names)

    def add(self, first: int, documents: Sequence[Sequence[str]]) -> None:
        """Adds contents, whose ordinals are `first`, `first + 1` …, with their tokens."""
        lengths = np.fromiter(map(len, documents), dtype=np.int64, count=len(documents))
        total = int(lengths.sum())
        if not total:
            return
        number = self.vocabulary.__getitem__
        ids = np.fromiter((i for document in documents for i in map(number, document)), dtype=np.int64, count=total)
        places = np.repeat(np.arange(len(documents), dtype=np.int64), lengths)
        keys, counts = np.unique(ids * len(documents) + places, return_counts=True)
        token_ids, places = np.divmod(keys, len(documents))
        added = make_segment(
            token_ids.astype(np.int32),
            (places + first).astype(np.int32),
            np.minimum(counts, COUNT_MAX).astype(np.uint16),
        )
        size = len(added.ordinals)
        keep = len(self.segments)
        while keep:
            before = len(self.segments[keep - 1].ordinals)
            if before > 2 * size or before + size > SEGMENT_CAP:
                break
            size += before
            keep -= 1
        if keep < len(self.segments):
            added = merge_segments([*self.segments[keep:], added])
        self.segments[keep:] = [added]

    def get(self, token: str) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """Returns the ascending ordinals of the contents that have a token, and how often each has it."""
        number = self.vocabulary.get(token)
        if number is None:
            return EMPTY_ORDINALS, EMPTY_COUNTS
        return self._get(number)

    def _get(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        # Of the ids' own type: for any other, numpy would convert all of them first.
        wanted = np.int32(number)
        ordinals = []
        counts = []
        for segment in self.segments:
            place = int(segment.ids.searchsorted(wanted))
            if place < len(segment.ids) and segment.ids[place] == number:
                low, high = segment.starts[place], segment.starts[place + 1]
                ordinals.append(segment.ordinals[low:high])
                counts.append(segment.counts[low:high])
        if not ordinals:
            return EMPTY_ORDINALS, EMPTY_COUNTS
        if len(ordinals) == 1:
            return ordinals[0], counts[0]
        return np.concatenate(ordinals), np.concatenate(counts)

    def tokens_of(self, wanted: NDArray[np.int32]) -> Iterator[tuple[int, str]]:
        """Yields (ordinal, token) for every token of the wanted contents."""
        for segment in self.segments:
            places = np.flatnonzero(np.isin(segment.ordinals, wanted))
            ids = segment.ids[np.searchsorted(segment.starts, places, side="right") - 1]
            for ordinal, number in zip(segment.ordinals[places].tolist(), ids.tolist(), strict=True):
                name = self.vocabulary.names[number]
                if name is not None:
                    yield ordinal, name

    def remove(self, erased: NDArray[np.int32]) -> None:
        """Removes contents from every posting list, and from the vocabulary the tokens that nothing else has."""
        touched: set[int] = set()
        kept: list[Segment] = []
        for segment in self.segments:
            gone = np.isin(segment.ordinals, erased)
            if not gone.any():
                kept.append(segment)
                continue
            ids = segment.expanded()
            touched.update(np.unique(ids[gone]).tolist())
            stay = ~gone
            if stay.any():
                kept.append(make_segment(ids[stay], segment.ordinals[stay], segment.counts[stay]))
        self.segments = kept
        for number in touched:
            if not len(self._get(number)[0]):
                self.vocabulary.forget(number)
