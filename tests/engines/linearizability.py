"""Is a history of concurrent operations linearizable? The search of Wing and Gong, with the memory of Lowe's.

A history is linearizable when every operation can be given one moment between its beginning and its end so that, taken
in the order of these moments, all answers are those of a sequential model (Herlihy and Wing 1990). The search takes an
operation that may come first, asks the model whether its answer fits, and goes on with the rest; what fits nowhere is
taken back (Wing and Gong 1993). A set of operations taken and a state reached that were met before are not tried again
(Lowe 2017, "Testing for linearizability"); the list of calls and returns is the one of Porcupine (Athalye 2017).

An operation whose answer never came is *open*: it may take effect at any moment after its beginning, or never.

Two rules keep failing histories from exploding. An operation that changes nothing and fits is never worth taking back:
an order with it later is as good with it now. And a model may refuse an open operation where it cannot be the next one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Operation:
    """One call and what came of it.

    Attributes:
        process: Who called; a process has one call at a time.
        call: What was asked, a value that the model knows.
        answer: What the caller got; None when the caller does not know whether it took effect.
        invoked: When it began, in any unit that never goes back.
        completed: When the answer had come; not looked at when there is none.
        request_id: What makes its repetition safe; empty for reads.
    """

    process: str
    call: Any
    answer: Any
    invoked: int
    completed: int = 0
    request_id: str = ""

    @property
    def open(self) -> bool:
        """Whether the answer never came."""
        return self.answer is None


S = TypeVar("S")


class Model(Protocol[S]):
    """What the operations do, one after the other."""

    def initial(self) -> S:
        """Returns the state before the first operation."""
        ...

    def step(self, state: S, operation: Operation) -> S | None:
        """Returns the state after an operation, the same object when it changes nothing; None when its answer, if it
        has one, is not what the state gives, or an open one does nothing here."""
        ...

    def key(self, state: S) -> Hashable:
        """Returns what is equal for equal states."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a history is linearizable.

    Attributes:
        ok: True when it is.
        order: The operations in an order that explains the answers; the longest one found when there is none for all.
        stuck: What could not be placed after `order`; empty when ok. The first of them had to be.
        tried: The number of steps that were asked of the model.
    """

    ok: bool
    order: tuple[Operation, ...]
    stuck: tuple[Operation, ...]
    tried: int

    def __bool__(self) -> bool:
        """Returns `ok`."""
        return self.ok

    def explanation(self) -> str:
        """Returns in words why not: the last operations that could be placed, and those that could not."""
        if self.ok:
            return f"linearizable: {len(self.order)} operations, {self.tried} steps"
        lines = [f"not linearizable: {len(self.order)} operations can be placed, then none of these:"]
        lines += [f"  - {operation}" for operation in self.stuck[:8]]
        return "\n".join([*lines, "after", *(f"  - {operation}" for operation in self.order[-6:])])


class _Entry:
    """A call or a return in the list of those that are not placed yet."""

    __slots__ = ("before", "index", "match", "next")

    def __init__(self, index: int) -> None:
        self.index = index
        self.match: _Entry | None = None  # of a call: its return; None for an open one and for returns
        self.before: _Entry | None = None
        self.next: _Entry | None = None


def _listed(operations: Sequence[Operation]) -> tuple[_Entry, dict[int, _Entry]]:
    """Returns the list of calls and returns in the order of time, behind a head of its own, and the calls."""
    calls = {index: _Entry(index) for index in range(len(operations))}
    moments = []
    for index, operation in enumerate(operations):
        # At one moment calls come before returns: what touches counts as concurrent, which never accuses falsely.
        moments.append((operation.invoked, 0, index, calls[index]))
        if not operation.open:
            answer = _Entry(index)
            calls[index].match = answer
            moments.append((operation.completed, 1, index, answer))
    head = last = _Entry(-1)
    for *_, entry in sorted(moments, key=lambda moment: moment[:3]):
        last.next, entry.before = entry, last
        last = entry
    return head, calls


def _unlink(entry: _Entry) -> None:
    assert entry.before is not None
    entry.before.next = entry.next
    if entry.next is not None:
        entry.next.before = entry.before


def _relink(entry: _Entry) -> None:
    assert entry.before is not None
    entry.before.next = entry
    if entry.next is not None:
        entry.next.before = entry


class TooHardError(Exception):
    """The search was ended because it took too many steps; the history is neither accepted nor rejected."""


def check(operations: Sequence[Operation], model: Model[S], *, max_steps: int = 5_000_000) -> Verdict:
    """Searches for an order that explains every answer.

    Args:
        operations: The history, in any order.
        model: What the operations do.
        max_steps: The most steps to ask of the model.

    Raises:
        TooHardError: The search took more steps.
    """
    head, calls = _listed(operations)
    state = model.initial()
    placed = 0  # the set of the operations placed, a bit each
    seen: set[tuple[int, Hashable]] = set()
    taken: list[tuple[_Entry, S, bool]] = []  # a call that is placed, the state before, whether it changed the state
    best: tuple[int, ...] = ()
    best_stuck: tuple[int, ...] = ()
    tried = 0
    entry = head.next
    while entry is not None:
        answer = entry.match
        if answer is None and entry is not calls[entry.index]:
            # A return: whatever is to be placed before it was tried.
            if len(taken) >= len(best):
                best = tuple(call.index for call, _, _ in taken)
                best_stuck = (entry.index, *_pending(head, calls, entry))
            while taken:
                call, state, changed = taken.pop()
                placed &= ~(1 << call.index)
                if call.match is not None:
                    _relink(call.match)
                _relink(call)
                if changed:
                    entry = call.next
                    break
            else:
                order = tuple(operations[index] for index in best)
                return Verdict(False, order, tuple(operations[index] for index in best_stuck), tried)
            continue
        tried += 1
        if tried > max_steps:
            raise TooHardError(f"no verdict after {max_steps} steps over {len(operations)} operations")
        after = model.step(state, operations[entry.index])
        changed = after is not state
        if after is None or (operations[entry.index].open and not changed):
            entry = entry.next
            continue
        now = placed | 1 << entry.index
        key = now, model.key(after)
        if changed and key in seen:
            entry = entry.next
            continue
        seen.add(key)
        taken.append((entry, state, changed))
        state, placed = after, now
        _unlink(entry)
        if answer is not None:
            _unlink(answer)
        entry = head.next
    # No return is left: what remains is open, and need not have happened.
    return Verdict(True, tuple(operations[call.index] for call, _, _ in taken), (), tried)


def _pending(head: _Entry, calls: dict[int, _Entry], until: _Entry) -> list[int]:
    """Returns the calls that had begun before a return and are not placed, but for its own."""
    found = []
    entry = head.next
    while entry is not None and entry is not until:
        if entry is calls[entry.index] and entry.index != until.index:
            found.append(entry.index)
        entry = entry.next
    return found
