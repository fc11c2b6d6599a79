"""The fields of filters: how each is read from a memory, compared, and asked of an index.

A leaf holds an exact test and two predicates for indexes that enclose it: `superset` is true whenever the test is,
`subset` only when it is. Negation swaps the two, so a filter pushed down never excludes a match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from memos_server._pb.mip.v1.common_pb2 import Sensitivity
from memos_server._pb.mip.v1.memory_pb2 import Memory, MemoryState, ProvenanceKind
from memos_server.mem_os.filters import facets
from memos_server.mem_os.filters.syntax import Restriction, Value, invalid_filter
from memos_server.mem_os.filters.values import (
    COMPARISONS,
    enum_value,
    json_scalar,
    nanoseconds_of,
    number_value,
    same_scalar,
    time_value,
)
from memos_server.vec_dbs.base import All, Compare, HasFacet, Predicate, Some, StateIn

TRUE: Final = All(())
FALSE: Final = Some(())
_LOWEST: Final = -1.7976931348623157e308


class Subject:
    """A memory under a filter; what is costly to read is read once."""

    def __init__(self, memory: Memory) -> None:
        """Wraps a memory."""
        self.memory = memory

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The parsed attributes."""
        return facets.attributes_of(self.memory)

    @cached_property
    def text(self) -> str:
        """The payload's words, case-folded."""
        return facets.text_of(self.memory).casefold()


@dataclass(frozen=True, slots=True)
class Leaf:
    """One restriction, compiled."""

    test: Callable[[Subject], bool]
    superset: Predicate = TRUE
    subset: Predicate = FALSE


def compile_restriction(restriction: Restriction) -> Leaf:
    """Returns the leaf of a restriction; its `!=` reads as `=`, the caller negates.

    Raises:
        MipError: INVALID_FILTER when the field does not exist, or does not permit the operator or the value.
    """
    head, rest = restriction.path[0], restriction.path[1:]
    compile_field = _FIELDS.get(head)
    if compile_field is None:
        raise invalid_filter(
            f"there is no field {head[:64]}; fields are {', '.join(sorted(_FIELDS))}", restriction.position
        )
    if rest and head not in _NESTED:
        raise invalid_filter(f"{head} has no fields of its own", restriction.position)
    return compile_field(restriction)


def _operator(restriction: Restriction, *permitted: str) -> str:
    operator = "=" if restriction.operator == "!=" else restriction.operator
    if operator not in permitted:
        listed = " ".join(["=", "!=", *permitted[1:]] if permitted[0] == "=" else permitted)
        field = ".".join(restriction.path[:1])
        raise invalid_filter(f"{field} permits {listed}", restriction.position)
    return operator


def _exact(test: Callable[[Subject], bool], predicate: Predicate) -> Leaf:
    return Leaf(test, predicate, predicate)


def _text_field(read: Callable[[Memory], str], prefix: str, *, lower: bool = False) -> Callable[[Restriction], Leaf]:
    """Returns the compiler of a field with one text, equal or not; an empty text is an absent one."""

    def compile_field(restriction: Restriction) -> Leaf:
        _operator(restriction, "=", ":")
        if restriction.value.kind == "any":
            return _exact(lambda subject: bool(read(subject.memory)), HasFacet(facets.facet("has", prefix)))
        wanted = restriction.value.text.lower() if lower else restriction.value.text
        if not wanted:
            # Absence has no facet of its own: the negation of presence.
            return Leaf(lambda subject: not read(subject.memory))
        if lower:
            return _exact(
                lambda subject: read(subject.memory).lower() == wanted, HasFacet(facets.facet(prefix, wanted))
            )
        return _exact(lambda subject: read(subject.memory) == wanted, HasFacet(facets.facet(prefix, wanted)))

    return compile_field


def _record_field(read: Callable[[Memory], str]) -> Callable[[Restriction], Leaf]:
    """Returns the compiler of a text that only the record knows."""

    def compile_field(restriction: Restriction) -> Leaf:
        _operator(restriction, "=", ":")
        if restriction.value.kind == "any":
            return Leaf(lambda subject: bool(read(subject.memory)))
        wanted = restriction.value.text
        return Leaf(lambda subject: read(subject.memory) == wanted)

    return compile_field


