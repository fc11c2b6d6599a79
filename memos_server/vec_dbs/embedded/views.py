"""What a caller sees of a cube at a revision, as arrays over the contents, and the statistics of it.

At any revision a memory has one current version, and a content belongs to one memory: so "the visible version of a
content" is unique, and everything that a search needs is an array with one place per content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from memos_server.vec_dbs.embedded.cube_index import NONE, CubeIndex


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What BM25 needs to know of the versions that a search is about.

    Attributes:
        base: bool per content: its visible version is one of them.
        count: How many there are.
        mean_length: Their mean number of terms; 1.0 when there is none or all are empty.
        everything: True when `base` holds for every content, so that a document frequency is a length.
        norm: float32 per content: k1 * (1 - b + b * length / mean_length).
        common: term -> float32 per content, its weights, for common terms; filled as asked for.
    """

    base: NDArray[np.bool_]
    count: int
    mean_length: float
    everything: bool
    norm: NDArray[np.float32]
    common: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class View:
    """The visible versions.

    Attributes:
        version: int32 per content, ordinal of its visible version, NONE without.
        visible: bool per content.
        count: How many are visible.
        statistics: (base states, k1, b) -> Statistics, filled as asked for.
        states: states -> bool per content, filled as asked for.
    """

    version: NDArray[np.int32]
    visible: NDArray[np.bool_]
    count: int
    statistics: dict[tuple[frozenset[int], float, float], Statistics] = field(default_factory=dict)
    states: dict[frozenset[int], NDArray[np.bool_]] = field(default_factory=dict)


def make_view(cube: CubeIndex, revision: int, max_sensitivity: int, granted: Mapping[str, int]) -> View:
    """Returns what a caller sees at a revision.

    A version is visible when the stricter of its own label and its memory's current one is at most the level that the
    caller has for the memory: the higher of `max_sensitivity` and the grant.

    Raises:
        ValueError: The index has not reached the revision.
    """
    versions, items = cube.versions, cube.items
    rows = cube.current(revision)
    rows = rows[versions.content.values[rows] != NONE]
    item = versions.item.values[rows]
    label = np.maximum(versions.sensitivity.values[rows], items.label.values[item])
    allowed = label <= max_sensitivity
    raised = [(items.ordinals[uid], level) for uid, level in granted.items() if uid in items.ordinals]
    if raised and not allowed.all():
        level = np.full(len(items.ordinals), max_sensitivity, dtype=np.int64)
        ordinals, levels = np.array(raised, dtype=np.int64).T
        level[ordinals] = np.maximum(levels, max_sensitivity)
        allowed = label <= level[item]
    rows = rows[allowed]
    version = np.full(len(cube.contents.keys), NONE, dtype=np.int32)
    version[versions.content.values[rows]] = rows
    visible = version != NONE
    return View(version, visible, int(np.count_nonzero(visible)))


def in_states(cube: CubeIndex, view: View, states: frozenset[int]) -> NDArray[np.bool_]:
    """Returns, per content, whether its visible version is in one of the states; False where none is visible."""
    found = view.states.get(states)
    if found is None:
        found = np.zeros(len(view.visible), dtype=np.bool_)
        rows = np.flatnonzero(view.visible)
        found[rows] = np.isin(cube.versions.state.values[view.version[rows]], sorted(states))
        view.states[states] = found
    return found


def statistics(cube: CubeIndex, view: View, base: frozenset[int], k1: float, b: float) -> Statistics:
    """Returns the statistics over the visible versions in the base states."""
    key = (base, k1, b)
    found = view.statistics.get(key)
    if found is None:
        mask = in_states(cube, view, base)
        length = cube.contents.length.values
        count = int(np.count_nonzero(mask))
        total = int(length.sum(where=mask, dtype=np.int64))
        mean = total / count if total else 1.0
        norm = (length.astype(np.float32) * np.float32(k1 * b / mean)) + np.float32(k1 * (1 - b))
        found = view.statistics[key] = Statistics(mask, count, mean, count == len(mask), norm)
    return found
