"""Memories through the wire: add, read, list, update, transition, delete."""

from __future__ import annotations

import hashlib

import pytest

from memos_server._pb.mip.v1 import common_pb2, memory_pb2
from memos_server._pb.mip.v1.memory_service_pb2 import AddMemoriesRequest
from tests.conftest import World
from tests.support.mip import Label, Memory, Mip, Provenance, RpcError, text


@pytest.fixture
async def cube(mip: Mip) -> str:
    """The name of a fresh cube."""
    return (await mip.CreateCube(cube_id="c")).cube.name


async def test_added_memories_read_back_as_they_were_sent(mip: Mip, cube: str) -> None:
    sent = text(
        "Caroline moved to Oslo",
        tags=["travel", "home", "travel"],
        labels=[Label(key="b", value="2"), Label(key="a", value="1")],
        attributes_json='{"z": 1, "a": [true, null]}',
        provenance=[Provenance(source="chat.txt", speaker="Caroline", line_start=3, line_end=4)],
        confidence=0.5,
    )
    added = await mip.AddMemories(parent=cube, memories=[sent], cause="chat")
    (memory,) = added.memories
    assert added.commit.revision == 2
    assert added.commit.cause == "chat"
    assert memory.revision == 2
    assert memory.state == memory_pb2.MEMORY_STATE_ACTIVE
    assert list(memory.tags) == ["home", "travel"]
    assert [label.key for label in memory.labels] == ["a", "b"]
    assert memory.attributes_json == '{"a":[true,null],"z":1}'
    assert memory.owner == "principals/local-admin"
    assert (await mip.GetMemory(name=memory.name)).memory == memory


async def test_sealed_bytes_open_their_commitment_and_parse_as_the_memory(mip: Mip, cube: str) -> None:
    memory = (await mip.AddMemories(parent=cube, memories=[text("sealed")])).memories[0]
    sealed = (await mip.GetMemory(name=memory.name, view=common_pb2.VIEW_SEALED)).sealed
    digest = hashlib.sha256(sealed.payload).digest()
    assert hashlib.sha256(sealed.salt + digest).digest() == memory.commitment
    assert memory_pb2.MemoryContent.FromString(sealed.payload).plaintext.text == "sealed"
    assert Memory.FromString(sealed.payload).plaintext.text == "sealed"


