"""The golden vectors verify, are what the independent script makes, and the server's own functions agree with them."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from memos_server._pb.mip.v1 import commit_pb2, cube_pb2, memory_pb2, session_pb2
from memos_server.mem_cube import commitments

VECTORS = Path(__file__).resolve().parents[2] / "conformance" / "vectors"
MESSAGES = {
    "mip.v1.MemoryContent": memory_pb2.MemoryContent,
    "mip.v1.CubeContent": cube_pb2.CubeContent,
    "mip.v1.SessionContent": session_pb2.SessionContent,
}


def load(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return value


CONTENTS = load("contents.json")["contents"]
COMMITS = load("commits.json")["commits"]


@pytest.mark.parametrize("vector", CONTENTS, ids=lambda v: v["shows"])
def test_the_server_computes_the_digest_and_commitment_of_every_content(vector: dict[str, str]) -> None:
    digest = commitments.content_digest(bytes.fromhex(vector["payload"]))
    assert digest.hex() == vector["content_digest"]
    assert commitments.commitment(bytes.fromhex(vector["salt"]), digest).hex() == vector["commitment"]


@pytest.mark.parametrize("vector", CONTENTS, ids=lambda v: v["shows"])
def test_a_payload_parses_as_the_message_beside_it(vector: dict[str, Any]) -> None:
    message = MESSAGES[vector["message"]].FromString(bytes.fromhex(vector["payload"]))
    assert MessageToDict(message) == vector["json"]
    assert MessageToDict(ParseDict(vector["json"], MESSAGES[vector["message"]]())) == vector["json"]


def test_a_short_text_has_the_bytes_and_digests_that_one_works_out_by_hand() -> None:
    # Field 1 (plaintext), 18 bytes: in it field 1 (text), 16 bytes.
    payload = b"\x0a\x12\x0a\x10Ada prefers tea."
    assert CONTENTS[0]["payload"] == payload.hex()
    assert CONTENTS[0]["content_digest"] == hashlib.sha256(payload).hexdigest()
    assert CONTENTS[0]["salt"] == "00" * 32
    assert CONTENTS[0]["commitment"] == hashlib.sha256(bytes(32) + hashlib.sha256(payload).digest()).hexdigest()


def test_sealed_content_parses_as_a_memory_too() -> None:
    memory = memory_pb2.Memory.FromString(bytes.fromhex(CONTENTS[1]["payload"]))
    assert memory.plaintext.text == "The PIN is 4417."
    assert memory.HasField("confidence")
    assert memory.confidence == 0.0


def test_an_unknown_field_survives_in_the_payload() -> None:
    payload = bytes.fromhex(CONTENTS[-1]["payload"])
    assert memory_pb2.MemoryContent.FromString(payload).SerializeToString() == payload
    assert payload.endswith(b"new")


@pytest.mark.parametrize("vector", COMMITS, ids=lambda v: f"revision {v['revision']}")
def test_the_server_computes_the_digests_of_every_commit(vector: dict[str, Any]) -> None:
    digests = [commitments.change_digest(bytes.fromhex(change["bytes"])) for change in vector["changes"]]
    assert [digest.hex() for digest in digests] == [change["digest"] for change in vector["changes"]]
    assert commitments.changes_digest(digests).hex() == vector["changes_digest"]
    assert commitments.commit_digest(bytes.fromhex(vector["header"])).hex() == vector["commit_digest"]


def test_the_example_log_verifies_as_the_specification_says() -> None:
    parent, state = b"", {}
    for revision, vector in enumerate(COMMITS, start=1):
        header = commit_pb2.CommitHeader.FromString(bytes.fromhex(vector["header"]))
        assert (header.revision, header.parent_digest) == (revision, parent)
        changes = [bytes.fromhex(change["bytes"]) for change in vector["changes"]]
        assert header.change_count == len(changes)
        hashed = b"".join(hashlib.sha256(change).digest() for change in changes)
        assert header.changes_digest == hashlib.sha256(hashed).digest()
        for data in changes:
            change = commit_pb2.Change.FromString(data)
            assert (change.before_commitment, change.before_state) == state.get(change.uid, (b"", 0))
            state[change.uid] = (change.after_commitment, change.after_state)
        parent = hashlib.sha256(bytes.fromhex(vector["header"])).digest()
    # The purged memory has no commitment any more; the tea is still the one of contents.json.
    assert sorted(commitment.hex() for commitment, _ in state.values()) == sorted(
        ["", CONTENTS[0]["commitment"], CONTENTS[7]["commitment"]]
    )


def test_a_commit_without_changes_has_the_digest_of_nothing() -> None:
    expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert commitments.changes_digest([]).hex() == expected
    assert load("commits.json")["no_changes_digest"] == expected
    assert expected in (VECTORS.parents[1] / "docs" / "spec" / "digests.md").read_text(encoding="utf-8")


def test_the_files_are_what_the_independent_script_makes() -> None:
    made = runpy.run_path(str(Path(__file__).with_name("golden_vectors.py")))["files"]()
    assert {path: path.read_text(encoding="utf-8") for path in made} == made
    assert {path.name for path in VECTORS.glob("*.json")} == {path.name for path in made}


CUBES = sorted((VECTORS / "cubes").glob("*.json"))


def test_there_is_a_cube_of_either_server() -> None:
    assert [path.name for path in CUBES] == ["memos.json", "mip-go-peer.json"]


@pytest.mark.parametrize("path", CUBES, ids=lambda path: path.stem)
def test_a_cube_that_either_server_wrote_has_equal_digests_here(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    parent = b""
    held: dict[str, tuple[bytes, int]] = {}
    for revision, commit in enumerate(record["commits"], start=1):
        header = bytes.fromhex(commit["header"])
        parsed = commit_pb2.CommitHeader.FromString(header)
        changes = [bytes.fromhex(change) for change in commit["changes"]]
        assert (parsed.revision, parsed.cube_uid, parsed.parent_digest) == (revision, record["cube_uid"], parent)
        digests = [commitments.change_digest(change) for change in changes]
        assert parsed.changes_digest == commitments.changes_digest(digests)
        for change in map(commit_pb2.Change.FromString, changes):
            assert (change.before_commitment, change.before_state) == held.get(change.uid, (b"", 0))
            held[change.uid] = change.after_commitment, change.after_state
        parent = commitments.commit_digest(header)
        assert parent.hex() == commit["digest"]
    assert parent.hex() == record["head"]["digest"]
    for item in record["contents"]:
        payload = bytes.fromhex(item["payload"])
        digest = commitments.content_digest(payload)
        assert commitments.commitment(bytes.fromhex(item["salt"]), digest) == held[item["uid"]][0]
        # The other server's bytes are what this one would have sealed of the same content.
        message = memory_pb2.MemoryContent.FromString(payload)
        assert message.SerializeToString(deterministic=True) == payload
