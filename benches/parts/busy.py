"""How long a Get takes while 100,000 memories are added and a cube is verified, against the same when idle."""

from __future__ import annotations

import threading

import numpy as np
from harness.calls import Caller, batches, path_of
from harness.figures import Figure
from harness.load import Done
from harness.world import World

from memos_server._pb.mip.v1.memory_service_pb2 import GetMemoryRequest


def measure(world: World) -> list[Figure]:
    """Returns the figures of Get beside other work."""
    cube = world.cube(world.sizes[1])
    bodies = [GetMemoryRequest(name=name).SerializeToString() for name in cube.names[:500]]
    texts, vectors = world.supply(world.sizes[2])
    idle: list[Done] = []
    busy: list[Done] = []
    seconds = 0.3 if world.quick else 3.0
    ended = threading.Event()
    counts = {"verified": 0}
    failures: list[BaseException] = []

    def verify() -> None:
        caller = Caller(world.server.address, world.server.token)
        while not ended.is_set():
            caller("VerifyCube", name=cube.name)
            counts["verified"] += 1
        caller.close()

    def add() -> None:
        try:
            caller = Caller(world.server.address, world.server.token)
            target = caller.make_cube("added-beside")
            caller.bulk(target, batches(texts, vectors))
            caller.searchable(target)
            caller.close()
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            ended.set()

    with world.clients() as process:
        job = world.job(path_of("GetMemory"), bodies, 1, seconds)
        idle.extend(process.run(job) for _ in range(3))
        threads = [threading.Thread(target=work) for work in (add, verify)]
        for thread in threads:
            thread.start()
        while not ended.is_set():
            busy.append(process.run(job))
        for thread in threads:
            thread.join()
        idle.extend(process.run(job) for _ in range(3))
    if failures:
        raise failures[0]
    note = f"{sum(len(done.times) for done in busy):,} calls beside; the cube was verified {counts['verified']} times"

    # One figure for all calls of a state: what a round of a few seconds saw of the adding differs too much.
    beside, alone = (np.concatenate([done.times for done in dones]) * 1e3 for dones in (busy, idle))

    def both(share: float) -> tuple[list[float], list[float]]:
        return [float(np.quantile(beside, share))], [float(np.quantile(alone, share))]

    name = f"Get while {world.sizes[2]:,} are added and a cube is verified"
    return [
        Figure(f"{name}, p99", "ms", *both(0.99), "idle", at_most=5.0, note=note),
        Figure(f"{name}, p50", "ms", *both(0.5), "idle"),
    ]