_STATES: Final = {name.removeprefix("MEMORY_STATE_"): number for name, number in MemoryState.items() if number}
_LEVELS: Final = {name.removeprefix("SENSITIVITY_"): number for name, number in Sensitivity.items() if number}
_KINDS: Final = {name.removeprefix("PROVENANCE_KIND_"): number for name, number in ProvenanceKind.items() if number}
_PAYLOADS: Final = {field.name.upper(): field.number for field in Memory.DESCRIPTOR.oneofs_by_name["payload"].fields}


def _state(restriction: Restriction) -> Leaf:
    _operator(restriction, "=")
    number = enum_value(restriction.value, _STATES, "MEMORY_STATE_")
    return _exact(lambda subject: subject.memory.state == number, StateIn(frozenset({number})))


def _sensitivity(restriction: Restriction) -> Leaf:
    compare = COMPARISONS[_operator(restriction, "=", "<", "<=", ">", ">=")]
    number = enum_value(restriction.value, _LEVELS, "SENSITIVITY_")
    return Leaf(lambda subject: compare(subject.memory.sensitivity, number))


def _payload(restriction: Restriction) -> Leaf:
    _operator(restriction, "=", ":")
    enum_value(restriction.value, _PAYLOADS, "")
    wanted = restriction.value.text.lower()
    return _exact(
        lambda subject: subject.memory.WhichOneof("payload") == wanted, HasFacet(facets.facet("payload", wanted))
    )


def _tags(restriction: Restriction) -> Leaf:
    if restriction.operator != ":":
        raise invalid_filter('tags are a list; write tags:"x"', restriction.position)
    if restriction.value.kind == "any":
        return _exact(lambda subject: bool(subject.memory.tags), HasFacet(facets.facet("has", "tag")))
    wanted = restriction.value.text
    return _exact(lambda subject: wanted in subject.memory.tags, HasFacet(facets.facet("tag", wanted)))


def _labels(restriction: Restriction) -> Leaf:
    if len(restriction.path) == 1:
        if restriction.operator != ":":
            raise invalid_filter('write labels.KEY = "value", labels.KEY:* or labels:KEY', restriction.position)
        if restriction.value.kind == "any":
            return Leaf(lambda subject: bool(subject.memory.labels))
        return _has_label(restriction.value.text)
    _operator(restriction, "=", ":")
    key = ".".join(restriction.path[1:])
    if restriction.value.kind == "any":
        return _has_label(key)
    wanted = restriction.value.text
    return _exact(
        lambda subject: any(label.key == key and label.value == wanted for label in subject.memory.labels),
        HasFacet(facets.label_facet(key, wanted)),
    )


def _has_label(key: str) -> Leaf:
    return _exact(
        lambda subject: any(label.key == key for label in subject.memory.labels), HasFacet(facets.facet("key", key))
    )


def _session(restriction: Restriction) -> Leaf:
    by_id = _text_field(lambda memory: facets.session_id(memory.session), "session")(restriction)
    wanted = restriction.value.text
    if "/" not in wanted:
        return by_id
    _operator(restriction, "=", ":")
    # The index knows the id alone, because forks share it; so a full name finds no fewer there.
    return Leaf(
        lambda subject: subject.memory.session == wanted,
        HasFacet(facets.facet("session", facets.session_id(wanted))) if facets.session_id(wanted) else TRUE,
    )


def _plaintext(read: Callable[[Memory], str]) -> Callable[[Memory], str]:
    return lambda memory: read(memory) if memory.WhichOneof("payload") == "plaintext" else ""


