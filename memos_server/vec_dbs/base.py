"""The port of search indexes (`memos.vec_dbs`).

An index holds, per cube, one entry per memory *version* with the half-open interval of revisions in which it is the
current one, so the present and every past revision are searched alike. It is derived: dropping it loses nothing.
Scores depend only on what the caller may see at the searched revision, so an as-of search returns exactly what the
same search returned when that revision was the present, and a hidden memory leaves no trace in a score.

What decides which versions count, in this order:

1. *Current* at the searched revision: `from_revision <= revision < to_revision`. At most one version of a memory is.
2. *With content*: it was added with one, which was not erased since.
3. *Visible*: the stricter of two labels, its own and that of the memory's newest version in the whole index (whatever
   revision is searched), is at most `max_sensitivity`, or at most what `granted` says of the memory.
4. *Base*: visible, and its state is in `IndexQuery.base`. Lexical statistics are taken over these.
5. *Passing*: visible, and `where` is true of it, base or not. Only these are candidates.

BM25 is, summed over the distinct terms of the query that a content has:

    ln(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * length / mean))

with N, df and mean length (in terms, repeats counted; 1 where it is 0) taken over the base, and tf and length from the
candidate's content, be it in the base or not. k1 = 0.9 and b = 0.4 are what every backend has unless its settings say
otherwise.

A backend is a class that is made by `Class(data_dir, **config)`: the data folder as a str, and the keys of
`index.config` in the settings. It opens nothing before `open`; TypeError and ValueError tell the operator that a
setting is wrong. What it keeps on this machine lies in `data_dir/index/`, readable by its user alone (folders 0700), in
files that are not named `VERSION`. That folder is derived and the server empties it before `open`: when the settings
name another backend, when a package with memory types comes, goes or changes, and when what is indexed does. A backend
that keeps anything elsewhere gets the version of what is indexed with `open`, and uses nothing that was written under
another one: servers of two versions may share it while one takes over from the other. Cube uids are canonical UUID
text, safe as names of files.

The suite `tests/ports/test_vec_dbs.py` is this contract as tests, `tests/ports/naive_index.py` the same as plain code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

OPEN = 2**62
"""The `to_revision` of a version that is current."""


@dataclass(frozen=True, slots=True)
class IndexContent:
    """The searchable content of one or more versions of one memory.

    Attributes:
        key: Identifies the content within the cube (the 32-byte commitment).
        terms: The indexed text as analysed: lower-case stems in order, with repeats.
        facets: Exact-match tokens that filters push down to, such as `tag:work`, without repeats.
        entities: Names that the text mentions, for the graph channel, without repeats.
        numbers: Numeric fields that filters compare: `valid_from`, `valid_until` (seconds since the epoch),
            `confidence`.
        vector: float32 array of shape (dimension,), L2-normalised; None when the memory has no embedding.

    Arrays may be read-only, and are not to be changed.
    """

    key: bytes
    terms: Sequence[str]
    facets: Sequence[str] = ()
    entities: Sequence[str] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One version of a memory.

    Attributes:
        uid: The memory's uid, canonical UUID text.
        from_revision: The revision whose commit made the version.
        content: The key of its IndexContent; None for a version without content (purged), which is never found.
        state: The MemoryState number.
        sensitivity: The Sensitivity number: the stricter of the version's own label and the memory's current one is
            judged at search time through `IndexQuery`.
        create_time: When the memory was added, seconds since the epoch.
        update_time: When the version was made, seconds since the epoch.
    """

    uid: str
    from_revision: int
    content: bytes | None
    state: int
    sensitivity: int
    create_time: float
    update_time: float


