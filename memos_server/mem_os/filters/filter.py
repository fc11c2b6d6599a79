"""A parsed filter: its exact evaluation, and the predicate that an index answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from memos_server._pb.mip.v1.memory_pb2 import Memory
from memos_server.mem_os.filters.fields import FALSE, TRUE, Leaf, Subject, compile_restriction
from memos_server.mem_os.filters.syntax import AllOf, AnyOf, Negated, Node, Restriction, read
from memos_server.vec_dbs.base import All, Not, Predicate, Some


class _Compiled(NamedTuple):
    test: Callable[[Subject], bool]
    superset: Predicate
    subset: Predicate


class Filter:
    """A filter over memories. Immutable; made by `parse`.

    Attributes:
        text: The filter as it was written.
    """

    def __init__(self, text: str, node: Node | None) -> None:
        """Compiles a tree; use `parse`."""
        self.text = text
        compiled = _compile(node) if node is not None else _Compiled(lambda _: True, TRUE, TRUE)
        self._test = compiled.test
        self._superset = compiled.superset
        self._fields = frozenset(_fields(node))

    def matches(self, memory: Memory) -> bool:
        """Returns whether a memory passes."""
        return self._test(Subject(memory))

    def mentions(self, field: str) -> bool:
        """Returns whether the filter has a condition on a field, such as `state`, negated or not."""
        return field in self._fields

    def pushdown(self) -> Predicate:
        """Returns a predicate over `facets_of`, `numbers_of`, times and state that is true for every memory that
        matches, and for as few others as an index can tell apart."""
        return self._superset

    def __repr__(self) -> str:
        """Returns the text, quoted."""
        return f"Filter({self.text!r})"


@lru_cache(maxsize=1024)
def parse(text: str) -> Filter:
    """Returns the filter that a text describes; the empty text passes every memory.

    Args:
        text: The filter (docs/spec/filter.md), at most 4,096 bytes of UTF-8, 32 levels and 100 terms.

    Raises:
        MipError: INVALID_FILTER with the position and what was expected there.
    """
    return Filter(text, read(text))


def _fields(node: Node | None) -> Iterable[str]:
    match node:
        case Restriction():
            yield node.path[0]
        case Negated():
            yield from _fields(node.part)
        case AllOf() | AnyOf():
            for part in node.parts:
                yield from _fields(part)


def _compile(node: Node) -> _Compiled:
    match node:
        case Restriction():
            leaf = compile_restriction(node)
            compiled = _of_leaf(leaf)
            return _negated(compiled) if node.operator == "!=" else compiled
        case Negated():
            return _negated(_compile(node.part))
        case AllOf():
            parts = [_compile(part) for part in node.parts]
            tests = [part.test for part in parts]
            return _Compiled(
                lambda subject: all(test(subject) for test in tests),
                _all(part.superset for part in parts),
                _all(part.subset for part in parts),
            )
        case AnyOf():
            parts = [_compile(part) for part in node.parts]
            tests = [part.test for part in parts]
            return _Compiled(
                lambda subject: any(test(subject) for test in tests),
                _some(part.superset for part in parts),
                _some(part.subset for part in parts),
            )


def _of_leaf(leaf: Leaf) -> _Compiled:
    return _Compiled(leaf.test, leaf.superset, leaf.subset)


def _negated(part: _Compiled) -> _Compiled:
    test = part.test
    return _Compiled(lambda subject: not test(subject), _not(part.subset), _not(part.superset))


def _all(parts: Iterable[Predicate]) -> Predicate:
    kept = tuple(part for part in parts if part != TRUE)
    if FALSE in kept:
        return FALSE
    return kept[0] if len(kept) == 1 else All(kept)


def _some(parts: Iterable[Predicate]) -> Predicate:
    kept = tuple(part for part in parts if part != FALSE)
    if TRUE in kept:
        return TRUE
    return kept[0] if len(kept) == 1 else Some(kept)


def _not(part: Predicate) -> Predicate:
    if part == TRUE:
        return FALSE
    if part == FALSE:
        return TRUE
    return part.part if isinstance(part, Not) else Not(part)
