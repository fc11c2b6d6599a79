"""What things cost against how much there is: memories in a cube, and cubes in a server.

    python benches/scaling.py [--memories 1000,...,1000000] [--cubes 1,...,10000] [--minutes 60] [--json FILE]

One cube grows, and one server fills with cubes; at each size everything is measured on it. When the minutes are over,
the size that was reached is the last one, and the file says so. `benches/scaling_plots.py FILE` draws the plots.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness.calls import BATCH, Caller, add_request, batches, memories_of, vector_message
from harness.figures import machine
from harness.servers import MemosServer
from harness.texts import Texts, unit_vectors
from numpy.typing import NDArray

MEMORIES = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
CUBES = (1, 10, 100, 1000, 10_000)
_MOST_AT_ONCE = 50_000
"""Memories of one commit while a cube grows."""
_ROLLED_BACK = 1000
_MIB = 2**20


def timed(work: Callable[[], Any]) -> float:
    """Returns how long something takes, milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def each(works: Sequence[Callable[[], Any]]) -> float:
    """Returns the first quartile of how long several things take, milliseconds; the first is not counted.

    What else a machine does only adds to a time, and here the question is what the size does.
    """
    return float(np.quantile([timed(work) for work in works][1:], 0.25))


class Growing:
    """A cube that grows, on a server of its own."""

    def __init__(self, folder: Path, texts: Texts, largest: int) -> None:
        """Starts the server and makes the cube."""
        self._data = folder / "one-cube"
        self._server = MemosServer(self._data)
        self._caller = Caller(self._server.address, self._server.token)
        self._cube = self._caller.make_cube("growing")
        self._texts = texts.take(min(largest, 100_000))
        self._vectors = unit_vectors(min(largest, 100_000))
        self._asked = texts.questions
        self._size = 0
        self._names: list[str] = []

    def close(self) -> None:
        """Ends the server."""
        self._caller.close()
        self._server.stop()

    def _batches(self, count: int) -> Iterator[list[Any]]:
        """Yields memories: beyond the supply, its texts and vectors again, told apart by a number and by noise."""
        random = np.random.default_rng(self._size)
        supply = len(self._texts)
        for low in range(self._size, self._size + count, BATCH):
            places = np.arange(low, min(low + BATCH, self._size + count))
            vectors: NDArray[np.float32] = self._vectors[places % supply]
            if low >= supply:
                vectors = vectors + 0.02 * random.standard_normal(vectors.shape, dtype=np.float32)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            yield from batches([f"{self._texts[place % supply]} {place // supply}" for place in places], vectors)

    def grow(self, size: int, until: float) -> float:
        """Adds memories up to a size or a moment; returns the seconds that it took until all were searchable."""
        began = time.perf_counter()
        while self._size < size and time.monotonic() < until:
            count = min(_MOST_AT_ONCE, size - self._size)
            self._caller.bulk(self._cube, self._batches(count))
            self._caller.searchable(self._cube)
            self._size += count
        return time.perf_counter() - began

    def measure(self, seconds: float) -> dict[str, float]:
        """Returns the figures at the size that was reached."""
        call, cube = self._caller, self._cube
        self._settled()
        page = call("ListMemories", parent=cube, page_size=1000)
        names = [memory.name for memory in page.memories]
        one = [add_request(cube, memories_of([f"one more {n}"], self._vectors[n : n + 1])) for n in range(21)]
        figures: dict[str, float] = {"size": self._size, "loading_seconds": seconds}
        before = call("GetCube", name=cube).cube.revision
        figures["add_one_ms"] = each([lambda body=body: call.raw("AddMemories", body) for body in one])  # type: ignore[misc]
        thousand = [
            add_request(cube, memories_of(self._texts[:BATCH], self._vectors[n : n + BATCH])) for n in range(0, 6, 2)
        ]
        figures["add_thousand_ms"] = each([lambda body=body: call.raw("AddMemories", body) for body in thousand])  # type: ignore[misc]
        figures["index_lag_ms"] = timed(lambda: call.searchable(cube))
        call("RollbackCube", name=cube, to_revision=before)
        call.searchable(cube)
        self._settled()
        figures["get_ms"] = each([lambda name=name: call("GetMemory", name=name) for name in names[:200]])  # type: ignore[misc]
        figures["list_page_ms"] = each(
            [lambda: call("ListMemories", parent=cube, page_size=100, page_token=page.next_page_token)] * 20
        )
        for mode in ("HYBRID", "LEXICAL", "GRAPH"):
            figures[f"search_{mode.lower()}_ms"] = each([self._search(mode, n) for n in range(31)])
        figures["rollback_thousand_ms"] = self._rollback()
        figures["verify_ms"] = timed(lambda: call("VerifyCube", name=cube))
        figures["memory_mib"] = self._server.resident_bytes() / _MIB
        figures["disk_mib"] = sum(self._server.disk_bytes().values()) / _MIB
        figures |= self._restarted()
        return figures

    def _settled(self) -> None:
        """Waits, half a minute at most, until the server has written its snapshot and does nothing more."""
        for _ in range(60):
            before = self._server.cpu_seconds()
            time.sleep(0.5)
            if self._server.cpu_seconds() - before < 0.05:
                return

    def _search(self, mode: str, number: int) -> Callable[[], Any]:
        fields: dict[str, Any] = {"query": self._asked[number % len(self._asked)], "mode": f"SEARCH_MODE_{mode}"}
        if mode != "LEXICAL":
            fields["vector"] = vector_message(self._vectors[number])
        return lambda: self._caller("SearchMemories", cubes=[self._cube], top_k=10, **fields)

    def _rollback(self) -> float:
        times = []
        for _ in range(3):
            before = self._caller("GetCube", name=self._cube).cube.revision
            body = add_request(self._cube, memories_of(self._texts[:_ROLLED_BACK], self._vectors[:_ROLLED_BACK]))
            self._caller.raw("AddMemories", body)
            self._caller.searchable(self._cube)
            times.append(timed(lambda to=before: self._caller("RollbackCube", name=self._cube, to_revision=to)))  # type: ignore[misc]
            self._caller.searchable(self._cube)
        return min(times)

    def _restarted(self) -> dict[str, float]:
        self._caller.close()
        self._server.stop()
        self._server = MemosServer(self._data)
        self._caller = Caller(self._server.address, self._server.token)
        first = timed(self._search("HYBRID", 0))
        return {
            "start_ms": self._server.start_seconds * 1e3,
            "first_search_ms": first,
            "memory_restarted_mib": self._server.resident_bytes() / _MIB,
        }