@dataclass(frozen=True, slots=True)
class IndexBatch:
    """What brings an index from one revision to a later one. Applying a batch again changes nothing.

    Opening a version of a memory closes the version of it that is open: its `to_revision` becomes the new one's
    `from_revision`. Apply `contents` first, then `versions` in order, of which one memory may have several, then
    `erased`: contents whose terms, facets, entities and vectors must leave memory and disk before `apply` returns,
    journals and free pages included. Versions that named an erased content stay, without content. Adding a content
    whose key is there changes nothing, nor does erasing one that is not. Later batches may name the contents of earlier
    ones.
    """

    from_revision: int
    to_revision: int
    contents: Sequence[IndexContent] = ()
    versions: Sequence[IndexVersion] = ()
    erased: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class All:
    """A predicate that is true when all parts are; `All(())` is true."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """A predicate that is true when any part is; `Some(())` is false."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """A predicate that is true when the part is false."""

    part: Predicate


@dataclass(frozen=True, slots=True)
class HasFacet:
    """True when the content has the facet."""

    facet: str


@dataclass(frozen=True, slots=True)
class Compare:
    """True when the number is present and `number OP value` holds.

    Attributes:
        number: `create_time`, `update_time`, or a key of IndexContent.numbers.
        op: One of `<`, `<=`, `>`, `>=`, `=`, `!=`.
        value: The number to compare with.
    """

    number: str
    op: str
    value: float


@dataclass(frozen=True, slots=True)
class StateIn:
    """True when the version's state is one of these numbers."""

    states: frozenset[int]


Predicate = All | Some | Not | HasFacet | Compare | StateIn


@dataclass(frozen=True, slots=True)
class IndexQuery:
    """A search of one cube.

    Attributes:
        revision: The revision to search at; above the index's own (0 for a cube that it does not know): ValueError.
        where: The filter. Exact: the index returns no version for which it is false.
        max_sensitivity: Versions whose own label or whose memory's current label is above it are invisible: they are no
            candidates and count in no statistic.
        granted: uid -> level for memories that are visible up to another level (grants on single memories); the higher
            of the two levels holds.
        base: The states over which lexical statistics are taken, those that the search is about (usually ACTIVE).
        terms: The analysed query; repeats count once; empty skips the lexical channel.
        vector: float32 (dimension,), L2-normalised; None skips the vector channel.
        depth: The most candidates that each channel contributes.
    """

    revision: int
    where: Predicate
    max_sensitivity: int
    granted: Mapping[str, int] = field(default_factory=dict)
    base: frozenset[int] = frozenset({1})
    terms: Sequence[str] = ()
    vector: NDArray[np.float32] | None = None
    depth: int = 200


