"""The two sides that are compared, each doing the same: add texts with their vectors to a cube, and search it.

Both begin with a text and a vector in memory and end with an acknowledged write, or with the found memories at hand.
The embedding of a question is counted for neither: the raw side is given it, the server keeps those of recent ones.
Analysing texts for the lexical channel is counted for the server alone; the raw side finds the terms ready.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from engines.raw_index import RawIndex
from engines.raw_record import RawRecord
from engines.supply import Supply
from memos_sdk._gen.mip.v1 import Dtype

MODEL = "all-MiniLM-L6-v2"
_FLOAT32 = Dtype.FLOAT32
TOP_K = 10
DEPTH = 200
"""Candidates that the server asks each channel for."""
CONFIRMED = 16
"""Memories that the server reads from the record for ten hits, at least."""
KINDS = ("hybrid", "vector", "lexical")


class Side(Protocol):
    """One way of doing the work. A cube is named by a number.

    Attributes:
        seconds: Spent waiting for the record, and for the index, where the side knows.
        width: How many connections are used.
    """

    seconds: list[float]
    width: int

    async def open(self) -> None:
        """Connects."""

    async def close(self) -> None:
        """Disconnects."""

    async def make_cube(self, number: int) -> None:
        """Makes a cube, unless it is there."""

    async def add(self, cube: int, low: int, high: int) -> None:
        """Adds texts `low` to `high`, counted around the supply, as one commit."""

    async def searchable(self, cube: int) -> None:
        """Returns when a search sees all that was added."""

    async def search(self, cube: int, question: int, kind: str) -> int:
        """Searches with a question; returns how many memories came back."""


class Raw:
    """The drivers of Neo4j and Weaviate."""

    def __init__(self, supply: Supply, where: Mapping[str, Any]) -> None:
        """Takes what is added, and the settings of record and index."""
        self._supply = supply
        self._record, self._index = RawRecord(where["record"]), RawIndex(where["index"])
        self._revisions: dict[int, int] = {}
        self._depth, self._fetched = where.get("depth", DEPTH), where.get("fetched", CONFIRMED)
        self._ready: dict[int, tuple[bytes, str, list[str]]] = {}
        self.width = 1
        self.seconds = [0.0, 0.0]

    async def open(self) -> None:
        """See Side."""
        await self._index.open()

    async def close(self) -> None:
        """See Side."""
        await self._record.close()
        await self._index.close()

    async def prepare(self) -> None:
        """Makes the schemas."""
        await self._record.prepare()
        await self._index.prepare()

    async def prepare_index(self) -> None:
        """Makes the schema of the index alone."""
        await self._index.prepare()

    async def search_index(self, cube: int, question: int, kind: str) -> int:
        """Does the index's half of `search`."""
        words = " ".join(self._supply.terms(question)) if kind != "vector" else ""
        vector = self._supply.asked[question % len(self._supply.asked)] if kind != "lexical" else None
        return len(await self._index.search(f"raw{cube}", 2**40, words, vector, self._depth))

    async def make_cube(self, number: int) -> None:
        """See Side."""
        await self._record.make_cube(f"raw{number}", number + 1)

    def ready(self, low: int, high: int) -> None:
        """Analyses texts before the clock starts."""
        from memos_server.memories.analysis import analyze
        from memos_server.memories.entities import entities

        texts = self._supply.texts
        for number in range(low, high):
            place = number % len(texts)
            if place not in self._ready:
                text = texts[place]
                tokens = [f"e:{name}" for name in entities(text)]
                self._ready[place] = text.encode() + b"\0" * 6, " ".join(analyze(text)), tokens

    def _rows(self, low: int, high: int) -> tuple[list[tuple[bytes, str, list[str]]], Any]:
        self.ready(low, high)
        count = len(self._supply.texts)
        places = [number % count for number in range(low, high)]
        return [self._ready[place] for place in places], self._supply.vectors[places]

    async def add(self, cube: int, low: int, high: int) -> None:
        """See Side."""
        rows, vectors = self._rows(low, high)
        began = time.perf_counter()
        revision, uids = await self._record.add(
            f"raw{cube}", [row[0] for row in rows], [vector.tobytes() for vector in vectors]
        )
        written = time.perf_counter()
        await self._index.add(
            f"raw{cube}", revision, time.time(), uids, [row[1] for row in rows], [row[2] for row in rows], vectors
        )
        self.seconds[0] += written - began
        self.seconds[1] += time.perf_counter() - written
        self._revisions[cube] = max(revision, self._revisions.get(cube, 0))

    async def add_to_record(self, cube: int, low: int, count: int) -> None:
        """Does the record's half of `add`."""
        rows, vectors = self._rows(low, low + count)
        await self._record.add(f"raw{cube}", [row[0] for row in rows], [vector.tobytes() for vector in vectors])

    async def add_to_index(self, cube: int, low: int, count: int) -> None:
        """Does the index's half of `add`."""
        rows, vectors = self._rows(low, low + count)
        uids = [str(uuid.uuid4()) for _ in rows]
        await self._index.add(
            f"raw{cube}", 1, time.time(), uids, [row[1] for row in rows], [row[2] for row in rows], vectors
        )

    async def tenants(self, what: str, cubes: Sequence[int]) -> None:
        """Makes (`tenants`), loads, unloads or drops the tenants of cubes."""
        names = [f"raw{cube}" for cube in cubes]
        if what == "tenants":
            await self._index.make_tenants(names)
        elif what == "drop":
            await self._index.drop(names)
        else:
            await self._index.switch(names, active=what == "load")

    async def searchable(self, cube: int) -> None:
        """See Side: what Weaviate has acknowledged is searched."""

    async def search(self, cube: int, question: int, kind: str) -> int:
        """See Side."""
        supply = self._supply
        words = " ".join(supply.terms(question)) if kind != "vector" else ""
        vector = supply.asked[question % len(supply.asked)] if kind != "lexical" else None
        revision = self._revisions.get(cube, 2**40)
        began = time.perf_counter()
        found = await self._index.search(f"raw{cube}", revision, words, vector, self._depth)
        asked = time.perf_counter()
        rows = await self._record.fetch(cube + 1, found[: self._fetched], revision)
        self.seconds[0] += time.perf_counter() - asked
        self.seconds[1] += asked - began
        return len(rows)


