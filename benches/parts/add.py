"""Durable adding with supplied vectors: batches of 1, 100 and 1,000 against plain SQLite, and 64 clients at once."""

from __future__ import annotations

import time

import numpy as np
from harness.calls import add_request, memories_of, path_of
from harness.figures import Figure
from harness.load import Job
from harness.texts import cycled
from harness.world import World

from parts.raw_sqlite import RawSqlite, fsyncs_a_second

_MANY = 64


def measure(world: World) -> list[Figure]:
    """Returns the figures of AddMemories."""
    return [*_batches(world), *_together(world)]


def _batches(world: World) -> list[Figure]:
    texts, vectors = world.supply(world.sizes[1])
    raw = RawSqlite(world.folder / "raw.sqlite")
    figures = []
    for batch in (1, 100, 1000):
        cube = world.caller.make_cube(f"add-{batch}")
        count = {1: 100, 100: 10, 1000: 4}[batch] if not world.quick else 3
        acknowledged: list[float] = []
        searchable: list[float] = []
        plain: list[float] = []
        for turn in range(-1, world.rounds):
            # Other texts each turn, so that nothing is known from before.
            places = np.arange(count * batch) + (turn + 1) * count * batch
            here = cycled(texts, int(places[-1]) + 1)[int(places[0]) :]
            parts = [slice(low, low + batch) for low in range(0, count * batch, batch)]
            requests = [
                add_request(cube, memories_of(here[part], vectors[places[part] % len(vectors)])) for part in parts
            ]
            rows = [raw.rows(here[part], vectors[places[part] % len(vectors)]) for part in parts]
            began = time.perf_counter()
            for request in requests:
                world.caller.raw("AddMemories", request)
            added = time.perf_counter()
            world.caller.searchable(cube)
            seen = time.perf_counter()
            for row in rows:
                raw.write(row)
            written = time.perf_counter()
            if turn >= 0:
                acknowledged.append(count * batch / (added - began))
                searchable.append(count * batch / (seen - began))
                plain.append(count * batch / (written - seen))
        against = "plain SQLite, FULL, same rows and FTS5"
        goal = 0.5 if batch == 1000 else None
        what = f"add, batch {batch}, vectors supplied"
        figures += [
            Figure(f"{what}, acknowledged", "memories/s", acknowledged, plain, against, at_least=goal),
            Figure(f"{what}, searchable", "memories/s", searchable, plain, against, at_least=goal),
        ]
    raw.close()
    return figures


def _together(world: World) -> list[Figure]:
    """64 clients on one cube against one, beside what the disk and the transport permit."""
    texts, vectors = world.supply(world.sizes[0])
    cube = world.caller.make_cube("add-together")
    requests = [add_request(cube, memories_of([text], vectors[n : n + 1])) for n, text in enumerate(texts)]
    answer = len(world.caller.raw("AddMemories", requests[0]))
    seconds = 0.3 if world.quick else 2.0
    one: list[float] = []
    many: list[float] = []
    echo_one: list[float] = []
    echo_many: list[float] = []
    syncs: list[float] = []
    refused: dict[str, int] = {}
    calls = 0
    with world.echo(answer) as echo, world.clients() as process:
        for _ in range(world.rounds):
            for target, rates, clients in (
                (world.server, one, 1),
                (world.server, many, _MANY),
                (echo, echo_one, 1),
                (echo, echo_many, _MANY),
            ):
                job = Job(target.address, world.server.token, path_of("AddMemories"), requests, clients, seconds)
                done = process.run(job)
                rates.append(done.rate)
                if target is world.server:
                    calls += len(done.times) + sum(done.refused.values())
                    for code, count in done.refused.items():
                        refused[code] = refused.get(code, 0) + count
            syncs.append(fsyncs_a_second(world.folder, seconds / 4))
    words = ", ".join(f"{count} {code}" for code, count in refused.items()) or "none"
    return [
        Figure(
            "64 clients add to one cube, batch 1",
            "adds/s",
            many,
            one,
            "one client",
            at_least=10.0,
            note=f"of {calls} calls refused: {words} (0 ABORTED is the goal)",
        ),
        Figure(
            "the same through a bare echo: what transport and client permit",
            "calls/s",
            echo_many,
            echo_one,
            "one client of the echo",
        ),
        Figure("64 clients add to one cube", "adds/s", many, echo_many, "64 clients of the echo: the ceiling"),
        Figure("one client adds, batch 1", "adds/s", one, syncs, "4 KiB fdatasync/s of this disk"),
    ]
