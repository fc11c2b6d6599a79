"""Verification of a cube's log by what its server sends: steps 1 to 5 of docs/spec/digests.md."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from mip_conformance.contract import message_class
from mip_conformance.values import nanoseconds, plain

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Makes a call and returns its response; raises for an error."""

_PAGE = 1000
_SALT_BYTES = 32
_ACTIVE = "MEMORY_STATE_ACTIVE"
_PURGED = "MEMORY_STATE_PURGED"
_MICROSECOND = 1_000


def sha256(*parts: bytes) -> bytes:
    """Returns the SHA-256 of bytes, one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


def changes_digest(changes: Iterable[bytes]) -> bytes:
    """Returns the changes digest of a commit.

    Args:
        changes: The exact bytes of its changes, in their order.
    """
    return sha256(*(sha256(change) for change in changes))


def commitment(salt: bytes, payload: bytes) -> bytes:
    """Returns the commitment to a content."""
    return sha256(salt, sha256(payload))


class Content(NamedTuple):
    """What is stored of a memory.

    Attributes:
        name: Its name within the cube, `memories/{memory}`.
        payload: The sealed bytes.
        salt: The salt that they are committed to under.
    """

    name: str
    payload: bytes
    salt: bytes


class Record(NamedTuple):
    """A cube as its server sends it, byte for byte: its state record.

    Attributes:
        uid: The cube's uid.
        head_revision: The revision of its head.
        head_digest: The digest of its head.
        headers: The sealed headers of its commits, from the first on.
        changes: The sealed changes of each commit.
        contents: What is stored of its memories, by uid; empty for a deleted cube, whose memories cannot be read.
    """

    uid: str
    head_revision: int
    head_digest: bytes
    headers: list[bytes]
    changes: list[list[bytes]]
    contents: dict[str, Content]


def verified(cube: str, ask: Ask) -> dict[str, Any]:
    """Returns what `Step.verify` binds: the log as it was read, and what does not fit in it.

    Args:
        cube: The name of the cube.
        ask: Makes the calls.
    """
    return check_record(read_record(cube, ask))


def read_record(cube: str, ask: Ask) -> Record:
    """Reads a cube whole.

    Args:
        cube: Its name.
        ask: Makes the calls.
    """
    head = ask("CubeService.GetCube", {"name": cube})["cube"]
    headers: list[bytes] = []
    changes: list[list[bytes]] = []
    # By uid: the state and the name that the log leaves a memory in.
    memories: dict[str, tuple[str, str]] = {}
    for revision in range(1, head["revision"] + 1):
        name = f"{cube}/commits/{revision}"
        headers.append(ask("CubeService.GetCommit", {"name": name, "view": "VIEW_SEALED"})["sealed_header"])
        changes.append(_sealed_changes(name, ask))
        for exact in changes[-1]:
            change = plain(message_class("Change").FromString(exact))
            if change["name"].startswith("memories/"):
                memories[change["uid"]] = change["after_state"], change["name"]
    contents = {}
    # The memories of a deleted cube cannot be read; its log can.
    if head["state"] == _ACTIVE:
        for uid, (state, name) in memories.items():
            if state != _PURGED:
                answer = ask("MemoryService.GetMemory", {"name": f"{cube}/{name}", "view": "VIEW_SEALED"})
                sealed = answer.get("sealed", {})
                contents[uid] = Content(name, sealed.get("payload", b""), sealed.get("salt", b""))
    return Record(head["uid"], head["revision"], head["head_digest"], headers, changes, contents)


def check_record(record: Record) -> dict[str, Any]:
    """Returns what `Step.verify` binds, from a record as it was read."""
    findings: list[str] = []
    commits: list[dict[str, Any]] = []
    changes: list[list[dict[str, Any]]] = []
    digests: list[bytes] = []
    # By uid: the commitment, the state and the name that the replay holds.
    items: dict[str, tuple[bytes, str, str]] = {}
    for revision, (sealed, exact) in enumerate(zip(record.headers, record.changes, strict=True), start=1):
        digest = sha256(sealed)
        header = plain(message_class("CommitHeader").FromString(sealed))
        findings += _header_findings(header, revision, commits, digests)
        digests.append(digest)
        commits.append(header)
        if header["change_count"] != len(exact):
            findings.append(f"commit {revision}: change_count is {header['change_count']}, there are {len(exact)}")
        if header["changes_digest"] != changes_digest(exact):
            findings.append(f"commit {revision}: changes_digest does not fit the changes")
        parsed = [plain(message_class("Change").FromString(change)) for change in exact]
        changes.append(parsed)
        for place, change in enumerate(parsed):
            findings += _replayed(change, items, f"commit {revision}, change {place}")
    if digests and record.head_digest != digests[-1]:
        findings.append("the cube's head_digest is not the digest of its newest commit")
    if len(digests) != record.head_revision:
        findings.append(f"the head is at revision {record.head_revision}, the log has {len(digests)} commits")
    if commits and record.uid != commits[0]["cube_uid"]:
        findings.append("the cube_uid of the log is not the cube's uid")
    findings += _content_findings(record.contents, items)
    return {
        "head_revision": record.head_revision,
        "head_digest": digests[-1] if digests else b"",
        "cube_uid": record.uid,
        "commits": commits,
        "changes": changes,
        "digests": digests,
        "contents": [{"uid": uid, **content._asdict()} for uid, content in record.contents.items()],
        "findings": findings,
    }


def _sealed_changes(name: str, ask: Ask) -> list[bytes]:
    found: list[bytes] = []
    token = ""
    while True:
        page = ask(
            "CubeService.ListCommitChanges",
            {"parent": name, "view": "VIEW_SEALED", "page_size": _PAGE, "page_token": token},
        )
        found += page["sealed_changes"]
        token = page["next_page_token"]
        if not token:
            return found


def _header_findings(
    header: dict[str, Any], revision: int, before: list[dict[str, Any]], digests: list[bytes]
) -> list[str]:
    findings = []
    if header["revision"] != revision:
        findings.append(f"commit {revision}: its header says revision {header['revision']}")
    if header["parent_digest"] != (digests[-1] if digests else b""):
        findings.append(f"commit {revision}: parent_digest is not the digest of the commit before")
    if "create_time" not in header:
        findings.append(f"commit {revision}: it has no create_time")
    elif before and nanoseconds(header["create_time"]) < nanoseconds(before[-1].get("create_time", "")) + _MICROSECOND:
        findings.append(f"commit {revision}: create_time is not a microsecond later than that of the commit before")
    if before and header["cube_uid"] != before[0]["cube_uid"]:
        findings.append(f"commit {revision}: cube_uid is not that of the first commit")
    return findings


def _replayed(change: dict[str, Any], items: dict[str, tuple[bytes, str, str]], where: str) -> list[str]:
    findings = []
    commitment, state, _ = items.get(change["uid"], (b"", "MEMORY_STATE_UNSPECIFIED", ""))
    if change["before_commitment"] != commitment:
        findings.append(f"{where}: before_commitment is not what the changes before leave")
    if change["before_state"] != state:
        findings.append(f"{where}: before_state is {change['before_state']} instead of {state}")
    if change["name"].startswith("relations/") and (change["before_commitment"] or change["after_commitment"]):
        findings.append(f"{where}: a relation has a commitment")
    items[change["uid"]] = (change["after_commitment"], change["after_state"], change["name"])
    return findings


def _content_findings(contents: Mapping[str, Content], items: Mapping[str, tuple[bytes, str, str]]) -> list[str]:
    findings = []
    for uid, content in contents.items():
        if len(content.salt) != _SALT_BYTES:
            findings.append(f"{content.name}: its salt has {len(content.salt)} bytes instead of {_SALT_BYTES}")
        if commitment(content.salt, content.payload) != items.get(uid, (b"", "", ""))[0]:
            findings.append(f"{content.name}: the commitment of what is stored is not that of the log")
    return findings
