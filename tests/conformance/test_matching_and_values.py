"""What a response must hold, and messages as plain values and back."""

from __future__ import annotations

from typing import Any

import pytest
from mip_conformance.contract import message_class
from mip_conformance.matching import difference
from mip_conformance.values import message_of, nanoseconds, plain, timestamp_text, whole


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({}, {"a": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": None}, {"b": 2}),
        ({"a": {"b": [1, {"c": "x"}]}}, {"a": {"b": [1, {"c": "x", "d": 0}], "e": 1}}),
        ({"a": "aGk="}, {"a": b"hi"}),
        ({"a": "2026-01-01T00:00:00Z"}, {"a": "2026-01-01T00:00:00.000000000Z"}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": []}, {"a": []}),
    ],
)
def test_a_response_holds_what_is_expected(expected: Any, actual: Any) -> None:
    assert difference(expected, actual) == ""


@pytest.mark.parametrize(
    ("expected", "actual", "told"),
    [
        ({"a": 1}, {}, "response.a is absent"),
        ({"a": None}, {"a": 0}, "response.a is 0 and should be absent"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "response.a.b is 2 instead of 1"),
        ({"a": [1]}, {"a": [1, 2]}, "response.a has 2 elements instead of 1: [1, 2]"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "response.a[1] is 3 instead of 2"),
        ({"a": [1]}, {"a": 1}, "response.a is 1 and no list"),
        ({"a": {"b": 1}}, {"a": 1}, "response.a is 1 and no message"),
        ({"a": True}, {"a": 1}, "response.a is 1 instead of True"),
        ({"a": 0}, {"a": False}, "response.a is False instead of 0"),
        ({"a": "hi"}, {"a": b"hi"}, "response.a is b'hi' instead of 'hi'"),
        ({"a": "2026-01-01T00:00:00Z"}, {"a": "2026-01-01T00:00:01.000000000Z"}, "response.a is '2026-01-01T00:00:01"),
        ({"a": 1}, None, "response is None and no message"),
    ],
)
def test_a_difference_is_told_with_its_path(expected: Any, actual: Any, told: str) -> None:
    assert difference(expected, actual).startswith(told)


def test_a_long_value_is_cut_off_where_it_is_told() -> None:
    assert len(difference({"a": ""}, {"a": "x" * 10_000})) < 300


MEMORY = {
    "name": "cubes/a/memories/b",
    "plaintext": {"text": "tea"},
    "tags": ["x", "y"],
    "labels": [{"key": "k", "value": "v"}],
    "create_time": "2026-01-02T03:04:05.000000006Z",
    "sensitivity": "SENSITIVITY_SECRET",
}


def test_a_message_is_the_same_after_a_round_trip() -> None:
    kind = message_class("Memory")
    message = message_of(kind, MEMORY)
    again = plain(message)
    assert difference(MEMORY, again) == ""
    assert message_of(kind, again) == message


def test_what_is_absent_is_no_key_and_what_has_a_default_is() -> None:
    found = plain(message_class("Memory")())
    assert "plaintext" not in found
    assert "create_time" not in found
    assert found["name"] == ""
    assert found["tags"] == []


def test_bytes_stay_bytes_and_unknown_enum_values_are_numbers() -> None:
    kind = message_class("Memory")
    message: Any = kind()
    message.sensitivity = 99
    assert plain(message)["sensitivity"] == 99
    vector = message_class("Vector")
    bytes_field = next(field.name for field in vector.DESCRIPTOR.fields if field.type == field.TYPE_BYTES)
    assert plain(message_of(vector, {bytes_field: b"\x00\x01"}))[bytes_field] == b"\x00\x01"


def test_fields_that_a_message_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match=r'Memory: .*no field named "colour"'):
        message_of(message_class("Memory"), {"colour": "red"})


def test_times_are_texts_that_sort_as_they_follow() -> None:
    moments = [(0, 0), (0, 5), (1, 0), (1_700_000_000, 999_999_999)]
    texts = [timestamp_text(*moment) for moment in moments]
    assert texts == sorted(texts)
    assert [nanoseconds(text) for text in texts] == [s * 1_000_000_000 + n for s, n in moments]
    assert timestamp_text(2**62, 1) == f"{2**62}s1n"
    assert nanoseconds("yesterday") == 0


def test_whole_numbers_of_a_struct_are_integers() -> None:
    found = whole({"a": 1.0, "b": [2.5, 3.0], "c": {"d": 4.0}})
    assert found == {"a": 1, "b": [2.5, 3], "c": {"d": 4}}
    assert [type(found["a"]), type(found["b"][0])] == [int, float]
