"""Adding texts that the server embeds against the bare embedder on the same texts."""

from __future__ import annotations

import time

from harness.calls import Caller, add_request, memories_of
from harness.figures import Figure
from harness.servers import MemosServer
from harness.world import World

from memos_server.embedders.minilm import MiniLmEmbedder


def measure(world: World) -> list[Figure]:
    """Returns the figure of adding with embedding."""
    count = 20 if world.quick else 200
    rounds = world.rounds
    texts, _ = world.supply(count * (rounds + 1))
    bare = MiniLmEmbedder(str(world.folder))
    ours: list[float] = []
    theirs: list[float] = []
    with MemosServer(world.folder / "embedding", embedder=True) as server:
        caller = Caller(server.address, server.token)
        cube = caller.make_cube("embedded")
        for turn in range(rounds + 1):
            here = texts[turn * count : (turn + 1) * count]
            request = add_request(cube, memories_of(here))
            began = time.perf_counter()
            caller.raw("AddMemories", request)
            added = time.perf_counter()
            bare.embed(here)
            ended = time.perf_counter()
            if turn:
                ours.append(count / (added - began))
                theirs.append(count / (ended - added))
        caller.close()
    name = f"add with embedding, batch {count}"
    return [Figure(name, "texts/s", ours, theirs, "the bare embedder on the same texts", at_least=0.8)]
