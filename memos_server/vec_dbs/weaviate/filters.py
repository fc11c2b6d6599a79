"""The port's filters as Weaviate's. All of them are pushed down, exactly; nothing is built from text."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from weaviate.classes.query import Filter

from memos_server.vec_dbs.base import All, Compare, HasFacet, Not, Predicate, Some, StateIn
from memos_server.vec_dbs.weaviate.rows import FACET, LABEL, MEMORY, STATE, Row, token
from memos_server.vec_dbs.weaviate.schema import NUMBERS

Where = Any
"""One of the client's filters, whose type it does not export; True or False where it is the same for all versions."""

_OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


def has(*tokens: str) -> Where:
    """Returns the filter of versions that have one of these tokens."""
    return Filter.by_property("tokens").contains_any(list(tokens)) if tokens else False


def every(parts: Sequence[Where]) -> Where:
    """Returns a filter that is true when all parts are."""
    if any(part is False for part in parts):
        return False
    rest = [part for part in parts if part is not True]
    return (Filter.all_of(rest) if len(rest) > 1 else rest[0]) if rest else True


def some(parts: Sequence[Where]) -> Where:
    """Returns a filter that is true when any part is."""
    if any(part is True for part in parts):
        return True
    rest = [part for part in parts if part is not False]
    return (Filter.any_of(rest) if len(rest) > 1 else rest[0]) if rest else False


def opposite(part: Where) -> Where:
    """Returns a filter that is true when the part is false."""
    return (not part) if isinstance(part, bool) else Filter.not_(part)


def states(numbers: Collection[int]) -> Where:
    """Returns the filter of versions in one of these states."""
    return has(*(token(STATE, str(number)) for number in sorted(numbers)))


def labels(numbers: Collection[int]) -> Where:
    """Returns the filter of versions whose own label is one of these."""
    return has(*(token(LABEL, str(number)) for number in sorted(numbers)))


def memories(uids: Collection[str]) -> Where:
    """Returns the filter of the versions of some memories."""
    return has(*(token(MEMORY, uid) for uid in uids))


def current(revision: int) -> Where:
    """Returns the filter of the versions that are current at a revision."""
    since = Filter.by_property("from_revision").less_or_equal(revision)
    # An open version has no to_revision: what is not closed yet.
    return Filter.all_of([since, Filter.not_(Filter.by_property("to_revision").less_or_equal(revision))])


def since(revision: int, *, ended: bool) -> Where:
    """Returns the filter of the versions that are newer than a revision; with `ended` also of those that ended after
    it, which were written again then."""
    began = Filter.by_property("from_revision").greater_than(revision)
    return Filter.any_of([began, Filter.by_property("to_revision").greater_than(revision)]) if ended else began


def up_to(level: int) -> Where:
    """Returns the filter of versions that a clearance sees."""
    # Not "at most": while a label changes, a version is in the index under none. What comes back is judged again.
    return Filter.not_(Filter.by_property("level").greater_than(level))


def raised(max_sensitivity: int, granted: Mapping[str, int]) -> Mapping[int, Sequence[str]]:
    """Returns level -> the memories that a grant lets see up to it, above the general one."""
    by_level: dict[int, list[str]] = {}
    for uid, level in granted.items():
        if level > max_sensitivity:
            by_level.setdefault(level, []).append(uid)
    return by_level


def visible(max_sensitivity: int, granted: Mapping[str, int]) -> Where:
    """Returns the filter of the versions that a caller may see."""
    special = [
        every([up_to(level), memories(uids)]) for level, uids in sorted(raised(max_sensitivity, granted).items())
    ]
    return some([up_to(max_sensitivity), *special])


def pushed(where: Predicate) -> Where:
    """Returns the port's filter as Weaviate's.

    Raises:
        ValueError: An operator is unknown.
    """
    match where:
        case All(parts):
            return every([pushed(part) for part in parts])
        case Some(parts):
            return some([pushed(part) for part in parts])
        case Not(part):
            return opposite(pushed(part))
        case HasFacet(facet):
            return has(token(FACET, facet))
        case StateIn(numbers):
            return states(numbers)
        case Compare(number, op, value):
            return _compared(number, op, value)


def _compared(number: str, op: str, value: float) -> Where:
    if op not in _OPERATORS:
        raise ValueError(f"unknown operator {op!r}")
    if number not in NUMBERS:
        return False
    field = Filter.by_property(number)
    if math.isnan(value):
        # Nothing compares with it, and everything differs from it.
        return field.less_or_equal(math.inf) if op == "!=" else False
    value = float(value) + 0.0
    match op:
        case "<":
            return field.less_than(value)
        case "<=":
            return field.less_or_equal(value)
        case ">":
            return field.greater_than(value)
        case ">=":
            return field.greater_or_equal(value)
        case "=":
            return field.equal(value)
        case _:
            return Filter.any_of([field.less_than(value), field.greater_than(value)])


def only_states(where: Predicate) -> frozenset[int] | None:
    """Returns the states that a filter leaves when it asks for nothing else; None when it does."""
    match where:
        case StateIn(numbers):
            return numbers
        case All(parts) if parts:
            found = [only_states(part) for part in parts]
            known = [each for each in found if each is not None]
            trivial = [part for part, each in zip(parts, found, strict=True) if each is None and part != All(())]
            return frozenset.intersection(*known) if known and not trivial else None
    return None


def holds(where: Predicate, row: Row) -> bool:
    """Returns whether a filter is true of a version that was read in full."""
    match where:
        case All(parts):
            return all(holds(part, row) for part in parts)
        case Some(parts):
            return any(holds(part, row) for part in parts)
        case Not(part):
            return not holds(part, row)
        case HasFacet(facet):
            return token(FACET, facet) in row.words
        case StateIn(numbers):
            return row.state in numbers
        case Compare(number, op, value):
            have = {"create_time": row.created, "update_time": row.updated}.get(number, row.numbers.get(number))
            return have is not None and bool(_OPERATORS[op](have, value))