async def test_a_batch_is_one_commit_or_nothing(mip: Mip, cube: str) -> None:
    name = f"{cube}/memories/m1"
    await mip.AddMemories(parent=cube, memories=[text("one", name=name)])
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=cube, memories=[text("two"), text("again", name=name), text("three")])
    assert (raised.value.code, raised.value.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")
    assert raised.value.metadata["name"] == name
    listed = await mip.ListMemories(parent=cube)
    assert [memory.plaintext.text for memory in listed.memories] == ["one"]
    assert (await mip.GetCube(name=cube)).cube.revision == 2


async def test_a_thousand_memories_come_back_in_pages_in_order(mip: Mip, cube: str) -> None:
    batch = [text(f"memory {number}", tags=["even" if number % 2 == 0 else "odd"]) for number in range(1000)]
    added = await mip.AddMemories(parent=cube, memories=batch)
    assert len(added.memories) == 1000
    found, token = [], ""
    while True:
        page = await mip.ListMemories(parent=cube, filter='tags:"odd"', page_size=300, page_token=token)
        found += [memory.plaintext.text for memory in page.memories]
        token = page.next_page_token
        if not token:
            break
    assert found == [f"memory {number}" for number in range(1, 1000, 2)]


async def test_pages_of_a_listing_show_one_moment(mip: Mip, cube: str) -> None:
    await mip.AddMemories(parent=cube, memories=[text(f"m{n}", name=f"{cube}/memories/m{n}") for n in range(4)])
    first = await mip.ListMemories(parent=cube, page_size=2)
    await mip.DeleteMemories(parent=cube, names=[f"{cube}/memories/m3"])
    await mip.AddMemories(parent=cube, memories=[text("later")])
    second = await mip.ListMemories(parent=cube, page_size=2, page_token=first.next_page_token)
    assert [memory.plaintext.text for memory in second.memories] == ["m2", "m3"]
    assert second.next_page_token == ""


async def test_a_page_token_goes_with_its_arguments_only(mip: Mip, cube: str, world: World) -> None:
    await mip.AddMemories(parent=cube, memories=[text("a"), text("b")])
    token = (await mip.ListMemories(parent=cube, page_size=1)).next_page_token
    for wrong in (
        {"parent": cube, "filter": 'tags:"x"', "page_token": token},
        {"parent": cube, "page_token": token[:-1] + ("A" if token[-1] != "A" else "B")},
        {"parent": cube, "page_token": "x"},
    ):
        with pytest.raises(RpcError) as raised:
            await mip.ListMemories(**wrong)
        assert (raised.value.code, raised.value.reason) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


async def test_an_update_makes_a_version_and_keeps_the_one_before(mip: Mip, cube: str) -> None:
    memory = (await mip.AddMemories(parent=cube, memories=[text("likes tea", tags=["x"])])).memories[0]
    change = Memory(name=memory.name, etag=memory.etag)
    change.plaintext.text = "likes coffee"
    updated = await mip.UpdateMemory(memory=change, update_mask={"paths": ["plaintext.text"]})
    assert updated.memory.plaintext.text == "likes coffee"
    assert list(updated.memory.tags) == ["x"]
    assert updated.memory.uid == memory.uid
    assert updated.memory.revision == 3
    assert updated.memory.etag != memory.etag
    assert (await mip.GetMemory(name=memory.name, as_of_revision=2)).memory.plaintext.text == "likes tea"
    history = (await mip.ListMemoryRevisions(name=memory.name)).memories
    assert [(version.revision, version.plaintext.text) for version in history] == [
        (3, "likes coffee"),
        (2, "likes tea"),
    ]


async def test_a_stale_etag_is_refused_and_changes_nothing(mip: Mip, cube: str) -> None:
    memory = (await mip.AddMemories(parent=cube, memories=[text("one")])).memories[0]
    await mip.UpdateMemory(memory=text("two", name=memory.name))
    with pytest.raises(RpcError) as raised:
        await mip.UpdateMemory(memory=text("three", name=memory.name, etag=memory.etag))
    assert (raised.value.code, raised.value.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert raised.value.metadata["etag"] == (await mip.GetMemory(name=memory.name)).memory.etag
    assert (await mip.GetMemory(name=memory.name)).memory.plaintext.text == "two"


async def test_an_expected_revision_that_is_over_is_refused(mip: Mip, cube: str) -> None:
    await mip.AddMemories(parent=cube, memories=[text("one")], expected_revision=1)
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=cube, memories=[text("two")], expected_revision=1)
    assert (raised.value.code, raised.value.reason) == ("ABORTED", "REVISION_MISMATCH")
    assert raised.value.metadata["current_revision"] == "2"


@pytest.mark.parametrize(
    ("rpc", "more"),
    [
        ("TransitionMemories", {"state": "MEMORY_STATE_ARCHIVED"}),
        ("DeleteMemories", {}),
        ("PurgeMemories", {"reason": "done"}),
    ],
)
async def test_what_exists_comes_before_the_expected_revision(
    mip: Mip, cube: str, rpc: str, more: dict[str, str]
) -> None:
    with pytest.raises(RpcError) as raised:
        await getattr(mip, rpc)(parent=cube, names=[f"{cube}/memories/none"], expected_revision=7, **more)
    assert (raised.value.code, raised.value.reason) == ("NOT_FOUND", "MEMORY_NOT_FOUND")


async def test_states_follow_the_table_of_transitions(mip: Mip, cube: str) -> None:
    name = (await mip.AddMemories(parent=cube, memories=[text("one")])).memories[0].name
    moved = await mip.TransitionMemories(parent=cube, names=[name], state="MEMORY_STATE_ARCHIVED")
    assert moved.memories[0].state == memory_pb2.MEMORY_STATE_ARCHIVED
    await mip.DeleteMemories(parent=cube, names=[name])
    assert (await mip.GetMemory(name=name)).memory.state == memory_pb2.MEMORY_STATE_DELETED
    assert not (await mip.ListMemories(parent=cube)).memories
    assert len((await mip.ListMemories(parent=cube, show_deleted=True)).memories) == 1
    with pytest.raises(RpcError) as raised:
        await mip.UpdateMemory(memory=text("two", name=name))
    assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "INVALID_TRANSITION")
    with pytest.raises(RpcError) as raised:
        await mip.DeleteMemories(parent=cube, names=[name])
    assert raised.value.reason == "INVALID_TRANSITION"
    assert raised.value.metadata["state"] == "DELETED"
    await mip.TransitionMemories(parent=cube, names=[name], state="MEMORY_STATE_ACTIVE")
    assert (await mip.GetMemory(name=name)).memory.plaintext.text == "one"


