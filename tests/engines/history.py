"""The recording of what callers did and saw, and the checks of it against the log that the servers show afterwards.

Two checks, which trust different things. `explained` searches for an order of the operations (linearizability.py) and
trusts no order that a server tells. `log_problems` takes the log for the order and looks whether it is possible: every
write that was acknowledged stands there once, at the revision that was told, none stands there that nobody asked for,
and none before one that had been acknowledged before it began.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from tests.engines.cube_model import Answer, Call, CubeModel, CubeState, Done, Value, changes, read, write
from tests.engines.linearizability import Operation, Verdict, check


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A commit as the servers list it: its revision, digests and request_id."""

    revision: int
    request_id: str
    digest: bytes = b""
    parent_digest: bytes = b""


@dataclass(slots=True)
class Recording:
    """One call while it runs; `answer` stays None when the caller never learns what came of it."""

    answer: Answer | None = None
    dropped: bool = False

    def drop(self) -> None:
        """Leaves a call out that says nothing, such as a read that failed."""
        self.dropped = True


@dataclass(slots=True)
class History:
    """The operations on one cube, by all callers, with times of one clock of this machine."""

    operations: list[Operation] = field(default_factory=list)

    @contextmanager
    def record(self, process: str, call: Call, request_id: str = "") -> Iterator[Recording]:
        """Records a call from the block's beginning to its end; what the block raises leaves it open."""
        recording = Recording()
        begun = time.perf_counter_ns()
        try:
            yield recording
        finally:
            ended = time.perf_counter_ns()
            # A read whose answer never came says nothing.
            if not recording.dropped and (recording.answer is not None or changes(call)):
                self.operations.append(Operation(process, call, recording.answer, begun, ended, request_id))

    def explained(self, log: Sequence[LogEntry], *, start: int = 1) -> Verdict:
        """Returns whether the history is linearizable.

        Of an open write the log says whether, and as which revision, it took effect; it may have done so at any time
        after it began. Everything else is searched for.

        Args:
            log: The cube's whole log, read after the last operation.
            start: The revision of the empty cube.
        """
        operations = resolved(self.operations, log)
        return check(operations, CubeModel(operations, start))

    def counts(self) -> dict[str, int]:
        """Returns how many operations of each sort there are, and how many writes are open."""
        kinds = Counter(type(operation.call).__name__ for operation in self.operations)
        kinds["open"] = sum(operation.open for operation in self.operations)
        kinds["refused"] = sum(type(operation.answer).__name__ == "Refused" for operation in self.operations)
        return dict(sorted(kinds.items()))


def readings(operations: Iterable[Operation], log: Sequence[LogEntry], stuck: Iterable[Operation]) -> list[str]:
    """Returns in words which revisions reads have seen that cannot be placed, or what they lack and have too much.

    Args:
        operations: The history, resolved.
        log: The whole log.
        stuck: The operations that cannot be placed.
    """
    by_request = {operation.request_id: operation for operation in operations if changes(operation.call)}
    states = [CubeModel([]).initial()]
    for entry in log[states[0].revision :]:
        after = write(states[-1], by_request[entry.request_id].call) if entry.request_id in by_request else None
        if not isinstance(after, CubeState):
            break
        states.append(after)
    told = []
    for operation in stuck:
        if changes(operation.call) or not isinstance(operation.answer, Value):
            continue
        seen = [state.revision for state in states if read(state, operation.call) == operation.answer]
        text = (
            f"{operation.call} by {operation.process} saw revisions {seen[:3]} to {seen[-3:]} of {states[-1].revision}"
        )
        found = operation.answer.found
        if not seen and isinstance(found, frozenset):
            nearest = min(reversed(states), key=lambda state: len(_set(read(state, operation.call)) ^ found))
            should = _set(read(nearest, operation.call))
            lacks, extra = sorted(should - found, key=repr)[:4], sorted(found - should, key=repr)[:4]
            text += f": nearest is {nearest.revision}, of which it lacks {lacks} and has besides {extra}"
        told.append(text)
    return told


def _set(value: Value) -> frozenset[Any]:
    return value.found if isinstance(value.found, frozenset) else frozenset()


_NEVER = 1 << 62
"""A moment after all others: the return of a call whose effect is known, but not when."""


def resolved(operations: Iterable[Operation], log: Sequence[LogEntry]) -> list[Operation]:
    """Returns the history with the revisions that the log shows of open writes, without those that it does not show.

    Args:
        operations: The history.
        log: The whole log, read after the last operation.
    """
    revisions = {entry.request_id: entry.revision for entry in log if entry.request_id}
    made = []
    for operation in operations:
        if not operation.open:
            made.append(operation)
        elif operation.request_id in revisions:
            made.append(replace(operation, answer=Done(revisions[operation.request_id]), completed=_NEVER))
    return made


def log_problems(operations: Sequence[Operation], log: Sequence[LogEntry], *, start: int = 1) -> list[str]:
    """Returns in words what of a history contradicts a log; nothing when the log can be its order.

    Args:
        operations: The history; every write has a request_id.
        log: The cube's whole log, oldest first.
        start: The revision of the cube before the history; what the log has up to it is not looked at.
    """
    wrong = []
    if [entry.revision for entry in log] != list(range(1, len(log) + 1)):
        wrong.append(f"the log's revisions are not 1 to {len(log)}")
    for before, after in pairwise(log):
        if after.parent_digest != before.digest:
            wrong.append(f"commit {after.revision} does not continue commit {before.revision}")
    writes = [operation for operation in operations if changes(operation.call)]
    asked = {operation.request_id for operation in writes}
    wrong += [
        f"nobody asked for commit {entry.revision} ({entry.request_id or 'without request_id'})"
        for entry in log[start:]
        if entry.request_id not in asked
    ]
    for request_id, count in Counter(entry.request_id for entry in log[start:]).items():
        if count > 1:
            wrong.append(f"request {request_id} took effect {count} times")
    by_id = {entry.request_id: entry.revision for entry in log}
    for operation in writes:
        told = operation.answer.revision if isinstance(operation.answer, Done) else None
        have = by_id.get(operation.request_id)
        if told is not None and have != told:
            wrong.append(f"{operation.call} was acknowledged as revision {told}; the log has {have or 'nothing'}")
        if told is None and not operation.open and have is not None:
            wrong.append(f"{operation.call} was refused and stands in the log as revision {have}")
    return wrong + _reordered(writes, by_id)


def _reordered(writes: Sequence[Operation], by_id: dict[str, int]) -> list[str]:
    """Returns the writes that stand before one that had been acknowledged before they began."""
    done = sorted((op for op in writes if isinstance(op.answer, Done)), key=lambda operation: operation.completed)
    begun = sorted((op for op in writes if op.request_id in by_id), key=lambda operation: operation.invoked)
    wrong, newest, at = [], 0, 0
    for operation in begun:
        while at < len(done) and done[at].completed < operation.invoked:
            newest = max(newest, done[at].answer.revision)
            at += 1
        if by_id[operation.request_id] <= newest:
            revision = by_id[operation.request_id]
            wrong.append(f"{operation.call} is revision {revision} and began after {newest} was acknowledged")
    return wrong
