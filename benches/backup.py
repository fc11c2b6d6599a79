"""What a backup costs: its time and rate, and what writers notice of it.

A server process with a cube of many memories, each with a text and a vector, takes writes from one caller; meanwhile
`memos backup` runs as a process of its own, as an operator runs it. Beside it, in the same run: a plain copy of the
same bytes (`cp` and fsync), and SQLite's `VACUUM INTO`.

    python benches/backup.py [--memories 100000] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.e2e.process import ServerProcess  # noqa: E402
from tests.support.mip import Mip, Vector, text  # noqa: E402

DIMENSION = 384
BATCH = 1000
CUBE = "cubes/c"


def percentiles(seconds: list[float]) -> str:
    """Returns median and 99th percentile in milliseconds."""
    return f"{np.percentile(seconds, 50) * 1e3:7.1f} {np.percentile(seconds, 99) * 1e3:8.1f}"


async def fill(mip: Mip, count: int) -> None:
    """Adds memories of 18 words with a vector each."""
    generator, words = np.random.default_rng(1), [f"word{n}" for n in range(20_000)]
    random.seed(1)
    await mip.CreateCube(cube_id="c", cube={"embedding_model": "toy", "embedding_dimension": DIMENSION})
    for _ in range(0, count, BATCH):
        rows = generator.standard_normal((BATCH, DIMENSION)).astype("<f4")
        vectors = [Vector(model="toy", dtype=1, dimension=DIMENSION, data=row.tobytes()) for row in rows]
        batch = [text(" ".join(random.choices(words, k=18)), vectors=[vector]) for vector in vectors]
        await mip.AddMemories(parent=CUBE, memories=batch)


async def write(mip: Mip, latencies: list[float], stop: asyncio.Event) -> None:
    """Adds one memory after the other; notes how long each took."""
    number = 0
    while not stop.is_set():
        number += 1
        began = time.perf_counter()
        await mip.AddMemories(parent=CUBE, memories=[text(f"written meanwhile {number}")])
        latencies.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)


async def while_writing(mip: Mip, work: Callable[[], float]) -> tuple[float, list[float]]:
    """Runs blocking work beside a writer; returns its seconds and the writer's latencies."""
    latencies: list[float] = []
    stop = asyncio.Event()
    writer = asyncio.create_task(write(mip, latencies, stop))
    seconds = await asyncio.to_thread(work)
    stop.set()
    await writer
    return seconds, latencies


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Returns work that returns the seconds that it took."""

    def run() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return run


def command(*arguments: str) -> None:
    """Runs a command of the server's package."""
    subprocess.run([sys.executable, "-m", "memos_server", *arguments], check=True, capture_output=True)


def copy_plainly(source: Path, target: Path) -> None:
    """Copies the bytes of a file and syncs them: the least that any backup does."""
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def vacuum_into(source: Path, target: Path) -> None:
    """Lets SQLite write a new, packed file, and syncs it."""
    with sqlite3.connect(source) as db:
        db.execute("VACUUM INTO ?", (str(target),))
    db.close()
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


async def measure(folder: Path, count: int) -> dict[str, object]:
    """Prints the table and returns it."""
    data = folder / "data"
    server = ServerProcess(data)
    mip = Mip(server.address, server.token)
    await fill(mip, count)
    record = data / "record.sqlite"
    size = record.stat().st_size / 1e6
    backup = str(folder / "backup")
    rows: dict[str, tuple[Callable[[], object], bool]] = {
        "nothing": (lambda: time.sleep(5), False),
        "cp": (lambda: copy_plainly(record, folder / "copy"), True),
        "VACUUM INTO": (lambda: vacuum_into(record, folder / "vacuum"), True),
        "memos backup": (lambda: command("backup", "--data", str(data), backup), True),
        "nothing again": (lambda: time.sleep(5), False),
    }
    print(f"{count:,} memories, record {size:.0f} MB\n{'beside a writer':16}     s   MB/s  p50 ms   p99 ms  writes")
    found: dict[str, object] = {"memories": count, "megabytes": size}
    for name, (work, counts) in rows.items():
        seconds, latencies = await while_writing(mip, timed(work))
        rate = f"{size / seconds:6.0f}" if counts else "     -"
        print(f"{name:16} {seconds:5.1f} {rate} {percentiles(latencies)}  {len(latencies):6}", flush=True)
        p50, p99 = (float(np.percentile(latencies, q)) * 1e3 for q in (50, 99))
        found[name] = {"seconds": seconds, "p50_ms": p50, "p99_ms": p99, "writes": len(latencies)}
    await mip.close()
    server.stop()
    seconds = timed(lambda: command("restore", backup, "--data", str(folder / "restored")))()
    print(f"{'memos restore':16} {seconds:5.1f} {size / seconds:6.0f}")
    began = time.perf_counter()
    copy = ServerProcess(folder / "restored")
    started = time.perf_counter() - began
    mip = Mip(copy.address, copy.token)
    # Each search waits for the index for ten seconds.
    while (await mip.SearchMemories(cubes=[CUBE], query="word7")).stale:
        pass
    indexed = time.perf_counter() - began
    print(f"restored server listens after {started:.1f} s, its index is made anew after {indexed:.1f} s")
    await mip.close()
    copy.stop()
    return {**found, "restore_seconds": seconds, "start_seconds": started, "index_seconds": indexed}


def main() -> int:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), options.memories))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
