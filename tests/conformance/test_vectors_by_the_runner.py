"""The golden vectors, checked with the functions by which the suite verifies the logs of servers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mip_conformance.contract import message_class
from mip_conformance.expressions import FUNCTIONS
from mip_conformance.values import message_of, plain
from mip_conformance.verifying import changes_digest, commitment, sha256, verified

VECTORS = Path(__file__).resolve().parents[2] / "conformance" / "vectors"
CONTENTS = json.loads((VECTORS / "contents.json").read_text(encoding="utf-8"))["contents"]
LOG = json.loads((VECTORS / "commits.json").read_text(encoding="utf-8"))
COMMITS = LOG["commits"]
CUBE = "cubes/example"


class Recorded:
    """A server that answers with the log of the vectors, which a test may falsify before."""

    def __init__(self) -> None:
        self.commits = copy.deepcopy(COMMITS)
        self.sealed: dict[str, tuple[str, str]] = {
            vector["commitment"]: (vector["payload"], vector["salt"]) for vector in CONTENTS
        }
        self.state = "MEMORY_STATE_ACTIVE"

    def ask(self, rpc: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answers what the verification asks for."""
        if rpc == "CubeService.GetCube":
            header = message_class("CommitHeader").FromString(bytes.fromhex(self.commits[-1]["header"]))
            digest = bytes.fromhex(self.commits[-1]["commit_digest"])
            revision = len(self.commits)
            uid = plain(header)["cube_uid"]
            return {"cube": {"revision": revision, "uid": uid, "head_digest": digest, "state": self.state}}
        if rpc == "MemoryService.GetMemory":
            payload, salt = self.sealed[self._head(request["name"].removeprefix(f"{CUBE}/"))]
            return {"sealed": {"payload": bytes.fromhex(payload), "salt": bytes.fromhex(salt)}}
        commit = self.commits[int((request.get("name") or request["parent"]).rpartition("/")[2]) - 1]
        if rpc == "CubeService.GetCommit":
            return {"sealed_header": bytes.fromhex(commit["header"])}
        # One change a page.
        at = int(request["page_token"] or 0)
        changes = [bytes.fromhex(change["bytes"]) for change in commit["changes"]]
        return {"sealed_changes": changes[at : at + 1], "next_page_token": str(at + 1) if at + 1 < len(changes) else ""}

    def _head(self, name: str) -> str:
        after = [
            plain(message_class("Change").FromString(bytes.fromhex(change["bytes"])))
            for commit in COMMITS
            for change in commit["changes"]
        ]
        return str(next(change["after_commitment"].hex() for change in reversed(after) if change["name"] == name))


@pytest.mark.parametrize("vector", CONTENTS, ids=lambda vector: vector["shows"])
def test_a_content_has_its_digest_and_commitment(vector: dict[str, Any]) -> None:
    payload, salt = bytes.fromhex(vector["payload"]), bytes.fromhex(vector["salt"])
    assert sha256(payload).hex() == vector["content_digest"]
    assert commitment(salt, payload).hex() == vector["commitment"]
    assert FUNCTIONS["sha256"](salt + FUNCTIONS["sha256"](payload)).hex() == vector["commitment"]


@pytest.mark.parametrize("vector", CONTENTS, ids=lambda vector: vector["shows"])
def test_a_payload_parses_as_the_message_beside_it(vector: dict[str, Any]) -> None:
    kind = message_class(vector["message"].removeprefix("mip.v1."))
    payload = bytes.fromhex(vector["payload"])
    assert plain(kind.FromString(payload)) == plain(message_of(kind, vector["json"]))
    known = [number for number in FUNCTIONS["field_numbers"](payload) if number in kind.DESCRIPTOR.fields_by_number]
    assert known == sorted(known)
    assert not [number for number in FUNCTIONS["field_numbers"](payload) if 32 <= number <= 63]


@pytest.mark.parametrize("vector", COMMITS, ids=lambda vector: f"revision {vector['revision']}")
def test_a_commit_has_its_digests(vector: dict[str, Any]) -> None:
    changes = [bytes.fromhex(change["bytes"]) for change in vector["changes"]]
    assert [sha256(change).hex() for change in changes] == [change["digest"] for change in vector["changes"]]
    assert changes_digest(changes).hex() == vector["changes_digest"]
    assert FUNCTIONS["changes_digest"](changes).hex() == vector["changes_digest"]
    assert sha256(bytes.fromhex(vector["header"])).hex() == vector["commit_digest"]
    header = message_class("CommitHeader")
    assert plain(header.FromString(bytes.fromhex(vector["header"]))) == plain(message_of(header, vector["header_json"]))


