"""Rolling back 10,000 changes in a middle and in a large cube, against adding as many with known vectors."""

from __future__ import annotations

import time

from harness.calls import add_request, batches
from harness.figures import Figure
from harness.world import World

_ROUNDS = 3


def measure(world: World) -> list[Figure]:
    """Returns the figures of RollbackCube."""
    changes = 1000 if world.quick else 10_000
    sizes = world.sizes[1:]
    texts, vectors = world.supply(changes)
    cubes = [world.cube(size) for size in sizes]
    back: list[list[float]] = [[], []]
    adding: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for place, cube in enumerate(cubes):
            requests = [add_request(cube.name, batch) for batch in batches(texts, vectors)]
            before = world.caller("GetCube", name=cube.name).cube.revision
            began = time.perf_counter()
            for request in requests:
                world.caller.raw("AddMemories", request)
            added = time.perf_counter()
            world.caller.searchable(cube.name)
            quiet = time.perf_counter()
            world.caller("RollbackCube", name=cube.name, to_revision=before)
            ended = time.perf_counter()
            world.caller.searchable(cube.name)
            adding[place].append(added - began)
            back[place].append(ended - quiet)
    figures = [
        Figure(
            f"rollback of {changes:,} changes in a cube of {size:,}",
            "s",
            back[place],
            adding[place],
            f"adding {changes:,} with known vectors",
            at_most=2.0,
        )
        for place, size in enumerate(sizes)
    ]
    figures.append(
        Figure(
            f"rollback in a cube of {sizes[1]:,}",
            "s",
            back[1],
            back[0],
            f"the same in one of {sizes[0]:,}",
            at_most=1.5,
            note="1.5x stands for: independent of the cube's size",
        )
    )
    return figures