class Many:
    """A server that fills with cubes of ten memories each."""

    def __init__(self, folder: Path, texts: Texts) -> None:
        """Starts the server."""
        self._data = folder / "many-cubes"
        self._server = MemosServer(self._data)
        self._caller = Caller(self._server.address, self._server.token)
        self._texts = texts.take(1000)
        self._vectors = unit_vectors(1000)
        self._asked = texts.questions
        self._cubes: list[str] = []

    def close(self) -> None:
        """Ends the server."""
        self._caller.close()
        self._server.stop()

    def _add(self, cube: str, number: int, count: int) -> None:
        low = number * 10 % 990
        memories = memories_of(self._texts[low : low + count], self._vectors[low : low + count])
        self._caller.raw("AddMemories", add_request(cube, memories))

    def grow(self, count: int, until: float) -> float:
        """Makes cubes up to a number or a moment; returns milliseconds a cube."""
        began, before = time.perf_counter(), len(self._cubes)
        while len(self._cubes) < count and time.monotonic() < until:
            self._cubes.append(self._caller.make_cube(f"c{len(self._cubes)}"))
            self._add(self._cubes[-1], len(self._cubes), 10)
        return (time.perf_counter() - began) * 1e3 / max(1, len(self._cubes) - before)

    def measure(self, make_ms: float) -> dict[str, float]:
        """Returns the figures at the number that was reached."""
        step = max(1, len(self._cubes) // 100)
        some = (self._cubes[::step] * 100)[:100]
        figures = {"cubes": float(len(self._cubes)), "make_ms": make_ms}
        call = self._caller
        figures["open_ms"] = each([lambda name=name: call("GetCube", name=name) for name in some])  # type: ignore[misc]
        figures["add_in_turn_ms"] = each(
            [lambda name=name, number=n: self._add(name, number, 1) for n, name in enumerate(some)]  # type: ignore[misc]
        )
        figures["search_one_ms"] = each([lambda name=name: self._search([name]) for name in some[:50]])  # type: ignore[misc]
        across = list(dict.fromkeys(some))
        figures["search_across_ms"] = each([lambda: self._search(across)] * 8)
        figures["searched_across"] = float(len(across))
        figures["list_cubes_ms"] = each([lambda: call("ListCubes", page_size=100)] * 10)
        figures["memory_mib"] = self._server.resident_bytes() / _MIB
        figures["disk_mib"] = sum(self._server.disk_bytes().values()) / _MIB
        self._caller.close()
        figures["stop_ms"] = timed(self._server.stop)
        self._server = MemosServer(self._data)
        self._caller = Caller(self._server.address, self._server.token)
        figures["start_ms"] = self._server.start_seconds * 1e3
        figures["memory_restarted_mib"] = self._server.resident_bytes() / _MIB
        figures["first_search_across_ms"] = timed(lambda: self._search(across))
        return figures

    def _search(self, cubes: Sequence[str]) -> None:
        fields: dict[str, Any] = {"query": self._asked[0], "vector": vector_message(self._vectors[3])}
        self._caller("SearchMemories", cubes=cubes, top_k=10, **fields)


def main() -> None:
    """Runs both and writes what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", default=",".join(map(str, MEMORIES)), help="sizes of the cube, ascending")
    parser.add_argument("--cubes", default=",".join(map(str, CUBES)), help="numbers of cubes, ascending")
    parser.add_argument("--minutes", type=float, default=60.0, help="for each of the two")
    parser.add_argument("--data", type=Path, help="a folder of data sets; without it texts are made")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--json", type=Path, default=Path("build/scaling.json"))
    options = parser.parse_args()
    texts = Texts(options.data)
    result: dict[str, Any] = {
        "machine": machine(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "texts": texts.source,
        "memories": [],
        "cubes": [],
    }

    def note(part: str, figures: dict[str, float]) -> None:
        result[part].append(figures)
        # After each size, so that a run that is ended leaves what it measured.
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(part, {key: round(value, 2) for key, value in figures.items()}, file=sys.stderr)

    options.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="memos-scaling-", dir=options.folder) as made:
        counts = [int(count) for count in options.cubes.split(",") if count]
        until = time.monotonic() + options.minutes * 60
        many = Many(Path(made), texts)
        for count in counts:
            note("cubes", many.measure(many.grow(count, until)))
            if time.monotonic() >= until:
                break
        many.close()
        sizes = [int(size) for size in options.memories.split(",") if size]
        until = time.monotonic() + options.minutes * 60
        growing = Growing(Path(made), texts, max(sizes, default=0))
        for size in sizes:
            note("memories", growing.measure(growing.grow(size, until)))
            if time.monotonic() >= until:
                break
        growing.close()


if __name__ == "__main__":
    main()
