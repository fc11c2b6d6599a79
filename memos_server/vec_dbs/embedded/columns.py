"""Growable numpy columns and the rows of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

CHUNK_ROWS = 8192
"""Rows per chunk of vectors: the unit of allocation, of the files of a snapshot, and of the matrix product."""

GATHER_SHARE = 0.25
"""Below this share of wanted rows it is cheaper to copy them out of a chunk than to multiply all of it (measured)."""

FLOAT32_UNIT = 2.0**-24
"""Unit round-off of float32."""


class Column:
    """A one-dimensional array that grows at its end; its capacity doubles, so appending is amortised constant time."""

    __slots__ = ("_data", "_size")

    def __init__(self, dtype: DTypeLike, values: ArrayLike = ()) -> None:
        """Makes a column with some first values."""
        self._data: NDArray[Any] = np.array(values, dtype=dtype)
        self._size = len(self._data)

    def __len__(self) -> int:
        """Returns the number of values."""
        return self._size

    @property
    def values(self) -> NDArray[Any]:
        """The values, as a view: writing to it writes to the column. Invalid after `extend`."""
        return self._data[: self._size]

    @property
    def nbytes(self) -> int:
        """The bytes that are allocated."""
        return int(self._data.nbytes)

    def extend(self, values: ArrayLike) -> None:
        """Appends values."""
        added = np.asarray(values, dtype=self._data.dtype)
        size = self._size + len(added)
        if size > len(self._data):
            grown = np.empty(max(size, 2 * len(self._data), 16), dtype=self._data.dtype)
            grown[: self._size] = self.values
            self._data = grown
        self._data[self._size : size] = added
        self._size = size


class VectorRows:
    """float32 vectors in chunks of CHUNK_ROWS rows; a content's row is its ordinal, a content without one has zeros.

    Chunks make growing free of copies, let a snapshot write only what changed, and let a product skip what a filter
    leaves out. `stamps` counts the changes to each chunk, for the snapshot.
    """

    def __init__(self, dimension: int = 0) -> None:
        """Makes empty rows; without a dimension (0) no vector can be stored."""
        self.dimension = dimension
        self.chunks: list[NDArray[np.float32]] = []
        self.stamps: list[int] = []

    def put(self, rows: NDArray[np.int64], vectors: Sequence[NDArray[np.float32]]) -> None:
        """Stores vectors at ascending rows."""
        if not len(rows):
            return
        while len(self.chunks) * CHUNK_ROWS <= int(rows[-1]):
            self.chunks.append(np.zeros((CHUNK_ROWS, self.dimension), dtype=np.float32))
            self.stamps.append(0)
        stacked = np.stack(vectors)
        bounds = np.searchsorted(rows, np.arange(len(self.chunks) + 1) * CHUNK_ROWS)
        for number, chunk in enumerate(self.chunks):
            low, high = int(bounds[number]), int(bounds[number + 1])
            if low < high:
                chunk[rows[low:high] - number * CHUNK_ROWS] = stacked[low:high]
                self.stamps[number] += 1

    def row(self, row: int) -> NDArray[np.float32]:
        """Returns the vector at a row that has one."""
        number, offset = divmod(row, CHUNK_ROWS)
        vector: NDArray[np.float32] = self.chunks[number][offset]
        return vector

    def clear(self, rows: Sequence[int]) -> None:
        """Overwrites rows with zeros."""
        for row in rows:
            number, offset = divmod(row, CHUNK_ROWS)
            if number < len(self.chunks):
                self.chunks[number][offset] = 0.0
                self.stamps[number] += 1

    def approximate(self, query: NDArray[np.float32], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Returns dot products of the wanted rows in float32; other places hold anything.

        The last bits depend on where a row lies (the library's kernels differ at block ends), at most `slack` away from
        the exact value, so the best rows are chosen with that much slack and then computed with `exact`.

        `vecdot` goes row by row in one thread. A matrix product is split by the library over all cores, which wait for
        each other: on a machine that has something else to do it took 30 times as long (benches/vec_choice.py).
        """
        found = np.empty(len(wanted), dtype=np.float32)
        for number, chunk in enumerate(self.chunks):
            low = number * CHUNK_ROWS
            part = wanted[low : low + CHUNK_ROWS]
            count = int(np.count_nonzero(part))
            if not count:
                continue
            if count < GATHER_SHARE * len(part):
                rows = np.flatnonzero(part)
                found[low + rows] = np.vecdot(chunk[rows], query)
            else:
                np.vecdot(chunk[: len(part)], query, out=found[low : low + len(part)])
        return found

    @property
    def slack(self) -> float:
        """Twice the error bound of a float32 dot product of unit vectors (Higham, *Accuracy and Stability*, 3.1)."""
        return 2.0 * (self.dimension + 2) * FLOAT32_UNIT

    def exact(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns dot products in float64. A row's value depends on the row and the query alone, not on its place."""
        wide = query.astype(np.float64)
        found = np.empty(len(rows), dtype=np.float64)
        for start in range(0, len(rows), CHUNK_ROWS):
            part = rows[start : start + CHUNK_ROWS]
            gathered = np.empty((len(part), self.dimension), dtype=np.float64)
            for number in np.unique(part // CHUNK_ROWS):
                here = part // CHUNK_ROWS == number
                gathered[here] = self.chunks[int(number)][part[here] % CHUNK_ROWS]
            gathered *= wide
            found[start : start + len(part)] = gathered.sum(axis=1)
        return found
