"""Elements counted before a message is parsed: never more refused than by the parser and validation, and at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from google.protobuf.internal import encoder
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from memos_server._pb.mip.v1 import options_pb2
from memos_server._pb.mip.v1.cube_pb2 import Cube
from memos_server._pb.mip.v1.cube_service_pb2 import CreateCubeRequest
from memos_server._pb.mip.v1.memory_pb2 import Activation, Memory
from memos_server._pb.mip.v1.memory_service_pb2 import AddMemoriesRequest
from memos_server.api.validation import validate
from memos_server.api.wire_limits import wire_check
from memos_server.errors import MipError
from tests.fuzz.corpus import EFFORTS, fuzz
from tests.fuzz.messages import Pool, message, mutated
from tests.support.mip import METHODS, text

CHECKED = sorted(name for name, method in METHODS.items() if wire_check(method.input_type) is not None)
ADD = wire_check(AddMemoriesRequest.DESCRIPTOR)
LABELS = Cube.DESCRIPTOR.fields_by_name["labels"].number
MEMORIES = AddMemoriesRequest.DESCRIPTOR.fields_by_name["memories"].number


def field(number: int, data: bytes) -> bytes:
    """Returns a field with a length, as it is on the wire."""
    return encoder.TagBytes(number, 2) + encoder._VarintBytes(len(data)) + data  # type: ignore[attr-defined]


def memory_field(name: str, data: bytes = b"") -> bytes:
    """Returns a field of a memory."""
    return field(Memory.DESCRIPTOR.fields_by_name[name].number, data)


def refusal(raw: bytes, kind: type[Message] = AddMemoriesRequest) -> tuple[str, str]:
    """Returns the reason and the path with which the bytes of a request are refused."""
    check = wire_check(kind.DESCRIPTOR)
    assert check is not None
    with pytest.raises(MipError) as raised:
        check(raw)
    (violation,) = raised.value.violations
    return raised.value.reason, violation.field


def pool() -> Pool:
    """Returns names to draw from."""
    made = Pool()
    made.add({number: ["cubes/c", "cubes/c/memories/m"] for number in options_pb2.Format.values()})
    return made


def test_what_has_lists_is_checked() -> None:
    assert {"AddMemories", "BulkAddMemories", "SearchMemories", "CreateRelations", "BatchGetMemories"} <= set(CHECKED)
    assert wire_check(METHODS["GetCube"].input_type) is None


@EFFORTS
def test_nothing_that_validation_accepts_is_refused_and_nothing_else_for_another_reason(effort: int) -> None:
    names = pool()
    refused: set[type[Exception]] = set()

    def attack(seed: int) -> None:
        rng = random.Random(seed)
        for number in range(20):
            descriptor = METHODS[rng.choice(CHECKED)].input_type
            check = wire_check(descriptor)
            assert check is not None
            raw = message(rng, descriptor, names).SerializeToString()
            if number % 2:
                raw = mutated(rng, raw)
            try:
                check(raw)
            except (DecodeError, MipError) as error:
                refused.add(type(error))
                # What has too many elements may end as no message.
                with pytest.raises((DecodeError, type(error))):
                    validate(GetMessageClass(descriptor).FromString(raw))

    fuzz(20 * effort, attack, st.integers(0, 2**64))
    assert refused == {DecodeError, MipError}


def test_the_path_and_the_reason_are_those_of_validation() -> None:
    request = AddMemoriesRequest(parent="cubes/c", memories=[text("a"), text("b")])
    for number in range(65):
        request.memories[1].labels.add(key=f"k{number}")
    with pytest.raises(MipError) as raised:
        validate(request)
    expected = "TOO_MANY_ITEMS", "memories[1].labels"
    assert (raised.value.reason, raised.value.violations[0].field) == expected
    assert refusal(request.SerializeToString()) == expected


def test_occurrences_of_one_message_are_counted_together_and_those_of_a_oneof_by_themselves() -> None:
    # A cube comes twice, 40 labels each: merged it has 80. Of payloads, the last alone counts.
    cube = field(CreateCubeRequest.DESCRIPTOR.fields_by_name["cube"].number, field(LABELS, b"") * 40)
    assert refusal(cube * 2, CreateCubeRequest) == ("TOO_MANY_ITEMS", "cube.labels")
    blobs = Activation.DESCRIPTOR.fields_by_name["blobs"].number
    twice = memory_field("activation", field(blobs, b"") * 40) + memory_field("plaintext")
    assert ADD is not None
    ADD(field(MEMORIES, twice * 2))


def test_a_oneof_that_changes_its_mind_a_million_times_is_refused() -> None:
    changes = (memory_field("plaintext") + memory_field("activation")) * 500_000
    reason, _ = refusal(field(MEMORIES, changes))
    assert reason == "TOO_MANY_ITEMS"


@pytest.mark.parametrize("raw", [b"\x12\x05ab", b"\x12\xff\xff\xff\xff\x0f", b"\x0b" * 300, field(2, b"\x2a\x7f")])
def test_bytes_that_are_no_message_are_not_counted(raw: bytes) -> None:
    assert ADD is not None
    with pytest.raises(DecodeError):
        ADD(raw)


def test_a_million_and_a_half_empty_messages_are_refused_sooner_than_they_are_parsed() -> None:
    hostile = field(MEMORIES, b"") * 1_500_000

    def counted() -> None:
        assert refusal(hostile) == ("TOO_MANY_ITEMS", "memories")

    def parsed() -> None:
        AddMemoriesRequest.FromString(hostile)

    # CPU time of the best of five: other work on the machine does not count.
    assert cpu_s(counted) < cpu_s(parsed, 1) / 2


def test_counting_a_batch_of_1000_memories_takes_less_than_validating_it() -> None:
    batch = [text(f"note {n} of many", tags=["a", "b"]) for n in range(1000)]
    for memory in batch:
        memory.labels.add(key="team", value="x")
    raw = AddMemoriesRequest(parent="cubes/c", memories=batch).SerializeToString()
    assert ADD is not None
    assert cpu_s(lambda: ADD(raw)) < cpu_s(lambda: validate(AddMemoriesRequest.FromString(raw)))


def cpu_s(work: Callable[[], None], runs: int = 5) -> float:
    """Returns the CPU time of the quickest run, in seconds."""
    times = []
    for _ in range(runs):
        begin = time.thread_time()
        work()
        times.append(time.thread_time() - begin)
    return min(times)