def _time(read: Callable[[Memory], Timestamp | None], number: str) -> Callable[[Restriction], Leaf]:
    """Returns the compiler of a time. The index compares doubles, which round: strict and loose bounds enclose it."""

    def compile_field(restriction: Restriction) -> Leaf:
        operator = _operator(restriction, "=", "<", "<=", ">", ">=", ":")
        if restriction.value.kind == "any":
            return _exact(lambda subject: read(subject.memory) is not None, Compare(number, ">=", _LOWEST))
        wanted = time_value(restriction.value)
        compare = COMPARISONS["=" if operator == ":" else operator]

        def test(subject: Subject) -> bool:
            time = read(subject.memory)
            return time is not None and compare(nanoseconds_of(time), wanted)

        seconds, nanos = divmod(wanted, 1_000_000_000)
        bound = facets.to_seconds(Timestamp(seconds=seconds, nanos=nanos))
        loose = {"<": "<=", ">": ">="}.get(operator, "=" if operator == ":" else operator)
        strict = {"<": "<", "<=": "<", ">": ">", ">=": ">"}.get(operator)
        return Leaf(test, Compare(number, loose, bound), FALSE if strict is None else Compare(number, strict, bound))

    return compile_field


def _confidence(restriction: Restriction) -> Leaf:
    operator = _operator(restriction, "=", "<", "<=", ">", ">=", ":")
    if restriction.value.kind == "any":
        return _exact(lambda subject: subject.memory.HasField("confidence"), Compare("confidence", ">=", _LOWEST))
    wanted = number_value(restriction.value)
    operator = "=" if operator == ":" else operator
    compare = COMPARISONS[operator]
    return _exact(
        lambda subject: subject.memory.HasField("confidence") and compare(subject.memory.confidence, wanted),
        Compare("confidence", operator, wanted),
    )


def _revision(restriction: Restriction) -> Leaf:
    compare = COMPARISONS[_operator(restriction, "=", "<", "<=", ">", ">=")]
    wanted = number_value(restriction.value)
    return Leaf(lambda subject: compare(subject.memory.revision, wanted))


def _provenance(restriction: Restriction) -> Leaf:
    compilers: Mapping[tuple[str, ...], Callable[[Restriction], Leaf]] = {
        ("source",): _provenance_source,
        ("speaker",): _provenance_speaker,
        ("kind",): _provenance_kind,
    }
    compile_field = compilers.get(restriction.path[1:])
    if compile_field is None:
        raise invalid_filter("provenance has source, speaker and kind", restriction.position)
    _operator(restriction, "=", ":")
    return compile_field(restriction)


def _provenance_source(restriction: Restriction) -> Leaf:
    # Provenance that names memories which the caller may not see is left out of what it reads, but not of the index: it
    # may say yes too often here and below, and is never asked to say no.
    if restriction.value.kind == "any":
        return Leaf(
            lambda subject: any(item.source for item in subject.memory.provenance),
            HasFacet(facets.facet("has", "source")),
        )
    wanted = restriction.value.text
    return Leaf(
        lambda subject: any(item.source == wanted for item in subject.memory.provenance),
        HasFacet(facets.facet("source", wanted)) if wanted else TRUE,
    )


def _provenance_speaker(restriction: Restriction) -> Leaf:
    wanted = restriction.value.text
    if restriction.value.kind == "any":
        return Leaf(
            lambda subject: any(item.speaker for item in subject.memory.provenance),
            HasFacet(facets.facet("has", "speaker")),
        )
    if not wanted:
        return Leaf(lambda subject: any(not item.speaker for item in subject.memory.provenance))
    return Leaf(
        lambda subject: any(item.speaker == wanted for item in subject.memory.provenance),
        HasFacet(facets.facet("speaker", wanted)),
    )


def _provenance_kind(restriction: Restriction) -> Leaf:
    number = enum_value(restriction.value, _KINDS, "PROVENANCE_KIND_")
    return Leaf(
        lambda subject: any(item.kind == number for item in subject.memory.provenance),
        HasFacet(facets.facet("provenance", facets.KIND_NAMES[number])),
    )


def _text(restriction: Restriction) -> Leaf:
    if restriction.operator != ":":
        raise invalid_filter('write text:"part of the text"', restriction.position)
    if restriction.value.kind == "any":
        return Leaf(lambda subject: bool(subject.text))
    wanted = restriction.value.text.casefold()
    return Leaf(lambda subject: wanted in subject.text)


_ABSENT: Final = object()


