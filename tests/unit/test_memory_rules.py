"""What every memory's content keeps to, its canonical form, vectors and states."""

from __future__ import annotations

import math

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from memos_server._pb.mip.v1.common_pb2 import Label
from memos_server._pb.mip.v1.memory_pb2 import (
    DTYPE_FLOAT16,
    DTYPE_FLOAT32,
    MEMORY_STATE_ACTIVE,
    MEMORY_STATE_ARCHIVED,
    MEMORY_STATE_DELETED,
    MEMORY_STATE_MERGED,
    MEMORY_STATE_PURGED,
    MEMORY_STATE_UNSPECIFIED,
    Memory,
    Plaintext,
    Provenance,
    Vector,
)
from memos_server.errors import MipError
from memos_server.memories import rules, states

UNTIMED = settings(deadline=None)
"""The first call pays for what is made once; a busy machine would fail it."""


def refusal(memory: Memory) -> tuple[str, str]:
    """Returns the reason with which a memory is refused and the field that it names."""
    with pytest.raises(MipError) as caught:
        rules.normalise(memory, "memories[3]")
    return caught.value.reason, caught.value.violations[0].field


def normalised(memory: Memory) -> Memory:
    """Returns the memory in canonical form."""
    rules.normalise(memory, "memories[3]")
    return memory


def vector_refusal(vector: Vector, dimension: int | None = None) -> tuple[str, str]:
    """Returns the reason with which a vector is refused and the field that it names."""
    with pytest.raises(MipError) as caught:
        rules.decode_vector(vector, "vector", dimension)
    return caught.value.reason, caught.value.violations[0].field


def float32(*elements: float) -> Vector:
    """Returns a float32 vector."""
    return Vector(dtype=DTYPE_FLOAT32, dimension=len(elements), data=np.array(elements, "<f4").tobytes())


def test_tags_are_trimmed_sorted_bytewise_and_freed_of_repeats() -> None:
    memory = normalised(Memory(tags=["été", " b", "a", "B", "b\n", "\U0001f600", "\uff5e"]))
    assert list(memory.tags) == ["B", "a", "b", "été", "\uff5e", "\U0001f600"]


def test_a_tag_of_white_space_is_refused() -> None:
    assert refusal(Memory(tags=["a", " \t"])) == ("INVALID_FIELD", "memories[3].tags[1]")


def test_labels_are_sorted_by_key() -> None:
    memory = normalised(Memory(labels=[Label(key="b", value="1"), Label(key="a"), Label(key="Z", value="2")]))
    assert [(label.key, label.value) for label in memory.labels] == [("Z", "2"), ("a", ""), ("b", "1")]


def test_a_repeated_label_key_is_refused() -> None:
    memory = Memory(labels=[Label(key="a", value="1"), Label(key="b"), Label(key="a", value="2")])
    assert refusal(memory) == ("INVALID_FIELD", "memories[3].labels[2].key")


def test_attributes_are_brought_into_rfc_8785_form() -> None:
    memory = normalised(Memory(attributes_json=' { "b": 1.0, "a" : [1e2, "\\u00e9", null] } '))
    assert memory.attributes_json == '{"a":[100,"é",null],"b":1}'


@pytest.mark.parametrize(
    "text", ["[1]", '"a"', "null", "{", '{"a":1,"a":2}', '{"a":NaN}', '{"a":9007199254740993}', " "]
)
def test_attributes_that_are_no_json_object_are_refused(text: str) -> None:
    assert refusal(Memory(attributes_json=text)) == ("INVALID_JSON", "memories[3].attributes_json")


def test_attributes_that_outgrow_their_limit_in_canonical_form_are_refused() -> None:
    text = '{"a":[' + ",".join(["1e20"] * 10_000) + "]}"
    assert len(text) < 65_536
    assert refusal(Memory(attributes_json=text)) == ("FIELD_TOO_LARGE", "memories[3].attributes_json")


@pytest.mark.parametrize("confidence", [-0.01, 1.01, math.inf, math.nan])
def test_a_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    assert refusal(Memory(confidence=confidence)) == ("INVALID_FIELD", "memories[3].confidence")


@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0])
def test_a_confidence_of_0_to_1_is_kept(confidence: float) -> None:
    assert normalised(Memory(confidence=confidence)).confidence == confidence


def test_a_fact_that_ends_before_it_begins_is_refused() -> None:
    memory = Memory(valid_from=Timestamp(seconds=5, nanos=2), valid_until=Timestamp(seconds=5, nanos=1))
    assert refusal(memory) == ("INVALID_FIELD", "memories[3].valid_until")
    normalised(Memory(valid_from=Timestamp(seconds=5), valid_until=Timestamp(seconds=5)))
    normalised(Memory(valid_until=Timestamp(seconds=-5)))


def test_lines_that_end_before_they_begin_are_refused() -> None:
    memory = Memory(provenance=[Provenance(line_start=3), Provenance(line_start=7, line_end=6)])
    assert refusal(memory) == ("INVALID_FIELD", "memories[3].provenance[1].line_end")


@pytest.mark.parametrize("number", [44, 63])
@pytest.mark.parametrize(
    "value", [b"\x00\x01", b"\x01" + bytes(8), b"\x02\x03abc", b"\x03\x08\x01KIND", b"\x05" + bytes(4)]
)
def test_an_unknown_field_with_a_reserved_number_is_ignored(number: int, value: bytes) -> None:
    def field(kind: int) -> bytes:
        tag = number << 3 | kind
        return bytes([tag & 0x7F | 0x80, tag >> 7])

    unknown = field(value[0]) + value[1:].replace(b"KIND", field(4))
    kept = b"\x2a\x01a\x6a\x01z"
    assert normalised(Memory.FromString(unknown + kept)).SerializeToString() == kept


