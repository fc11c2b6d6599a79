"""An hour at 80% of the peak: does memory stay flat, and does any call fail?

Every worker lives the life of a cube over and over: it makes one, adds, reads, lists, searches, updates, archives,
merges, relates, rolls back and verifies, then deletes and purges it, so that the number of cubes that live is constant
while everything that a server could fail to let go comes and goes. First all workers go as fast as they can, which
gives the peak; then calls begin at 80% of it, by the clock, whatever the answers take.

    python benches/soak.py --minutes 60 --json soak.json --plot soak.png

The exit status is 1 when a call failed, or resident memory grew by over a tenth from the second sixth to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from google.protobuf.message_factory import GetMessageClass

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.calls import DIMENSION, METHODS, MODEL, memories_of, path_of
from harness.figures import median
from harness.servers import MemosServer
from harness.texts import Texts, unit_vectors

from memos_server._pb.mip.v1 import cube_pb2, relation_pb2

_SAMPLE_S = 5.0
_SHARE = 0.8
_GROWTH = 1.10
_WORKERS = 16


class Pace:
    """Lets calls begin: at once while `rate` is 0, else by the clock."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Returns when the next call may begin. What is behind the clock begins at once, up to a second of calls."""
        if not self.rate:
            return
        now = time.perf_counter()
        self._next = max(self._next, now - 1.0) + 1.0 / self.rate
        if self._next > now:
            await asyncio.sleep(self._next - now)


