"""A version as an object of Weaviate, and back.

Tokens are the exact-match part of a version, in one list: facets, entities, its memory, its content, its state and its
label, told apart by their first letters. Each ends with a full stop, since Weaviate trims white space.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from weaviate.classes.data import DataObject

from memos_server.errors import MipError
from memos_server.vec_dbs.base import OPEN, IndexContent, IndexEntry, IndexVersion
from memos_server.vec_dbs.weaviate.schema import NUMBERS

HIDDEN: Final = 2**31
"""The level of a version without content, which nobody may see."""
PARKED: Final = 2**52
"""The `from_revision` of a content that no version has yet: no revision reaches it. Exact as a float64, as which
Weaviate reads numbers."""
_LONGEST: Final = 200
"""Longer tokens and terms are kept as their digest, UTF-8 bytes."""

FACET: Final = "f"
ENTITY: Final = "e"
MEMORY: Final = "u"
CONTENT: Final = "c"
STATE: Final = "s"
LABEL: Final = "l"


def token(kind: str, text: str) -> str:
    """Returns the token of a facet, an entity and so on."""
    if len(text) * 4 > _LONGEST and len(text.encode()) > _LONGEST:
        return f"{kind}#{hashlib.sha256(text.encode()).hexdigest()}."
    return f"{kind}:{text}."


def term(text: str) -> str:
    """Returns a term as it is indexed: without white space, which would split it, and not too long."""
    if len(text) * 4 <= _LONGEST and text.split() == [text]:
        return text
    if text.split() == [text] and len(text.encode()) <= _LONGEST:
        return text
    return f"#{hashlib.sha256(text.encode()).hexdigest()}"


def joined(terms: Sequence[str]) -> str:
    """Returns a content's terms as one text."""
    text = " ".join(terms)
    if len(text) == 0 or (text.split() == list(terms) and max(map(len, terms)) * 4 <= _LONGEST):
        return text if terms else ""
    return " ".join(map(term, terms))


def object_id(cube_uid: str, uid: str, from_revision: int) -> uuid.UUID:
    """Returns the id of a version's object: the same each time it is written."""
    return uuid.uuid5(uuid.UUID(cube_uid), f"{uid}/{from_revision}")


@dataclass(slots=True)
class Row:
    """What the index holds of a version.

    Attributes:
        uid: The memory's uid; "" of a parked content.
        since: Its `from_revision`.
        until: Its `to_revision`.
        content: The key of its content; None without one.
        state: The MemoryState number.
        label: Its own Sensitivity number.
        level: From which clearance on it is seen: the stricter of its own label and that of the memory's newest
            version, HIDDEN without content.
        created: When the memory was added, seconds since the epoch.
        updated: When the version was made.
        terms: The indexed terms.
        length: How many they are.
        words: The tokens of its facets and entities.
        numbers: Its numeric fields.
        erased: The revision whose batch erased the content; 0 when none did.
        vector: float32 (dimension,); None without one, or when it was not asked for.
        score: What the search says: a cosine or a score.
        partial: It was read without what its content says.
    """

    uid: str
    since: int
    until: int
    content: bytes | None
    state: int
    label: int
    level: int
    created: float = 0.0
    updated: float = 0.0
    terms: str = ""
    length: int = 0
    words: Sequence[str] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    erased: int = 0
    vector: NDArray[np.float32] | None = None
    score: float = 0.0
    partial: bool = False

    def current(self, revision: int) -> bool:
        """Returns whether it is its memory's version at a revision."""
        return self.since <= revision < self.until

    def entry(self) -> IndexEntry:
        """Returns the version as VerifyCube compares it with the record."""
        digest = b"" if self.vector is None else hashlib.sha256(self.vector.astype("<f4").tobytes()).digest()
        return IndexEntry(self.uid, self.since, self.until, self.content, self.state, self.label, digest)

    def erase(self, revision: int) -> None:
        """Forgets the content."""
        self.content, self.terms, self.length, self.words, self.numbers, self.vector = None, "", 0, (), {}, None
        self.level, self.erased = HIDDEN, revision


def made(version: IndexVersion, content: IndexContent | Row | None) -> Row:
    """Returns a new version, open yet."""
    row = Row(
        version.uid, version.from_revision, OPEN, None, version.state, version.sensitivity, HIDDEN,
        version.create_time, version.update_time,
    )  # fmt: skip
    if content is not None:
        fill(row, content)
        row.level = version.sensitivity
    return row


def parked(content: IndexContent) -> Row:
    """Returns a content that no version has yet."""
    row = Row("", PARKED, OPEN, None, 0, 0, HIDDEN)
    fill(row, content)
    return row


