"""The table of permitted transitions between states, read from the options of MemoryState (memory.proto)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from memos_server._pb.mip.v1 import options_pb2
from memos_server._pb.mip.v1.memory_pb2 import MemoryState

_PREFIX = "MEMORY_STATE_"


def may_transition(frm: int, to: int) -> bool:
    """Returns whether TransitionMemories may lead from one state to another; MERGED and PURGED have RPCs of their own.

    Args:
        frm: The MemoryState number that the memory has.
        to: The one that it would get.
    """
    return to in _transitions().get(frm, frozenset())


def name(state: int) -> str:
    """Returns the name of a MemoryState number without the common prefix, such as `ACTIVE`.

    Raises:
        KeyError: There is no such state.
    """
    return MemoryState.DESCRIPTOR.values_by_number[state].name.removeprefix(_PREFIX)


@cache
def _transitions() -> Mapping[int, frozenset[int]]:
    """Returns the table; a name in the proto that is no state is a KeyError, so a typo there fails its test."""
    numbers = {value.name.removeprefix(_PREFIX): value.number for value in MemoryState.DESCRIPTOR.values}
    table = {}
    for value in MemoryState.DESCRIPTOR.values:
        options: Any = value.GetOptions()  # the stubs do not know that `state_rule` extends these options
        rule: options_pb2.StateRule = options.Extensions[options_pb2.state_rule]
        table[value.number] = frozenset(numbers[to] for to in rule.transition_to)
    return table