async def test_a_replay_returns_the_first_answer_and_a_reused_request_id_is_refused(mip: Mip, cube: str) -> None:
    request = AddMemoriesRequest(
        parent=cube, memories=[text("once", tags=["b", "a"])], request_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"
    )
    first = await mip.AddMemories(request)
    assert await mip.AddMemories(request) == first
    assert len((await mip.ListMemories(parent=cube)).memories) == 1
    request.memories[0].plaintext.text = "another"
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(request)
    assert (raised.value.code, raised.value.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")


async def test_a_replayed_update_and_transition_return_the_first_answer(mip: Mip, cube: str) -> None:
    name = (await mip.AddMemories(parent=cube, memories=[text("one")])).memories[0].name
    update = {"memory": text("two", name=name), "request_id": "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c01"}
    first = await mip.UpdateMemory(**update)
    await mip.UpdateMemory(memory=text("three", name=name))
    assert await mip.UpdateMemory(**update) == first
    move = {
        "parent": cube,
        "names": [name],
        "state": memory_pb2.MEMORY_STATE_ARCHIVED,
        "request_id": "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c02",
    }
    archived = await mip.TransitionMemories(**move)
    assert await mip.TransitionMemories(**move) == archived
    assert (await mip.GetMemory(name=name)).memory.plaintext.text == "three"


async def test_a_replay_tells_what_was_committed_also_after_the_cube_was_deleted(mip: Mip, cube: str) -> None:
    request = {"parent": cube, "memories": [text("x")], "request_id": "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c03"}
    first = await mip.AddMemories(**request)
    deletion = {"parent": cube, "names": [first.memories[0].name], "request_id": "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c04"}
    deleted = await mip.DeleteMemories(**deletion)
    await mip.DeleteCube(name=cube)
    assert await mip.DeleteMemories(**deletion) == deleted


async def test_unknown_fields_and_extension_payloads_are_kept_byte_for_byte(mip: Mip, cube: str) -> None:
    memory = Memory(extension={"type": "org.example.sketch", "data": b"\x00\xff\x01", "text": "a sketch"})
    unknown = memory.SerializeToString() + b"\xf2\x01\x05later"  # field 30, not defined today
    added = (await mip.AddMemories(parent=cube, memories=[Memory.FromString(unknown)])).memories[0]
    sealed = (await mip.GetMemory(name=added.name, view=common_pb2.VIEW_SEALED)).sealed
    assert b"\xf2\x01\x05later" in sealed.payload
    assert Memory.FromString(sealed.payload).extension.data == b"\x00\xff\x01"


async def test_batch_get_returns_the_order_of_the_names(mip: Mip, cube: str) -> None:
    added = (await mip.AddMemories(parent=cube, memories=[text("a"), text("b"), text("c")])).memories
    asked = [added[2].name, added[0].name]
    got = (await mip.BatchGetMemories(parent=cube, names=asked)).memories
    assert [memory.plaintext.text for memory in got] == ["c", "a"]
    with pytest.raises(RpcError) as raised:
        await mip.BatchGetMemories(parent=cube, names=[*asked, f"{cube}/memories/none"])
    assert (raised.value.code, raised.value.reason) == ("NOT_FOUND", "MEMORY_NOT_FOUND")
