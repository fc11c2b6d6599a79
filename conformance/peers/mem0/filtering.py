"""MIP's filters in the words of mem0: `eq`, `in`, `gt` and their like on keys of the metadata, AND, OR and NOT."""

from __future__ import annotations

from typing import Any

from conformance.peers.shim.errors import lacking
from conformance.peers.shim.filters import TIMES, Condition, Filter

_ORDERS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_KEYS = {"create_time": "created_at", "update_time": "updated_at", "text": "data"}
"""Keys of mem0's own; the others are those under which the shim gives fields to mem0."""
_SENSITIVITIES = ("PUBLIC", "INTERNAL", "CONFIDENTIAL", "SECRET")


def mem0_filters(cube: str, wanted: Filter) -> dict[str, Any]:
    """Returns the `filters` of `get_all` and `search`, which must name the cube besides.

    Raises:
        Refusal: mem0 has no words for it.
    """
    found: dict[str, Any] = {"user_id": cube}
    if isinstance(wanted, Condition) or wanted.parts:
        found["AND"] = [_translated(cube, wanted)]
    return found


def _translated(cube: str, wanted: Filter) -> dict[str, Any]:
    if isinstance(wanted, Condition):
        return _compared(cube, wanted)
    parts = [_translated(cube, part) for part in wanted.parts]
    return {{"all": "AND", "any": "OR", "not": "NOT"}[wanted.kind]: parts} if parts else _constant(cube, True)


def _constant(cube: str, true: bool) -> dict[str, Any]:
    return {"user_id": cube} if true else {"NOT": [{"user_id": cube}]}


def _compared(cube: str, condition: Condition) -> dict[str, Any]:
    field, operator, value = condition.field, condition.operator, condition.value
    if operator == ":*":
        raise lacking("mem0 cannot ask whether a field is present", "filter")
    if operator == "!=":
        return {"NOT": [_compared(cube, Condition(field, condition.key, "=", value))]}
    if field in ("state", "payload", "session"):
        # What mem0 returns is active plaintext of no session.
        return _constant(cube, value in ("ACTIVE", "plaintext"))
    if field in ("revision", "name", "id") or (field == "labels" and not condition.key) or value is None:
        raise lacking(f"mem0 has nothing to compare {field} with", "filter")
    if field == "sensitivity":
        return {"sensitivity": {"in": [f"SENSITIVITY_{name}" for name in _passing(operator, str(value))]}}
    key = _KEYS.get(field, field)
    if field == "provenance":
        key = f"provenance[].{condition.key}"
        value = f"PROVENANCE_KIND_{value}" if condition.key == "kind" else value
    elif condition.key:
        key = f"{field}.{condition.key}"
    if field == "text":
        return {key: {"icontains": value}}
    if operator in _ORDERS:
        return {key: {_ORDERS[operator]: value}}
    if isinstance(value, float) or field in TIMES:
        return {key: {"gte": value, "lte": value}}
    return {key: {"eq": value}}


def _passing(operator: str, level: str) -> list[str]:
    place = _SENSITIVITIES.index(level)
    chosen = {
        "=": {place},
        "<": range(place),
        "<=": range(place + 1),
        ">": range(place + 1, 4),
        ">=": range(place, 4),
    }
    return [_SENSITIVITIES[number] for number in chosen[operator]]
