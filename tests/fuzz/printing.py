"""Prints the tree of a filter, so that the parser can be held against itself."""

from __future__ import annotations

import re

from memos_server.mem_os.filters.syntax import AllOf, AnyOf, Negated, Node, Restriction, Value, read

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)


def printed(text: str) -> str:
    """Returns the printed form of a filter: one space between words, quotes wherever they are permitted."""
    node = read(text)
    return "" if node is None else _node(node)


def _node(node: Node) -> str:
    match node:
        case Restriction():
            return _restriction(node)
        case Negated(part):
            return f"NOT {_node(part)}" if isinstance(part, Restriction) else f"NOT ({_node(part)})"
        case AnyOf(parts):
            return " OR ".join(f"({_node(part)})" if isinstance(part, AllOf) else _node(part) for part in parts)
        case AllOf(parts):
            return " AND ".join(_node(part) for part in parts)


def _restriction(node: Restriction) -> str:
    head, *rest = node.path
    assert _PLAIN.fullmatch(head)
    path = ".".join([head, *map(_quoted, rest)])
    operator = f" {node.operator} " if node.operator != ":" else ":"
    return f"{path}{operator}{_value(node.value)}"


def _value(value: Value) -> str:
    return _quoted(value.text) if value.kind == "string" else value.text


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
