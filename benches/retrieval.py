"""Measures what searching finds, through a running server and the SDK (docs/benchmarks.md, docs/adr/0010).

A data set is a JSON file `{"collections": [{"id", "items": [{"id", "text", "speaker", "timestamp", "session"}],
"questions": [{"id", "text", "category", "gold": [item ids]}]}]}`; each collection becomes a cube. Data sets have
licences of their own and are no part of this repository.

    python benches/retrieval.py --data DIR --bench locomo,musique300 --modes hybrid,graph --json retrieval.json

starts a server in a temporary folder and prints recall and latency, beside methods computed in this process from the
same texts, terms and vectors. `make` and its like serve other evaluators, as functions `collection -> search(query, k)
-> ids`, on a server that already runs (MEMOS_TARGET and MEMOS_TOKEN, or the local data folder).
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memos_sdk import Client
from memos_sdk._gen.mip import v1 as mip

CUTOFFS = (5, 10)
DEPTH = 20
"""How many ids a search is asked for."""
MODEL = "all-MiniLM-L6-v2"
_TIME_FORMATS = ("%I:%M %p on %d %B, %Y", "%Y/%m/%d (%a) %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d")

Collection = Mapping[str, Any]


@cache
def parse_time(text: str) -> datetime.datetime | None:
    """Returns the time that a data set gives an item, as UTC; None, said on stderr, for one in no known form."""
    text = text.strip()
    for form in _TIME_FORMATS:
        try:
            return datetime.datetime.strptime(text, form).replace(tzinfo=datetime.UTC)
        except ValueError:
            continue
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        if text:
            print(f"added without its time, whose form is not known: {text!r}", file=sys.stderr)
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)


def memories_of(collection: Collection) -> list[dict[str, Any]]:
    """Returns the items as the SDK's `add_many` takes them: speaker and time are provenance, never part of the text."""
    memories = []
    for item in collection["items"]:
        source: dict[str, Any] = {"kind": "message" if item.get("speaker") else "document", "source": str(item["id"])}
        if item.get("speaker"):
            source["speaker"] = item["speaker"]
        said = parse_time(str(item.get("timestamp") or ""))
        if said:
            source["time"] = said
        memories.append({"text": item["text"], "provenance": source})
    return memories


class ServerSearch:
    """One collection in a cube of its own; a call searches it. `close` deletes the cube."""

    def __init__(
        self, client: Client, collection: Collection, mode: str, vectors: NDArray[np.float32] | None = None
    ) -> None:
        """Adds the items.

        Args:
            client: The server.
            collection: The collection.
            mode: The search mode.
            vectors: float32 (items, dimension): the items' vectors by the model that the server runs; None lets the
                server embed.
        """
        self._mode = mode
        self._client = client
        self._cube = client.cubes.create()
        memories = memories_of(collection)
        sessions: dict[str, str] = {}
        for item, memory in zip(collection["items"], memories, strict=True):
            # Sessions are conversations; a document set has none.
            if item.get("speaker"):
                key = str(item["session"])
                if key not in sessions:
                    sessions[key] = self._cube.sessions.create(key).name
                memory["session"] = sessions[key]
        if vectors is not None:
            for memory, vector in zip(memories, vectors, strict=True):
                packed = vector.astype("<f4").tobytes()
                message = mip.Vector(model=MODEL, dimension=len(vector), dtype=mip.Dtype.FLOAT32, data=packed)
                memory["vectors"] = [message]
        began = time.perf_counter()
        added = self._cube.add_many(memories)
        self.add_seconds = time.perf_counter() - began
        self._ids = dict(zip(added.names, (str(item["id"]) for item in collection["items"]), strict=True))

    def __call__(self, query: str, k: int) -> list[str]:
        """Returns the ids of the items found, best first."""
        return self.found(self._mode, query, k)

    def found(self, mode: str, query: str, k: int) -> list[str]:
        """Returns the ids of the items that a search mode finds, best first."""
        result = self._cube.search(query, top_k=k, mode=mode)
        return [self._ids[hit.memory.name] for hit in result]

    def close(self) -> None:
        """Deletes the cube."""
        self._client.cubes.delete(self._cube.name)


def make(collection: Collection) -> ServerSearch:
    """Adds a collection to the server that runs, and returns its search with the default mode, hybrid."""
    return ServerSearch(Client(), collection, "hybrid")


def make_graph(collection: Collection) -> ServerSearch:
    """As `make`, with SEARCH_MODE_GRAPH."""
    return ServerSearch(Client(), collection, "graph")


def make_lexical(collection: Collection) -> ServerSearch:
    """As `make`, with SEARCH_MODE_LEXICAL."""
    return ServerSearch(Client(), collection, "lexical")


def make_vector(collection: Collection) -> ServerSearch:
    """As `make`, with SEARCH_MODE_VECTOR."""
    return ServerSearch(Client(), collection, "vector")


