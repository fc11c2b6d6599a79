"""The filter language: grammar, limits, exact evaluation, and that the index never excludes a match."""

from __future__ import annotations

import json
import operator
import time
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from memos_server._pb.mip.v1.memory_pb2 import Memory
from memos_server.errors import MipError
from memos_server.mem_os import filters
from memos_server.mem_os.filters.facets import ATTRIBUTES_CUT, MAX_ATTRIBUTE_FACETS
from memos_server.vec_dbs.base import All, Compare, HasFacet, Not, Predicate, Some, StateIn

OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


def holds(predicate: Predicate, memory: Memory) -> bool:
    """The predicate over what an index stores of a memory, in the plainest way."""
    match predicate:
        case All(parts):
            return all(holds(part, memory) for part in parts)
        case Some(parts):
            return any(holds(part, memory) for part in parts)
        case Not(part):
            return not holds(part, memory)
        case HasFacet(facet):
            return facet in filters.facets_of(memory)
        case StateIn(states):
            return memory.state in states
        case Compare(number, op, value):
            numbers = filters.numbers_of(memory)
            for name in ("create_time", "update_time"):
                if memory.HasField(name):
                    numbers[name] = filters.to_seconds(getattr(memory, name))
            return number in numbers and bool(OPERATORS[op](numbers[number], value))


def sample() -> Memory:
    memory = Memory(
        name="cubes/notes/memories/m1",
        tags=["work", "été"],
        attributes_json='{"a":{"b":[1,"x",true]},"big":1e+30,"done":false,"n":5,"none":null,"s":"mid"}',
        session="cubes/notes/sessions/s1",
        owner="principals/ana",
        state=1,
        sensitivity=3,
        revision=7,
        confidence=0.5,
    )
    memory.plaintext.text = "The Quick brown STRASSE fox"
    memory.plaintext.kind = "fact"
    memory.plaintext.language = "en-GB"
    memory.labels.add(key="team", value="red")
    memory.labels.add(key="a.b/c", value="")
    memory.provenance.add(kind=1, source="chat/1", speaker="Ana")
    memory.provenance.add(kind=2, source="notes.md", speaker="Bo")
    memory.create_time.FromJsonString("2026-05-01T12:00:00.000001Z")
    memory.update_time.FromJsonString("2026-05-02T00:00:00Z")
    memory.valid_from.FromJsonString("2026-01-01T00:00:00Z")
    return memory


TRUE = [
    "",
    "state = ACTIVE",
    "state = memory_state_active",
    "state != DELETED",
    'tags:"work"',
    'tags:"été"',
    "tags:*",
    "labels.team = red",
    'labels.team:"red"',
    "labels.team:*",
    "labels:team",
    'labels."a.b/c":*',
    'labels."a.b/c" = ""',
    "labels:a.b/c",
    "labels.team != blue",
    "labels.nothing != blue",
    "session = s1",
    'session = "cubes/notes/sessions/s1"',
    "session = cubes/notes/sessions/s1",
    "session:*",
    'owner = "principals/ana"',
    "sensitivity = CONFIDENTIAL",
    "sensitivity > internal",
    "sensitivity <= SECRET",
    "kind = fact",
    "language = EN-gb",
    "media_type = text/plain",
    "payload = plaintext",
    "create_time > 2026-05-01T12:00:00Z",
    "create_time = 2026-05-01T14:00:00.000001+02:00",
    "create_time <= 2026-05-01T12:00:00.000001Z",
    "update_time = 2026-05-02",
    'valid_from >= "2026-01-01"',
    "NOT valid_until:*",
    "valid_until != 2026-01-01",
    "confidence >= 0.5",
    "confidence = 5e-1",
    "confidence:*",
    "revision = 7",
    "revision < 8",
    "id = m1",
    'name = "cubes/notes/memories/m1"',
    "provenance.speaker = Ana",
    "provenance.speaker:Bo",
    "provenance.speaker != Cy",
    "provenance.source = notes.md",
    "provenance.kind = MESSAGE",
    'text:"quick BROWN"',
    'text:"straße"',
    "attributes.n = 5",
    "attributes.n = 5.0",
    "attributes.n > 4.5",
    "attributes.big = 1e30",
    "attributes.s = mid",
    'attributes.s < "n"',
    "attributes.done = false",
    "attributes.none = null",
    "attributes.none:*",
    "attributes.a.b:1",
    'attributes.a.b:"x"',
    "attributes.a.b:true",
    "attributes.a:b",
    'attributes."a"."b":*',
    "attributes.s:mid",
    "NOT attributes.missing:*",
    "attributes.n != 6",
    'attributes.n != "5"',
    "-state = DELETED",
    "tags:nothing OR tags:work",
    "(tags:nothing OR tags:work) AND kind = fact",
    "tags:work kind = fact",
    "NOT (tags:nothing AND kind = fact)",
]
FALSE = [
    "state = ARCHIVED",
    "tags:Work",
    "tags:nothing",
    "labels.team = blue",
    "labels.other:*",
    "session = s2",
    'session = "cubes/other/sessions/s1"',
    "sensitivity < CONFIDENTIAL",
    "payload = activation",
    "create_time > 2026-05-01T12:00:00.000001Z",
    "valid_until < 2030-01-01",
    "valid_until >= 1970-01-01",
    "confidence > 0.5",
    "provenance.speaker = Cy",
    "provenance.kind = TOOL",
    "text:absent",
    'attributes.n = "5"',
    "attributes.s = 5",
    "attributes.done = 0",
    "attributes.none = false",
    "attributes.a.b = 1",
    "attributes.a.b:2",
    "attributes.a.b:1.5",
    "attributes.a:1",
    "attributes.a.b.c:*",
    "attributes.s > 1",
    "attributes.missing < 1",
    "NOT state = ACTIVE",
    "tags:work AND tags:nothing",
]


