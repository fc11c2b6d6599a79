"""Wrong input: each a clear error with its reason, the field and the remedy, and nothing changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from memos_server._pb.mip.v1.memory_service_pb2 import AddMemoriesRequest, SearchMemoriesRequest
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings
from memos_server.errors import MipError
from memos_server.main import serving
from tests.conftest import World
from tests.support.mip import Label, Memory, Mip, Relation, RpcError, Vector, text


@pytest.fixture
async def cube(mip: Mip) -> str:
    """A cube whose callers send vectors of two dimensions."""
    created = await mip.CreateCube(cube_id="c", cube={"embedding_model": "toy", "embedding_dimension": 2})
    return created.cube.name


def vector(data: bytes, *, model: str = "toy", dimension: int = 2) -> Vector:
    """Returns a float32 vector with bytes as given."""
    return Vector(model=model, dtype=1, dimension=dimension, data=data)


NAN = np.array([np.nan, 1], "<f4").tobytes()
ONE = np.array([1, 0], "<f4").tobytes()

ADDS = {
    "an empty text": (text(""), "FIELD_REQUIRED", "memories[0].plaintext.text"),
    "a blank text": (text("  \n "), "FIELD_REQUIRED", "memories[0].plaintext.text"),
    "an oversized text": (text("x" * 262_145), "FIELD_TOO_LARGE", "memories[0].plaintext.text"),
    "no payload": (Memory(tags=["x"]), "FIELD_REQUIRED", "memories[0].payload"),
    "a name of another cube": (text("x", name="cubes/other/memories/m"), "INVALID_NAME", "memories[0].name"),
    "a wrong name": (text("x", name="cubes/c/memories/a b"), "INVALID_NAME", "memories[0].name"),
    "a NaN vector": (text("x", vectors=[vector(NAN)]), "INVALID_VECTOR", "memories[0].vectors[0]"),
    "a zero vector": (text("x", vectors=[vector(b"\0" * 8)]), "INVALID_VECTOR", "memories[0].vectors[0]"),
    "a short vector": (text("x", vectors=[vector(ONE[:4])]), "INVALID_VECTOR", "memories[0].vectors[0]"),
    "a wrong dimension": (
        text("x", vectors=[vector(ONE + ONE, dimension=4)]),
        "DIMENSION_MISMATCH",
        "memories[0].vectors[0]",
    ),
    "another model": (text("x", vectors=[vector(ONE, model="other")]), "MODEL_MISMATCH", ""),
    "attributes that are a list": (text("x", attributes_json="[1]"), "INVALID_JSON", "memories[0].attributes_json"),
    "a repeated key": (text("x", attributes_json='{"a":1,"a":2}'), "INVALID_JSON", "memories[0].attributes_json"),
    "a repeated label": (
        text("x", labels=[Label(key="a"), Label(key="a")]),
        "INVALID_FIELD",
        "memories[0].labels[1].key",
    ),
    "too many tags": (text("x", tags=[f"t{n}" for n in range(65)]), "TOO_MANY_ITEMS", "memories[0].tags"),
    "a confidence above 1": (text("x", confidence=1.5), "INVALID_FIELD", "memories[0].confidence"),
    "a session that is not there": (text("x", session="cubes/c/sessions/s"), "SESSION_NOT_FOUND", ""),
}


@pytest.mark.parametrize("case", ADDS)
async def test_a_wrong_memory_is_refused_with_reason_and_field(mip: Mip, cube: str, case: str) -> None:
    memory, reason, field = ADDS[case]
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=cube, memories=[memory])
    assert raised.value.reason == reason
    if field:
        assert raised.value.code == "INVALID_ARGUMENT"
        assert raised.value.fields[0].startswith(field), raised.value.fields
    assert raised.value.metadata["remedy"]
    assert (await mip.GetCube(name=cube)).cube.revision == 1


async def test_unknown_cubes_and_memories_are_named(mip: Mip, cube: str) -> None:
    for call, code, reason in (
        (mip.GetCube(name="cubes/none"), "NOT_FOUND", "CUBE_NOT_FOUND"),
        (mip.AddMemories(parent="cubes/none", memories=[text("x")]), "NOT_FOUND", "CUBE_NOT_FOUND"),
        (mip.GetMemory(name=f"{cube}/memories/none"), "NOT_FOUND", "MEMORY_NOT_FOUND"),
        (mip.GetMemory(name=f"{cube}/memories/none", as_of_revision=99), "NOT_FOUND", "REVISION_NOT_FOUND"),
        (mip.GetCommit(name=f"{cube}/commits/7"), "NOT_FOUND", "REVISION_NOT_FOUND"),
        (mip.GetSession(name=f"{cube}/sessions/none"), "NOT_FOUND", "SESSION_NOT_FOUND"),
        (mip.GetJob(name=f"{cube}/jobs/none"), "NOT_FOUND", "JOB_NOT_FOUND"),
    ):
        with pytest.raises(RpcError) as raised:
            await call
        assert (raised.value.code, raised.value.reason) == (code, reason)


async def test_a_wrong_filter_says_where_and_what(mip: Mip, cube: str) -> None:
    for filter_ in ("tags:", "nofield = 1", "state = SLEEPING", '"unclosed', "a" * 4097):
        for call in (mip.ListMemories(parent=cube, filter=filter_), mip.SearchMemories(cubes=[cube], filter=filter_)):
            with pytest.raises(RpcError) as raised:
                await call
            assert raised.value.code == "INVALID_ARGUMENT"
            assert raised.value.reason in ("INVALID_FILTER", "FIELD_TOO_LARGE")


async def test_bytes_that_are_no_message_and_bad_utf8_get_a_reason(mip: Mip, cube: str) -> None:
    bad_utf8 = (
        AddMemoriesRequest(parent=cube, memories=[text("abc")]).SerializeToString().replace(b"abc", b"\xff\xfe\xfd")
    )
    for body in (b"\xff\xff\xff", bad_utf8):
        with pytest.raises(RpcError) as raised:
            await mip.raw("AddMemories", body)
        assert (raised.value.code, raised.value.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")


async def test_an_oversized_request_is_refused_with_the_limit(mip: Mip, cube: str) -> None:
    batch = [text("x" * 250_000) for _ in range(13)]
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=cube, memories=batch)
    assert (raised.value.code, raised.value.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
    assert raised.value.metadata["max_request_bytes"] == "3145728"


async def test_an_unknown_method_of_the_protocol_is_unimplemented_with_a_reason(mip: Mip) -> None:
    call = mip.channel.unary_unary("/mip.v1.BundleService/ExportCube")
    try:
        await call(b"", metadata=mip.metadata)
    except Exception as error:
        seen = RpcError(error)  # type: ignore[arg-type]
    assert (seen.code, seen.reason) == ("UNIMPLEMENTED", "UNIMPLEMENTED")


async def test_the_tree_keeps_one_parent_and_no_cycle(mip: Mip, cube: str) -> None:
    names = [f"{cube}/memories/{id_}" for id_ in "abc"]
    await mip.AddMemories(parent=cube, memories=[text(name, name=name) for name in names])

    def edge(source: int, target: int) -> Relation:
        return Relation(source=names[source], target=names[target], type="PARENT_OF")

    await mip.CreateRelations(parent=cube, relations=[edge(0, 1), edge(1, 2)])
    for wrong in ([edge(2, 0)], [edge(0, 2)]):
        with pytest.raises(RpcError) as raised:
            await mip.CreateRelations(parent=cube, relations=wrong)
        assert (raised.value.code, raised.value.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    with pytest.raises(RpcError) as raised:
        await mip.DeleteRelations(parent=cube, relations=[edge(0, 2)])
    assert raised.value.reason == "RELATION_NOT_FOUND"


async def test_a_relation_to_another_cube_is_refused_by_the_path_of_the_field(mip: Mip, cube: str) -> None:
    mine = (await mip.AddMemories(parent=cube, memories=[text("mine")])).memories[0].name
    theirs = "cubes/other/memories/m"
    for field, edge in (
        ("source", Relation(source=theirs, target=mine)),
        ("target", Relation(source=mine, target=theirs)),
    ):
        edge.type = "RELATES_TO"
        for call in (mip.CreateRelations, mip.DeleteRelations):
            with pytest.raises(RpcError) as raised:
                await call(parent=cube, relations=[edge])
            assert (raised.value.reason, raised.value.fields) == ("INVALID_NAME", [f"relations[0].{field}"])
    with pytest.raises(RpcError) as raised:
        await mip.ListRelations(parent=cube, memory=theirs)
    assert (raised.value.reason, raised.value.fields) == ("INVALID_NAME", ["memory"])


async def test_wrong_arguments_of_a_search_are_named(mip: Mip, cube: str) -> None:
    for request, reason in (
        (SearchMemoriesRequest(cubes=[]), "FIELD_REQUIRED"),
        (SearchMemoriesRequest(cubes=[cube, cube], query="x"), "INVALID_FIELD"),
        (SearchMemoriesRequest(cubes=[cube], query="x", top_k=-1), "INVALID_FIELD"),
        (SearchMemoriesRequest(cubes=[cube], query="x", as_of_revision=9), "REVISION_NOT_FOUND"),
        (SearchMemoriesRequest(cubes=[cube], vector=vector(NAN)), "INVALID_VECTOR"),
        (SearchMemoriesRequest(cubes=[cube], vector=vector(ONE + ONE, dimension=4)), "DIMENSION_MISMATCH"),
    ):
        with pytest.raises(RpcError) as raised:
            await mip.SearchMemories(request)
        assert raised.value.reason == reason, request


async def test_a_second_server_on_the_folder_and_a_taken_port_say_what_to_do(world: World) -> None:
    with pytest.raises(SetupError) as raised:
        async with serving(Settings(data=world.data, listen="127.0.0.1:0", **world.settings)):
            pass
    assert "in use" in str(raised.value).lower() or "another" in str(raised.value).lower()
    assert raised.value.remedy
    with pytest.raises(SetupError) as raised:
        async with serving(Settings(data=world.data.parent / "second", listen=world.server.address, **world.settings)):
            pass
    assert world.server.address in str(raised.value)
    assert "--listen" in raised.value.remedy


async def test_a_damaged_record_is_named_and_nothing_is_written(world: World) -> None:
    await world.stop()
    record = world.data / "record.sqlite"
    record.write_bytes(b"not a database at all" * 1000)
    before = record.read_bytes()
    with pytest.raises(MipError) as raised:
        await world.start()
    assert raised.value.reason == "DATA_CORRUPT"
    assert str(record) in raised.value.message
    assert record.read_bytes() == before


@pytest.mark.parametrize("damage", [b"\xff\xff\xff", b"\x2a\x05\x0a\x03\xff\xfe\xfd"], ids=["no message", "no text"])
async def test_stored_content_that_does_not_parse_is_no_fault_of_the_request(world: World, damage: bytes) -> None:
    await world.admin.CreateCube(cube_id="c")
    name = (await world.admin.AddMemories(parent="cubes/c", memories=[text("tea")])).memories[0].name
    await world.stop()
    with closing(sqlite3.connect(world.data / "record.sqlite")) as record, record:
        changed = record.execute("UPDATE contents SET payload = ? WHERE instr(CAST(payload AS TEXT), 'tea')", (damage,))
        assert changed.rowcount == 1
    await world.start()
    for call in (world.admin.GetMemory(name=name), world.admin.ListMemories(parent="cubes/c")):
        with pytest.raises(RpcError) as raised:
            await call
        assert (raised.value.code, raised.value.reason) == ("DATA_LOSS", "DATA_CORRUPT")
        assert len(raised.value.metadata["incident"]) == 16
