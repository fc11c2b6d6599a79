"""Faults in the log and what is read from it: commits, versions, the past, verification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.mutants.faults import (
    after,
    before,
    commits_in,
    everywhere,
    memories_in,
    mutant,
    turned,
    use_case,
)
from conformance.mutants.servers import Patches
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE
from memos_server.graph_dbs.base import Kind
from memos_server.mem_cube import changes, commitments, log
from memos_server.mem_os import context

_READING_THE_PAST = (
    "MemoryService.GetMemory",
    "MemoryService.BatchGetMemories",
    "MemoryService.ListMemories",
    "MemoryService.SearchMemories",
    "GraphService.ListRelations",
    "GraphService.Traverse",
)


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
            for commit in commits_in(response):
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
    turned(patches, "ListCommits", "commits")


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
        for commit in commits_in(response):
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
        for commit in commits_in(response):
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
        for commit in commits_in(response):
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
    turned(patches, "ListMemoryRevisions", "memories")


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
        for memory in memories_in(response):
            memory.revision += 1

    for rpc in ("GetMemory", "ListMemories", "ListMemoryRevisions"):
        after(patches, rpc, change)


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
