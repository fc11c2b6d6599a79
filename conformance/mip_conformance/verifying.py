"""Verification of a cube's log by what its server sends: steps 1 to 5 of docs/spec/digests.md."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

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


def verified(cube: str, ask: Ask) -> dict[str, Any]:
    """Returns what `Step.verify` binds: the log as it was read, and what does not fit in it.

    Args:
        cube: The name of the cube.
        ask: Makes the calls.
    """
    findings: list[str] = []
    head = ask("CubeService.GetCube", {"name": cube})["cube"]
    commits: list[dict[str, Any]] = []
    changes: list[list[dict[str, Any]]] = []
    digests: list[bytes] = []
    # By uid: the commitment, the state and the name that the replay holds.
    items: dict[str, tuple[bytes, str, str]] = {}
    for revision in range(1, head["revision"] + 1):
        name = f"{cube}/commits/{revision}"
        sealed = ask("CubeService.GetCommit", {"name": name, "view": "VIEW_SEALED"})["sealed_header"]
        digest = sha256(sealed)
        header = plain(message_class("CommitHeader").FromString(sealed))
        findings += _header_findings(header, revision, commits, digests)
        digests.append(digest)
        commits.append(header)
        exact = _sealed_changes(name, ask)
        if header["change_count"] != len(exact):
            findings.append(f"commit {revision}: change_count is {header['change_count']}, there are {len(exact)}")
        if header["changes_digest"] != changes_digest(exact):
            findings.append(f"commit {revision}: changes_digest does not fit the changes")
        parsed = [plain(message_class("Change").FromString(change)) for change in exact]
        changes.append(parsed)
        for place, change in enumerate(parsed):
            findings += _replayed(change, items, f"commit {revision}, change {place}")
    if digests and head["head_digest"] != digests[-1]:
        findings.append("the cube's head_digest is not the digest of its newest commit")
    if commits and head["uid"] != commits[0]["cube_uid"]:
        findings.append("the cube_uid of the log is not the cube's uid")
    # The memories of a deleted cube cannot be read; its log can.
    contents = _contents(cube, items, ask) if head["state"] == _ACTIVE else []
    findings += _content_findings(contents, items)
    return {
        "head_revision": head["revision"],
        "head_digest": digests[-1] if digests else b"",
        "cube_uid": head["uid"],
        "commits": commits,
        "changes": changes,
        "digests": digests,
        "contents": contents,
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


def _contents(cube: str, items: Mapping[str, tuple[bytes, str, str]], ask: Ask) -> list[dict[str, Any]]:
    """Returns what is stored of each memory that is not purged: uid, name, payload and salt."""
    found = []
    for uid, (_, state, name) in items.items():
        if name.startswith("memories/") and state != _PURGED:
            sealed = ask("MemoryService.GetMemory", {"name": f"{cube}/{name}", "view": "VIEW_SEALED"}).get("sealed", {})
            found.append(
                {"uid": uid, "name": name, "payload": sealed.get("payload", b""), "salt": sealed.get("salt", b"")}
            )
    return found


def _content_findings(contents: Iterable[Mapping[str, Any]], items: Mapping[str, tuple[bytes, str, str]]) -> list[str]:
    findings = []
    for content in contents:
        if len(content["salt"]) != _SALT_BYTES:
            findings.append(f"{content['name']}: its salt has {len(content['salt'])} bytes instead of {_SALT_BYTES}")
        if commitment(content["salt"], content["payload"]) != items[content["uid"]][0]:
            findings.append(f"{content['name']}: the commitment of what is stored is not that of the log")
    return findings