@pytest.mark.parametrize("text", TRUE)
def test_the_sample_passes(text: str) -> None:
    parsed = filters.parse(text)
    assert parsed.matches(sample())
    assert holds(parsed.pushdown(), sample())


@pytest.mark.parametrize("text", FALSE)
def test_the_sample_does_not_pass(text: str) -> None:
    parsed = filters.parse(text)
    assert not parsed.matches(sample())
    assert holds(filters.parse(f"NOT ({text})").pushdown(), sample())


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("kind=a AND kind=b OR kind=fact", "kind=a AND (kind=b OR kind=fact)"),
        ("kind=fact OR kind=b AND kind=a", "(kind=fact OR kind=b) AND kind=a"),
        ("kind=fact kind=b OR kind=fact", "kind=fact AND (kind=b OR kind=fact)"),
        ("NOT kind=a OR kind=b", "(NOT kind=a) OR kind=b"),
        ("-kind=a kind=fact", "(NOT kind=a) AND kind=fact"),
    ],
)
def test_or_binds_tighter_than_and_and_not_tighter_than_both(text: str, same: str) -> None:
    assert filters.parse(text).pushdown() == filters.parse(same).pushdown()
    assert filters.parse(text).matches(sample()) == filters.parse(same).matches(sample())


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("state =", "8", "ends too early; expected a value"),
        ("(kind = a", "10", "ends too early; expected )"),
        ("kind", "5", "expected one of = != < <= > >="),
        ("kind = a )", "10", "expected"),
        ("kind = a OR", "12", "ends too early"),
        ('text:"abc', "6", "the string does not end"),
        ("colour = red", "1", "there is no field colour; fields are attributes, confidence"),
        ("kind.x = red", "1", "kind has no fields of its own"),
        ("state = SLEEPING", "9", "expected one of ACTIVE, MERGED, ARCHIVED, DELETED, PURGED"),
        ("state > ACTIVE", "1", "state permits = !="),
        ("state:ACTIVE", "1", "state permits = !="),
        ("kind < a", "1", "kind permits = != :"),
        ("tags = work", "1", 'write tags:"x"'),
        ("text = hello", "1", "write text:"),
        ("confidence > high", "14", "expected a number"),
        ("confidence > 1e999", "14", "expected a number"),
        ("create_time > yesterday", "15", "expected a time"),
        ("create_time > 2026-02-30", "15", "expected a time"),
        ("create_time > 2026-02-01T25:00:00Z", "15", "expected a time"),
        ("sensitivity > 3", "15", "expected one of PUBLIC"),
        ("attributes = 1", "1", "write attributes.KEY"),
        ("attributes.a < true", "16", "needs a number or a text"),
        ("provenance.where = x", "1", "provenance has source, speaker and kind"),
        ("labels = x", "1", "write labels.KEY"),
        ("kind = é", "8", "expected a value"),
        ("kind = a; drop table", "9", "expected"),
    ],
)
def test_a_wrong_filter_is_refused_with_place_and_expectation(text: str, position: str, words: str) -> None:
    with pytest.raises(MipError) as caught:
        filters.parse(text)
    assert caught.value.reason == "INVALID_FILTER"
    assert caught.value.metadata["position"] == position
    assert words in caught.value.message
    assert caught.value.violations[0].field == "filter"


