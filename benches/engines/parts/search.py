"""Searching one large cube: the server beside near_vector and bm25 of the same depth and the fetch of the hits."""

from __future__ import annotations

import time

from harness.figures import Figure

from engines.client import Job
from engines.sides import KINDS
from engines.stage import SETTLED_S, Stage
from engines.turns import Spent, figures, take

RAW = "raw: both channels to 200, 16 records"


def measure(stage: Stage) -> list[Figure]:
    """Returns the figures of SearchMemories."""
    stage.loaded("raw")
    stage.loaded("server")
    raw, server = stage.clients("raw"), stage.clients("server")
    stage.watch.phase = "search"
    for side in (raw, server):
        # Each question once: the server then has their embeddings, and both engines what they cache.
        for kind in KINDS:
            calls = 20 if stage.quick and kind != "hybrid" else len(stage.supply.questions)
            side.run(Job("search", calls=calls, clients=4, kind=kind))
    found: list[Figure] = []
    if time.time() < stage.facts["server"]["at"] + SETTLED_S - 3 * stage.seconds:
        job = Job("search", seconds=stage.seconds)
        done = take(stage, {"raw": (raw, job), "server": (server, job)}, rounds=1)
        found += figures("hybrid search just after a load, 1 client", done["server"], done["raw"], RAW)[:1]
    stage.settle()
    for clients in (1, 8, 64):
        stage.watch.phase = f"search, {clients} clients"
        job = Job("search", clients=clients, seconds=stage.seconds)
        done = take(stage, {"raw": (raw, job), "server": (server, job)})
        found += figures(
            f"hybrid search, {clients} clients",
            done["server"],
            done["raw"],
            RAW,
            at_most=1.3 if clients < 64 else None,
        )
    for kind in KINDS[1:]:
        job = Job("search", seconds=stage.seconds / 2, kind=kind)
        done = take(stage, {"raw": (raw, job), "server": (server, job)})
        found += figures(f"{kind} search, 1 client", done["server"], done["raw"], RAW)[:2]
    stage.watch.phase = "search, where the time goes"
    for name, which in (("raw", raw), ("server", server)):
        spent = Spent(stage)
        done_one = which.run(Job("search", seconds=stage.seconds))
        calls = len(done_one.times)
        stage.facts[f"search {name}"] = {
            "us a call": spent.a_call(calls) | {"the clients": round(done_one.cpu / calls * 1e6)},
            "p50_ms": done_one.quantile(0.5),
            "record_ms": done_one.record / calls * 1e3,
            "index_ms": done_one.index / calls * 1e3,
            "found": done_one.found,
        }
    narrow = stage.clients("raw", key="narrow", depth=10, fetched=10)
    job = Job("search", seconds=stage.seconds / 2)
    done = take(stage, {"raw": (narrow, job), "server": (server, job)})
    found += figures("hybrid search, 1 client", done["server"], done["raw"], "raw: both channels to 10, 10 records")[:1]
    return found
