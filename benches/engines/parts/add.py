"""Adding: single memories and batches, the server beside one transaction and one insert_many a call."""

from __future__ import annotations

from harness.figures import Figure

from engines.client import Job
from engines.stage import Stage
from engines.turns import Spent, figures, take

RAW = "raw: a transaction, then insert_many"


def measure(stage: Stage) -> list[Figure]:
    """Returns the figures of AddMemories."""
    raw, server = stage.clients("raw"), stage.clients("server")
    raw.run(Job("prepare"))
    found: list[Figure] = []
    number = 100
    for clients in (1, 8, 64):
        stage.watch.phase = f"add, {clients} clients"
        cubes = (number,)
        number += 1
        for side in (raw, server):
            side.run(Job("make", cubes=cubes, calls=1))
            side.run(Job("add", cubes=cubes, calls=20, searchable=True))
        job = Job("add", cubes=cubes, clients=clients, seconds=stage.seconds, first=1000, searchable=True)
        done = take(stage, {"raw": (raw, job), "server": (server, job)})
        what = f"add one memory to one cube, {clients} clients"
        found += figures(what, done["server"], done["raw"], RAW, at_most=1.3 if clients < 64 else None)
        found.append(
            Figure(
                f"{what}, until searchable",
                "memories/s",
                [len(each.times) / each.seen for each in done["server"]],
                [len(each.times) / each.seen for each in done["raw"]],
                RAW,
            )
        )
    found += _many_cubes(stage)
    for batch, clients, calls in ((100, 1, 20), (100, 8, 40), (1000, 1, 4)):
        stage.watch.phase = f"add, batches of {batch}"
        cubes = (number,)
        number += 1
        calls = 2 if stage.quick else calls
        for side in (raw, server):
            side.run(Job("make", cubes=cubes, calls=1))
            side.run(Job("add", cubes=cubes, calls=2, batch=batch, searchable=True))
        job = Job("add", cubes=cubes, clients=clients, calls=calls, batch=batch, first=1000, searchable=True)
        done = take(stage, {"raw": (raw, job), "server": (server, job)})
        what = f"add, batches of {batch}, {clients} client{'s' if clients > 1 else ''}"
        for name, goal, values in (
            ("acknowledged", None, [batch * each.rate for each in done["server"]]),
            ("searchable", 0.6, [batch * len(each.times) / each.seen for each in done["server"]]),
        ):
            rival = [batch * each.rate for each in done["raw"]]
            found.append(Figure(f"{what}, {name}", "memories/s", values, rival, RAW, at_least=goal))
        raw_record = [done_.record for done_ in done["raw"]]
        found.append(
            Figure(
                f"{what}, acknowledged",
                "memories/s",
                [batch * each.rate for each in done["server"]],
                [batch * len(each.times) / max(seconds, 1e-9) * clients for each, seconds in
                 zip(done["raw"], raw_record, strict=True)],
                "raw: the transaction alone",
            )
        )  # fmt: skip
        for name, which in (("raw", raw), ("server", server)):
            spent = Spent(stage)
            more = which.run(job)
            memories = len(more.times) * batch
            stage.facts[f"add {name}, batches of {batch}, {clients} clients"] = spent.a_call(memories) | {
                "the clients": round(more.cpu / memories * 1e6)
            }
    return found


def _many_cubes(stage: Stage) -> list[Figure]:
    """Single memories, each client with a cube of its own: commits a second of one record."""
    raw, server = stage.clients("raw"), stage.clients("server")
    stage.watch.phase = "add, 32 cubes"
    cubes = tuple(range(200, 232))
    for side in (raw, server):
        side.run(Job("make", cubes=cubes, calls=len(cubes)))
        side.run(Job("add", cubes=cubes, calls=2 * len(cubes), clients=8, searchable=True))
    job = Job("add", cubes=cubes, clients=32, seconds=stage.seconds, first=5000, searchable=True)
    done = take(stage, {"raw": (raw, job), "server": (server, job)})
    return figures("add one memory to each of 32 cubes, 32 clients", done["server"], done["raw"], RAW)