def test_the_limits_of_a_filter_are_kept() -> None:
    assert filters.parse("(" * 32 + "tags:x" + ")" * 32)
    assert filters.parse(" ".join(["tags:x"] * 100))
    assert filters.parse('text:"' + "x" * 4089 + '"')
    for text, words in [
        ("(" * 33 + "tags:x" + ")" * 33, "nests deeper than 32"),
        (" ".join(["tags:x"] * 101), "more than 100 terms"),
        ('text:"' + "x" * 4090 + '"', "longer than 4096 bytes"),
        ('text:"' + "é" * 2046 + '"', "longer than 4096 bytes"),
    ]:
        with pytest.raises(MipError, match=words):
            filters.parse(text)


@pytest.mark.parametrize("text", ["(" * 4096, "NOT " * 1000, '"' + "\\" * 4000, "a=" * 2000, "-" * 4096, "a." * 2000])
def test_hostile_filters_are_refused_fast(text: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(MipError, match="INVALID_FILTER"):
        filters.parse(text)
    assert time.perf_counter() - begun < 1


def test_a_filter_says_which_fields_it_mentions() -> None:
    parsed = filters.parse("NOT (state = DELETED OR labels.state = x)")
    assert parsed.mentions("state")
    assert parsed.mentions("labels")
    assert not parsed.mentions("tags")
    assert not filters.parse("attributes.state = 1").mentions("state")


def test_parsing_is_cached() -> None:
    assert filters.parse("tags:work") is filters.parse("tags:work")


def test_escapes_in_strings_are_resolved() -> None:
    memory = Memory(tags=['say "hi"', "it's", "a\nb", "back\\slash"])
    for text in (r'tags:"say \"hi\""', r"tags:'it\'s'", r'tags:"a\nb"', r'tags:"back\\slash"'):
        assert filters.parse(text).matches(memory)


def test_facets_are_bounded_and_agree_with_the_filter() -> None:
    memory = Memory(tags=["x" * 300], attributes_json=json.dumps({"k" * 500: {"deep": "v" * 900}}))
    assert all(len(facet.encode()) <= 256 for facet in filters.facets_of(memory))
    for text in (f"tags:{'x' * 300}", f"attributes.{'k' * 500}.deep = {'v' * 900}"):
        parsed = filters.parse(text)
        assert parsed.matches(memory)
        assert holds(parsed.pushdown(), memory)
    assert not holds(filters.parse(f"tags:{'x' * 299}y").pushdown(), memory)


def test_a_memory_with_very_many_attributes_is_cut_and_still_found() -> None:
    memory = Memory(attributes_json=json.dumps({"list": list(range(5000))}))
    facets = filters.facets_of(memory)
    assert len(facets) <= MAX_ATTRIBUTE_FACETS + 2
    assert ATTRIBUTES_CUT in facets
    for text in ("attributes.list:4999", "NOT attributes.list:9999"):
        assert filters.parse(text).matches(memory)
        assert holds(filters.parse(text).pushdown(), memory)


def test_facets_of_hostile_attributes_are_made_fast() -> None:
    key = "k" * 30_000
    memory = Memory(attributes_json=json.dumps({key: {f"c{number}": number for number in range(3000)}}))
    begun = time.perf_counter()
    filters.facets_of(memory)
    assert time.perf_counter() - begun < 1


def test_the_published_grammar_is_the_one_in_use() -> None:
    root = Path(__file__).parents[2]
    grammar = (root / "memos_server/mem_os/filters/grammar.lark").read_text(encoding="utf-8")
    assert grammar in (root / "docs/spec/filter.md").read_text(encoding="utf-8")


# Random memories and filters share small vocabularies, so that they meet often.

words = st.sampled_from(["a", "b", "a.b", "é", "x" * 300])
scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.5, -0.0, 1e30]), words)
attributes = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.one_of(
        scalars,
        st.lists(scalars, max_size=2),
        st.dictionaries(st.sampled_from(["a", "b"]), st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=2),
    ),
    max_size=2,
)
BASE = 1_700_000_000
times = st.none() | st.builds(
    Timestamp, seconds=st.integers(BASE, BASE + 1), nanos=st.sampled_from([0, 1, 100, 999_999_999])
)


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    memory = Memory(
        tags=draw(st.lists(words, max_size=2)),
        state=draw(st.integers(1, 4)),
        sensitivity=draw(st.integers(1, 4)),
        owner=draw(st.sampled_from(["", "principals/a"])),
        session=draw(st.sampled_from(["", "cubes/c/sessions/a", "cubes/c/sessions/b", "cubes/d/sessions/a"])),
        attributes_json=draw(st.one_of(st.just(""), attributes.map(json.dumps))),
        confidence=draw(st.none() | st.sampled_from([0.0, 0.5, 1.0])),
        revision=draw(st.integers(0, 2)),
        name="cubes/c/memories/" + draw(st.sampled_from("ab")),
        create_time=draw(times),
        valid_from=draw(times),
        valid_until=draw(times),
    )
    arm = draw(st.sampled_from(["plaintext", "activation", "extension", ""]))
    if arm == "plaintext":
        memory.plaintext.text = draw(words)
        memory.plaintext.kind = draw(st.sampled_from(["", "a", "b"]))
        memory.plaintext.language = draw(st.sampled_from(["", "EN", "de"]))
        memory.plaintext.media_type = draw(st.sampled_from(["", "text/a"]))
    elif arm:
        getattr(memory, arm).SetInParent()
    for key, value in draw(st.dictionaries(st.sampled_from(["a", "a.b"]), words, max_size=2)).items():
        memory.labels.add(key=key, value=value)
    for speaker in draw(st.lists(st.sampled_from(["", "a", "b"]), max_size=2)):
        memory.provenance.add(kind=draw(st.integers(0, 2)), speaker=speaker, source=draw(st.sampled_from(["", "a"])))
    return memory


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


