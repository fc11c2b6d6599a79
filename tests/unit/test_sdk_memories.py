"""What the methods of a cube put into requests, and what they make of answers."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memos_sdk import (
    Cancelled,
    Client,
    Cube,
    DataLoss,
    Memory,
    MemoryState,
    PermissionDenied,
    RetryPolicy,
    Sensitivity,
    Unavailable,
    UsageError,
)
from memos_sdk._core.bulk import BulkFrames
from memos_sdk._gen import wire
from memos_sdk._gen.mip import v1 as mip
from memos_server._pb.mip.v1 import blob_service_pb2, commit_pb2, cube_service_pb2, memory_pb2, memory_service_pb2
from tests.unit.fake_mip import FakeMip, Notes, Refusal, commit, digest_of

UTC = datetime.UTC


@pytest.fixture
def fake() -> Iterator[FakeMip]:
    server = FakeMip()
    Notes(server)
    yield server
    server.stop()


@pytest.fixture
def cube(fake: FakeMip) -> Iterator[Cube]:
    with Client(fake.address, token="", retry=RetryPolicy(initial_delay=0.01, max_delay=0.02)) as client:
        yield client.cube("notes")


def sent(fake: FakeMip, name: str) -> Any:
    """Returns the last request of an RPC."""
    return fake.named(name)[-1].request


def test_add_puts_every_field_where_the_contract_has_it(fake: FakeMip, cube: Cube) -> None:
    day = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    cube.add(
        "Ada drinks tea.",
        id="m1",
        tags=["tea", "ada"],
        labels={"project": "apollo", "a": "b"},
        attributes={"b": 1, "a": ["ä"]},
        provenance={"kind": "document", "source": "notes.md", "line_start": 3, "line_end": 4, "time": day},
        session="s1",
        kind="preference",
        media_type="text/plain",
        language="en",
        valid_from=day,
        confidence=0.0,
        sensitivity="secret",
        owner="ada",
        cause="because",
        expected_revision=7,
    )
    request = sent(fake, "AddMemories")
    memory = request.memories[0]
    assert (request.parent, request.cause, request.expected_revision) == ("cubes/notes", "because", 7)
    assert memory.name == "cubes/notes/memories/m1"
    assert memory.plaintext == memory_pb2.Plaintext(
        text="Ada drinks tea.", media_type="text/plain", language="en", kind="preference"
    )
    assert list(memory.tags) == ["tea", "ada"]
    assert [(label.key, label.value) for label in memory.labels] == [("a", "b"), ("project", "apollo")]
    assert memory.attributes_json == '{"a":["ä"],"b":1}'
    assert memory.provenance[0].kind == memory_pb2.PROVENANCE_KIND_DOCUMENT
    assert memory.provenance[0].time.ToDatetime(UTC) == day
    assert (memory.session, memory.owner) == ("cubes/notes/sessions/s1", "principals/ada")
    assert memory.valid_from.ToDatetime(UTC) == day
    assert memory.HasField("confidence")
    assert memory.confidence == 0.0
    assert memory.sensitivity == Sensitivity.SECRET


def test_add_returns_the_memory_as_stored_with_its_commit(cube: Cube) -> None:
    memory = cube.add("Ada drinks tea.", tags=["tea"])
    assert (memory.name, memory.id, memory.cube) == ("cubes/notes/memories/m1", "m1", "cubes/notes")
    assert (memory.text, str(memory), memory.tags) == ("Ada drinks tea.", "Ada drinks tea.", ("tea",))
    assert (memory.state, memory.revision, memory.etag) == (MemoryState.ACTIVE, 2, "etag2")
    assert memory.payload == "plaintext"
    assert memory.attributes == {}
    assert memory.confidence is None
    assert memory.commit is not None
    assert memory.commit.digest == digest_of(2)


def test_a_mapping_and_a_memory_can_be_added_too(fake: FakeMip, cube: Cube) -> None:
    first = cube.add({"text": "one", "tags": "solo", "labels": {"a": "b"}})
    cube.add(first, tags=["other"])
    copy = sent(fake, "AddMemories").memories[0]
    assert copy.plaintext.text == "one"
    assert list(copy.tags) == ["other"]
    assert copy.labels[0].key == "a"
    assert (copy.name, copy.etag, copy.revision, copy.state) == ("", "", 0, 0)


def test_an_unknown_field_is_named(cube: Cube) -> None:
    with pytest.raises(UsageError, match="a memory has no field 'txt'"):
        cube.add({"txt": "one"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"sensitivity": "low"},
        {"attributes": {"x": float("nan")}},
        {"provenance": {"kind": "rumour"}},
        {"provenance": {"where": "x"}},
        {"valid_from": datetime.datetime(2026, 1, 1)},
        {"session": "a/b/c"},
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_sent(fake: FakeMip, cube: Cube, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        cube.add("one", **wrong)
    assert fake.calls == []


def test_add_many_makes_one_commit_of_frames_and_reports_progress(fake: FakeMip, cube: Cube) -> None:
    seen: list[int] = []
    texts = (f"memory {number}" for number in range(2401))
    summary = cube.add_many(texts, cause="import", progress=seen.append, expected_revision=1)
    (call,) = fake.named("BulkAddMemories")
    header, *batches, finish = call.request
    assert (header.header.parent, header.header.cause, header.header.expected_revision) == ("cubes/notes", "import", 1)
    assert str(uuid.UUID(header.header.request_id)) == header.header.request_id
    assert [len(frame.batch.memories) for frame in batches] == [1000, 1000, 401]
    assert finish.finish
    assert seen == [1000, 2000, 2401]
    assert summary.added == 2401
    assert [made.revision for made in summary.commits] == [2]
    assert len(summary.names) == 2401
    assert summary.names[2400] == batches[2].batch.memories[400].name
    assert uuid.UUID(summary.names[0].rpartition("/")[2]).version == 7


def test_a_stream_longer_than_a_commit_makes_several(fake: FakeMip, cube: Cube) -> None:
    summary = cube.add_many((str(number) for number in range(25)), commit_size=10, expected_revision=1)
    calls = fake.named("BulkAddMemories")
    assert [len(call.request[1].batch.memories) for call in calls] == [10, 10, 5]
    assert [call.request[0].header.expected_revision for call in calls] == [1, 0, 0]
    assert len({call.request[0].header.request_id for call in calls}) == 3
    assert [made.revision for made in summary.commits] == [2, 3, 4]
    assert [memory.text for memory in cube.list()] == [str(number) for number in range(25)]


def test_a_frame_stays_below_what_servers_accept() -> None:
    with contextlib.closing(BulkFrames("cubes/notes", "", 0, "")) as frames:
        sizes = (1_000_000, 1_000_000, 1_000_000, 3_000_000, 10)
        made = [frames.take(wire.Memory(plaintext={"text": "x" * size})) for size in sizes]
        last = [*frames.finish()]
        assert [None if frame is None else len(frame) // 1_000_000 for frame in made] == [None, None, 2, 1, 3]
        assert [len(frame) for frame in last] == [18, 2]
        assert [*frames.made()][1:] == [frame for frame in made if frame is not None] + last


def test_a_broken_bulk_addition_is_sent_again_byte_for_byte(fake: FakeMip, cube: Cube) -> None:
    answer = fake.handlers["BulkAddMemories"]

    def breaks_twice(frames: Iterator[Any]) -> Any:
        tries = len(fake.named("BulkAddMemories"))
        if tries < 3:
            for _ in range(tries + 1):
                next(frames)
            raise Refusal("UNAVAILABLE", "SHUTTING_DOWN")
        return answer(frames)

    fake.on("BulkAddMemories", breaks_twice)
    summary = cube.add_many(f"memory {number}" for number in range(5000))
    first, second, third = fake.named("BulkAddMemories")
    assert [len(frame.batch.memories) for frame in third.request] == [0, 1000, 1000, 1000, 1000, 1000, 0]
    for broken in (first, second):
        seen = [frame.SerializeToString(deterministic=True) for frame in broken.request]
        sent_later = [frame.SerializeToString(deterministic=True) for frame in third.request]
        assert seen == sent_later[: len(seen)]
    assert summary.added == 5000


def test_a_request_id_of_the_caller_makes_the_same_request_in_another_process(fake: FakeMip, cube: Cube) -> None:
    mine = "7b0ff1ae-8e5a-4a5c-9f31-0a2b3c4d5e6f"
    for _ in range(2):
        cube.add_many(["a", "b", "c"], request_id=mine, commit_size=2)
    first, second, third, fourth = (call.request for call in fake.named("BulkAddMemories"))
    assert first == third
    assert second == fourth
    assert first[0].header.request_id == mine
    assert second[0].header.request_id != mine


def test_what_the_iterable_raises_reaches_the_caller_and_nothing_is_finished(fake: FakeMip, cube: Cube) -> None:
    def texts() -> Iterator[str]:
        yield from (str(number) for number in range(1500))
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        cube.add_many(texts())
    with pytest.raises(UsageError, match="not NoneType"):
        cube.add_many(["one", None, "three"])  # type: ignore[list-item] # a wrong item is no end
    with pytest.raises(UsageError, match="a memory has no field 'txt'") as caught:
        cube.add_many([{"text": "one"}, {"txt": "two"}])
    assert caught.value.metadata == {"added": "0"}
    assert not any(frame.finish for call in fake.named("BulkAddMemories") for frame in call.request)


def test_the_iterable_is_read_in_the_callers_thread(cube: Cube) -> None:
    threads: set[int] = set()

    def texts() -> Iterator[str]:
        for number in range(3000):
            threads.add(threading.get_ident())
            yield str(number)

    cube.add_many(texts())
    assert threads == {threading.get_ident()}


def test_a_stream_that_the_server_cancels_is_an_error_of_the_sdk(fake: FakeMip, cube: Cube) -> None:
    def cancels(frames: Iterator[Any]) -> Any:
        list(frames)
        raise Refusal("CANCELLED", "CANCELLED", "the server goes away")

    fake.on("BulkAddMemories", cancels)
    with pytest.raises(Cancelled):
        cube.add_many(["one"])


def test_a_server_that_refuses_early_ends_the_reading(fake: FakeMip, cube: Cube) -> None:
    def refuses(frames: Iterator[Any]) -> Any:
        next(frames)
        raise Refusal("PERMISSION_DENIED", "PERMISSION_DENIED", "no")

    fake.on("BulkAddMemories", refuses)
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for read in range(10_000_000):  # noqa: B007 - how far it came is what matters
            yield "x" * 1000

    with pytest.raises(PermissionDenied):
        cube.add_many(texts())
    assert read < 1_000_000


def test_add_many_says_how_much_is_stored_when_a_commit_fails(fake: FakeMip, cube: Cube) -> None:
    answer = fake.handlers["BulkAddMemories"]

    def third_fails(frames: Iterator[Any]) -> Any:
        if len(fake.named("BulkAddMemories")) == 3:
            raise Refusal("RESOURCE_EXHAUSTED", "STORAGE_FULL")
        return answer(frames)

    fake.on("BulkAddMemories", third_fails)
    with pytest.raises(Exception, match="STORAGE_FULL") as caught:
        cube.add_many((str(number) for number in range(30)), commit_size=10)
    assert caught.value.metadata == {"added": "20"}  # type: ignore[attr-defined]


def test_adding_nothing_makes_no_call(fake: FakeMip, cube: Cube) -> None:
    assert cube.add_many([]).added == 0
    assert fake.calls == []


def test_an_update_names_what_is_given_and_none_clears(fake: FakeMip, cube: Cube) -> None:
    memory = cube.add("one", tags=["a"])
    cube.update(memory, "two", labels={"k": "v"}, confidence=None, valid_until=None, etag=memory.etag)
    request = sent(fake, "UpdateMemory")
    assert sorted(request.update_mask.paths) == ["confidence", "labels", "plaintext.text", "valid_until"]
    assert (request.memory.name, request.memory.etag) == ("cubes/notes/memories/m1", "etag2")
    assert request.memory.plaintext.text == "two"
    assert not request.memory.HasField("confidence")
    assert list(request.memory.tags) == []


def test_an_update_of_nothing_is_refused(cube: Cube) -> None:
    with pytest.raises(UsageError, match="nothing to update"):
        cube.update("m1")


def test_a_listing_follows_all_pages(fake: FakeMip, cube: Cube) -> None:
    cube.add_many(["a", "b", "c", "d", "e"])
    assert [memory.text for memory in cube.list("tags:x", as_of=3)] == ["a", "b", "c", "d", "e"]
    requests = [call.request for call in fake.named("ListMemories")]
    assert [request.page_token for request in requests] == ["", "2", "4"]
    assert {(request.filter, request.as_of_revision) for request in requests} == {("tags:x", 3)}


def test_a_listing_that_is_left_early_fetches_no_further_page(fake: FakeMip, cube: Cube) -> None:
    cube.add_many(["a", "b", "c", "d", "e"])
    assert next(iter(cube.list())).text == "a"
    assert len(fake.named("ListMemories")) == 1


def test_a_search_is_a_sequence_of_hits(fake: FakeMip, cube: Cube) -> None:
    cube.add_many(["green tea", "black tea", "coffee"])
    found = cube.search("tea", top_k=5, mode="lexical", filter="f", explain=True)
    assert [hit.text for hit in found] == ["green tea", "black tea"]
    assert found[0].score == 0.5
    assert [hit.text for hit in found[1:]] == ["black tea"]
    assert found[0].explanation is not None
    assert found[0].explanation.channels[0].channel == "lexical"
    request = sent(fake, "SearchMemories")
    assert list(request.cubes) == ["cubes/notes"]
    assert (request.top_k, request.mode, request.filter, request.explain) == (5, 3, "f", True)


def test_a_search_of_the_past_takes_a_revision_or_a_time(fake: FakeMip, cube: Cube) -> None:
    cube.search("x", as_of=4)
    assert sent(fake, "SearchMemories").as_of_revision == 4
    moment = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    cube.search("x", as_of=moment)
    assert sent(fake, "SearchMemories").as_of_time.ToDatetime(UTC) == moment


def test_a_search_takes_words_or_a_vector(cube: Cube) -> None:
    with pytest.raises(UsageError) as caught:
        cube.search("x", vector=mip.Vector())
    assert caught.value.reason == "CONFLICTING_ARGUMENTS"
    with pytest.raises(UsageError, match="is not a search mode"):
        cube.search("x", mode="psychic")


def test_sealed_bytes_give_the_commitment_of_the_log(fake: FakeMip, cube: Cube) -> None:
    salt = b"s" * 32
    payload = memory_pb2.MemoryContent(plaintext=memory_pb2.Plaintext(text="x")).SerializeToString()
    answer = memory_service_pb2.GetMemoryResponse()
    answer.sealed.payload, answer.sealed.salt = payload, salt
    fake.on("GetMemory", lambda request: answer)
    sealed = cube.sealed("m1")
    assert sealed.commitment == hashlib.sha256(salt + hashlib.sha256(payload).digest()).digest()
    assert sealed.parse().plaintext == mip.Plaintext(text="x")


def test_a_memory_is_shown_as_json_with_hexadecimal_digests() -> None:
    memory = Memory(
        mip.Memory(
            plaintext=mip.Plaintext(text="x"),
            name="cubes/a/memories/b",
            confidence=0.0,
            state=MemoryState.ACTIVE,
            commitment=b"\x01\xff",
            create_time=datetime.datetime(2026, 1, 2, tzinfo=UTC),
        )
    )
    assert memory.to_dict() == {
        "plaintext": {"text": "x"},
        "confidence": 0.0,
        "name": "cubes/a/memories/b",
        "state": "ACTIVE",
        "create_time": "2026-01-02T00:00:00.000000Z",
        "commitment": "01ff",
    }


def frames(*revisions: int) -> Iterator[Any]:
    for revision in revisions:
        yield cube_service_pb2.WatchCubeResponse(commit=commit(revision))
        changes = cube_service_pb2.WatchCubeResponse.Changes(changes=[commit_pb2.Change(kind=1, name="memories/m1")])
        yield cube_service_pb2.WatchCubeResponse(changes=changes)
        yield cube_service_pb2.WatchCubeResponse(heartbeat={"revision": revision})
        yield cube_service_pb2.WatchCubeResponse(end={"revision": revision})


def test_a_watch_goes_on_after_the_last_whole_commit_when_the_connection_breaks(fake: FakeMip, cube: Cube) -> None:
    def watch(request: Any) -> Iterator[Any]:
        if request.start_revision == 2:
            yield from frames(2, 3)
            yield cube_service_pb2.WatchCubeResponse(commit=commit(4))
            raise Refusal("UNAVAILABLE", "SHUTTING_DOWN")
        if len(fake.named("WatchCube")) == 2:
            raise Refusal("RESOURCE_EXHAUSTED", "WATCH_TOO_SLOW")
        yield from frames(4, 5)

    fake.on("WatchCube", watch)
    seen = []
    for event in cube.watch(2):
        seen.append((event.commit.revision, [change.name for change in event]))
        if event.commit.revision == 5:
            break
    assert seen == [(revision, ["memories/m1"]) for revision in (2, 3, 4, 5)]
    assert [call.request.start_revision for call in fake.named("WatchCube")] == [2, 4, 4]


def test_a_watch_with_a_gap_is_data_loss(fake: FakeMip, cube: Cube) -> None:
    fake.on("WatchCube", lambda request: frames(2, 4))
    with pytest.raises(DataLoss, match="revision 4 follows 2"):
        list(cube.watch(2))


def test_a_watch_that_cannot_be_opened_again_raises(fake: FakeMip, cube: Cube) -> None:
    def watch(request: Any) -> Iterator[Any]:
        raise Refusal("UNAVAILABLE", "SHUTTING_DOWN")
        yield

    fake.on("WatchCube", watch)
    with pytest.raises(Unavailable):
        list(cube.watch())
    assert len(fake.named("WatchCube")) == 5


DATA = bytes(range(256)) * 10_000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


def test_an_upload_goes_on_where_it_broke_off(fake: FakeMip, cube: Cube, tmp_path: Path) -> None:
    stored = bytearray()

    def write(received: Iterator[Any]) -> Any:
        for frame in received:
            if frame.HasField("header"):
                assert frame.header.offset == len(stored)
                assert (frame.header.digest, frame.header.size) == (DIGEST, len(DATA))
            elif frame.HasField("data"):
                assert frame.data.offset == len(stored)
                assert len(frame.data.data) <= 1024 * 1024
                stored.extend(frame.data.data)
                if len(fake.named("WriteBlob")) == 1:
                    raise Refusal("UNAVAILABLE", "SHUTTING_DOWN")
        return blob_service_pb2.WriteBlobResponse(digest=DIGEST, size=len(stored))

    missing = blob_service_pb2.FindMissingBlobsResponse(digests=[DIGEST])
    fake.on("FindMissingBlobs", lambda request: missing)
    fake.on("QueryWrite", lambda request: blob_service_pb2.QueryWriteResponse(committed_size=len(stored)))
    fake.on("WriteBlob", write)
    (tmp_path / "blob").write_bytes(DATA)
    reference = cube.blobs.upload(tmp_path / "blob", media_type="x/y", title="t")
    assert reference == mip.BlobRef(digest=DIGEST, size=len(DATA), media_type="x/y", title="t")
    assert bytes(stored) == DATA
    assert len(fake.named("WriteBlob")) == 2


def test_a_blob_that_the_cube_holds_is_not_sent_again(fake: FakeMip, cube: Cube) -> None:
    fake.on("FindMissingBlobs", lambda request: blob_service_pb2.FindMissingBlobsResponse())
    assert cube.blobs.upload(DATA).digest == DIGEST
    assert [call.name for call in fake.calls] == ["FindMissingBlobs"]


def read_blob(request: Any) -> Iterator[Any]:
    header = {"parent": request.parent, "digest": request.digest, "size": len(DATA), "offset": request.offset}
    yield blob_service_pb2.ReadBlobResponse(header=header)
    for offset in range(request.offset, len(DATA), 1_000_000):
        data = {"offset": offset, "data": DATA[offset : offset + 1_000_000]}
        yield blob_service_pb2.ReadBlobResponse(data=data)


def test_a_download_goes_on_from_the_part_that_is_there(fake: FakeMip, cube: Cube, tmp_path: Path) -> None:
    fake.on("ReadBlob", read_blob)
    (tmp_path / "blob.part").write_bytes(DATA[:700_001])
    progress: list[tuple[int, int]] = []
    path = cube.blobs.download(DIGEST, tmp_path / "blob", progress=lambda done, total: progress.append((done, total)))
    assert path.read_bytes() == DATA
    assert sent(fake, "ReadBlob").offset == 700_001
    assert progress[-1] == (len(DATA), len(DATA))
    assert [entry.name for entry in tmp_path.iterdir()] == ["blob"]


def test_a_download_with_wrong_bytes_leaves_nothing_behind(fake: FakeMip, cube: Cube, tmp_path: Path) -> None:
    fake.on("ReadBlob", read_blob)
    with pytest.raises(DataLoss) as caught:
        cube.blobs.download("sha256:" + "0" * 64, tmp_path / "blob")
    assert caught.value.reason == "DIGEST_MISMATCH"
    assert list(tmp_path.iterdir()) == []
    assert cube.blobs.read(DIGEST) == DATA


def test_names_are_completed_and_foreign_shapes_refused(fake: FakeMip, cube: Cube) -> None:
    cube.add("one")
    for name in ("m1", "memories/m1", "cubes/notes/memories/m1"):
        assert cube.get(name).text == "one"
    assert {call.request.name for call in fake.named("GetMemory")} == {"cubes/notes/memories/m1"}
    for wrong in ("", "a/b/c", "memories/", "cubes/notes"):
        with pytest.raises(UsageError):
            cube.get(wrong)


def test_a_field_that_a_provenance_does_not_have_is_named(cube: Cube) -> None:
    with pytest.raises(UsageError) as caught:
        cube.add("Ada drinks tea.", provenance={"speeker": "Grace"})
    assert caught.value.message == "a provenance has no field 'speeker'"
    assert caught.value.remedy == (
        "The fields are: kind, source, speaker, time, line_start, line_end, revision, digest."
    )


def test_a_model_is_shown_with_the_names_of_its_states() -> None:
    message = mip.Memory(name="cubes/notes/memories/m1", state=mip.MemoryState.ACTIVE, revision=2)
    message.plaintext = mip.Plaintext(text="Tea.")
    assert repr(Memory(message)) == "<Memory name='cubes/notes/memories/m1', text='Tea.', state=ACTIVE, revision=2>"
