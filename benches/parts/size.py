"""Bytes on disk and in memory of a large cube, beside the bytes that were put in."""

from __future__ import annotations

from harness.calls import memories_of
from harness.figures import Figure
from harness.world import World


def measure(world: World) -> list[Figure]:
    """Returns the figures of space; makes the large cube that others read."""
    size = world.sizes[2]
    empty = world.server.resident_bytes()
    texts, vectors = world.supply(size)
    payload = sum(memory.ByteSize() for memory in memories_of(texts, vectors))
    cube = world.cube(size)
    loaded = world.server.resident_bytes()
    server = world.restart()
    disk = server.disk_bytes()
    fresh = server.resident_bytes()
    world.caller.searchable(cube.name)
    searched = server.resident_bytes()
    mib = 2**20
    put_in = f"MiB of memories put in ({size:,})"
    parts = ", ".join(f"{name} {count / mib:.0f}" for name, count in sorted(disk.items()) if count >= mib)
    return [
        Figure(f"disk of {size:,} memories", "MiB", [sum(disk.values()) / mib], [payload / mib], put_in, note=parts),
        Figure(
            f"memory of the server after a restart and a search of {size:,}",
            "MiB",
            [searched / mib],
            [payload / mib],
            put_in,
            note=f"{fresh / mib:.0f} MiB before the search; of an empty server {empty / mib:.0f}",
        ),
        Figure("memory of the server after adding them", "MiB", [loaded / mib], [payload / mib], put_in),
        Figure(f"loading {size:,} by one BulkAddMemories, until searchable", "memories/s", [size / cube.load_seconds]),
    ]
