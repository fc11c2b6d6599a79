"""The codec under the SDK's models: what it keeps, what it refuses, and what it makes of generated messages."""

from __future__ import annotations

import contextlib
import copy
import datetime
import hashlib
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos_sdk import (
    AsyncClient,
    Client,
    Commit,
    DataLoss,
    Hit,
    Memory,
    MemoryState,
    RetryPolicy,
    SearchResult,
    Sensitivity,
    UsageError,
)
from memos_sdk._core.call import decode
from memos_sdk._core.convert import enum_name, enum_number, generated, to_wire
from memos_sdk._core.json_form import to_json
from memos_sdk._gen import wire
from memos_sdk._gen.mip import v1 as mip
from memos_sdk._stubs import LIST_MEMORIES, METHODS
from memos_server._pb.mip.v1 import memory_pb2
from tests.unit.fake_mip import FakeMip, Notes

# Field 1,000, three bytes: what a server of a later version may send.
LATER = bytes([0xC2, 0x3E, 0x03]) + b"new"
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)


@pytest.fixture
def fake() -> Iterator[FakeMip]:
    server = FakeMip()
    Notes(server)
    yield server
    server.stop()


def full_memory() -> wire.Memory:
    memory = wire.Memory(
        plaintext={"text": "Ada drinks tea.", "kind": "fact"},
        tags=["ada", "tea"],
        labels=[wire.Label(key="a", value="b")],
        attributes_json='{"a":1}',
        confidence=0.0,
        name="cubes/notes/memories/m1",
        revision=3,
        etag="e",
        state="MEMORY_STATE_ARCHIVED",
        sensitivity="SENSITIVITY_SECRET",
        commitment=b"\x00\xff",
    )
    memory.create_time.FromDatetime(NOW)
    memory.provenance.add(kind="PROVENANCE_KIND_DOCUMENT", source="s.md", line_start=3)
    memory.vectors.add(model="m", dimension=2, data=b"\x00" * 8)
    return memory


def test_a_model_and_the_message_that_it_makes_say_the_same() -> None:
    model = Memory(full_memory())
    message = model.message
    assert (message.plaintext, message.tags) == (mip.Plaintext(text="Ada drinks tea.", kind="fact"), ["ada", "tea"])
    assert (model.state, message.state) == (MemoryState.ARCHIVED, MemoryState.ARCHIVED)
    assert (model.create_time, message.create_time) == (NOW, NOW)
    assert (model.valid_from, message.valid_from) == (None, None)
    assert (model.confidence, message.confidence) == (0.0, 0.0)
    assert model.provenance == tuple(message.provenance)
    assert model.vectors == tuple(message.vectors)
    assert model.sensitivity is Sensitivity.SECRET
    assert model.message is message
    assert Memory(message) == model
    assert hash(Memory(message)) == hash(model)
    assert to_json(message) == model.to_dict()


def test_models_can_be_copied_and_pickled() -> None:
    commit = Commit(wire.Commit(revision=3))
    memory = Memory(
        wire.Memory.FromString(full_memory().SerializeToString() + LATER), commit=commit, index_pending=True
    )
    for again in (pickle.loads(pickle.dumps(memory)), copy.copy(memory), copy.deepcopy(memory)):
        assert again == memory
        assert (again.commit, again.index_pending) == (commit, True)
        assert bytes(again.message) == bytes(memory.message)


def test_what_a_later_server_sends_survives_reading_and_adding_again(fake: FakeMip) -> None:
    memory = Memory(wire.Memory.FromString(full_memory().SerializeToString() + LATER))
    assert bytes(memory.message).endswith(LATER)
    with Client(fake.address, token="") as client:
        client.cube("notes").add(memory, tags=["copied"])
        client.cube("notes").add(Memory(memory.message))
    first, second = (call.request.memories[0] for call in fake.named("AddMemories"))
    for sent, tags in ((first, ["copied"]), (second, ["ada", "tea"])):
        assert LATER in sent.SerializeToString()
        assert (sent.plaintext.text, list(sent.tags), sent.name, sent.etag) == ("Ada drinks tea.", tags, "", "")
        assert (sent.revision, sent.state, sent.commitment) == (0, 0, b"")
        assert sent.sensitivity == Sensitivity.SECRET
        assert len(sent.vectors) == 1


def test_a_number_that_an_enum_does_not_have_yet_is_kept() -> None:
    memory = Memory(wire.Memory(state=99))  # type: ignore[arg-type] # what a later server may send
    assert int(memory.state) == 99
    assert memory.to_dict() == {"state": 99}
    assert "state=" in repr(memory)


def test_a_time_that_python_cannot_hold_is_the_servers_fault() -> None:
    memory = wire.Memory(plaintext={"text": "x"})
    memory.create_time.seconds = 2**60
    assert Memory(memory).text == "x"
    with pytest.raises(DataLoss, match="a time of the server's answer is none"):
        _ = Memory(memory).create_time
    for show in (Memory(memory).to_dict, lambda: Memory(memory).message):
        with pytest.raises(DataLoss) as caught:
            show()
        assert caught.value.reason == "MALFORMED_RESPONSE"