class Candidate(NamedTuple):
    """A version that a search found. A search makes hundreds of them, so they are tuples, which are quick to make.

    Attributes:
        uid: The memory.
        from_revision: The version.
        lexical: BM25 score; 0.0 when no term matches.
        vector: Cosine similarity; None when the channel was skipped or the memory has no vector.
        matched: The query terms that the content has, each once, in the query's order.
    """

    uid: str
    from_revision: int
    lexical: float
    vector: float | None
    matched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What a search found.

    Attributes:
        revision: The revision that was searched.
        candidates: The union of the best `depth` of each channel, each with its score in *both* channels; without any
            channel, the `depth` newest versions (by create_time, then uid) that pass. The lexical channel has the
            passing versions that match a term, the vector channel those with a vector. Best first; equal scores are
            ordered by uid, ascending.
        lexical_top: The best BM25 score, 0.0 when none.
        vector_top: The best cosine among the vector channel's candidates, 0.0 when none.
        vector_floor: The cosine at `depth` (or of the last candidate), to scale the channel with.
        exhausted: True when `candidates` has every version that any asked channel has; without a channel, every one
            that passes.
    """

    revision: int
    candidates: Sequence[Candidate]
    lexical_top: float = 0.0
    vector_top: float = 0.0
    vector_floor: float = 0.0
    exhausted: bool = True


class IndexEntry(NamedTuple):
    """What an index holds of one version.

    Attributes:
        uid: The memory.
        from_revision: The revision whose commit made the version.
        to_revision: The revision whose commit ended it; OPEN while current.
        content: The key of its content; None without one, and once it is erased.
        state: The MemoryState number.
        sensitivity: The Sensitivity number.
        vector: SHA-256 of the content's vector, float32 little-endian; empty without one.
    """

    uid: str
    from_revision: int
    to_revision: int
    content: bytes | None
    state: int
    sensitivity: int
    vector: bytes


class SearchIndex(Protocol):
    """A search index over many cubes.

    Methods may be called concurrently, on one event loop; callers serialise `apply` per cube. A method that computes or
    waits for longer than a millisecond does so on a thread (`asyncio.to_thread`). A search sees all of a batch or
    nothing of it. A cube that was never indexed, or was dropped, is empty and at revision 0.

    Errors: MipError BACKEND_UNAVAILABLE (`memos_server.errors`) when the index cannot be used now, in which OSError and
    sqlite3.OperationalError are taken for it; a search then names the cube in `unreachable`, or in `stale` while only
    `apply` fails, and a write is acknowledged with `index_pending`. The cube's index is kept, and `apply` tried again.
    After any other error of `apply` the server drops the cube and applies everything anew, once. Any other error of
    another method is a fault of the backend: the caller is told INTERNAL, and the log has the traceback.

    Attributes:
        name: What the backend is called, as its entry point is.
    """

    name: str

    async def open(self, version: str) -> None:
        """Prepares the backend. What of a cube is damaged is dropped, here or when it is first used, so that its
        `indexed_revision` is 0 again and the server fills it anew.

        Args:
            version: Of what is indexed, at most 64 printable ASCII characters. What a backend keeps outside the data
                folder under another version is not used.

        Raises:
            SetupError: (`memos_server.configs.errors`) It cannot be used, and the server does not start.
        """

    async def close(self) -> None:
        """Writes what is not yet on disk and lets go of everything; called also when `open` failed."""

    async def indexed_revision(self, cube_uid: str) -> int:
        """Returns the revision that the cube's index reflects; 0 when there is none."""

    async def apply(self, cube_uid: str, dimension: int, batch: IndexBatch) -> None:
        """Brings the index to `batch.to_revision`. A batch at or below the indexed revision changes nothing.

        A crash may take batches back, each as a whole: the server compares revisions and applies them again.

        Args:
            cube_uid: The cube.
            dimension: The dimension of the cube's vectors; 0 while it has none.
            batch: The changes.

        Raises:
            ValueError: The batch's `from_revision` is not the indexed revision, a version names a content that is
                neither in the batch nor in the index, or a vector has another dimension. Nothing has changed.
        """

    async def search(self, cube_uid: str, query: IndexQuery) -> IndexResult:
        """Returns the best candidates. Exact filters; recall of the vector channel >= 0.99 against an exact scan."""

    async def related(self, cube_uid: str, query: IndexQuery, uids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
        """Returns for each of `uids` the passing memories that share an entity with it, each with a weight.

        The weight is the sum of ln(1 + N / df) over the shared entities, N and df counted over the passing versions;
        entities with df > 0.02 * N + 5 are left out. At most `depth` neighbours per uid, the heaviest, ties by uid;
        never the memory itself. A uid must be visible but need not pass; one that is not visible, or unknown, has none:
        `{}`. Of the query, `revision`, `where`, `max_sensitivity`, `granted` and `depth` count.
        """

    async def entries(self, cube_uid: str) -> tuple[int, Sequence[IndexEntry]]:
        """Returns the indexed revision and what the index holds of every version, in any order, for VerifyCube, which
        compares it with the record."""

    async def drop(self, cube_uid: str) -> None:
        """Erases the cube's index from memory and disk."""

    async def probe(self) -> None:
        """Tries whether the index can be used, in a moment and beside what it is busy with.

        Raises:
            MipError: BACKEND_UNAVAILABLE or STORAGE_FULL; the message says what is wrong and what to do.
        """
