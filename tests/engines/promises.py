"""What must hold once a fault is over, whatever it was; each broken promise is a sentence.

Nothing that was acknowledged is lost, nothing is there twice, the history has an order, the chain verifies, all servers
tell the same, and the index has reached the head and finds what the record holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from memos_sdk import AsyncClient
from memos_sdk.errors import ConnectError, MipError
from memos_sdk.models import Verification
from tests.engines.cluster import PATIENCE
from tests.engines.cube_model import Find, GetHead, ListAll, Value
from tests.engines.history import LogEntry, log_problems, readings, resolved
from tests.engines.load import Load, find, list_all, read_log

CONVERGE_S = 60.0 * PATIENCE
CONNECT_S = 10.0 * PATIENCE


@dataclass
class Settled:
    """What was found after a fault.

    Attributes:
        broken: The promises that do not hold, a sentence each.
        log: The cube's log.
        converged_s: How long the index took to reach the head after the servers were healthy again, seconds.
        steps: How many steps the search for an order took.
    """

    broken: list[str] = field(default_factory=list)
    log: list[LogEntry] = field(default_factory=list)
    converged_s: float = 0.0
    steps: int = 0


async def settled(load: Load, servers: Sequence[int] = ()) -> Settled:
    """Reads everything from every server and judges it.

    Args:
        load: The load, finished.
        servers: The servers to ask; none means all that run.
    """
    cluster = load.cluster
    numbers = list(servers) or [number for number, node in enumerate(cluster.nodes) if node.running]
    found = Settled()
    try:
        await cluster.healthy(*numbers)
        clients = {number: cluster.client(number, 60.0) for number in numbers}
        await asyncio.gather(*(_connected(client, load.cube) for client in clients.values()))
        begun = time.monotonic()
        for number, client in clients.items():
            found.broken += await _converged(load, client, number)
        found.converged_s = time.monotonic() - begun
        for number, client in clients.items():
            await _read_all(load, client, number, found)
        logs = [await read_log(client, load.cube) for client in clients.values()]
    except (MipError, AssertionError) as error:
        found.broken.append(f"after the fault a call fails: {error!r}")
        return found
    found.log = logs[0]
    found.broken += [f"server {n} tells another log" for n, log in zip(numbers, logs, strict=True) if log != logs[0]]
    found.broken += log_problems(load.history.operations, found.log)[:20]
    verdict = await asyncio.to_thread(load.history.explained, found.log)
    found.steps = verdict.tried
    if not verdict:
        operations = resolved(load.history.operations, found.log)
        told = readings(operations, found.log, verdict.stuck[:8])
        found.broken.append("\n".join([verdict.explanation(), *told]))
    return found


async def _connected(client: AsyncClient, cube: str) -> None:
    """Waits until a client has a connection: gRPC shares connections between the clients of a process, and lets one
    that was refused while its server was away rest for some seconds, also for a client that is new."""
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            await client.cube(cube).refresh()
        except ConnectError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def _read_all(load: Load, client: AsyncClient, number: int, found: Settled) -> None:
    """Reads head, memories and what search finds, as operations of the history."""
    cube = client.cube(load.cube)
    process = f"after on {number}"
    with load.history.record(process, GetHead()) as recording:
        recording.answer = Value((await cube.refresh()).revision)
    with load.history.record(process, ListAll()) as recording:
        recording.answer = (await list_all(cube))[0]
    for writer in load.writers:
        with load.history.record(process, Find(writer)) as recording:
            answer = await find(cube, writer)
            if isinstance(answer, str):
                recording.drop()
                found.broken.append(f"search on server {number} is still {answer} for {writer}")
            else:
                recording.answer = answer


async def _converged(load: Load, client: AsyncClient, number: int) -> list[str]:
    """Verifies the cube, again and again until the index has reached the head, within limits."""
    cube = client.cube(load.cube)
    deadline = time.monotonic() + CONVERGE_S
    while True:
        verdict: Verification = await cube.verify()
        behind = _indexed(verdict)
        if (verdict and not behind) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.25)
    wrong = [
        f"verify on server {number}: {finding.kind} {finding.resource}: {finding.message}"
        for finding in verdict.findings
    ]
    if behind:
        wrong.append(f"the index seen by server {number} is {behind} revisions behind after {CONVERGE_S:g} s")
    return wrong[:10]


def _indexed(verdict: Verification) -> int:
    """Returns how many revisions the index is behind."""
    return int(verdict._wire.head_revision - verdict._wire.indexed_revision)
