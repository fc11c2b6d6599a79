"""Many small cubes: what one costs while it is new, active and inactive, and the server with thousands of them."""

from __future__ import annotations

import time
from typing import Any

from harness.figures import Figure

from engines.client import Job
from engines.stage import Stage
from engines.turns import Spent, progress

SIZE = 100
"""Memories in a small cube."""


def measure(stage: Stage) -> list[Figure]:
    """Returns the figures of many cubes."""
    return [*_raw_tenants(stage), *_cubes(stage)]


def _raw_tenants(stage: Stage) -> list[Figure]:
    """What a tenant costs Weaviate, by its own client."""
    raw = stage.clients("raw")
    raw.run(Job("prepare_index"))
    count = 50 if stage.quick else 500
    cubes = tuple(range(10_000, 10_000 + count))
    stage.watch.phase = "tenants, raw"
    levels: list[tuple[str, dict[str, float]]] = [("before", _settled(stage))]

    def after(what: str, job: Job) -> float:
        done = raw.run(job)
        if done.errors:
            raise RuntimeError(f"{what}: {done.errors}")
        levels.append((what, _settled(stage)))
        return done.seconds / count * 1e3

    facts: dict[str, Any] = {"tenants": count, "memories each": SIZE}
    facts["make_ms"] = after("empty", Job("tenants", cubes=cubes))
    facts["fill_ms"] = after("filled", Job("index", cubes=cubes, calls=count, batch=SIZE, clients=4))
    facts["unload_ms"] = after("inactive", Job("unload", cubes=cubes))
    facts["load_ms"] = after("active again", Job("load", cubes=cubes))
    facts["unload_again_ms"] = after("inactive again", Job("unload", cubes=cubes))
    # A search of a tenant that is not loaded loads it (auto_tenant_activation).
    cold = raw.run(Job("search_index", cubes=cubes, calls=min(100, count)))
    warm = raw.run(Job("search_index", cubes=cubes, calls=min(100, count)))
    facts["cold_search_ms"], facts["warm_search_ms"] = cold.quantile(0.5), warm.quantile(0.5)
    before = levels[0][1]
    facts["levels"] = {
        what: {f"{key} a tenant": (now[key] - before[key]) / count for key in ("files", "rss", "disk", "entries")}
        for what, now in levels[1:]
    }
    stage.facts["tenants of weaviate"] = facts
    raw.run(Job("drop", cubes=cubes))
    return [
        Figure("a tenant's first search, unloaded before, p50", "ms", [facts["cold_search_ms"]],
               [facts["warm_search_ms"]], "the same, loaded"),
    ]  # fmt: skip


def _settled(stage: Stage) -> dict[str, float]:
    """Returns what Weaviate holds once it has stopped working: open files, memory, bytes and entries on disk."""
    before = stage.watch.now("weaviate")["cpu"]
    for _ in range(20):
        time.sleep(0.5)
        now = stage.watch.now("weaviate")
        if now["cpu"] - before < 0.05:
            break
        before = now["cpu"]
    disk, entries = stage.disk("weaviate"), stage.entries("weaviate")
    return stage.watch.now("weaviate") | {"disk": float(disk), "entries": float(entries)}


def _cubes(stage: Stage) -> list[Figure]:
    """The server with so many cubes of a hundred memories, made and searched through the SDK."""
    server = stage.clients("server")
    first, count = 20_000, stage.cubes
    piece = max(1, count // 20)
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    before = {engine: stage.disk(engine) for engine in ("neo4j", "weaviate")}
    for low in range(0, count, piece):
        stage.watch.phase = f"tenants, {low:,} cubes"
        progress("small cubes", low, count)
        cubes = tuple(range(first + low, first + min(low + piece, count)))
        made = server.run(Job("make", cubes=cubes, calls=len(cubes), clients=8))
        spent = Spent(stage)
        added = server.run(Job("add", cubes=cubes, calls=len(cubes), batch=SIZE, first=low * SIZE, clients=8))
        settled = time.perf_counter()
        seen = server.run(Job("wait", cubes=cubes, clients=8))
        if made.errors or added.errors or seen.errors:
            raise RuntimeError(f"{made.errors} {added.errors} {seen.errors}")
        rows.append(
            {
                "cubes": low + len(cubes),
                "make_ms": made.seconds / len(cubes) * 1e3,
                "add_ms": added.seconds / len(cubes) * 1e3,
                "index_ms": (time.perf_counter() - settled) / len(cubes) * 1e3,
                "us a memory": spent.a_call(len(cubes) * SIZE),
                **{name: stage.watch.now(name) for name in stage.names()},
            }
        )
    progress("small cubes", count, count)
    seconds = time.perf_counter() - began
    spread = tuple(range(first, first + count, max(1, count // 200)))
    stage.watch.phase = "tenants, searched"
    cold = server.run(Job("search", cubes=spread, calls=len(spread)))
    active = server.run(Job("search", cubes=spread[-50:], calls=400))
    one = server.run(Job("search", cubes=spread[-1:], calls=200))
    stage.facts["cubes"] = {
        "cubes": count,
        "memories each": SIZE,
        "seconds": seconds,
        "rows": rows,
        "disk": {engine: stage.disk(engine) - before[engine] for engine in before},
    }
    what = f"{count:,} cubes of {SIZE}"
    return [
        Figure(f"{what}: memories added a second, until searchable", "memories/s", [count * SIZE / seconds]),
        Figure(f"{what}: search of one out of all, p50", "ms", [cold.quantile(0.5)], [one.quantile(0.5)],
               "the same cube again and again"),
        Figure(f"{what}: search of one out of all, p99", "ms", [cold.quantile(0.99)], [one.quantile(0.99)],
               "the same cube again and again"),
        Figure(f"{what}: search of 50 in turn, p50", "ms", [active.quantile(0.5)], [one.quantile(0.5)],
               "the same cube again and again"),
    ]  # fmt: skip