def fill(row: Row, content: IndexContent | Row) -> None:
    """Gives a version its content."""
    if isinstance(content, Row):
        row.content, row.terms, row.length, row.words = content.content, content.terms, content.length, content.words
    else:
        row.content, row.terms, row.length = content.key, joined(content.terms), len(content.terms)
        row.words = [token(FACET, each) for each in content.facets] + [token(ENTITY, each) for each in content.entities]
    row.numbers, row.vector = content.numbers, content.vector


def to_object(cube_uid: str, row: Row) -> DataObject[Any, Any]:
    """Returns the object of a version."""
    tokens = list(row.words)
    key = "" if row.content is None else row.content.hex()
    if key:
        tokens.append(token(CONTENT, key))
    properties: dict[str, Any] = {
        "row": _told(row, key),
        "uid": row.uid,
        "level": row.level,
        "length": row.length,
        "from_revision": row.since,
        "terms": row.terms,
        "tokens": tokens,
    }
    if row.uid:
        tokens.append(token(MEMORY, row.uid))
        if key:
            tokens += [token(STATE, str(row.state)), token(LABEL, str(row.label))]
        properties |= {"create_time": row.created + 0.0, "update_time": row.updated + 0.0}
    if row.until != OPEN:
        properties["to_revision"] = row.until
    properties |= {name: float(row.numbers[name]) + 0.0 for name in NUMBERS if name in row.numbers}
    vector = None if row.vector is None else row.vector.tolist()
    name = row.uid or key
    return DataObject(properties=properties, uuid=object_id(cube_uid, name, row.since), vector=vector)


def emptied(cube_uid: str, row: Row) -> DataObject[Any, Any]:
    """Returns a version's object as one that says nothing and is never found, to be written over."""
    nothing = to_object(cube_uid, Row("", PARKED, OPEN, None, 0, 0, HIDDEN))
    return DataObject(properties=nothing.properties, uuid=object_id(cube_uid, row.uid, row.since))


def _told(row: Row, key: str) -> str:
    """Returns what a version is, in one property: of many objects Weaviate gives one property in half the time of
    seven, and they are read in a third."""
    until = 0 if row.until == OPEN else row.until
    numbers = f"{row.since} {until} {row.level} {row.state} {row.length} {row.label} {row.erased}"
    return f"{row.uid or '-'} {numbers} {key or '-'}"


LIGHT: Final = ["row"]
"""The properties of a row without what its content says."""
RANKED: Final = [*LIGHT, "terms"]
"""Those that its BM25 score needs."""
FULL: Final = [*RANKED, "tokens", *NUMBERS]


def from_results(results: Iterable[Any], properties: Sequence[str]) -> list[Row]:
    """Returns the versions that a search found, in their order.

    Args:
        results: What it found.
        properties: What it asked for; the rest of a row has no value.

    Raises:
        MipError: DATA_CORRUPT: an object is none of a version.
    """
    terms, tokens = "terms" in properties, "tokens" in properties
    try:
        return [_row(each, terms=terms, tokens=tokens) for each in results]
    except ValueError as error:
        raise MipError(
            "DATA_CORRUPT",
            "the search index holds an object that is no version of a memory; make it anew with `memos index rebuild`",
        ) from error


def _row(result: Any, *, terms: bool, tokens: bool) -> Row:
    have = result.properties.non_ref_props.fields
    uid, since, until, level, state, length, label, erased, key = have["row"].text_value.split(" ")
    found = result.metadata
    row = Row(
        "" if uid == "-" else uid,
        int(since),
        int(until) or OPEN,
        None if key == "-" else bytes.fromhex(key),
        int(state),
        int(label),
        int(level),
        terms=have["terms"].text_value if terms else "",
        length=int(length),
        erased=int(erased),
        vector=_vector(found),
        # Of the dot product Weaviate gives the negative, so that less is nearer.
        score=-float(found.distance) if found.distance_present else float(found.score),
        partial=not tokens,
    )
    if tokens:
        row.words = [each for each in have["tokens"].list_value.text_values.values if each[0] in (FACET, ENTITY)]
        row.created, row.updated = have["create_time"].number_value, have["update_time"].number_value
        row.numbers = {name: have[name].number_value for name in NUMBERS[2:] if have[name].HasField("number_value")}
    return row


def _vector(found: Any) -> NDArray[np.float32] | None:
    named = found.vectors
    held = named[0].vector_bytes if named else found.vector_bytes
    return np.frombuffer(held, "<f4") if held else None
