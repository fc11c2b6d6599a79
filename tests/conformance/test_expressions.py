"""What cases are written in: each function beside CEL's own, with an example, and templates."""

from __future__ import annotations

import struct
import uuid
from typing import Any

import pytest
from mip_conformance.expressions import FUNCTIONS, ExpressionError, evaluate, filled

EXAMPLES: dict[str, tuple[str, Any]] = {
    "base64": ("base64(b'hi!?')", "aGkhPw=="),
    "base64url": ("base64url(b'\\xfb\\xff')", "-_8"),
    "changes_digest": (
        "hex(changes_digest([]))",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    "distinct": ("distinct([2, 1, 2, 1])", [2, 1]),
    "field": ("field(15, 'ab')", b"\x7a\x02ab"),
    "field_numbers": ("field_numbers(joined([field(3, 'a'), field(1, 'b'), field(3, 'c')]))", [3, 1, 3]),
    "field_values": ("field_values(joined([field(3, 'a'), field(1, 'b'), field(3, 'c')]), 3)", [b"a", b"c"]),
    "flatten": ("flatten([[1], [], [2, 3]])", [1, 2, 3]),
    "floats": ("floats([1.0, -2.5])", struct.pack("<2f", 1.0, -2.5)),
    "hex": ("hex(b'\\x00\\xff')", "00ff"),
    "hmac_sha256": (
        "hex(hmac_sha256(b'key', 'The quick brown fox jumps over the lazy dog'))",
        "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8",
    ),
    "joined": ("joined([b'a', b'', b'bc'])", b"abc"),
    "joined_text": ("joined_text(['a', 'b'], '/')", "a/b"),
    "json": ("json('{\"a\": [1, null]}').a[0]", 1),
    "lower": ("lower('ÄB')", "äb"),
    "merged": ("merged({'a': 1, 'b': 2}, {'b': 3})", {"a": 1, "b": 3}),
    "moved": (
        "moved({'names': ['cubes/a/x']}, 'names[+]', 'cubes/a', 'cubes/b')",
        {"names": ["cubes/a/x", "cubes/b/x"]},
    ),
    "nanoseconds": ("nanoseconds('1970-01-01T00:00:01.000000005Z')", 1_000_000_005),
    "pairs": ("pairs([1, 2, 3])", [[1, 2], [2, 3]]),
    "parse": ("parse('Label', wire('Label', {'key': 'k', 'value': 'v'}))", {"key": "k", "value": "v"}),
    "range": ("range(3)", [0, 1, 2]),
    "repeated": ("repeated('ab', 3)", "ababab"),
    "replaced": ("replaced('cubes/a', 'a', 'b')", "cubes/b"),
    "reversed": ("reversed([1, 2])", [2, 1]),
    "sha256": ("hex(sha256('abc'))", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    "slice": ("slice('abcd', 1, 3)", "bc"),
    "sorted": ("sorted(['b', 'a'])", ["a", "b"]),
    "split": ("split('a/b/c', '/')", ["a", "b", "c"]),
    "sum": ("sum([1, 2, 3])", 6),
    "to_json": ("to_json({'a': b'hi'})", '{"a": "aGk="}'),
    "unbase64url": ("unbase64url('-_8')", b"\xfb\xff"),
    "unhex": ("unhex('00ff')", b"\x00\xff"),
    "upper": ("upper('äb')", "ÄB"),
    "uuid": ("size(uuid())", 36),
    "wire": ("wire('Label', {'key': 'k', 'value': 'v'})", b"\x0a\x01k\x12\x01v"),
    "zeros": ("zeros(2)", b"\x00\x00"),
    "zipped": ("zipped([1, 2], ['a', 'b'])", [[1, "a"], [2, "b"]]),
}


def test_every_function_has_an_example() -> None:
    assert set(EXAMPLES) == set(FUNCTIONS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_function_returns_what_its_example_says(name: str) -> None:
    expression, value = EXAMPLES[name]
    assert name + "(" in expression
    found = evaluate(expression, {})
    assert found == value
    assert type(found) is type(value)


def test_uuids_differ_and_are_uuids() -> None:
    one, other = evaluate("[uuid(), uuid()]", {})
    assert uuid.UUID(one) != uuid.UUID(other)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("moved({'name': 'cubes/a'}, 'name', 'cubes/b', 'x')", "does not hold 'cubes/b'"),
        ("1 +", "1 +"),
        ("nobody.name", "nobody.name"),
        ("field_numbers(b'\\x0a\\x05a')", "cut off"),
        ("field_numbers(b'\\x80')", "cut off"),
        ("field_numbers(b'\\x0b')", "wire type 3"),
        ("wire('Label', {'nothing': 1})", 'no field named "nothing"'),
        ("parse('Label', b'\\xff')", "parsing"),
        ("zipped([1], [])", "zip"),
    ],
)
def test_an_expression_that_cannot_be_evaluated_says_so(expression: str, told: str) -> None:
    with pytest.raises(ExpressionError, match=r"(?s).*" + told.replace("+", r"\+")):
        evaluate(expression, {})


def test_expressions_see_variables_functions_and_nothing_else() -> None:
    assert evaluate("twice(a.b)", {"a": {"b": 2}, "c": object()}, {"twice": lambda number: 2 * number}) == 4


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${a}", [1, 2]),
        ("cubes/${b}/x", "cubes/tea/x"),
        ("${b}${b}", "teatea"),
        ("${ {'x': '}'}['x'] }", "}"),
        ("${'it\\'s {'}", "it's {"),
        ({"k?": "${nothing}", "l?": "${b}", "m": ["${b}", 1, None]}, {"l": "tea", "m": ["tea", 1, None]}),
        ("has ${a}", "has [1, 2]"),
    ],
)
def test_templates_are_filled(template: Any, value: Any) -> None:
    assert filled(template, {"a": [1, 2], "b": "tea", "nothing": None}) == value


def test_a_template_that_does_not_end_says_so() -> None:
    with pytest.raises(ExpressionError, match=r"\$\{a: an expression does not end"):
        filled("${a", {"a": 1})
