"""Filters as boolean masks over the contents of a view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memos_server.vec_dbs.base import All, Compare, HasFacet, Not, Predicate, Some, StateIn
from memos_server.vec_dbs.embedded.cube_index import CubeIndex
from memos_server.vec_dbs.embedded.views import View, in_states

Mask = NDArray[np.bool_]

OPERATORS: Mapping[str, Callable[[NDArray[Any], float], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "=": np.equal,
    "!=": np.not_equal,
}


def passing(cube: CubeIndex, view: View, where: Predicate) -> Mask:
    """Returns, per content, whether it has a visible version for which the filter is true.

    Raises:
        ValueError: An operator is unknown.
    """
    return _mask(cube, view, where) & view.visible


def _mask(cube: CubeIndex, view: View, where: Predicate) -> Mask:
    """Returns a new or shared mask, not to be written to; where nothing is visible it holds anything."""
    size = len(view.visible)
    match where:
        case StateIn(states):
            return in_states(cube, view, states)
        case HasFacet(facet):
            mask = np.zeros(size, dtype=np.bool_)
            mask[cube.facets.get(facet)[0]] = True
            return mask
        case Compare(number, op, value):
            return _compare(cube, view, number, op, value)
        case Not(part):
            return ~_mask(cube, view, part)
        case All(parts):
            mask = np.ones(size, dtype=np.bool_)
            for part in parts:
                mask &= _mask(cube, view, part)
            return mask
        case Some(parts):
            mask = np.zeros(size, dtype=np.bool_)
            for part in parts:
                mask |= _mask(cube, view, part)
            return mask


def _compare(cube: CubeIndex, view: View, number: str, op: str, value: float) -> Mask:
    operator = OPERATORS.get(op)
    if operator is None:
        raise ValueError(f"unknown operator {op!r}")
    versions = cube.versions
    times = {"create_time": versions.created, "update_time": versions.updated}.get(number)
    if times is not None:
        mask = np.zeros(len(view.visible), dtype=np.bool_)
        rows = np.flatnonzero(view.visible)
        mask[rows] = operator(times.values[view.version[rows]], value)
        return mask
    column = cube.contents.numbers.get(number)
    if column is None:
        return np.zeros(len(view.visible), dtype=np.bool_)
    holds: Mask = operator(column.values, value)
    present: Mask = ~np.isnan(column.values)
    return np.logical_and(holds, present, out=present)
