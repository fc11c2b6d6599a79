"""What one memory, version and cube costs in bytes, and how many commits a second one record takes."""

from __future__ import annotations

from harness.figures import Figure

from engines.client import Job
from engines.stage import Stage


def measure(stage: Stage) -> list[Figure]:
    """Returns the figures of unit costs."""
    stage.loaded("raw")
    stage.loaded("server")
    found: list[Figure] = []
    raw, server = stage.facts["raw"], stage.facts["server"]
    found += [
        Figure(
            f"disk of {what}, a memory",
            "bytes",
            [server["disk"][what] / server["memories"]],
            [raw["disk"][what] / raw["memories"]],
            "raw",
        )
        for what in raw["disk"]
    ]
    found.append(
        Figure(
            f"loading {server['memories']:,} in batches of 1,000, until searchable",
            "memories/s",
            [server["memories"] / server["searchable_s"]],
            [raw["memories"] / raw["searchable_s"]],
            "raw: a transaction, then insert_many",
            at_least=0.6,
        )
    )
    found += _growth(stage)
    found += _commits(stage)
    return found


def _growth(stage: Stage) -> list[Figure]:
    """Bytes on disk of a cube, of a memory alone in its commit, and of a further version of it."""
    count = 200 if stage.quick else 1000
    server = stage.clients("server")
    stage.watch.phase = "growth"
    cubes = tuple(range(40_000, 40_000 + count))
    steps = (
        ("an empty cube", Job("make", cubes=cubes, calls=count, clients=8)),
        ("a memory, a commit each", Job("name", cubes=cubes[:1], calls=count, clients=8, searchable=True)),
        ("a version with another content", Job("update", cubes=cubes[:1], calls=count, clients=8, searchable=True)),
        ("a version with the same content", Job("archive", cubes=cubes[:1], calls=count, clients=8, searchable=True)),
    )
    before = stage.stored()
    found: list[Figure] = []
    for what, job in steps:
        done = server.run(job)
        if done.errors:
            raise RuntimeError(f"{what}: {done.errors}")
        after = stage.stored()
        found += [Figure(f"disk of {name}: {what}", "bytes", [(after[name] - before[name]) / count]) for name in after]
        before = after
    return found


def _commits(stage: Stage) -> list[Figure]:
    """Commits of one memory a second, record alone, by how many write at once: each to a cube of its own."""
    raw = stage.clients("raw")
    raw.run(Job("prepare"))
    stage.watch.phase = "commits"
    found = []
    for clients in (1, 8, 64):
        cubes = tuple(range(400, 400 + clients))
        raw.run(Job("make", cubes=cubes, calls=clients))
        rates = [
            raw.run(Job("record", cubes=cubes, clients=clients, seconds=stage.seconds / 2)).rate
            for _ in range(stage.rounds)
        ]
        found.append(Figure(f"raw commits of one memory, {clients} writers", "commits/s", rates))
    return found
