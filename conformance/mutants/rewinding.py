"""Faults in rollback and in forks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.mutants.faults import after, before, mutant
from conformance.mutants.servers import Patches
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_MERGED
from memos_server.graph_dbs.base import Kind
from memos_server.mem_cube import changes, rollback
from memos_server.mem_os import rewinding

_ROLLBACK = ("rollback*/*", "versions/*", "declarations/*", "search-as-of/*")

# Rollback.


def _planned(patches: Patches, wanted: Callable[[Any, Any], bool], kind: Kind | None = None) -> None:
    """Leaves out of rollbacks the items for which `wanted(now, then)` is false."""

    def plan(original: Callable[..., Any], changed: Any, names: Any) -> Any:
        kept = [(now, then) for now, then in changed if (kind and now.kind is not kind) or wanted(now, then)]
        return original(kept, names)

    original = rollback.plan_rollback
    patches.set(rewinding, "plan_rollback", lambda changed, names: plan(original, changed, names))


@mutant("rollback-forgets-a-merge", *_ROLLBACK)
def _rollback_merge(patches: Patches) -> None:
    """A rollback leaves merged memories merged."""
    _planned(patches, lambda now, then: now.state != MEMORY_STATE_MERGED, Kind.MEMORY)


@mutant("rollback-keeps-what-was-added", *_ROLLBACK)
def _rollback_added(patches: Patches) -> None:
    """A rollback leaves memories that were added since."""
    _planned(patches, lambda now, then: then is not None, Kind.MEMORY)


@mutant("rollback-forgets-updates", *_ROLLBACK)
def _rollback_updates(patches: Patches) -> None:
    """A rollback leaves the content of memories as it is now."""
    _planned(patches, lambda now, then: then is None or now.state != then.state, Kind.MEMORY)


@mutant("rollback-forgets-states", *_ROLLBACK)
def _rollback_states(patches: Patches) -> None:
    """A rollback leaves memories in the state that they have now."""
    _planned(patches, lambda now, then: then is None or now.state == then.state, Kind.MEMORY)


@mutant("rollback-forgets-relations", *_ROLLBACK, "relation*/*")
def _rollback_relations(patches: Patches) -> None:
    """A rollback leaves relations as they are."""
    _planned(patches, lambda now, then: False, Kind.RELATION)


@mutant("rollback-forgets-settings", *_ROLLBACK)
def _rollback_settings(patches: Patches) -> None:
    """A rollback leaves display name and labels of the cube as they are."""
    _planned(patches, lambda now, then: False, Kind.CUBE)


@mutant("rollback-lowers-sensitivity", *_ROLLBACK)
def _rollback_lowers(patches: Patches) -> None:
    """A rollback gives a memory the label that it had."""

    def memory(original: Callable[..., Any], now: Any, then: Any, skipped: Any) -> Any:
        weak = now._replace(sensitivity=then.sensitivity) if then is not None else now
        return original(weak, then, skipped)

    patches.wrap(rollback, "_memory", memory)


@mutant("rollback-changes-everything", *_ROLLBACK, "log/*", "kept-log/*", "commits*/*", "changes/*")
def _rollback_everything(patches: Patches) -> None:
    """A rollback makes a change for memories that are as they were."""

    def memory(original: Callable[..., Any], now: Any, then: Any, skipped: Any) -> Any:
        from memos_server._pb.mip.v1.commit_pb2 import CHANGE_KIND_MEMORY_ROLLED_BACK

        return original(now, then, skipped) or changes.evolve(now, CHANGE_KIND_MEMORY_ROLLED_BACK)

    patches.wrap(rollback, "_memory", memory)


@mutant("rollback-says-nothing-of-purges", *_ROLLBACK, "purg*/*")
def _rollback_purges(patches: Patches) -> None:
    """A rollback does not name the purged memories that it could not restore."""
    after(patches, "RollbackCube", lambda response: response.ClearField("skipped_purges"))


# Forks.


@mutant("fork-with-new-uids", "fork*/*")
def _fork_uids(patches: Patches) -> None:
    """A fork gives the copies uids of their own."""
    _copied(patches, lambda version: version._replace(uid=version.uid[::-1]))


@mutant("fork-without-the-last-memory", "fork*/*")
def _fork_forgets(patches: Patches) -> None:
    """A fork leaves out the memory that was added last."""

    async def copies(original: Callable[..., Any], *args: Any) -> Any:
        found = await original(*args)
        memories = [version for version in found if version.kind is Kind.MEMORY]
        return [version for version in found if not memories or version is not memories[-1]]

    patches.wrap(rewinding, "_copies", copies)


@mutant("fork-without-relations", "fork*/*")
def _fork_relations(patches: Patches) -> None:
    """A fork leaves out relations and sessions."""

    async def copies(original: Callable[..., Any], *args: Any) -> Any:
        return [version for version in await original(*args) if version.kind is Kind.MEMORY]

    patches.wrap(rewinding, "_copies", copies)


@mutant("fork-of-the-head", "fork*/*")
def _fork_of_the_head(patches: Patches) -> None:
    """A fork copies the present, whatever revision it was asked for."""
    before(patches, "ForkCube", lambda request: request.ClearField("revision"))


@mutant("fork-without-its-source", "fork*/*", "log/*", "kept-log/*", "commits*/*", "changes/*")
def _fork_source(patches: Patches) -> None:
    """The first commit of a fork does not name the head that it was made from."""

    async def commit(original: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        return await original(*args, **{**kw, "merged_heads": []})

    patches.wrap(rewinding, "append_commit", commit)


def _copied(patches: Patches, change: Callable[[Any], Any]) -> None:
    async def copies(original: Callable[..., Any], *args: Any) -> Any:
        return [change(version) if version.kind is Kind.MEMORY else version for version in await original(*args)]

    patches.wrap(rewinding, "_copies", copies)