class Row:
    """What one method reached on one set: the recalls of all questions, and the milliseconds that each took."""

    def __init__(self, bench: str, method: str) -> None:
        """Starts with no question."""
        self.bench = bench
        self.method = method
        self.recalls: dict[int, list[float]] = {k: [] for k in CUTOFFS}
        self.times_ms: list[float] = []

    def add(self, question: Mapping[str, Any], ids: Sequence[str], seconds: float) -> None:
        """Counts one question: recall@k = the share of the gold ids among the first k."""
        gold = set(question["gold"])
        for k in CUTOFFS:
            self.recalls[k].append(len(gold & set(ids[:k])) / len(gold))
        self.times_ms.append(seconds * 1000)

    def summary(self) -> dict[str, Any]:
        """Returns the figures."""
        recalls = {f"R@{k}": round(100 * float(np.mean(values)), 1) for k, values in self.recalls.items()}
        p50, p95 = np.percentile(self.times_ms, [50, 95])
        return {
            "bench": self.bench,
            "method": self.method,
            "questions": len(self.times_ms),
            **recalls,
            "p50_ms": round(float(p50), 2),
            "p95_ms": round(float(p95), 2),
        }


def load(path: Path, questions: int) -> Iterator[Collection]:
    """Yields the collections of a set, adversarial questions left out, as published figures do.

    Args:
        path: The set's file.
        questions: The most questions of a collection, evenly spaced; 0 takes all.
    """
    for collection in json.loads(path.read_text(encoding="utf-8"))["collections"]:
        asked = [question for question in collection["questions"] if question.get("category") != "adversarial"]
        if questions and len(asked) > questions:
            asked = [asked[int(place)] for place in np.linspace(0, len(asked) - 1, questions)]
        yield {**collection, "questions": asked}


def measure(row: Row, collection: Collection, search: Callable[[str], Sequence[str]]) -> None:
    """Asks all questions of a collection; one is asked beforehand, so that nobody pays for what is made once."""
    questions = collection["questions"]
    search(questions[0]["text"])
    for question in questions:
        began = time.perf_counter()
        ids = search(question["text"])
        row.add(question, ids, time.perf_counter() - began)


def run(
    client: Client, path: Path, modes: Sequence[str], questions: int, cache: Path | None, rows: list[Row]
) -> dict[str, Any]:
    """Measures one set: the modes of the server, then what is computed here. Returns the set's size and times."""
    from retrieval_baselines import METHODS, Baselines

    through = {mode: Row(path.stem, f"server {mode}") for mode in modes}
    here = {name: Row(path.stem, name) for name in METHODS}
    items, seconds = 0, 0.0
    for collection in load(path, questions):
        baselines = Baselines(collection, memories_of(collection), cache)
        search = ServerSearch(client, collection, modes[0], baselines.vectors if cache else None)
        items, seconds = items + len(collection["items"]), seconds + search.add_seconds
        for mode, row in through.items():
            measure(row, collection, partial(search.found, mode, k=DEPTH))
        for name, row in here.items():
            measure(row, collection, partial(baselines.found, name, k=DEPTH))
        search.close()
    rows += [*through.values(), *here.values()]
    return {"bench": path.stem, "items": items, "add_s": round(seconds, 1), "embedded_by_server": cache is None}


def main() -> None:
    """Runs the sets and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the sets")
    parser.add_argument("--bench", default="locomo", help="names of sets, NAME.json in the folder, with commas")
    parser.add_argument("--modes", default="hybrid,lexical,vector,graph", help="search modes, with commas")
    parser.add_argument("--questions", type=int, default=0, help="the most questions of a collection; 0 takes all")
    parser.add_argument("--cache", type=Path, help="keep vectors here; they are supplied to the server")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    from memos_sdk.cli.embedded import EmbeddedServer

    rows: list[Row] = []
    sets = []
    with tempfile.TemporaryDirectory(prefix="memos-retrieval-") as folder:
        server = EmbeddedServer(Path(folder))
        try:
            with server.client() as client:
                for name in options.bench.split(","):
                    path = options.data / f"{name}.json"
                    sets.append(run(client, path, options.modes.split(","), options.questions, options.cache, rows))
                    print(f"{name}: {sets[-1]['items']} items added in {sets[-1]['add_s']} s", file=sys.stderr)
        finally:
            server.stop()
    print(f"{'set':<14}{'method':<18}{'questions':>10}{'R@5':>8}{'R@10':>8}{'p50 ms':>9}{'p95 ms':>9}")
    for row in rows:
        figures = row.summary()
        print("{bench:<14}{method:<18}{questions:>10}{R@5:>8}{R@10:>8}{p50_ms:>9}{p95_ms:>9}".format_map(figures))
    if options.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "numpy": np.__version__}
        result = {"machine": machine, "sets": sets, "rows": [row.summary() for row in rows]}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