class Server:
    """The server, through the SDK."""

    def __init__(self, supply: Supply, where: Mapping[str, Any]) -> None:
        """Takes what is added, and the servers' address and token."""
        from memos_sdk import AsyncClient, Vector

        self._supply = supply
        self._clients = [AsyncClient(where["address"], token=where["token"], timeout=120) for _ in range(8)]
        self._turn = 0
        self.width = 1
        """How many of the clients are used: one for eight callers."""
        self._vector = Vector
        self.seconds = [0.0, 0.0]

    def _cube(self, number: int) -> Any:
        self._turn += 1
        return self._clients[self._turn % self.width].cube(f"bench{number}")

    async def open(self) -> None:
        """See Side."""

    async def close(self) -> None:
        """See Side."""
        for client in self._clients:
            await client.close()

    async def make_cube(self, number: int) -> None:
        """See Side."""
        dimension = int(self._supply.vectors.shape[1])
        await self._clients[0].cubes.create(
            f"bench{number}", embedding_model=MODEL, embedding_dimension=dimension, exist_ok=True
        )

    def ready(self, low: int, high: int) -> None:
        """Nothing is prepared for the server."""

    def _memory(self, number: int) -> dict[str, Any]:
        place = number % len(self._supply.texts)
        row = self._supply.vectors[place]
        vector = self._vector(model=MODEL, dimension=len(row), dtype=_FLOAT32, data=row.astype("<f4").tobytes())
        return {"text": self._supply.texts[place], "vectors": [vector]}

    async def add(self, cube: int, low: int, high: int) -> None:
        """See Side."""
        memories = [self._memory(number) for number in range(low, high)]
        handle = self._cube(cube)
        if len(memories) == 1:
            await handle.add(memories[0]["text"], vectors=memories[0]["vectors"])
        else:
            await handle.add_many(memories)

    async def name(self, cube: int, number: int) -> None:
        """Adds a text under a name, so that it can be updated."""
        memory = self._memory(number)
        await self._cube(cube).add(memory["text"], id=f"m{number}", vectors=memory["vectors"])

    async def update(self, cube: int, number: int) -> None:
        """Gives a memory that was named another text and vector: a commit with a further version."""
        memory = self._memory(number + 1)
        await self._cube(cube).update(f"m{number}", memory["text"], vectors=memory["vectors"])

    async def archive(self, cube: int, number: int) -> None:
        """Archives a memory that was named: a commit with a version whose content stays."""
        await self._cube(cube).archive(f"m{number}")

    async def searchable(self, cube: int) -> None:
        """See Side."""
        handle = self._cube(cube)
        while (await handle.search("anything", mode="lexical", top_k=1)).stale:
            pass

    async def search(self, cube: int, question: int, kind: str) -> int:
        """See Side."""
        place = question % len(self._supply.questions)
        handle = self._cube(cube)
        if kind == "vector":
            row = self._supply.asked[place]
            vector = self._vector(model=MODEL, dimension=len(row), dtype=_FLOAT32, data=row.astype("<f4").tobytes())
            result = await handle.search(vector=vector, mode="vector", top_k=TOP_K)
        else:
            result = await handle.search(self._supply.questions[place], mode=kind, top_k=TOP_K)
        if result.stale or result.unreachable:
            raise RuntimeError(f"the search did not see everything: stale {result.stale}, away {result.unreachable}")
        return len(list(result))
