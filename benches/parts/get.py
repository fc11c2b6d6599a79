"""Unary Get against a bare echo with messages of the same sizes, by 1, 8 and 64 clients in another process."""

from __future__ import annotations

import numpy as np
from harness.calls import path_of
from harness.figures import Figure
from harness.load import Done, Job
from harness.world import World

from memos_server._pb.mip.v1.memory_service_pb2 import GetMemoryRequest

CLIENTS = (1, 8, 64)
_NAMES = 500


def measure(world: World) -> list[Figure]:
    """Returns the figures of GetMemory."""
    cube = world.cube(world.sizes[1])
    bodies = [GetMemoryRequest(name=name).SerializeToString() for name in cube.names[:_NAMES]]
    sizes = [len(world.caller.raw("GetMemory", body)) for body in bodies[:100]]
    seconds = 0.3 if world.quick else 1.5
    figures = []
    with world.echo(int(np.mean(sizes))) as echo, world.clients() as process:
        for clients in CLIENTS:
            job = world.job(path_of("GetMemory"), bodies, clients, seconds)
            bare = Job(echo.address, job.token, job.path, bodies, clients, seconds)
            for warming in (job, bare):
                process.run(Job(warming.address, job.token, job.path, bodies, clients, 0.3))
            ours: list[Done] = []
            theirs: list[Done] = []
            cpu = [0.0, 0.0]
            for _ in range(world.rounds):
                for place, (target, job_here, dones) in enumerate(((world.server, job, ours), (echo, bare, theirs))):
                    before = target.cpu_seconds()
                    dones.append(process.run(job_here))
                    cpu[place] += target.cpu_seconds() - before
            figures += _figures(clients, ours, theirs)
            calls = sum(len(done.times) for done in ours), sum(len(done.times) for done in theirs)
            figures.append(
                Figure(
                    f"Get, {clients} clients, processor time of the server",
                    "us a call",
                    [cpu[0] / calls[0] * 1e6],
                    [cpu[1] / calls[1] * 1e6],
                    "bare grpc.aio echo",
                )
            )
    return figures


def _figures(clients: int, ours: list[Done], theirs: list[Done]) -> list[Figure]:
    who = f"Get, {clients} client{'s' * (clients > 1)}"
    against = "bare grpc.aio echo"

    def at(share: float) -> tuple[list[float], list[float]]:
        return [done.quantile(share) for done in ours], [done.quantile(share) for done in theirs]

    return [
        Figure(f"{who}, p50", "ms", *at(0.5), against, at_most=1.5),
        Figure(f"{who}, p99", "ms", *at(0.99), against),
        Figure(f"{who}, throughput", "calls/s", [d.rate for d in ours], [d.rate for d in theirs], against),
    ]
