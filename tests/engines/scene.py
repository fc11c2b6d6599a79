"""One fault under load, from a healthy cluster to the verdict, and the row that docs/faults.md shows of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from memos_sdk.errors import MipError
from tests.engines.cluster import PATIENCE, Cluster, fresh
from tests.engines.cube_model import Done
from tests.engines.fleet import Fleet
from tests.engines.load import Load
from tests.engines.promises import Settled, settled
from tests.engines.watchers import Watcher

RESULTS: Final = Path(__file__).resolve().parents[2] / "build" / "faults"


@dataclass
class Blobs:
    """One caller that uploads blobs and keeps those whose upload was acknowledged."""

    cluster: Cluster
    cube: str
    load: Load
    rng: random.Random
    kept: list[str] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Uploads until told to stop; what was not acknowledged is tried again on the next server."""
        at, data = 0, b""
        while not stop.is_set():
            data = data or self.rng.randbytes(self.rng.choice((1_000, 50_000, 300_000)))
            blobs = self.cluster.client(at, 10.0).cube(self.cube).blobs
            try:
                await blobs.upload(data, timeout=10.0 * PATIENCE)
                self.kept.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
                data = b""
                await asyncio.sleep(0.05)
            except MipError as error:
                self.load.errors.note(error)
                at = (at + 1) % len(self.cluster.nodes)
                await asyncio.sleep(min(error.retry_after or 0.2, 1.0))

    async def broken(self) -> list[str]:
        """Returns which acknowledged blobs cannot be read whole."""
        wrong = []
        for digest in self.kept:
            try:
                await self.cluster.client(0, 30.0).cube(self.cube).blobs.read(digest)
            except MipError as error:
                wrong.append(f"the blob {digest} was acknowledged and cannot be read: {error}")
        return wrong


@dataclass
class Scene:
    """A cluster under load, in which a fault happens.

    Attributes:
        ended: When the fault was over, nanoseconds of the clock of the history; set by `over`.
    """

    fleet: Fleet
    cluster: Cluster
    load: Load
    rng: random.Random
    ended: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    async def moment(self, least: float = 0.3, most: float = 1.5) -> None:
        """Waits for a random time, seconds."""
        await asyncio.sleep(self.rng.uniform(least, most))

    async def thread(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Runs what blocks, such as starting an engine."""
        return await asyncio.to_thread(function, *arguments, **named)

    def over(self) -> None:
        """Says that the fault is over from now on."""
        self.ended = time.perf_counter_ns()


Fault = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Plan:
    """How a fault is tried.

    Attributes:
        name: What the row is called, words for people.
        slug: The name of the row's file.
        servers: How many servers there are.
        writers: How many callers there are.
        rounds: How often the fault happens, one after the other.
        connections: True when servers themselves go away.
        also: Further reasons of errors that the fault explains.
        proxied: True leads connections to engines through proxies.
        blobs: True uploads blobs besides.
        after_s: How long the load goes on after the fault, seconds.
    """

    name: str
    slug: str
    servers: int = 2
    writers: int = 6
    rounds: int = 1
    connections: bool = False
    also: tuple[str, ...] = ()
    proxied: bool = False
    blobs: bool = False
    after_s: float = 2.0
    settings: Mapping[str, str] = field(default_factory=dict)
    variants: Sequence[Mapping[str, Any]] = ()
    patience_s: float = 30.0


async def play(plan: Plan, fault: Fault, fleet: Fleet, folder: Path, rng: random.Random) -> Scene:
    """Lets a fault happen under load, judges everything afterwards, writes the row; fails when a promise is broken."""
    backends = await asyncio.to_thread(fleet.backends, proxied=plan.proxied)
    row: dict[str, Any] = {"fault": plan.name, "slug": plan.slug, "rounds": plan.rounds, "result": "not finished"}
    async with Cluster(folder, backends, plan.servers, plan.settings, plan.variants) as cluster:
        cube = fresh()
        load = Load(cluster, cube, random.Random(rng.random()), patience_s=plan.patience_s)
        await load.create()
        scene = Scene(fleet, cluster, load, rng)
        watchers = [Watcher(cluster, cube, number) for number in range(plan.servers)]
        for watcher in watchers:
            watcher.start()
        blobs = Blobs(cluster, cube, load, random.Random(rng.random()))
        stop = asyncio.Event()
        uploads = asyncio.create_task(blobs.run(stop)) if plan.blobs else None
        load.start(plan.writers, pause_s=0.01)
        for _ in range(plan.rounds):
            # There is something to lose.
            await load.reach(load.acknowledged + 20)
            await scene.moment()
            await fault(scene)
        if not scene.ended:
            scene.over()
        await asyncio.sleep(plan.after_s)
        await load.reach(load.acknowledged + 10)
        await asyncio.wait_for(load.finish(), (plan.patience_s + 60) * PATIENCE)
        stop.set()
        broken: list[str] = []
        if uploads is not None:
            await uploads
        found: Settled = await settled(load)
        broken += found.broken
        if uploads is not None:
            broken += await blobs.broken()
            scene.facts["blobs"] = len(blobs.kept)
        for watcher in watchers:
            broken += await watcher.caught_up(found.log)
        broken += load.errors.unexpected(connections=plan.connections, also=plan.also)
        row |= _row(scene, found) | {"broken": broken, "result": "holds" if not broken else "broken"}
        _write(plan.slug, row)
        assert broken == [], "\n".join(broken)
    return scene


def _row(scene: Scene, found: Settled) -> dict[str, Any]:
    operations = scene.load.history.operations
    later = [op.completed for op in operations if isinstance(op.answer, Done) and op.completed > scene.ended]
    return {
        "servers": len(scene.cluster.nodes),
        "callers": len(scene.load.writers),
        "operations": len(operations),
        "acknowledged": scene.load.acknowledged,
        "open": sum(op.open for op in operations),
        "commits": len(found.log),
        "errors": scene.load.errors.counts(),
        "degraded": dict(scene.load.degraded),
        "longest_s": round(scene.load.longest_s, 2),
        "recovered_s": round((min(later) - scene.ended) / 1e9, 2) if later else None,
        "converged_s": round(found.converged_s, 2),
        "steps": found.steps,
        "facts": scene.facts,
    }


def _write(slug: str, row: Mapping[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{slug}.json").write_text(json.dumps(row, indent=1, sort_keys=True) + "\n", encoding="utf-8")
