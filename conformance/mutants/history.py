"""Faults in the log and what is read from it: commits, versions, the past, rollback, forks, verification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.mutants.faults import after, before, everywhere, mutant, use_case
from conformance.mutants.servers import Patches
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE, MEMORY_STATE_MERGED
from memos_server.graph_dbs.base import Kind
from memos_server.mem_cube import changes, commitments, log, rollback
from memos_server.mem_os import context, rewinding

_READING_THE_PAST = (
    "MemoryService.GetMemory",
    "MemoryService.BatchGetMemories",
    "MemoryService.ListMemories",
    "MemoryService.SearchMemories",
    "GraphService.ListRelations",
    "GraphService.Traverse",
)
_ROLLBACK = ("rollback*/*", "versions/*", "declarations/*", "search-as-of/*")


def _present(request: Any) -> None:
    request.ClearField("as_of_revision")
    if "as_of_time" in request.DESCRIPTOR.fields_by_name:
        request.ClearField("as_of_time")


for _rpc in _READING_THE_PAST:

    def _as_of_present(patches: Patches, rpc: str = _rpc) -> None:
        before(patches, rpc.partition(".")[2], _present)

    _as_of_present.__doc__ = f"{_rpc} with as_of_revision reads the present."
    mutant(f"as-of-reads-the-present/{_rpc}")(_as_of_present)


@mutant(
    "as-of-beyond-the-head",
    "as-of/*",
    "search-as-of/*",
    "rollback*/*",
    "watch*/*",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "*revision*",
)
def _beyond_the_head(patches: Patches) -> None:
    """A revision above the head is answered as the head is."""
    original = context.at_revision

    def clamped(cube: Any, revision: int, field_name: str = "as_of_revision") -> int | None:
        return original(cube, min(revision, cube.revision), field_name)

    everywhere(patches, "at_revision", original, clamped)


# The log.


@mutant(
    "commit-with-a-wrong-digest",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
    "watch*/*",
)
def _wrong_digest(patches: Patches) -> None:
    """The digest of a commit is not that of its header."""
    for rpc in ("GetCommit", "ListCommits", "AddMemories"):

        def change(response: Any) -> None:
            found = response.commits if "commits" in response.DESCRIPTOR.fields_by_name else [response.commit]
            for commit in found:
                if commit.digest:
                    commit.digest = commit.digest[::-1]

        after(patches, rpc, change)


@mutant(
    "chain-with-a-wrong-parent",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
)
def _wrong_parent(patches: Patches) -> None:
    """A commit's parent_digest is not the digest of the commit before."""

    async def commit(
        original: Callable[..., Any], txn: Any, key: Any, uid: str, parent: Any, *args: Any, **kw: Any
    ) -> Any:
        wrong = parent._replace(digest=bytes(32)) if parent is not None and parent.revision > 1 else parent
        return await original(txn, key, uid, wrong, *args, **kw)

    original = log.append_commit

    everywhere(patches, "append_commit", original, lambda *args, **kw: commit(original, *args, **kw))


@mutant(
    "commitment-without-salt",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "fork*/*",
    "states/*",
    "updates-by-state/*",
    "memor*/*",
    "reading-memories/*",
)
def _no_salt(patches: Patches) -> None:
    """The commitment of a content is its digest, which can be guessed."""
    patches.set(commitments, "commitment", lambda salt, digest: digest)


@mutant(
    "salt-that-repeats",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
)
def _same_salt(patches: Patches) -> None:
    """Every content is sealed under the same salt."""
    patches.set(commitments, "new_salt", lambda: b"s" * 32)
    everywhere(patches, "new_salts", commitments.new_salts, lambda count: [b"s" * 32] * count)