literals = st.one_of(
    st.sampled_from(["true", "false", "null", "0", "1", "0.5", "-0.0", "1e30", "*"]), words.map(quoted)
)
order = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
moments = st.sampled_from(
    ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000001Z", "2023-11-14T22:13:20.0000001Z", "2023-11-14T22:13:21Z"]
)
restrictions = st.one_of(
    words.map(lambda word: f"tags:{quoted(word)}"),
    st.sampled_from(["tags:*", "session:*", "kind:*", "labels.a:*", "valid_from:*", "confidence:*", "owner:*"]),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["labels.a", 'labels."a.b"']),
        st.sampled_from(["=", "!=", ":"]),
        words.map(quoted),
    ),
    st.builds(
        "session{}{}".format, st.sampled_from(["=", "!="]), st.sampled_from(["a", "b", "cubes/c/sessions/a", '""'])
    ),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["kind", "language", "media_type", "owner", "id"]),
        st.sampled_from(["=", "!="]),
        st.sampled_from(['""', "a", "en", "text/plain", "text/a", "principals/a"]),
    ),
    st.builds("payload={}".format, st.sampled_from(["plaintext", "activation"])),
    st.builds("state{}{}".format, st.sampled_from(["=", "!="]), st.sampled_from(["ACTIVE", "DELETED"])),
    st.builds("sensitivity{}INTERNAL".format, order),
    st.builds("{}{}{}".format, st.sampled_from(["valid_from", "valid_until", "create_time"]), order, moments),
    st.builds("confidence{}{}".format, order, st.sampled_from(["0", "0.5", "1"])),
    st.builds("revision{}1".format, order),
    st.builds(
        "provenance.{}{}{}".format,
        st.sampled_from(["speaker", "source"]),
        st.sampled_from(["=", "!=", ":"]),
        st.sampled_from(["a", '""']),
    ),
    st.sampled_from(["provenance.kind=MESSAGE", "text:a", "text:*", "provenance.speaker:*"]),
    st.builds("attributes.{}:{}".format, st.sampled_from(["a", "b", "a.b", "a.a"]), literals),
    st.builds(
        "attributes.{}{}{}".format,
        st.sampled_from(["a", "b", "a.b"]),
        st.sampled_from(["=", "!="]),
        literals.filter(lambda text: text != "*"),
    ),
    st.builds("attributes.{}{}{}".format, st.sampled_from(["a", "a.b"]), order, st.sampled_from(["1", "0.5", '"a"'])),
)
texts = st.recursive(
    restrictions,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        inner.map(lambda text: f"NOT ({text})"),
        st.builds("({} {})".format, inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=600, deadline=None)
@given(memories(), texts)
def test_the_index_never_excludes_a_match(memory: Memory, text: str) -> None:
    parsed = filters.parse(text)
    assert holds(parsed.pushdown(), memory) or not parsed.matches(memory)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    refused = None
    try:
        filters.parse(text)
    except MipError as error:
        refused = error.reason
    assert refused in (None, "INVALID_FILTER")
