"""A cube as a sequential machine: what each call does to it and answers, for the checker of histories.

A state is the end of a chain: it has the revision, what every memory holds, and the state before. Its digest covers all
effects since the beginning, so two states with one digest have the same past and hence the same future, rollbacks
included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from tests.engines.linearizability import Operation

ACTIVE: Final = "ACTIVE"
ARCHIVED: Final = "ARCHIVED"
DELETED: Final = "DELETED"
_MAY_ARCHIVE: Final = frozenset({ACTIVE, DELETED})


class Held(NamedTuple):
    """A memory: its words, its state, and the revision that made this version."""

    value: str
    state: str
    revision: int

    @property
    def versioned(self) -> tuple[str, str]:
        """What an etag covers of it."""
        return self.value, self.state


@dataclass(frozen=True, slots=True)
class Add:
    """AddMemories: pairs (id, words); `expected` is expected_revision, 0 for a blind addition."""

    items: tuple[tuple[str, str], ...]
    expected: int = 0


@dataclass(frozen=True, slots=True)
class Update:
    """UpdateMemory; `seen` is what the etag stands for: words and state, None without an etag."""

    id: str
    value: str
    seen: tuple[str, str] | None = None
    expected: int = 0


@dataclass(frozen=True, slots=True)
class Archive:
    """TransitionMemories to ARCHIVED."""

    id: str
    expected: int = 0


@dataclass(frozen=True, slots=True)
class Rollback:
    """RollbackCube."""

    to: int
    expected: int = 0


@dataclass(frozen=True, slots=True)
class GetHead:
    """GetCube: the revision of the head."""


@dataclass(frozen=True, slots=True)
class Get:
    """GetMemory."""

    id: str


@dataclass(frozen=True, slots=True)
class ListAll:
    """ListMemories, all pages, deleted ones too."""


@dataclass(frozen=True, slots=True)
class Find:
    """SearchMemories for the ACTIVE memories whose id begins with a writer's name; answers that say `stale` or
    `unreachable` are none of it."""

    writer: str


Call: TypeAlias = Add | Update | Archive | Rollback | GetHead | Get | ListAll | Find


@dataclass(frozen=True, slots=True)
class Done:
    """A write took effect as this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A write had no effect: the reason, and the head's revision where the error tells it (0 where not)."""

    reason: str
    current: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """What a read found: a revision, a memory (None when there is none), or memories by id."""

    found: int | Held | frozenset[tuple[str, Held]] | None


Answer: TypeAlias = Done | Refused | Value


@dataclass(frozen=True, slots=True, eq=False)
class CubeState:
    """A cube at one revision."""

    revision: int
    digest: bytes
    memories: Mapping[str, Held]
    before: CubeState | None = field(repr=False, default=None)

    def at(self, revision: int) -> CubeState:
        """Returns the state at an earlier revision."""
        state = self
        while state.revision > revision:
            assert state.before is not None
            state = state.before
        return state


def _after(state: CubeState, changed: Mapping[str, Held], call: Call) -> CubeState:
    digest = hashlib.blake2b(state.digest + repr(call).encode(), digest_size=16).digest()
    return CubeState(state.revision + 1, digest, {**state.memories, **changed}, state)


def write(state: CubeState, call: Call) -> CubeState | Refused:
    """Returns the state after a write, or why it is refused."""
    if isinstance(call, GetHead | Get | ListAll | Find):
        raise TypeError(f"{call} is no write")
    memories, now = state.memories, state.revision + 1
    stale = bool(call.expected) and call.expected != state.revision
    mismatch = Refused("REVISION_MISMATCH", state.revision)
    if isinstance(call, Add):
        if stale:
            return mismatch
        if any(id_ in memories for id_, _ in call.items):
            return Refused("ALREADY_EXISTS")
        return _after(state, {id_: Held(value, ACTIVE, now) for id_, value in call.items}, call)
    if isinstance(call, Rollback):
        if stale:
            return mismatch
        if call.to > state.revision:
            return Refused("REVISION_NOT_FOUND", state.revision)
        return _after(state, _rolled_back(state, state.at(call.to), now), call)
    held = memories.get(call.id)
    # What exists comes before everything else.
    if held is None:
        return Refused("MEMORY_NOT_FOUND")
    if stale:
        return mismatch
    if isinstance(call, Update):
        if call.seen is not None and call.seen != held.versioned:
            return Refused("ETAG_MISMATCH")
        if held.state == DELETED:
            return Refused("INVALID_TRANSITION")
        return _after(state, {call.id: Held(call.value, held.state, now)}, call)
    if held.state not in _MAY_ARCHIVE:
        return Refused("INVALID_TRANSITION")
    return _after(state, {call.id: Held(held.value, ARCHIVED, now)}, call)


def _rolled_back(state: CubeState, then: CubeState, now: int) -> dict[str, Held]:
    changed = {}
    for id_, held in state.memories.items():
        past = then.memories.get(id_)
        wanted = (held.value, DELETED) if past is None else past.versioned
        if wanted != held.versioned:
            changed[id_] = Held(*wanted, now)
    return changed


def read(state: CubeState, call: Call) -> Value:
    """Returns what a read finds."""
    if isinstance(call, GetHead):
        return Value(state.revision)
    if isinstance(call, Get):
        return Value(state.memories.get(call.id))
    if isinstance(call, ListAll):
        return Value(frozenset(state.memories.items()))
    if isinstance(call, Find):
        own = f"{call.writer}-"
        return Value(
            frozenset(
                (id_, held) for id_, held in state.memories.items() if id_.startswith(own) and held.state == ACTIVE
            )
        )
    raise TypeError(f"{call} is no read")


def changes(call: Call) -> bool:
    """Returns whether a call is a write."""
    return isinstance(call, Add | Update | Archive | Rollback)


class CubeModel:
    """The machine that `check` asks."""

    def __init__(self, operations: Iterable[Operation], start: int = 1) -> None:
        """Starts from an empty cube.

        Args:
            operations: The history. An open write cannot have taken effect as a revision that an answer names.
            start: The revision of the empty cube.
        """
        self._start = start
        self._answered = {op.answer.revision for op in operations if isinstance(op.answer, Done)}

    def initial(self) -> CubeState:
        """Returns the empty cube."""
        return CubeState(self._start, b"", {})

    def key(self, state: CubeState) -> bytes:
        """Returns what covers the state's whole past."""
        return state.digest

    def step(self, state: CubeState, operation: Operation) -> CubeState | None:
        """Returns the state after an operation; None when its answer does not fit here."""
        call, answer = operation.call, operation.answer
        if not changes(call):
            return state if answer is not None and read(state, call) == answer else None
        if isinstance(answer, Done) and answer.revision != state.revision + 1:
            return None
        if answer is None and state.revision + 1 in self._answered:
            # The next revision was told to another caller.
            return None
        after = write(state, call)
        if isinstance(after, Refused):
            return state if isinstance(answer, Refused) and _fits(answer, after, state, call) else None
        return None if isinstance(answer, Refused) else after


def _fits(told: Refused, right: Refused, state: CubeState, call: Call) -> bool:
    if isinstance(call, Update) and told.reason != right.reason and call.id in state.memories:
        # Of several reasons to refuse an update any may be told: they are looked at before and in the transaction.
        held = state.memories[call.id]
        return (told.reason == "INVALID_TRANSITION" and held.state == DELETED) or (
            told.reason == "ETAG_MISMATCH" and call.seen is not None and call.seen != held.versioned
        )
    return told.reason == right.reason and (not told.current or told.current == right.current)
