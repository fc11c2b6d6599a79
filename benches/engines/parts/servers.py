"""Two servers over the same engines, beside one: the same calls, spread over both by the SDK."""

from __future__ import annotations

from harness.figures import Figure

from engines.client import Job
from engines.stage import Stage
from engines.turns import figures, take

ONE = "one server"


def measure(stage: Stage) -> list[Figure]:
    """Returns the figures of two servers."""
    stage.loaded("server")
    one, two = stage.clients("server"), stage.clients("server", servers=2)
    stage.watch.phase = "two servers"
    found: list[Figure] = []
    for side in (one, two):
        side.run(Job("search", calls=2 * len(stage.supply.questions), clients=8))
    for clients in (8, 64):
        job = Job("search", clients=clients, seconds=stage.seconds)
        done = take(stage, {"one": (one, job), "two": (two, job)})
        found += figures(f"hybrid search, 2 servers, {clients} clients", done["two"], done["one"], ONE)
    cubes = tuple(range(300, 316))
    one.run(Job("make", cubes=cubes, calls=len(cubes)))
    for side in (one, two):
        side.run(Job("add", cubes=cubes, calls=len(cubes), clients=4, searchable=True))
    job = Job("add", cubes=cubes, clients=64, seconds=stage.seconds, first=9000, searchable=True)
    done = take(stage, {"one": (one, job), "two": (two, job)})
    found += figures("add one memory to each of 16 cubes, 2 servers, 64 clients", done["two"], done["one"], ONE)
    return found