def test_sealed_bytes_stay_what_they_are() -> None:
    from memos_sdk import SealedMemory

    # Fields out of order and one unknown: no library would write these bytes, and the digest is over them.
    payload = LATER + memory_pb2.MemoryContent(tags=["t"]).SerializeToString() + b"\x0a\x03\x0a\x01x"
    sealed = SealedMemory(wire.Sealed.FromString(wire.Sealed(payload=payload, salt=b"s" * 32).SerializeToString()))
    assert sealed.digest == hashlib.sha256(payload).digest()
    assert sealed.message.payload == payload
    assert sealed.parse().plaintext == mip.Plaintext(text="x")
    with pytest.raises(DataLoss):
        SealedMemory(wire.Sealed(payload=b"\xff\xff")).parse()


def damaged_pages() -> st.SearchStrategy[bytes]:
    """Bytes of a page, with some of them changed, taken out or put in."""
    page = wire.ListMemoriesResponse(memories=[full_memory(), full_memory()], next_page_token="t").SerializeToString()

    def damage(edits: list[tuple[int, bytes, int]]) -> bytes:
        raw = page
        for place, put_in, taken in edits:
            raw = raw[:place] + put_in + raw[place + taken :]
        return raw

    edit = st.tuples(st.integers(0, len(page)), st.binary(max_size=4), st.integers(0, 4))
    return st.lists(edit, min_size=1, max_size=3).map(damage)


@given(st.binary(max_size=300) | damaged_pages())
def test_no_answer_ends_in_anything_but_a_message_or_data_loss(raw: bytes) -> None:
    with contextlib.suppress(DataLoss):
        for message in decode(LIST_MEMORIES, LIST_MEMORIES.response, raw).memories:
            memory = Memory(message)
            assert isinstance(memory.text, str)
            assert isinstance(memory.to_dict(), dict)
            assert memory.message is not None


@pytest.mark.parametrize(
    "wrong", [mip.Plaintext(text="x"), "text", None, 3, {"model": "m"}, mip.Vector(model=3)], ids=repr
)
def test_a_value_that_is_no_such_message_is_a_usage_error(wrong: Any) -> None:
    with pytest.raises(UsageError):
        to_wire(wrong, wire.Vector)


def test_names_and_numbers_of_enums() -> None:
    for given_value in ("archived", "ARCHIVED", MemoryState.ARCHIVED, 3):
        assert enum_number("MemoryState", given_value, "state") == 3
    assert enum_number("ChangeKind", "memory-added", "kind") == 1
    assert (enum_name("MemoryState", 3), enum_name("MemoryState", 99)) == ("ARCHIVED", 99)
    for wrong in ("gone", True, None, 1.0):
        with pytest.raises(UsageError, match="is not a state"):
            enum_number("MemoryState", wrong, "state")


def test_every_message_of_every_rpc_becomes_a_generated_one() -> None:
    for method in METHODS.values():
        for cls in (method.request, method.response):
            made = generated(cls())
            assert type(made).__name__ == cls.DESCRIPTOR.name
            assert bytes(made) == b""


def test_every_field_that_the_wire_has_the_generated_messages_have_too() -> None:
    def walk(descriptor: Any) -> None:
        cls = getattr(mip, descriptor.full_name.removeprefix("mip.v1.").replace(".", ""))
        assert set(cls._betterproto.sorted_field_names) == set(descriptor.fields_by_name), descriptor.full_name
        for nested in descriptor.nested_types:
            walk(nested)

    for name in wire.Memory.DESCRIPTOR.file.message_types_by_name:
        walk(getattr(wire, name).DESCRIPTOR)


def test_a_search_reads_its_hits_when_they_are_asked_for() -> None:
    answer = wire.SearchMemoriesResponse()
    answer.hits.add(score=0.5).memory.CopyFrom(full_memory())
    found = SearchResult(answer)
    assert found == SearchResult(found.message)
    hit = found[0]
    assert isinstance(hit, Hit)
    assert (hit.text, hit.score, hit.explanation) == ("Ada drinks tea.", 0.5, None)
    assert SearchResult(wire.SearchMemoriesResponse()).memories == []


async def test_both_clients_send_the_same_bytes(fake: FakeMip) -> None:
    arguments: dict[str, Any] = {"tags": ["t"], "valid_from": NOW, "request_id": "7b0ff1ae-8e5a-4a5c-9f31-0a2b3c4d5e6f"}
    with Client(fake.address, token="") as client:
        client.cube("notes").add("one", **arguments)
    async with AsyncClient(fake.address, token="", retry=RetryPolicy(max_attempts=1)) as awaited:
        await awaited.cube("notes").add("one", **arguments)
    first, second = fake.named("AddMemories")
    assert first.raw == second.raw


def test_names_that_the_wire_does_not_have_are_attribute_errors() -> None:
    for name in ("Nothing", "__wrapped__", "_pool"):
        with pytest.raises(AttributeError):
            getattr(wire, name)
