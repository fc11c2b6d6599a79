"""SIGKILL under concurrent writers: what was acknowledged is there, whole, in a chain that verifies."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess
from tests.support.mip import Memory, Mip, RpcError, text

BATCH = 5


async def write(mip: Mip, cube: str, writer: int, acknowledged: dict[str, tuple[str, int]]) -> None:
    """Adds batches and updates some until the server dies; notes name -> (text, revision) of what was acknowledged."""
    number = 0
    while True:
        number += 1
        label = f"w{writer}-{number}-{random.getrandbits(32):08x}"
        batch = [text(f"{label} part {part}", tags=[label]) for part in range(BATCH)]
        added = await mip.AddMemories(parent=cube, memories=batch)
        for memory in added.memories:
            acknowledged[memory.name] = memory.plaintext.text, memory.revision
        if number % 3 == 0:
            first = added.memories[0]
            changed = text(f"{label} changed", name=first.name, tags=[label])
            updated = await mip.UpdateMemory(memory=changed)
            acknowledged[first.name] = f"{label} changed", updated.memory.revision


async def check(mip: Mip, cube: str, acknowledged: dict[str, tuple[str, int]], head: tuple[int, bytes]) -> None:
    """Checks every acknowledged write, whole batches, the chain with the last head seen, and the index."""
    found: dict[str, Memory] = {}
    token = ""
    while True:
        page = await mip.ListMemories(parent=cube, page_size=1000, page_token=token)
        found.update((memory.name, memory) for memory in page.memories)
        token = page.next_page_token
        if not token:
            break
    for name, (words, revision) in acknowledged.items():
        assert name in found, f"{name} was acknowledged at revision {revision} and is lost"
        # An update that was cut off before its answer may have happened as well.
        assert found[name].plaintext.text == words or found[name].revision > revision
    batches: dict[str, int] = {}
    for memory in found.values():
        batches[memory.tags[0]] = batches.get(memory.tags[0], 0) + 1
    assert set(batches.values()) <= {BATCH}, "a batch was stored in part"
    verdict = await mip.VerifyCube(name=cube, expected_revision=head[0], expected_head_digest=head[1])
    assert verdict.valid, verdict.findings
    assert verdict.indexed_revision == verdict.head_revision


async def one_round(data: Path, acknowledged: dict[str, tuple[str, int]], head: tuple[int, bytes]) -> tuple[int, bytes]:
    """Starts a server, checks what earlier rounds left, writes from four callers, kills it; returns the head seen."""
    server = ServerProcess(data)
    clients = [Mip(server.address, server.token) for _ in range(4)]
    try:
        cube = "cubes/c"
        if not head[0]:
            await clients[0].CreateCube(cube_id="c")
        else:
            await check(clients[0], cube, acknowledged, head)
        writers = [asyncio.create_task(write(client, cube, n, acknowledged)) for n, client in enumerate(clients)]
        await asyncio.sleep(random.uniform(0.05, 0.6))
        seen = (await clients[0].GetCube(name=cube)).cube
        await asyncio.sleep(random.uniform(0.0, 0.1))
        server.kill()
        ended = await asyncio.gather(*writers, return_exceptions=True)
        assert all(isinstance(error, RpcError) and error.code == "UNAVAILABLE" for error in ended), ended
        return seen.revision, seen.head_digest
    finally:
        if server.process.poll() is None:
            server.kill()
        for client in clients:
            await client.close()


async def run(tmp_path: Path, rounds: int) -> None:
    """Runs rounds on one folder and checks the end."""
    data = tmp_path / "data"
    acknowledged: dict[str, tuple[str, int]] = {}
    head = 0, b""
    for _ in range(rounds):
        head = await one_round(data, acknowledged, head)
    server = ServerProcess(data)
    mip = Mip(server.address, server.token)
    try:
        await check(mip, "cubes/c", acknowledged, head)
        assert acknowledged
    finally:
        await mip.close()
        assert server.stop() == 0
    assert not (data / "server.json").exists()


async def test_kill_9_under_writers_loses_nothing_acknowledged(tmp_path: Path) -> None:
    await run(tmp_path, 6)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_hundred_kills_under_writers_lose_nothing_acknowledged(tmp_path: Path) -> None:
    await run(tmp_path, 100)