def _attributes(restriction: Restriction) -> Leaf:
    keys = restriction.path[1:]
    if not keys:
        raise invalid_filter("write attributes.KEY, with further keys after dots", restriction.position)
    operator = _operator(restriction, "=", "<", "<=", ">", ">=", ":")
    path = ""
    for key in keys:
        path = facets.attribute_path(path, key)

    def read(subject: Subject) -> Any:
        value: Any = subject.attributes
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return _ABSENT
            value = value[key]
        return value

    present = HasFacet(facets.facet("attributes", path))
    if restriction.value.kind == "any":
        return _enclosed(lambda subject: read(subject) is not _ABSENT, present)
    wanted = json_scalar(restriction.value)
    if operator == "=":
        return _enclosed(
            lambda subject: same_scalar(read(subject), wanted), HasFacet(facets.attribute_facet(path, wanted))
        )
    if operator == ":":
        return _has_attribute(read, path, wanted)
    return _ordered_attribute(read, present, operator, wanted, restriction.value)


def _enclosed(test: Callable[[Subject], bool], predicate: Predicate) -> Leaf:
    """Returns the leaf of a test of attributes: a memory with very many of them has facets for some only."""
    return Leaf(test, Some((predicate, HasFacet(facets.ATTRIBUTES_CUT))), predicate)


def _has_attribute(read: Callable[[Subject], Any], path: str, wanted: str | float | bool | None) -> Leaf:
    def test(subject: Subject) -> bool:
        value = read(subject)
        if isinstance(value, dict):
            return isinstance(wanted, str) and wanted in value
        if isinstance(value, list):
            return any(same_scalar(element, wanted) for element in value)
        return same_scalar(value, wanted)

    parts: list[Predicate] = [
        HasFacet(facets.attribute_facet(path, wanted)),
        HasFacet(facets.element_facet(path, wanted)),
    ]
    if isinstance(wanted, str):
        parts.append(HasFacet(facets.facet("attributes", facets.attribute_path(path, wanted))))
    return _enclosed(test, Some(tuple(parts)))


def _ordered_attribute(
    read: Callable[[Subject], Any], present: Predicate, operator: str, wanted: str | float | bool | None, value: Value
) -> Leaf:
    compare = COMPARISONS[operator]
    if wanted is None or isinstance(wanted, bool):
        raise invalid_filter(f"{operator} needs a number or a text", value.position)

    def test(subject: Subject) -> bool:
        found = read(subject)
        if isinstance(wanted, str):
            return isinstance(found, str) and compare(found, wanted)
        return isinstance(found, int | float) and not isinstance(found, bool) and compare(float(found), wanted)

    return Leaf(test, Some((present, HasFacet(facets.ATTRIBUTES_CUT))), FALSE)


_NESTED: Final = frozenset({"labels", "attributes", "provenance"})

_FIELDS: Final[Mapping[str, Callable[[Restriction], Leaf]]] = {
    "state": _state,
    "tags": _tags,
    "labels": _labels,
    "attributes": _attributes,
    "session": _session,
    "owner": _record_field(lambda memory: memory.owner),
    "sensitivity": _sensitivity,
    "kind": _text_field(_plaintext(lambda memory: memory.plaintext.kind), "kind"),
    "language": _text_field(_plaintext(lambda memory: memory.plaintext.language), "language", lower=True),
    "media_type": _text_field(facets.media_type_of, "media_type", lower=True),
    "payload": _payload,
    "create_time": _time(lambda m: m.create_time if m.HasField("create_time") else None, "create_time"),
    "update_time": _time(lambda m: m.update_time if m.HasField("update_time") else None, "update_time"),
    "valid_from": _time(lambda m: m.valid_from if m.HasField("valid_from") else None, "valid_from"),
    "valid_until": _time(lambda m: m.valid_until if m.HasField("valid_until") else None, "valid_until"),
    "confidence": _confidence,
    "revision": _revision,
    "name": _record_field(lambda memory: memory.name),
    "id": _record_field(lambda memory: memory.name.rpartition("/")[2]),
    "provenance": _provenance,
    "text": _text,
}