@mutant(
    "change-without-what-was-before",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
)
def _no_before(patches: Patches) -> None:
    """Changes do not say which content and state they follow."""

    def evolve(original: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        from memos_server._pb.mip.v1.commit_pb2 import Change

        new = original(*args, **kw)
        change = Change.FromString(new.change)
        change.ClearField("before_commitment")
        change.ClearField("before_state")
        return new._replace(change=change.SerializeToString(deterministic=True))

    original = changes.evolve

    everywhere(patches, "evolve", original, lambda *args, **kw: evolve(original, *args, **kw))


@mutant(
    "change-of-another-kind",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
    "rollback*/*",
    "fork*/*",
)
def _another_kind(patches: Patches) -> None:
    """Every change of a memory that exists says MEMORY_UPDATED."""
    from memos_server._pb.mip.v1.commit_pb2 import CHANGE_KIND_MEMORY_UPDATED

    original = changes.evolve

    def evolve(version: Any, kind: int, **kw: Any) -> Any:
        return original(version, CHANGE_KIND_MEMORY_UPDATED if version.kind is Kind.MEMORY else kind, **kw)

    everywhere(patches, "evolve", original, evolve)


@mutant("payload-serialized-again", "digests/*", "sealing/*", "commits*/*", "changes/*", "fork*/*", "rollback*/*")
def _payload_again(patches: Patches) -> None:
    """Sealed bytes are not those that were hashed."""

    def change(response: Any) -> None:
        if response.sealed.payload:
            response.sealed.payload += b"\x7a\x00"

    after(patches, "GetMemory", change)


@mutant("log-oldest-first", "log/*", "kept-log/*", "commits*/*", "changes/*")
def _log_turned(patches: Patches) -> None:
    """ListCommits returns the oldest commit of a page first."""

    def turn(response: Any) -> None:
        found = list(response.commits)[::-1]
        del response.commits[:]
        response.commits.extend(found)

    after(patches, "ListCommits", turn)


@mutant(
    "log-without-causes",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "rollback*/*",
    "memor*/*",
    "reading-memories/*",
    "purg*/*",
)
def _no_causes(patches: Patches) -> None:
    """Commits do not say why they were made."""

    def erase(response: Any) -> None:
        for commit in response.commits if "commits" in response.DESCRIPTOR.fields_by_name else [response.commit]:
            commit.ClearField("cause")

    for rpc in ("ListCommits", "GetCommit"):
        after(patches, rpc, erase)


@mutant(
    "log-without-principals",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "access*/*",
    "grants*/*",
    "permissions/*",
    "order-of-checks/*",
)
def _no_principals(patches: Patches) -> None:
    """Commits do not say who made them."""

    def erase(response: Any) -> None:
        for commit in response.commits if "commits" in response.DESCRIPTOR.fields_by_name else [response.commit]:
            commit.ClearField("principal")

    for rpc in ("ListCommits", "GetCommit", "AddMemories"):
        after(patches, rpc, erase)


@mutant(
    "change-left-out",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
    "purg*/*",
    "merging/*",
)
def _change_left_out(patches: Patches) -> None:
    """ListCommitChanges leaves out the last change of a commit with several."""

    def shorten(response: Any) -> None:
        for field in (response.changes, response.sealed_changes):
            if len(field) > 1:
                del field[-1]

    after(patches, "ListCommitChanges", shorten)


@mutant(
    "change-count-wrong",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "digests/*",
    "sealing/*",
    "commits*/*",
    "changes/*",
    "secrets*/*",
    "labels/*",
)
def _change_count(patches: Patches) -> None:
    """change_count is one too high."""

    def count(response: Any) -> None:
        for commit in response.commits if "commits" in response.DESCRIPTOR.fields_by_name else [response.commit]:
            commit.change_count += 1

    for rpc in ("ListCommits", "GetCommit"):
        after(patches, rpc, count)


@mutant(
    "mutation-without-a-commit",
    "log/*",
    "kept-log/*",
    "commits*/*",
    "changes/*",
    "sessions/*",
    "cube*/*",
    "mutations/*",
)
def _no_commit(patches: Patches) -> None:
    """The response of a mutation does not say which commit it made."""
    for rpc in ("AddMemories", "UpdateMemory", "TransitionMemories", "MergeMemories", "DeleteMemories", "PurgeMemories",
                "CreateRelations", "DeleteRelations", "CreateSession", "EndSession", "UpdateCube", "DeleteCube",
                "UndeleteCube", "PurgeCube", "RollbackCube", "ForkCube", "CreateCube", "BulkAddMemories"):  # fmt: skip
        after(patches, rpc, lambda response: response.ClearField("commit"))


# Versions.


@mutant("versions-oldest-first", "versions/*", "declarations/*")
def _versions_turned(patches: Patches) -> None:
    """ListMemoryRevisions returns the oldest version first."""

    def turn(response: Any) -> None:
        found = list(response.memories)[::-1]
        del response.memories[:]
        response.memories.extend(found)

    after(patches, "ListMemoryRevisions", turn)


@mutant("versions-without-states", "versions/*", "declarations/*", "states/*", "updates-by-state/*", "rollback*/*")
def _versions_without_states(patches: Patches) -> None:
    """ListMemoryRevisions leaves out versions in which only the state changed."""

    def drop(response: Any) -> None:
        kept = [memory for memory in response.memories if memory.state == MEMORY_STATE_ACTIVE]
        del response.memories[:]
        response.memories.extend(kept)

    after(patches, "ListMemoryRevisions", drop)


@mutant(
    "version-with-the-revision-of-the-head",
    "versions/*",
    "declarations/*",
    "memor*/*",
    "reading-memories/*",
    "as-of/*",
    "states/*",
    "updates-by-state/*",
)
def _version_of_the_head(patches: Patches) -> None:
    """Memory.revision is always one more than the commit that made the version."""

    def change(response: Any) -> None:
        for memory in response.memories if "memories" in response.DESCRIPTOR.fields_by_name else [response.memory]:
            memory.revision += 1

    for rpc in ("GetMemory", "ListMemories", "ListMemoryRevisions"):
        after(patches, rpc, change)


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


# Verification.


@mutant("verify-finds-nothing", "verify/*", "digests/*", "sealing/*", "commits*/*", "changes/*")
def _verify_blind(patches: Patches) -> None:
    """VerifyCube says that everything fits, whatever head was expected."""
    use_case(patches, "VerifyCube", _blind)


async def _blind(original: Callable[..., Any], mos: Any, call: Any, request: Any) -> Any:
    response = await original(mos, call, request)
    response.valid = True
    del response.findings[:]
    return response


@mutant("verify-of-another-head", "verify/*")
def _verify_head(patches: Patches) -> None:
    """VerifyCube names a head that is not the cube's."""

    def change(response: Any) -> None:
        response.head_revision += 1
        response.head_digest = response.head_digest[::-1]

    after(patches, "VerifyCube", change)
