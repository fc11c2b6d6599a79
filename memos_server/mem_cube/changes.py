"""New versions of items, each with the exact bytes of the change that the log keeps of it."""

from __future__ import annotations

from memos_server._pb.mip.v1 import commit_pb2
from memos_server._pb.mip.v1.memory_pb2 import MEMORY_STATE_ACTIVE
from memos_server.graph_dbs.base import Kind, NewContent, NewVersion, Version, relative_name
from memos_server.mem_cube import commitments


def seal(payload: bytes, *, vector: bytes | None = None, blobs: tuple[str, ...] = (), salt: bytes = b"") -> NewContent:
    """Commits to content under a salt that was drawn for it alone; a fresh one where none is given."""
    salt = salt or commitments.new_salt()
    digest = commitments.content_digest(payload)
    return NewContent(commitments.commitment(salt, digest), salt, digest, payload, vector, blobs)


def added(
    change_kind: int,
    kind: Kind,
    id_: str,
    uid: str,
    content: NewContent | None,
    *,
    sensitivity: int,
    owner: str,
    state: int = MEMORY_STATE_ACTIVE,
    merged_into: str = "",
) -> NewVersion:
    """Makes the first version of an item that is no relation."""
    change = commit_pb2.Change(
        kind=change_kind,  # type: ignore[arg-type]
        name=relative_name(kind, id_),
        uid=uid,
        after_commitment=content.commitment if content else b"",
        after_state=state,  # type: ignore[arg-type]
        merged_into=merged_into,
        sensitivity=sensitivity,  # type: ignore[arg-type]
        owner=owner,
    )
    return NewVersion(
        change.SerializeToString(deterministic=True),
        kind,
        id_,
        uid,
        None,
        state,
        sensitivity,
        owner,
        merged_into,
        content,
    )


def related(
    id_: str, uid: str, source: Version, target: Version, type_: str, weight: float, *, owner: str
) -> NewVersion:
    """Makes the first version of a relation; it is as sensitive as the more sensitive of its ends."""
    sensitivity = max(source.sensitivity, target.sensitivity)
    change = commit_pb2.Change(
        kind=commit_pb2.CHANGE_KIND_RELATION_CREATED,
        name=relative_name(Kind.RELATION, id_),
        uid=uid,
        after_state=MEMORY_STATE_ACTIVE,
        sensitivity=sensitivity,  # type: ignore[arg-type]
        owner=owner,
        source=relative_name(Kind.MEMORY, source.id),
        target=relative_name(Kind.MEMORY, target.id),
        type=type_,
        weight=weight,
    )
    return NewVersion(
        change.SerializeToString(deterministic=True),
        Kind.RELATION,
        id_,
        uid,
        None,
        MEMORY_STATE_ACTIVE,
        sensitivity,
        owner,
        source=source.uid,
        target=target.uid,
        type=type_,
        weight=weight,
    )


def evolve(
    before: Version,
    change_kind: int,
    *,
    state: int | None = None,
    sensitivity: int | None = None,
    owner: str | None = None,
    merged_into: str = "",
    content: NewContent | Version | None = None,
    erase: bool = False,
    weight: float | None = None,
    ends: tuple[str, str] = ("", ""),
) -> NewVersion:
    """Makes the next version of an item; what is not given stays as it was.

    Args:
        before: The current version.
        change_kind: The ChangeKind number.
        state: The new state.
        sensitivity: The new label.
        owner: The new owner.
        merged_into: The relative name of the absorbing memory, for a version that is MERGED.
        content: New content, or another version of the item whose content returns.
        erase: True leaves the version without content.
        weight: A relation's new weight.
        ends: A relation's source and target, names relative to the cube.
    """
    after_commitment, after_content = before.commitment, before.content
    new_content: NewContent | int | None = after_content
    if erase:
        after_commitment, new_content = b"", None
    elif isinstance(content, NewContent):
        after_commitment, new_content = content.commitment, content
    elif content is not None:
        after_commitment, new_content = content.commitment, content.content
    state = before.state if state is None else state
    sensitivity = before.sensitivity if sensitivity is None else sensitivity
    owner = before.owner if owner is None else owner
    weight = before.weight if weight is None else weight
    change = commit_pb2.Change(
        kind=change_kind,  # type: ignore[arg-type]
        name=relative_name(before.kind, before.id),
        uid=before.uid,
        before_commitment=before.commitment,
        after_commitment=after_commitment,
        before_state=before.state,  # type: ignore[arg-type]
        after_state=state,  # type: ignore[arg-type]
        merged_into=merged_into,
        sensitivity=sensitivity,  # type: ignore[arg-type]
        owner=owner,
        source=ends[0],
        target=ends[1],
        type=before.type,
        weight=weight,
    )
    return NewVersion(
        change.SerializeToString(deterministic=True),
        before.kind,
        before.id,
        before.uid,
        before.item,
        state,
        sensitivity,
        owner,
        merged_into,
        new_content,
        before.source,
        before.target,
        before.type,
        weight,
    )
