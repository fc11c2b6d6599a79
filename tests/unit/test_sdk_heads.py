"""The heads that a client remembers, and what it does with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memos_sdk import Client, Head, HeadMismatch, HeadStore, UsageError
from memos_server._pb.mip.v1 import cube_service_pb2, memory_service_pb2
from tests.unit.fake_mip import CUBE_UID, FakeMip, Notes, commit, cube, digest_of


@pytest.fixture
def fake() -> Iterator[FakeMip]:
    server = FakeMip()
    yield server
    server.stop()


def observed(store: HeadStore, revision: int) -> None:
    store.observe(CUBE_UID, revision, digest_of(revision), digest_of(revision - 1))


def test_the_newest_head_is_kept() -> None:
    store = HeadStore()
    observed(store, 3)
    observed(store, 5)
    observed(store, 4)
    assert store.get(CUBE_UID) == Head(5, digest_of(5))
    assert store.get("another") is None


def test_a_commit_that_does_not_continue_the_head_is_an_alarm() -> None:
    store = HeadStore()
    observed(store, 3)
    with pytest.raises(HeadMismatch) as caught:
        store.observe(CUBE_UID, 4, digest_of(4), b"x" * 32)
    assert caught.value.reason == "HEAD_MISMATCH"
    assert caught.value.metadata["seen_digest"] == digest_of(3).hex()
    with pytest.raises(HeadMismatch):
        store.observe(CUBE_UID, 3, b"y" * 32, digest_of(2))
    assert store.get(CUBE_UID) == Head(3, digest_of(3))


def test_heads_in_a_file_outlive_the_client_and_merge_with_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "heads.json"
    first, second = HeadStore(path), HeadStore(path)
    observed(first, 7)
    second.observe("another", 2, digest_of(2), digest_of(1))
    assert HeadStore(path).get(CUBE_UID) == Head(7, digest_of(7))
    assert HeadStore(path).get("another") == Head(2, digest_of(2))
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["heads.json", "heads.json.lock"]


WRITER = """
import sys
from memos_sdk import HeadStore

path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.stdin.read()
store = HeadStore(path)
for number in range(first, first + count):
    store.observe(f"cube{number}", 1, bytes(32), bytes(32))
    store.observe(f"passing{number}", 1, bytes(32), bytes(32))
    store.forget(f"passing{number}")
"""


def test_no_head_is_lost_when_several_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, str(n * 40), "40"], stdin=subprocess.PIPE) for n in range(4)]
    for writer in writers:
        # All wait for their input's end, and begin together.
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert {uid for uid in HeadStore(path).known() if uid.startswith("cube")} == {f"cube{n}" for n in range(160)}


def test_a_forgotten_head_is_gone_from_the_file_and_the_next_one_is_remembered_anew(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    store = HeadStore(path)
    observed(store, 7)
    store.observe("another", 2, digest_of(2), digest_of(1))
    assert store.forget(CUBE_UID)
    assert not store.forget(CUBE_UID)
    assert HeadStore(path).known() == {"another": Head(2, digest_of(2))}
    # A log that went back to revision 2 and goes on with other commits.
    store.observe(CUBE_UID, 3, b"x" * 32, b"y" * 32)
    assert HeadStore(path).get(CUBE_UID) == Head(3, b"x" * 32)


def test_a_head_that_another_process_has_written_is_forgotten_too(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    mine = HeadStore(path)
    observed(HeadStore(path), 7)
    assert mine.get(CUBE_UID) is None
    assert mine.forget(CUBE_UID)
    assert HeadStore(path).known() == {}


@pytest.mark.parametrize("damage", ["", "[]", "{", json.dumps({"u": {"revision": "x"}}), json.dumps({"u": 3})])
def test_a_damaged_file_is_an_error_and_not_an_empty_memory(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "heads.json"
    path.write_text(damage)
    with pytest.raises(UsageError) as caught:
        HeadStore(path)
    assert caught.value.reason == "HEADS_UNREADABLE"


def test_verify_sends_the_newest_head_that_the_client_has_seen(fake: FakeMip) -> None:
    Notes(fake)
    answer = cube_service_pb2.VerifyCubeResponse(valid=True, head_revision=3, head_digest=digest_of(3))
    fake.on("VerifyCube", lambda request: answer)
    with Client(fake.address, token="") as client:
        notes = client.cube("notes")
        assert notes.verify()
        notes.add("one")
        notes.add("two")
        notes.verify()
        notes.verify(use_known_head=False)
        notes.verify(expected=(2, digest_of(2)))
    sent = [(call.request.expected_revision, call.request.expected_head_digest) for call in fake.named("VerifyCube")]
    assert sent == [(0, b""), (3, digest_of(3)), (0, b""), (2, digest_of(2))]


def test_a_verdict_is_false_when_something_was_found(fake: FakeMip) -> None:
    answer = cube_service_pb2.VerifyCubeResponse(valid=False, head_revision=3)
    answer.findings.add(kind="chain", resource="cubes/notes/commits/2", revision=2, message="the digest differs")
    fake.on("GetCube", lambda request: cube_service_pb2.GetCubeResponse(cube=cube()))
    fake.on("VerifyCube", lambda request: answer)
    with Client(fake.address, token="") as client:
        verdict = client.cube("notes").verify()
    assert not verdict
    assert [(finding.kind, finding.revision) for finding in verdict.findings] == [("chain", 2)]


def test_a_server_that_rewrote_its_log_is_noticed_by_the_next_change(fake: FakeMip) -> None:
    Notes(fake)
    with Client(fake.address, token="") as client:
        client.cube("notes").add("one")
        rewritten = commit(3)
        rewritten.parent_digest = b"z" * 32
        fake.on("AddMemories", lambda request: memory_service_pb2.AddMemoriesResponse(commit=rewritten))
        with pytest.raises(HeadMismatch):
            client.cube("notes").add("two")
