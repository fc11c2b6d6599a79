"""The checker of histories: it accepts what a correct store does, however its calls overlap, and finds each fault."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines.cube_model import (
    ACTIVE,
    Add,
    Archive,
    Call,
    CubeModel,
    CubeState,
    Done,
    Find,
    Get,
    GetHead,
    Held,
    ListAll,
    Refused,
    Rollback,
    Update,
    Value,
    changes,
    read,
    write,
)
from tests.engines.history import History, LogEntry, log_problems, readings, resolved
from tests.engines.linearizability import Operation, TooHardError, check

SEEDS = st.integers(0, 2**32)


@dataclass
class Simulated:
    """A store without faults, or with one, under clients whose calls overlap at random."""

    rng: random.Random
    fault: str = ""
    clients: int = 3
    calls: int = 24
    lost: float = 0.1
    state: CubeState = field(default_factory=lambda: CubeState(1, b"", {}))
    operations: list[Operation] = field(default_factory=list)
    log: list[LogEntry] = field(default_factory=lambda: [LogEntry(1, "made")])
    struck: bool = False

    def run(self) -> Simulated:
        """Makes the history: each call begins, takes effect and is answered in three steps between those of others."""
        clock = itertools.count(1)
        running: dict[int, tuple[Call, str, int, bool, object]] = {}
        begun = 0
        while begun < self.calls or running:
            client = self.rng.randrange(self.clients)
            moment = next(clock)
            if client not in running:
                if begun < self.calls:
                    call = self.chosen(begun)
                    request_id = str(uuid.UUID(int=self.rng.getrandbits(128))) if changes(call) else ""
                    running[client] = call, request_id, moment, False, None
                    begun += 1
                continue
            call, request_id, invoked, done, answer = running[client]
            if not done:
                if self.rng.random() < self.lost:
                    # The caller never hears of it; half of the time it happened.
                    if self.rng.random() < 0.5:
                        self.effect(call, request_id)
                    del running[client]
                    if changes(call):
                        self.operations.append(Operation(f"c{client}", call, None, invoked, moment, request_id))
                    continue
                running[client] = call, request_id, invoked, True, self.effect(call, request_id)
                continue
            del running[client]
            self.operations.append(Operation(f"c{client}", call, answer, invoked, moment, request_id))
        return self

    def chosen(self, number: int) -> Call:
        """Returns a call that makes sense now, most of the time."""
        known = list(self.state.memories) or ["a-0"]
        id_, expected = self.rng.choice(known), self.rng.choice((0, 0, self.state.revision))
        held = self.state.memories.get(id_)
        seen = held.versioned if held is not None and self.rng.random() < 0.5 else None
        return self.rng.choice(
            (
                Add(((f"{self.rng.choice('ab')}-{number}", f"v{number}"),), expected),
                Add(((f"{self.rng.choice('ab')}-{number}", f"v{number}"),)),
                Update(id_, f"v{number}", seen, expected),
                Archive(id_, expected),
                Rollback(max(1, self.state.revision - self.rng.randrange(4)), expected),
                GetHead(),
                Get(id_),
                ListAll(),
                Find(self.rng.choice("ab")),
            )
        )

    def effect(self, call: Call, request_id: str) -> Done | Refused | Value:
        """Lets a call take effect; once, at some moment in the middle, with the fault."""
        strikes = not self.struck and self.state.revision > 3 and self.fault
        if not changes(call):
            if strikes == "stale read" and read(self.state.at(self.state.revision - 1), call) != read(self.state, call):
                self.struck = True
                return read(self.state.at(self.state.revision - 1), call)
            return read(self.state, call)
        after = write(self.state, call)
        if isinstance(after, Refused):
            if strikes == "condition ignored" and after.reason in ("REVISION_MISMATCH", "ETAG_MISMATCH"):
                self.struck = True
                after = write(self.state, Add(((f"x{request_id}", "forced"),)))
                assert isinstance(after, CubeState)
            else:
                return after
        told = after.revision
        if strikes == "lost update" and isinstance(call, Add | Update):
            self.struck = True
            self.log.append(LogEntry(told, request_id))
            self.state = CubeState(told, after.digest, self.state.memories, self.state)
            return Done(told)
        if strikes == "lost write":
            # Acknowledged and gone, the revision with it.
            self.struck = True
            return Done(told)
        self.state = after
        self.log.append(LogEntry(told, request_id))
        if strikes == "duplicated append" and isinstance(call, Add):
            self.struck = True
            self.log.append(LogEntry(told + 1, request_id))
            twice = {f"{id_}again": Held(value, ACTIVE, told + 1) for id_, value in call.items}
            self.state = CubeState(told + 1, after.digest + b"2", {**after.memories, **twice}, after)
        return Done(told)


def final_reads(made: Simulated) -> list[Operation]:
    """Returns reads of everything, after all the rest."""
    last = 10**9
    calls = (GetHead(), ListAll())
    return [Operation("last", call, read(made.state, call), last, last + 1) for call in calls]


def verdict(operations: Sequence[Operation]) -> bool:
    """Returns what the search says, without any help of the log."""
    return bool(check(operations, CubeModel(operations)))


def by_trying_all(operations: Sequence[Operation]) -> bool:
    """Returns what trying every order says: the definition itself."""
    model = CubeModel(operations)
    answered = [op for op in operations if not op.open]
    opened = [op for op in operations if op.open]
    for count in range(len(opened) + 1):
        for some in itertools.combinations(opened, count):
            for order in itertools.permutations([*answered, *some]):
                possible = all(
                    not (not later.open and later.completed < earlier.invoked)
                    for earlier, later in itertools.combinations(order, 2)
                )
                state: CubeState | None = model.initial()
                for op in order if possible else ():
                    state = model.step(state, op) if state is not None else None
                if possible and state is not None:
                    return True
    return False


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_what_a_correct_store_does_is_accepted(seed: int) -> None:
    made = Simulated(random.Random(seed)).run()
    operations = made.operations + final_reads(made)
    assert verdict(operations)
    assert log_problems(operations, made.log) == []
    history = History(operations)
    assert history.explained(made.log), history.explained(made.log).explanation()


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_long_history_of_many_clients_is_judged_in_few_steps(seed: int) -> None:
    made = Simulated(random.Random(seed), clients=12, calls=600, lost=0.03).run()
    operations = resolved(made.operations + final_reads(made), made.log)
    assert check(operations, CubeModel(operations), max_steps=200_000)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.sampled_from(["", "stale read", "lost update", "lost write", "duplicated append"]))
def test_the_search_says_what_trying_every_order_says(seed: int, fault: str) -> None:
    made = Simulated(random.Random(seed), fault, clients=3, calls=6, lost=0.2)
    made.state = CubeState(1, b"", {})
    made.run()
    operations = [*made.operations, *final_reads(made)][:7]
    assert verdict(operations) == by_trying_all(operations)


@pytest.mark.parametrize("fault", ["lost update", "lost write", "duplicated append", "condition ignored"])
def test_a_store_with_a_fault_is_found_out(fault: str) -> None:
    found = struck = 0
    for seed in range(150):
        made = Simulated(random.Random(seed), fault, lost=0.0).run()
        operations = made.operations + final_reads(made)
        assert made.struck or verdict(operations)
        struck += made.struck
        found += made.struck and not (verdict(operations) and History(operations).explained(made.log))
    assert struck > 60
    # A write that later ones cover entirely, a rollback above all, leaves no trace in what can be read.
    assert found >= (struck * 0.9 if fault == "lost update" else struck)


def test_a_stale_read_is_found_out_unless_it_overlaps_the_write_that_it_misses() -> None:
    found = struck = 0
    for seed in range(300):
        made = Simulated(random.Random(seed), "stale read", clients=2, lost=0.0).run()
        struck += made.struck
        found += made.struck and not verdict(made.operations + final_reads(made))
    assert struck > 100
    assert found > struck / 2


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_two_writes_told_in_the_wrong_order_are_found_out_by_search_and_log(seed: int) -> None:
    made = Simulated(random.Random(seed), clients=1, calls=30, lost=0.0).run()
    writes = [op for op in made.operations if isinstance(op.answer, Done)]
    if len(writes) < 2:
        return
    first, second = random.Random(seed).sample(writes, 2)
    swapped = {
        id(first): Operation("c0", first.call, second.answer, first.invoked, first.completed, first.request_id),
        id(second): Operation("c0", second.call, first.answer, second.invoked, second.completed, second.request_id),
    }
    operations = [swapped.get(id(op), op) for op in made.operations]
    assert not verdict(operations)
    told = {op.request_id: op.answer.revision for op in operations if isinstance(op.answer, Done)}
    consistent = sorted((LogEntry(revision, request) for request, revision in told.items()), key=lambda e: e.revision)
    assert any("began after" in line for line in log_problems(operations, [LogEntry(1, "made"), *consistent]))


def test_the_log_shows_what_was_lost_doubled_or_made_up() -> None:
    add = Operation("c", Add((("a1", "v"),)), Done(2), 1, 2, "r1")
    refused = Operation("c", Update("a1", "w", expected=1), Refused("REVISION_MISMATCH", 2), 3, 4, "r2")
    start = LogEntry(1, "made")
    assert log_problems([add, refused], [start, LogEntry(2, "r1")]) == []
    assert "the log has nothing" in log_problems([add], [start])[0]
    assert "took effect 2 times" in log_problems([add], [start, LogEntry(2, "r1"), LogEntry(3, "r1")])[0]
    assert "nobody asked for commit 3" in log_problems([add], [start, LogEntry(2, "r1"), LogEntry(3, "other")])[0]
    assert "was refused" in log_problems([add, refused], [start, LogEntry(2, "r1"), LogEntry(3, "r2")])[0]
    assert "are not 1 to 2" in log_problems([add], [start, LogEntry(3, "r1")])[0]
    assert "does not continue" in log_problems([add], [start, LogEntry(2, "r1", b"d", b"other")])[0]


def test_an_open_write_may_have_happened_or_not_but_only_once_and_not_before_it_began() -> None:
    opened = Operation("c", Add((("a1", "v"),)), None, 10, 0, "r1")
    empty = Operation("d", ListAll(), Value(frozenset()), 20, 21)
    there = Operation("d", ListAll(), Value(frozenset({("a1", Held("v", ACTIVE, 2))})), 30, 31)
    assert verdict([opened, empty, there])
    assert verdict([opened, empty])
    early = Operation("d", there.call, there.answer, 1, 2)
    assert not verdict([opened, early])
    gone = Operation("d", ListAll(), Value(frozenset()), 40, 41)
    assert not verdict([opened, there, gone])


def test_a_verdict_names_the_operation_that_nothing_explains() -> None:
    add = Operation("c", Add((("a1", "v"),)), Done(2), 1, 2, "r1")
    stale = Operation("d", GetHead(), Value(1), 3, 4)
    found = check([add, stale], CubeModel([add, stale]))
    assert not found
    assert found.order == (add,)
    assert found.stuck[0] is stale
    assert "GetHead" in found.explanation()


def test_a_search_that_takes_too_long_gives_no_verdict() -> None:
    add = Operation("c", Add((("a1", "v"),)), Done(2), 1, 2, "r1")
    with pytest.raises(TooHardError, match="no verdict after 0 steps"):
        check([add], CubeModel([add]), max_steps=0)


def test_a_search_for_one_writer_expects_nothing_of_another_whose_name_begins_alike() -> None:
    held = Held("v", ACTIVE, 2)
    state = CubeState(2, b"", {"w1-1": held, "w10-1": held, "w1-2": held._replace(state="ARCHIVED")})
    assert read(state, Find("w1")) == Value(frozenset({("w1-1", held)}))


def test_a_read_that_cannot_be_placed_is_told_with_what_it_lacks() -> None:
    add = Operation("c", Add((("a-1", "v"), ("a-2", "v"))), Done(2), 1, 2, "r1")
    log = [LogEntry(1, "", b"1", b""), LogEntry(2, "r1", b"2", b"1")]
    half = Operation("d", Find("a"), Value(frozenset({("a-1", Held("v", ACTIVE, 2))})), 3, 4)
    (told,) = readings([add, half], log, [add, half])
    assert "nearest is 2, of which it lacks [('a-2'" in told
