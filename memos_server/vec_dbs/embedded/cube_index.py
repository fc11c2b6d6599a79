"""The index of one cube in memory: contents, versions and postings, and how a batch changes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memos_server.vec_dbs.base import OPEN, IndexBatch, IndexContent, IndexEntry, IndexVersion
from memos_server.vec_dbs.embedded.columns import Column, VectorRows
from memos_server.vec_dbs.embedded.postings import Postings

NONE = -1
"""An ordinal that names nothing."""

UID_BYTES = 36
"""The length of canonical UUID text."""


class BatchRefusedError(ValueError):
    """A batch does not fit the index, which is unchanged."""


class Contents:
    """Columns with one place per content.

    Attributes:
        keys: The key of each content; None once it is erased.
        ordinals: key -> ordinal.
        length: Number of terms, int32.
        has_vector: bool.
        numbers: name -> float64, NaN where absent.
    """

    def __init__(self) -> None:
        """Makes empty columns."""
        self.keys: list[bytes | None] = []
        self.ordinals: dict[bytes, int] = {}
        self.length = Column(np.int32)
        self.has_vector = Column(np.bool_)
        self.numbers: dict[str, Column] = {}


class Versions:
    """Columns with one place per version of a memory.

    Attributes:
        item: Ordinal of the memory, int32.
        since: from_revision, int64.
        until: to_revision, int64, OPEN while current.
        state: int32.
        sensitivity: int32.
        created: create_time, float64 seconds.
        updated: update_time, float64 seconds.
        content: Ordinal of the content, int32, NONE without.
    """

    def __init__(self) -> None:
        """Makes empty columns."""
        self.item = Column(np.int32)
        self.since = Column(np.int64)
        self.until = Column(np.int64)
        self.state = Column(np.int32)
        self.sensitivity = Column(np.int32)
        self.created = Column(np.float64)
        self.updated = Column(np.float64)
        self.content = Column(np.int32)

    def columns(self) -> dict[str, Column]:
        """Returns the columns by name."""
        return dict(vars(self))


class Items:
    """Columns with one place per memory.

    Attributes:
        ordinals: uid -> ordinal.
        uid: ASCII text, which numpy orders as Python orders strings.
        newest: Ordinal of the newest version, int32.
        label: Sensitivity of the newest version, int32.
    """

    def __init__(self) -> None:
        """Makes empty columns."""
        self.ordinals: dict[str, int] = {}
        self.uid = Column(f"S{UID_BYTES}")
        self.newest = Column(np.int32)
        self.label = Column(np.int32)


class CubeIndex:
    """The index of one cube. Its callers see to it that nothing reads while `apply` runs."""

    def __init__(self) -> None:
        """Makes the index of a cube of which nothing is indexed."""
        self.revision = 0
        self.contents = Contents()
        self.versions = Versions()
        self.items = Items()
        self.vectors = VectorRows()
        self.terms = Postings()
        self.facets = Postings()
        self.entities = Postings()
        self.generation = 0
        """Changes with every batch: what was computed from the index before is void."""

    def apply(self, dimension: int, batch: IndexBatch) -> bool:
        """Brings the index to the batch's revision; see the port.

        Returns:
            True when a content was erased.

        Raises:
            BatchRefusedError: The batch does not fit.
        """
        if batch.to_revision <= self.revision:
            return False
        new_contents, new_uids = self._check(dimension, batch)
        self.generation += 1
        if dimension:
            self.vectors.dimension = dimension
        self._add_contents(new_contents)
        self._add_items(new_uids)
        self._add_versions(batch.versions)
        erased = self._erase(batch.erased)
        self.revision = batch.to_revision
        return erased

    def _check(self, dimension: int, batch: IndexBatch) -> tuple[list[IndexContent], list[str]]:
        """Returns the contents and the uids that are new, in order."""
        if batch.from_revision != self.revision:
            raise BatchRefusedError(f"a batch from revision {batch.from_revision} on an index at {self.revision}")
        known = self.vectors.dimension
        if dimension < 0 or (known and dimension and dimension != known):
            raise BatchRefusedError(f"the cube's vectors have dimension {known}, not {dimension}")
        fresh: dict[bytes, IndexContent] = {}
        for content in batch.contents:
            if content.key not in self.contents.ordinals:
                fresh.setdefault(content.key, content)
        shape = (dimension or known,)
        vectors = [content.vector for content in fresh.values() if content.vector is not None]
        if vectors and shape == (0,):
            raise BatchRefusedError("the cube has no vectors")
        if any(vector.shape != shape for vector in vectors):
            raise BatchRefusedError(f"a vector does not have the shape {shape}")
        if vectors and not np.isfinite(np.stack(vectors)).all():
            raise BatchRefusedError("a vector has a component that is not finite")
        uids: dict[str, None] = {}
        for version in batch.versions:
            if not batch.from_revision < version.from_revision <= batch.to_revision:
                raise BatchRefusedError(f"a version of revision {version.from_revision} does not belong in the batch")
            if version.content is not None and not (
                version.content in fresh or version.content in self.contents.ordinals
            ):
                raise BatchRefusedError("a version names a content that is not indexed")
            if version.uid not in self.items.ordinals:
                uids[version.uid] = None
        for uid in uids:
            if len(uid) != UID_BYTES or not uid.isascii():
                raise BatchRefusedError("a uid is not canonical UUID text")
        return list(fresh.values()), list(uids)

    def _add_contents(self, added: Sequence[IndexContent]) -> None:
        if not added:
            return
        contents = self.contents
        first = len(contents.keys)
        for number, content in enumerate(added):
            contents.ordinals[content.key] = first + number
        contents.keys.extend(content.key for content in added)
        contents.length.extend([len(content.terms) for content in added])
        contents.has_vector.extend([content.vector is not None for content in added])
        for name in {name for content in added for name in content.numbers} - contents.numbers.keys():
            contents.numbers[name] = Column(np.float64, np.full(first, np.nan))
        for name, column in contents.numbers.items():
            column.extend([content.numbers.get(name, np.nan) for content in added])
        self.terms.add(first, [content.terms for content in added])
        self.facets.add(first, [content.facets for content in added])
        self.entities.add(first, [content.entities for content in added])
        vectors = [content.vector for content in added if content.vector is not None]
        self.vectors.put(first + np.flatnonzero(contents.has_vector.values[first:]), vectors)

    def _add_items(self, uids: Sequence[str]) -> None:
        if not uids:
            return
        first = len(self.items.ordinals)
        self.items.ordinals.update((uid, first + number) for number, uid in enumerate(uids))
        self.items.uid.extend(np.array([uid.encode() for uid in uids], dtype=f"S{UID_BYTES}"))
        self.items.newest.extend(np.full(len(uids), NONE, dtype=np.int32))
        self.items.label.extend(np.zeros(len(uids), dtype=np.int32))

    def _add_versions(self, added: Sequence[IndexVersion]) -> None:
        if not added:
            return
        versions, items = self.versions, self.items
        first = len(versions.item)
        item = [items.ordinals[version.uid] for version in added]
        newest = dict(zip(item, items.newest.values[item].tolist(), strict=True))
        closed: list[int] = []
        closed_at: list[int] = []
        for number, (ordinal, version) in enumerate(zip(item, added, strict=True)):
            before = newest[ordinal]
            if before != NONE:
                closed.append(before)
                closed_at.append(version.from_revision)
            newest[ordinal] = first + number
        versions.item.extend(item)
        versions.since.extend([version.from_revision for version in added])
        versions.until.extend(np.full(len(added), OPEN, dtype=np.int64))
        versions.state.extend([version.state for version in added])
        versions.sensitivity.extend([version.sensitivity for version in added])
        versions.created.extend([version.create_time for version in added])
        versions.updated.extend([version.update_time for version in added])
        ordinals = self.contents.ordinals
        versions.content.extend([NONE if version.content is None else ordinals[version.content] for version in added])
        versions.until.values[closed] = closed_at
        changed = list(newest)
        items.newest.values[changed] = list(newest.values())
        items.label.values[changed] = versions.sensitivity.values[items.newest.values[changed]]

    def _erase(self, keys: Sequence[bytes]) -> bool:
        contents = self.contents
        erased = sorted({contents.ordinals.pop(key) for key in keys if key in contents.ordinals})
        if not erased:
            return False
        for ordinal in erased:
            contents.keys[ordinal] = None
        contents.length.values[erased] = 0
        contents.has_vector.values[erased] = False
        for column in contents.numbers.values():
            column.values[erased] = np.nan
        self.vectors.clear(erased)
        ordinals = np.array(erased, dtype=np.int32)
        for postings in (self.terms, self.facets, self.entities):
            postings.remove(ordinals)
        versions = self.versions.content.values
        versions[np.isin(versions, ordinals)] = NONE
        return True

    def current(self, revision: int) -> NDArray[np.int64]:
        """Returns the ordinals of the versions that are current at a revision, with content or without.

        Raises:
            ValueError: The index has not reached the revision.
        """
        if revision > self.revision:
            raise ValueError(f"the index is at revision {self.revision}, not yet at {revision}")
        versions = self.versions
        return np.flatnonzero((versions.since.values <= revision) & (versions.until.values > revision))

    def entries(self) -> list[IndexEntry]:
        """Returns what is held of every version."""
        versions, keys = self.versions, self.contents.keys
        uids = [uid.decode() for uid in self.items.uid.values.tolist()]
        columns = (
            versions.item,
            versions.since,
            versions.until,
            versions.content,
            versions.state,
            versions.sensitivity,
        )
        vectors = [b""] * len(keys)
        for ordinal in np.flatnonzero(self.contents.has_vector.values).tolist():
            vectors[ordinal] = hashlib.sha256(self.vectors.row(ordinal).astype("<f4").tobytes()).digest()
        return [
            IndexEntry(uids[item], since, until, None, state, label, b"")
            if content == NONE
            else IndexEntry(uids[item], since, until, keys[content], state, label, vectors[content])
            for item, since, until, content, state, label in zip(
                *(column.values.tolist() for column in columns), strict=True
            )
        ]

    @property
    def nbytes(self) -> int:
        """About the bytes of memory that the index takes."""
        columns: list[Column | Postings] = [
            *self.versions.columns().values(),
            *self.contents.numbers.values(),
            self.contents.length,
            self.contents.has_vector,
            self.items.uid,
            self.items.newest,
            self.items.label,
            self.terms,
            self.facets,
            self.entities,
        ]
        # A dict entry with its key takes about 160 bytes in CPython, a list entry 8.
        entries = 168 * len(self.contents.keys) + 160 * len(self.items.ordinals)
        # Rows that no content has yet are allocated but never touched, so they take no memory.
        vectors = 4 * self.vectors.dimension * len(self.contents.keys) if self.vectors.chunks else 0
        return sum(column.nbytes for column in columns) + entries + vectors
