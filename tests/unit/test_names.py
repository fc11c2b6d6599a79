"""Names and the other text grammars of the contract."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos_server import json_text, names
from memos_server._pb.mip.v1 import options_pb2
from memos_server.errors import MipError

GOOD = [
    ("FORMAT_ID", "a"),
    ("FORMAT_ID", "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"),
    ("FORMAT_ID", "A.b_c-9"),
    ("FORMAT_ID", "x" * 128),
    ("FORMAT_CUBE_NAME", "cubes/notes"),
    ("FORMAT_MEMORY_NAME", "cubes/notes/memories/m1"),
    ("FORMAT_SESSION_NAME", "cubes/notes/sessions/s1"),
    ("FORMAT_PRINCIPAL_NAME", "principals/local-admin"),
    ("FORMAT_GRANT_RESOURCE", "server"),
    ("FORMAT_GRANT_RESOURCE", "cubes/notes"),
    ("FORMAT_GRANT_RESOURCE", "cubes/notes/memories/m1"),
    ("FORMAT_UUID", "0198C5A2-7f3e-7c41-9a52-3d1f0b6e8c77"),
    ("FORMAT_JSON", '{"a": [1, "x", null]}'),
    ("FORMAT_JSON", "[" * 32 + "]" * 32),
    ("FORMAT_BLOB_DIGEST", "sha256:" + "0a" * 32),
    ("FORMAT_RELATION_TYPE", "PARENT_OF"),
    ("FORMAT_JOB_NAME", "cubes/notes/jobs/j1"),
    ("FORMAT_COMMIT_NAME", "cubes/notes/commits/9223372036854775807"),
    ("FORMAT_LABEL_KEY", "team/size"),
    ("FORMAT_UNSPECIFIED", "anything at all"),
]
BAD = [
    ("FORMAT_ID", ""),
    ("FORMAT_ID", "-a"),
    ("FORMAT_ID", "x" * 129),
    ("FORMAT_ID", "a/b"),
    ("FORMAT_ID", "a\n"),
    ("FORMAT_ID", "é"),
    ("FORMAT_CUBE_NAME", "cubes/"),
    ("FORMAT_CUBE_NAME", "cubes/../etc"),
    ("FORMAT_CUBE_NAME", "cubes/notes\n"),
    ("FORMAT_CUBE_NAME", "Cubes/notes"),
    ("FORMAT_MEMORY_NAME", "cubes/notes"),
    ("FORMAT_MEMORY_NAME", "cubes/notes/memories/m1/x"),
    ("FORMAT_GRANT_RESOURCE", "server/"),
    ("FORMAT_GRANT_RESOURCE", "principals/x"),
    ("FORMAT_UUID", "0198c5a27f3e7c419a523d1f0b6e8c77"),
    ("FORMAT_JSON", "{'a': 1}"),
    ("FORMAT_JSON", '{"a": 1, "a": 1}'),
    ("FORMAT_JSON", "[" * 33 + "]" * 33),
    ("FORMAT_JSON", "NaN"),
    ("FORMAT_JSON", "1e999"),
    ("FORMAT_JSON", '"\\ud800"'),
    ("FORMAT_BLOB_DIGEST", "sha256:" + "0A" * 32),
    ("FORMAT_RELATION_TYPE", "parent_of"),
    ("FORMAT_COMMIT_NAME", "cubes/notes/commits/0"),
    ("FORMAT_COMMIT_NAME", "cubes/notes/commits/9223372036854775808"),
    ("FORMAT_COMMIT_NAME", "cubes/notes/commits/٣"),
    ("FORMAT_LABEL_KEY", "9lives"),
]


@pytest.mark.parametrize(("format_", "text"), GOOD)
def test_a_well_formed_text_matches_its_format(format_: str, text: str) -> None:
    assert names.matches(options_pb2.Format.Value(format_), text)


@pytest.mark.parametrize(("format_", "text"), BAD)
def test_a_malformed_text_does_not_match(format_: str, text: str) -> None:
    assert not names.matches(options_pb2.Format.Value(format_), text)


def test_every_format_of_the_contract_has_a_grammar() -> None:
    known = {*names.GRAMMARS, options_pb2.FORMAT_UNSPECIFIED, options_pb2.FORMAT_JSON}
    assert known == set(options_pb2.Format.values())


def test_names_are_taken_apart() -> None:
    assert names.parse_cube("cubes/x") == "x"
    assert names.parse_memory("cubes/x/memories/y") == ("x", "y")
    assert names.parse_session("cubes/x/sessions/y") == ("x", "y")
    assert names.parse_job("cubes/x/jobs/y") == ("x", "y")
    assert names.parse_commit("cubes/x/commits/12") == ("x", 12)
    assert names.parse_principal("principals/p") == "p"
    assert names.parse_grant_resource("server") == (None, None)
    assert names.parse_grant_resource("cubes/x") == ("x", None)
    assert names.parse_grant_resource("cubes/x/memories/y") == ("x", "y")


def test_names_are_built() -> None:
    assert names.cube_name("x") == "cubes/x"
    assert names.memory_name("x", "y") == "cubes/x/memories/y"
    assert names.session_name("x", "y") == "cubes/x/sessions/y"
    assert names.relation_name("x", "y") == "cubes/x/relations/y"
    assert names.job_name("x", "y") == "cubes/x/jobs/y"
    assert names.commit_name("x", 12) == "cubes/x/commits/12"
    assert names.principal_name("p") == "principals/p"


def test_a_name_within_a_cube_is_completed_and_its_cube_found() -> None:
    assert names.absolute("z", "memories/y") == "cubes/z/memories/y"
    assert names.absolute("z", "") == "cubes/z"
    assert names.cube_of("cubes/x/memories/y") == "x"
    assert names.cube_of("cubes/x") == "x"


@pytest.mark.parametrize("bad", ["", "cubes", "cubes/x/", "cubes/x/memories", "cubes/x/secrets/y", "principals/p"])
def test_a_wrong_name_is_refused_with_its_field_and_shape(bad: str) -> None:
    with pytest.raises(MipError, match="INVALID_NAME") as caught:
        names.parse_memory(bad, "memory.name")
    assert caught.value.violations[0].field == "memory.name"
    assert caught.value.violations[0].description == "must have the form cubes/{cube}/memories/{memory}"
    with pytest.raises(MipError, match="INVALID_NAME"):
        names.cube_of(bad)


def test_a_commit_revision_beyond_int64_is_refused() -> None:
    with pytest.raises(MipError, match="INVALID_NAME"):
        names.parse_commit("cubes/x/commits/9999999999999999999")


def test_a_relative_name_cannot_climb_out_of_its_cube() -> None:
    with pytest.raises(MipError, match="INVALID_NAME"):
        names.absolute("x", "memories/../../y")


def test_check_names_the_reason_of_the_grammar() -> None:
    assert names.check(options_pb2.FORMAT_CUBE_NAME, "cubes/x") == "cubes/x"
    with pytest.raises(MipError, match="INVALID_FIELD"):
        names.check(options_pb2.FORMAT_UUID, "x", "request_id")


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(str.isascii), st.integers(1, 2**63 - 1))
def test_what_is_built_is_taken_apart_again(id_: str, revision: int) -> None:
    assert names.parse_memory(names.memory_name(id_, id_)) == (id_, id_)
    assert names.parse_commit(names.commit_name(id_, revision)) == (id_, revision)
    name = names.memory_name(id_, id_)
    assert names.absolute(names.cube_of(name), f"memories/{id_}") == name


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab[{"\\', max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_canonical_json_reads_back_equal_and_stays_as_it_is(value: object) -> None:
    text = json_text.canonical(value)
    assert json_text.parse(text) == value
    assert json_text.canonical(json_text.parse(text)) == text


def test_canonical_json_is_that_of_rfc_8785() -> None:
    assert json_text.canonical(json_text.parse('{ "b": 1.0, "a": -0.0, "\\u20ac": 1E21, "z": [] }')) == (
        '{"a":0,"b":1,"z":[],"€":1e+21}'
    )


def test_an_integer_that_a_double_cannot_hold_is_refused_rather_than_rounded() -> None:
    with pytest.raises(json_text.JsonTextError, match=re.escape("2^53 - 1")):
        json_text.canonical(json_text.parse("9007199254740993"))


@pytest.mark.parametrize(
    "hostile", ["[" * 60000, "[" * 40 + '"' + '\\"' * 32000, "[" * 40 + '"\\' * 32000, "9" * 65000]
)
def test_hostile_json_is_refused_fast(hostile: str) -> None:
    begun = time.perf_counter()
    assert not json_text.is_valid(hostile)
    assert time.perf_counter() - begun < 0.5
