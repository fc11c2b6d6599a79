"""The declared limits, enforced: each kind of violation with its reason and the path of the field."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from memos_server._pb.mip.v1 import (
    access_service_pb2,
    blob_service_pb2,
    cube_service_pb2,
    graph_service_pb2,
    memory_pb2,
    memory_service_pb2,
)
from memos_server.api.validation import MAX_VIOLATIONS, validate
from memos_server.errors import MipError

Add = memory_service_pb2.AddMemoriesRequest


def request(**fields: object) -> memory_service_pb2.AddMemoriesRequest:
    """A valid request of four memories, the last of them with the given fields."""
    made = Add(parent="cubes/notes")
    for number in range(4):
        made.memories.add().plaintext.text = f"memory {number}"
    made.memories[3].MergeFrom(memory_pb2.Memory(**fields))  # type: ignore[arg-type]
    return made


def refused(message: Message) -> MipError:
    with pytest.raises(MipError) as caught:
        validate(message)
    return caught.value


def test_a_valid_request_passes() -> None:
    made = request(
        tags=["x"] * 64,
        labels=[{"key": "team", "value": "v"}],
        attributes_json='{"a": 1}',
        confidence=0.0,
        session="cubes/notes/sessions/s",
    )
    made.memories[3].valid_from.seconds = -1
    validate(made)


@pytest.mark.parametrize(
    ("fields", "reason", "path", "description"),
    [
        ({"tags": ["x"] * 65}, "TOO_MANY_ITEMS", "memories[3].tags", "holds 65 elements; at most 64 are permitted"),
        (
            {"tags": ["a", "é" * 65]},
            "FIELD_TOO_LARGE",
            "memories[3].tags[1]",
            "has 130 bytes; at most 128 are permitted",
        ),
        ({"labels": [{"value": "v"}]}, "FIELD_REQUIRED", "memories[3].labels[0].key", "must be set"),
        (
            {"labels": [{"key": "ok"}, {"key": "9"}]},
            "INVALID_FIELD",
            "memories[3].labels[1].key",
            "must have the form 1 to 128 of a-z A-Z 0-9 . _ / -, beginning with a letter",
        ),
        ({"attributes_json": "{"}, "INVALID_JSON", "memories[3].attributes_json", "not JSON at character 1: "),
        (
            {"attributes_json": '{"a":1,"a":1}'},
            "INVALID_JSON",
            "memories[3].attributes_json",
            "an object repeats a key",
        ),
        (
            {"session": "sessions/s"},
            "INVALID_NAME",
            "memories[3].session",
            "must have the form cubes/{cube}/sessions/{session}",
        ),
        ({"confidence": math.nan}, "INVALID_FIELD", "memories[3].confidence", "must be a finite number"),
        ({"sensitivity": 9}, "INVALID_FIELD", "memories[3].sensitivity", "is not a value of Sensitivity"),
        ({"plaintext": {"text": ""}}, None, "", ""),
        ({"activation": {}}, "FIELD_REQUIRED", "memories[3].activation.model_fingerprint", "must be set"),
        (
            {"parametric": {"base_fingerprint": "b", "blobs": [{"digest": "sha256:0", "size": -1}]}},
            "INVALID_FIELD",
            "memories[3].parametric.blobs[0].digest",
            "must have the form sha256: and 64 lower-case hexadecimal digits",
        ),
        (
            {"vectors": [{"data": b"x" * 32769}]},
            "FIELD_TOO_LARGE",
            "memories[3].vectors[0].data",
            "has 32769 bytes; at most 32768 are permitted",
        ),
        (
            {"valid_from": {"seconds": 253402300800}},
            "INVALID_FIELD",
            "memories[3].valid_from",
            "must lie between 0001-01-01",
        ),
        ({"valid_until": {"nanos": -1}}, "INVALID_FIELD", "memories[3].valid_until", "must lie between 0001-01-01"),
        ({"provenance": [{"revision": -1}]}, "INVALID_FIELD", "memories[3].provenance[0].revision", "must not be neg"),
    ],
)
def test_each_violation_has_its_reason_and_path(
    fields: dict[str, object], reason: str | None, path: str, description: str
) -> None:
    if reason is None:
        validate(request(**fields))  # merged into a text that is there
        return
    error = refused(request(**fields))
    assert error.reason == reason
    assert error.violations[0].field == path
    assert error.violations[0].description.startswith(description)
    assert error.message.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Add(memories=[memory_pb2.Memory()]), "parent"),
        (Add(parent="cubes/x"), "memories"),
        (memory_service_pb2.UpdateMemoryRequest(), "memory"),
        (memory_service_pb2.TransitionMemoriesRequest(parent="cubes/x", names=["cubes/x/memories/y"]), "state"),
        (access_service_pb2.SetGrantRequest(grant={"principal": "principals/p"}), "grant.resource"),
        (Add(parent="cubes/x", memories=[{"plaintext": {}}]), "memories[0].plaintext.text"),
    ],
)
def test_a_missing_field_is_named(message: Message, path: str) -> None:
    error = refused(message)
    assert error.reason == "FIELD_REQUIRED"
    assert error.violations[0] == (path, "must be set")


def test_the_reason_of_a_wrong_name_is_its_own() -> None:
    assert refused(Add(parent="notes", memories=[{}])).reason == "INVALID_NAME"
    assert refused(Add(parent="cubes/x", memories=[{}], request_id="1")).reason == "INVALID_FIELD"


def test_limits_count_bytes_of_utf_8() -> None:
    text = memory_pb2.Memory
    validate(Add(parent="cubes/x", memories=[text(plaintext={"text": "é" * 131072})]))
    error = refused(Add(parent="cubes/x", memories=[text(plaintext={"text": "é" * 131072 + "x"})]))
    assert error.reason == "FIELD_TOO_LARGE"
    assert error.violations[0].description == "has 262145 bytes; at most 262144 are permitted"


@pytest.mark.parametrize("weight", [-1.0, math.inf, -math.inf, math.nan])
def test_a_number_is_finite_and_not_negative_where_that_is_declared(weight: float) -> None:
    relation = {"source": "cubes/x/memories/a", "target": "cubes/x/memories/b", "type": "FOLLOWS", "weight": weight}
    error = refused(graph_service_pb2.CreateRelationsRequest(parent="cubes/x", relations=[relation]))
    assert error.violations[0].field == "relations[0].weight"


def test_negative_pages_and_revisions_are_refused() -> None:
    assert refused(memory_service_pb2.ListMemoriesRequest(parent="cubes/x", page_size=-1)).reason == "INVALID_FIELD"
    assert refused(cube_service_pb2.RollbackCubeRequest(name="cubes/x", to_revision=-1)).reason == "INVALID_FIELD"


def test_the_arms_of_a_oneof_are_checked() -> None:
    search = memory_service_pb2.SearchMemoriesRequest
    validate(search(cubes=["cubes/x"], query=""))
    assert refused(search(cubes=["cubes/x"], query="x" * 8193)).violations[0].field == "query"
    assert refused(search(cubes=["cubes/x"], vector={"data": b"x" * 32769})).violations[0].field == "vector.data"
    assert refused(search(cubes=["cubes/x", "x"])).violations[0].field == "cubes[1]"


def test_content_keeps_enum_values_that_this_server_does_not_know() -> None:
    validate(request(provenance=[{"kind": 99}]))
    assert refused(request(vectors=[{"dtype": 99}])).violations[0].field == "memories[3].vectors[0].dtype"


def test_stream_frames_are_checked() -> None:
    error = refused(blob_service_pb2.WriteBlobRequest(header={"parent": "cubes/x", "digest": "sha1:0"}))
    assert error.violations[0].field == "header.digest"


def test_at_most_twenty_violations_are_named_and_the_rest_is_not_looked_at() -> None:
    made = Add(parent="cubes/x", memories=[{"tags": ["x" * 129] * 64}] * 1000)
    begun = time.perf_counter()
    error = refused(made)
    assert time.perf_counter() - begun < 0.1
    assert len(error.violations) == MAX_VIOLATIONS == 20
    assert error.violations[19].field == "memories[0].tags[19]"
    assert error.message.endswith("(and 19 more)")


def test_a_list_beyond_its_limit_is_not_walked() -> None:
    error = refused(Add(parent="cubes/x", memories=[{}] * 1001))
    assert [violation.field for violation in error.violations] == ["memories"]
    assert error.reason == "TOO_MANY_ITEMS"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Add(parent="cubes/secret value"),
        lambda: request(attributes_json='{"pin": 4417'),
        lambda: request(tags=["pin 4417 " * 40]),
    ],
)
def test_an_error_repeats_nothing_of_the_content(make: Callable[[], Message]) -> None:
    error = refused(make())
    assert "4417" not in str(error)
    assert "secret value" not in str(error)


def test_a_thousand_memories_are_checked_in_a_few_milliseconds() -> None:
    made = Add(parent="cubes/notes")
    for number in range(1000):
        memory = made.memories.add(tags=["work", "fox"], attributes_json=f'{{"page": {number}}}', confidence=0.9)
        memory.plaintext.text = "the quick brown fox jumps over the lazy dog " * 4
        memory.labels.add(key="team", value="a")
        memory.provenance.add(kind=1, source="chat", speaker="Ana").time.seconds = 1_700_000_000
    validate(made)
    begun = time.perf_counter()
    validate(made)
    assert time.perf_counter() - begun < 0.25  # measured: about 10 ms
