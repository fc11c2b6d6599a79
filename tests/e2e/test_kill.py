"""SIGKILL at any moment under concurrent writers: what was acknowledged is there, whole, in a chain that verifies."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from tests.durability import promises
from tests.durability.nursery import Nursery, Server
from tests.durability.promises import Promised
from tests.support.mip import Mip, RpcError

SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))
WRITERS = 4
LIVES = 10
"""How many times a server is killed on one folder before the next one is begun, so that checking stays quick."""


async def life(server: Server, promised: Promised, rng: random.Random) -> None:
    """Checks what earlier servers on the folder promised, writes, and kills the server at some moment."""
    address = await asyncio.to_thread(server.address)
    clients = [Mip(address, server.token) for _ in range(WRITERS)]
    try:
        assert await promises.broken(clients[0], promised, rng, address) == []
        stop = asyncio.Event()
        await promises.begin(clients[0], lambda note: promised.add([note]))
        tasks = []
        for number, client in enumerate(clients):
            chance = random.Random(rng.random())
            load = promises.write(client, f"k{number}", lambda note: promised.add([note]), chance, stop)
            tasks.append(asyncio.create_task(load))
        await asyncio.sleep(rng.uniform(0.0, 0.25))
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, RpcError) and error.code == "UNAVAILABLE" for error in ended), ended
    finally:
        server.end(signal.SIGKILL)
        for client in clients:
            await client.close()


async def last_life(server: Server, promised: Promised, rng: random.Random) -> None:
    """Checks a folder for the last time and ends its server as an operator would."""
    address = await asyncio.to_thread(server.address)
    mip = Mip(address, server.token)
    try:
        assert await promises.broken(mip, promised, rng, address) == []
        assert server.end(signal.SIGTERM) == 0
        assert not (server.data / "server.json").exists()
    finally:
        server.end(signal.SIGKILL)
        await mip.close()


async def kill(folder: Path, kills: int) -> int:
    """Kills servers on folders, and returns how many memories were promised."""
    rng = random.Random(SEED)
    total = 0
    with Nursery() as nursery:
        promised = Promised()
        for number in range(kills):
            data = folder / f"data-{number // LIVES}"
            server = nursery.server(data)
            if rng.random() < 0.2:
                # While it starts: it makes the folder, reads the log, or is about to listen.
                await asyncio.sleep(rng.uniform(0.0, 0.15))
                assert server.end(signal.SIGKILL) == -signal.SIGKILL
            else:
                await life(server, promised, rng)
            if number == kills - 1 or number % LIVES == LIVES - 1:
                await last_life(nursery.server(data), promised, rng)
                total += len(promised.memories)
                promised = Promised()
    return total


@pytest.mark.timeout(600)
async def test_fifty_kills_under_writers_lose_nothing_acknowledged(tmp_path: Path) -> None:
    assert await kill(tmp_path, 50)


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_a_thousand_kills_under_writers_lose_nothing_acknowledged(tmp_path: Path) -> None:
    assert await kill(tmp_path, 1000)