def test_a_commit_without_changes_has_the_digest_of_nothing() -> None:
    assert changes_digest([]).hex() == LOG["no_changes_digest"]


def test_the_log_verifies() -> None:
    found = verified(CUBE, Recorded().ask)
    assert found["findings"] == []
    assert [digest.hex() for digest in found["digests"]] == [vector["commit_digest"] for vector in COMMITS]
    assert [content["name"] for content in found["contents"]] == ["memories/tea"]


def test_the_log_of_a_deleted_cube_verifies_without_its_contents() -> None:
    server = Recorded()
    server.state = "MEMORY_STATE_DELETED"
    found = verified(CUBE, server.ask)
    assert (found["findings"], found["contents"]) == ([], [])


def _edit_header(place: int, **fields: Any) -> Callable[[Recorded], None]:
    def edit(server: Recorded) -> None:
        header = message_class("CommitHeader").FromString(bytes.fromhex(server.commits[place]["header"]))
        for key, value in fields.items():
            setattr(header, key, value)
        _seal(server, place, header)

    return edit


def _seal(server: Recorded, place: int, header: Any) -> None:
    """Replaces a header, and the head's digest with it: what a forger of the tail would do."""
    data = header.SerializeToString()
    server.commits[place] |= {"header": data.hex(), "commit_digest": sha256(data).hex()}


def _early(server: Recorded) -> None:
    """Puts the last commit half a microsecond after the one before."""
    kind = message_class("CommitHeader")
    before = kind.FromString(bytes.fromhex(server.commits[1]["header"]))
    last: Any = kind.FromString(bytes.fromhex(server.commits[2]["header"]))
    last.create_time.CopyFrom(before.create_time)  # type: ignore[attr-defined]
    last.create_time.nanos += 500
    _seal(server, 2, last)


def _drop_change(server: Recorded) -> None:
    del server.commits[1]["changes"][1]


def _swap_changes(server: Recorded) -> None:
    server.commits[1]["changes"].reverse()


def _swap_commits(server: Recorded) -> None:
    server.commits[0], server.commits[1] = server.commits[1], server.commits[0]


def _drop_commit(server: Recorded) -> None:
    del server.commits[1]


def _another_text(server: Recorded) -> None:
    for key, (payload, salt) in server.sealed.items():
        server.sealed[key] = (payload.replace("746561", "74656e"), salt)


def _short_salt(server: Recorded) -> None:
    for key, (payload, salt) in server.sealed.items():
        server.sealed[key] = (payload, salt[2:])


@pytest.mark.parametrize(
    ("falsify", "told"),
    [
        (_edit_header(0, principal="principals/other"), "commit 2: parent_digest is not"),
        (_edit_header(2, parent_digest=b"x" * 32), "commit 3: parent_digest is not"),
        (_edit_header(2, revision=4), "commit 3: its header says revision 4"),
        (_edit_header(2, cube_uid="another"), "commit 3: cube_uid is not that of the first commit"),
        (_edit_header(2, change_count=9), "commit 3: change_count is 9"),
        (_edit_header(2, changes_digest=b"x" * 32), "commit 3: changes_digest does not fit"),
        (_early, "commit 3: create_time is not a microsecond later"),
        (_drop_change, "commit 2: changes_digest does not fit"),
        (_drop_change, "commit 3, change 0: before_commitment is not"),
        (_swap_changes, "commit 2: changes_digest does not fit"),
        (_swap_commits, "commit 1: its header says revision 2"),
        (_drop_commit, "commit 2: its header says revision 3"),
        (_another_text, "memories/tea: the commitment of what is stored"),
        (_short_salt, "memories/tea: its salt has 31 bytes"),
    ],
)
def test_a_falsified_log_does_not_verify(falsify: Callable[[Recorded], None], told: str) -> None:
    server = Recorded()
    falsify(server)
    findings = verified(CUBE, server.ask)["findings"]
    assert any(finding.startswith(told) for finding in findings), findings
