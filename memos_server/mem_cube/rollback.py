"""What a rollback changes: for each item that changed since a revision, the way back to its version there.

Rolling back is a commit like any other. What did not exist then becomes DELETED; what was updated, merged, archived or
deleted since returns, its content by reference, so nothing is embedded or copied. Purged content never returns, labels
never become weaker, and sessions stay as they are: the conversations took place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.memory_pb2 import (
    MEMORY_STATE_ACTIVE,
    MEMORY_STATE_DELETED,
    MEMORY_STATE_MERGED,
    MEMORY_STATE_PURGED,
)
from memos_server.graph_dbs.base import Kind, NewVersion, Version
from memos_server.mem_cube.changes import evolve


class RollbackPlan(NamedTuple):
    """The changes of a rollback, and the purged memories that it leaves purged."""

    versions: list[NewVersion]
    skipped: list[Version]


def relation_ends(version: Version, names: Mapping[str, str]) -> tuple[str, str]:
    """Returns the relative names of a relation's source and target."""
    return names.get(version.source, ""), names.get(version.target, "")


def plan_rollback(changed: Sequence[tuple[Version, Version | None]], names: Mapping[str, str]) -> RollbackPlan:
    """Plans the way back.

    Args:
        changed: For each item that changed since the revision, its current version and the one at the revision.
        names: uid -> relative name of the ends of the relations among them.
    """
    plan = RollbackPlan([], [])
    purged = {now.uid for now, _ in changed if now.kind is Kind.MEMORY and now.state == MEMORY_STATE_PURGED}
    for now, then in changed:
        if now.kind is Kind.MEMORY:
            step = _memory(now, then, plan.skipped)
        elif now.kind is Kind.RELATION:
            step = _relation(now, then, purged, names)
        elif now.kind is Kind.CUBE:
            step = _settings(now, then)
        else:
            step = None
        if step is not None:
            plan.versions.append(step)
    return plan


def _memory(now: Version, then: Version | None, skipped: list[Version]) -> NewVersion | None:
    kind = commit_pb2.CHANGE_KIND_MEMORY_ROLLED_BACK
    if now.state == MEMORY_STATE_PURGED:
        if then is not None and then.state != MEMORY_STATE_PURGED:
            skipped.append(now)
        return None
    if then is None:
        return evolve(now, kind, state=MEMORY_STATE_DELETED) if now.state != MEMORY_STATE_DELETED else None
    sensitivity = max(now.sensitivity, then.sensitivity)
    merged_into = then.merged_into if then.state == MEMORY_STATE_MERGED else ""
    same = (now.content, now.state, now.owner, now.merged_into, now.sensitivity) == (
        then.content,
        then.state,
        then.owner,
        merged_into,
        sensitivity,
    )
    if same:
        return None
    return evolve(
        now,
        kind,
        state=then.state,
        sensitivity=sensitivity,
        owner=then.owner,
        merged_into=merged_into,
        content=then,
    )


def _relation(now: Version, then: Version | None, purged: set[str], names: Mapping[str, str]) -> NewVersion | None:
    state = then.state if then is not None else MEMORY_STATE_DELETED
    weight = then.weight if then is not None else now.weight
    if now.source in purged or now.target in purged:
        state = MEMORY_STATE_DELETED
    if (now.state, now.weight) == (state, weight) or (now.state == state == MEMORY_STATE_DELETED):
        return None
    kind = commit_pb2.CHANGE_KIND_RELATION_ROLLED_BACK
    return evolve(now, kind, state=state, weight=weight, ends=relation_ends(now, names))


def _settings(now: Version, then: Version | None) -> NewVersion | None:
    if then is None or then.content == now.content:
        return None
    return evolve(now, commit_pb2.CHANGE_KIND_CUBE_ROLLED_BACK, state=MEMORY_STATE_ACTIVE, content=then)