class Load:
    """The workers, and what became of their calls."""

    def __init__(self, server: MemosServer) -> None:
        self.pace = Pace()
        self.times: list[float] = []
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.lives = 0
        self.stopping = False
        self._metadata = (("authorization", f"Bearer {server.token}"),)
        option = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(server.address, options=option) for _ in range(2)]
        texts = Texts(None)
        self._texts = texts.take(5_000)
        self._questions = texts.questions
        self._vectors = unit_vectors(5_000)

    async def call(self, worker: int, rpc: str, **fields: Any) -> Any:
        """Makes a call in its turn; None when it failed."""
        await self.pace.turn()
        method = METHODS[rpc]
        stub = self._channels[worker % 2].unary_unary(
            path_of(rpc),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        began = time.perf_counter()
        try:
            answer = await stub(GetMessageClass(method.input_type)(**fields), metadata=self._metadata, timeout=60)
        except grpc.aio.AioRpcError as error:
            self.failed[f"{rpc}: {error.code().name} {error.details()}"[:200]] += 1
            return None
        self.times.append(time.perf_counter() - began)
        self.calls[rpc] += 1
        return answer

    async def life(self, worker: int, number: int) -> None:
        """The life of one cube, about 90 calls."""
        random = np.random.default_rng([worker, number])
        call: Callable[..., Awaitable[Any]] = lambda rpc, **fields: self.call(worker, rpc, **fields)  # noqa: E731
        settings = cube_pb2.Cube(embedding_model=MODEL, embedding_dimension=DIMENSION)
        made = await call("CreateCube", cube_id=f"soak-{worker}-{number}-{time.time_ns()}", cube=settings)
        if made is None:
            return
        cube = made.cube.name
        names: list[str] = []
        for _ in range(12):
            if self.stopping:
                break
            places = random.integers(0, len(self._texts), int(random.integers(1, 12)))
            added = await call(
                "AddMemories",
                parent=cube,
                memories=memories_of([self._texts[place] for place in places], self._vectors[places]),
            )
            if added is None:
                continue
            names += [memory.name for memory in added.memories]
            for _ in range(2):
                await call("GetMemory", name=names[int(random.integers(len(names)))])
            asked = self._questions[int(random.integers(len(self._questions)))]
            await call("SearchMemories", cubes=[cube], query=asked, mode="SEARCH_MODE_LEXICAL", top_k=5)
            near = memories_of([""], self._vectors[random.integers(0, 5000, 1)])[0].vectors[0]
            await call("SearchMemories", cubes=[cube], vector=near, top_k=5, as_of_revision=int(random.integers(1, 3)))
            await call("ListMemories", parent=cube, page_size=20)
            kept = (await call("GetMemory", name=names[-1])).memory
            kept.plaintext.text = asked
            await call("UpdateMemory", memory=kept, update_mask={"paths": ["plaintext"]})
        if len(names) > 8:
            relation = relation_pb2.Relation(source=names[0], target=names[1], type="RELATES_TO")
            await call("CreateRelations", parent=cube, relations=[relation])
            await call("TransitionMemories", parent=cube, names=names[2:4], state="MEMORY_STATE_ARCHIVED")
            await call("MergeMemories", parent=cube, sources=names[4:6], target=names[6])
            await call("PurgeMemories", parent=cube, names=names[7:8], reason="soak")
            await call("ListCommits", parent=cube)
            await call("RollbackCube", name=cube, to_revision=4)
            verified = await call("VerifyCube", name=cube)
            if verified is not None and not verified.valid:
                self.failed[f"VerifyCube: {verified.findings[0]}"[:200]] += 1
        await call("DeleteCube", name=cube)
        await call("PurgeCube", name=cube, reason="soak")
        self.lives += 1

    async def worker(self, worker: int) -> None:
        """Lives until the end."""
        number = 0
        while not self.stopping:
            number += 1
            await self.life(worker, number)

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels:
            await channel.close()


async def _sample(load: Load, server: MemosServer, seconds: float) -> list[dict[str, float]]:
    """Measures the server every few seconds."""
    process = psutil.Process(server.process.pid)
    samples: list[dict[str, float]] = []
    began = last = time.perf_counter()
    cpu = server.cpu_seconds()
    while last - began < seconds:
        load.times.clear()
        await asyncio.sleep(_SAMPLE_S)
        now, used = time.perf_counter(), server.cpu_seconds()
        times = load.times or [0.0]
        samples.append(
            {
                "second": now - began,
                "resident_mib": server.resident_bytes() / 2**20,
                "open_files": float(process.num_fds()),
                "threads": float(process.num_threads()),
                "cpu_share": (used - cpu) / (now - last),
                "calls_per_second": len(load.times) / (now - last),
                "p50_ms": float(np.quantile(times, 0.5)) * 1e3,
                "p99_ms": float(np.quantile(times, 0.99)) * 1e3,
                "disk_mib": sum(server.disk_bytes().values()) / 2**20,
                "failed": float(load.failed.total()),
            }
        )
        last, cpu = now, used
        if sys.stderr.isatty() or len(samples) % 12 == 0:
            print("  ".join(f"{key} {value:.1f}" for key, value in samples[-1].items()), file=sys.stderr, flush=True)
    return samples


async def _run(minutes: float, peak_seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, MemosServer(Path(folder) / "data") as server:
        load = Load(server)
        workers = [asyncio.create_task(load.worker(number)) for number in range(_WORKERS)]
        peak = await _sample(load, server, peak_seconds)
        rate = median([sample["calls_per_second"] for sample in peak])
        load.pace.rate = _SHARE * rate
        print(f"peak {rate:.0f} calls/s; {minutes:g} minutes at {load.pace.rate:.0f}", file=sys.stderr, flush=True)
        samples = await _sample(load, server, minutes * 60)
        load.stopping = True
        await asyncio.gather(*workers)
        await load.close()
    sixth = max(len(samples) // 6, 1)
    resident = [sample["resident_mib"] for sample in samples]
    early, late = median(resident[sixth : 2 * sixth]), median(resident[-sixth:])
    return {
        "minutes": minutes,
        "peak_calls_per_second": rate,
        "calls_per_second": _SHARE * rate,
        "calls": load.calls.total(),
        "cubes_made_and_purged": load.lives,
        "failed": dict(load.failed),
        "resident_mib_second_sixth": early,
        "resident_mib_last_sixth": late,
        "growth": late / early,
        "samples": samples,
    }


def _plot(report: dict[str, Any], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    samples = report["samples"]
    minutes = [sample["second"] / 60 for sample in samples]
    figure, axes = pyplot.subplots(3, 1, figsize=(9, 7), sharex=True, layout="constrained")
    panels = [
        ("resident memory, MiB", ["resident_mib"]),
        ("calls a second", ["calls_per_second"]),
        ("milliseconds a call", ["p50_ms", "p99_ms"]),
    ]
    for axis, (title, keys) in zip(axes, panels, strict=True):
        for key in keys:
            axis.plot(minutes, [sample[key] for sample in samples], linewidth=1.2, label=key.removesuffix("_ms"))
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if len(keys) > 1:
            axis.legend(frameon=False)
    axes[-1].set_xlabel("minutes")
    failed = sum(report["failed"].values())
    figure.suptitle(
        f"{report['minutes']:g} minutes at {report['calls_per_second']:.0f} calls/s (80% of the peak): "
        f"{report['calls']:,} calls, {failed} failed, memory x{report['growth']:.2f}"
    )
    figure.savefig(file, dpi=120)


def main() -> int:
    """Runs the soak; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--peak-seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    report = asyncio.run(_run(chosen.minutes, chosen.peak_seconds))
    print(json.dumps({key: value for key, value in report.items() if key != "samples"}, indent=1))
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))
    if chosen.plot:
        _plot(report, chosen.plot)
    return 1 if report["failed"] or report["growth"] > _GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