@pytest.mark.parametrize("number", [13, 31, 64])
def test_other_unknown_fields_are_kept_byte_for_byte(number: int) -> None:
    tag = number << 3
    unknown = bytes([tag & 0x7F | 0x80, tag >> 7, 1]) if tag > 0x7F else bytes([tag, 1])
    assert normalised(Memory.FromString(unknown + b"\x2a\x01a")).SerializeToString() == b"\x2a\x01a" + unknown


WORDS = st.text(min_size=1, max_size=8).filter(str.strip)


@UNTIMED
@given(st.lists(WORDS, max_size=8), st.dictionaries(st.from_regex(r"[a-zA-Z][a-z0-9./_-]{0,5}", fullmatch=True), WORDS))
def test_the_canonical_form_does_not_depend_on_order_and_is_its_own(tags: list[str], labels: dict[str, str]) -> None:
    pairs = [Label(key=key, value=value) for key, value in labels.items()]
    one = normalised(Memory(plaintext=Plaintext(text="x"), tags=tags, labels=pairs))
    other = normalised(Memory(plaintext=Plaintext(text="x"), tags=tags[::-1] + tags, labels=pairs[::-1]))
    sealed = one.SerializeToString(deterministic=True)
    assert other.SerializeToString(deterministic=True) == sealed
    assert normalised(one).SerializeToString(deterministic=True) == sealed
    assert [tag.encode() for tag in one.tags] == sorted({tag.strip().encode() for tag in tags})


def test_a_vector_comes_back_as_float32_of_length_1() -> None:
    decoded = rules.decode_vector(float32(3, 4), "vector", 2)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, np.array([0.6, 0.8], np.float32))


def test_half_precision_is_widened() -> None:
    vector = Vector(dtype=DTYPE_FLOAT16, dimension=2, data=np.array([0, -2], "<f2").tobytes())
    np.testing.assert_array_equal(rules.decode_vector(vector, "vector", None), np.array([0, -1], np.float32))


def test_an_unspecified_dtype_is_float32() -> None:
    np.testing.assert_array_equal(
        rules.decode_vector(Vector(dimension=1, data=b"\x00\x00\x80\xbf"), "vector", None), np.array([-1], np.float32)
    )


@pytest.mark.parametrize("scale", [1e38, 1e-44])
def test_very_large_and_very_small_vectors_keep_their_direction(scale: float) -> None:
    decoded = rules.decode_vector(float32(scale, scale), "vector", None)
    np.testing.assert_allclose(decoded, [math.sqrt(0.5)] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("vector", "field"),
    [
        (float32(1, math.nan), "vector.data"),
        (float32(1, -math.inf), "vector.data"),
        (Vector(dtype=DTYPE_FLOAT32, dimension=1, data=b"\x01\x00\xa0\x7f"), "vector.data"),
        (float32(0, -0.0), "vector.data"),
        (Vector(dtype=DTYPE_FLOAT32, dimension=2, data=bytes(7)), "vector.data"),
        (Vector(dtype=DTYPE_FLOAT16, dimension=2, data=bytes(8)), "vector.data"),
        (Vector(dtype=99, dimension=1, data=b"\x00\x00\x80\x3f"), "vector.dtype"),
        (Vector(dtype=DTYPE_FLOAT32), "vector.dimension"),
        (Vector(dtype=DTYPE_FLOAT32, dimension=8193, data=b"\x01" * 4 * 8193), "vector.dimension"),
    ],
    ids=["NaN", "infinite", "signalling NaN", "zeros", "short", "long", "dtype", "no dimension", "large"],
)
def test_a_vector_without_a_direction_is_refused(vector: Vector, field: str) -> None:
    assert vector_refusal(vector) == ("INVALID_VECTOR", field)


def test_a_vector_of_another_dimension_than_the_models_is_refused() -> None:
    assert vector_refusal(float32(1, 2), 384) == ("DIMENSION_MISMATCH", "vector.dimension")


@UNTIMED
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=16))
def test_every_finite_vector_but_zero_gets_length_1(elements: list[float]) -> None:
    if any(elements):
        assert np.linalg.norm(rules.decode_vector(float32(*elements), "v", None)) == pytest.approx(1, abs=1e-6)
    else:
        assert vector_refusal(float32(*elements)) == ("INVALID_VECTOR", "vector.data")


def test_states_change_as_the_contract_says() -> None:
    permitted = {(frm, to) for frm in range(7) for to in range(7) if states.may_transition(frm, to)}
    assert permitted == {
        (MEMORY_STATE_ACTIVE, MEMORY_STATE_ARCHIVED),
        (MEMORY_STATE_ACTIVE, MEMORY_STATE_DELETED),
        (MEMORY_STATE_MERGED, MEMORY_STATE_ACTIVE),
        (MEMORY_STATE_MERGED, MEMORY_STATE_ARCHIVED),
        (MEMORY_STATE_MERGED, MEMORY_STATE_DELETED),
        (MEMORY_STATE_ARCHIVED, MEMORY_STATE_ACTIVE),
        (MEMORY_STATE_ARCHIVED, MEMORY_STATE_DELETED),
        (MEMORY_STATE_DELETED, MEMORY_STATE_ACTIVE),
        (MEMORY_STATE_DELETED, MEMORY_STATE_ARCHIVED),
    }


def test_states_are_named_without_their_prefix() -> None:
    assert states.name(MEMORY_STATE_PURGED) == "PURGED"
    assert states.name(MEMORY_STATE_UNSPECIFIED) == "UNSPECIFIED"
