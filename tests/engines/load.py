"""Callers that write and read one cube on several servers, as an application does, and note everything they are told.

A call that the server could not answer is repeated on the next server with the same request_id and the same bytes until
its patience ends; then nobody knows what became of it. Every error on the way is kept: `errors` says which of them a
caller should never have seen.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from memos_sdk import AsyncClient
from memos_sdk._async.cube import AsyncCube
from memos_sdk.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    MipError,
    NotFound,
    OutOfRange,
    Unavailable,
)
from memos_sdk.models import Memory
from tests.engines.cluster import PATIENCE, Cluster
from tests.engines.cube_model import (
    Add,
    Archive,
    Call,
    Done,
    Find,
    Get,
    GetHead,
    Held,
    ListAll,
    Refused,
    Rollback,
    Update,
    Value,
)
from tests.engines.history import History, LogEntry

WEIGHTS: Final[Mapping[str, int]] = {
    "add": 6,
    "add_expected": 3,
    "update": 4,
    "update_etag": 5,
    "archive": 2,
    "rollback": 1,
    "get": 6,
    "head": 3,
    "list": 1,
    "find": 3,
}
_REFUSALS = Aborted | AlreadyExists | FailedPrecondition | NotFound | OutOfRange
_ANSWERED: Final = (Aborted, AlreadyExists, FailedPrecondition, NotFound, OutOfRange)
_LOST: Final = frozenset({"CONNECT_FAILED", ""})
"""Reasons of errors that no server sent: the connection broke, or none could be made."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An error as a caller saw it, and when, seconds of the monotonic clock."""

    code: str
    reason: str
    retry_after: float | None
    method: str
    message: str
    at: float


@dataclass
class Errors:
    """The errors of a load."""

    seen: list[Seen] = field(default_factory=list)

    def note(self, error: MipError) -> None:
        """Keeps an error."""
        method = error.method.rpartition("/")[2]
        self.seen.append(Seen(error.code, error.reason, error.retry_after, method, error.message, time.monotonic()))

    def unexpected(self, *, connections: bool, also: tuple[str, ...] = ()) -> list[str]:
        """Returns what callers should not have seen: anything but UNAVAILABLE with RetryInfo and DEADLINE_EXCEEDED.

        Args:
            connections: True when servers themselves went away, so that connections may have broken.
            also: Further reasons that the fault explains.
        """
        wrong = Counter[str]()
        for error in self.seen:
            told = error.code == "UNAVAILABLE" and error.reason not in _LOST and error.retry_after is not None
            broke = connections and error.code in ("UNAVAILABLE", "CANCELLED") and error.reason in _LOST
            if not (told or broke or error.code == "DEADLINE_EXCEEDED" or error.reason in also):
                hint = "" if error.retry_after is not None else ", without RetryInfo"
                wrong[f"{error.code} {error.reason or '(no reason)'} from {error.method}{hint}: {error.message}"] += 1
        return [f"{count} times {line}" for line, count in wrong.most_common(20)]

    def counts(self) -> dict[str, int]:
        """Returns how often each code with its reason was seen."""
        return dict(Counter(f"{error.code} {error.reason}".strip() for error in self.seen).most_common())


@dataclass
class Load:
    """Writers of one cube over the servers of a cluster.

    Attributes:
        history: What they did and saw.
        errors: The errors on the way.
        degraded: How many searches named the cube `unreachable` or `stale`.
        head: The newest head that an answer has shown.
    """

    cluster: Cluster
    cube: str
    rng: random.Random
    patience_s: float = 30.0
    call_s: float = 10.0
    weights: Mapping[str, int] = field(default_factory=lambda: WEIGHTS)
    history: History = field(default_factory=History)
    errors: Errors = field(default_factory=Errors)
    degraded: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    writers: list[str] = field(default_factory=list)
    acknowledged: int = 0
    longest_s: float = 0.0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def create(self) -> None:
        """Makes the cube."""
        # The first call of all may be slow: engines compile what they do for the first time.
        await self.cluster.client(0, 60.0).cubes.create(self.cube, exist_ok=True)

    def start(self, writers: int, *, pause_s: float = 0.0) -> None:
        """Begins to write and read with so many callers, each with a pause between its calls."""
        for _ in range(writers):
            name = f"w{len(self.writers)}"
            self.writers.append(name)
            writer = Writer(self, name, random.Random(self.rng.random()), pause_s)
            self._tasks.append(asyncio.create_task(writer.run(self._stop), name=name))

    async def finish(self) -> None:
        """Lets the callers end their calls, and ends."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        self._tasks.clear()
        self._stop = asyncio.Event()

    async def run(self, writers: int, seconds: float, *, least: int = 0) -> None:
        """Writes and reads for some time, and longer until so many writes were acknowledged, within limits."""
        self.start(writers)
        await asyncio.sleep(seconds)
        await self.reach(least)
        await self.finish()

    async def reach(self, acknowledged: int, most_s: float = 30.0) -> None:
        """Waits until so many writes were acknowledged in all, within limits."""
        for _ in range(int(most_s * PATIENCE / 0.1)):
            if self.acknowledged >= acknowledged:
                return
            await asyncio.sleep(0.1)


class Writer:
    """One caller: has one call at a time, on some server."""

    def __init__(self, load: Load, name: str, rng: random.Random, pause_s: float) -> None:
        """Connects to every server."""
        self._load, self._name, self._rng, self._pause_s = load, name, rng, pause_s
        cluster = load.cluster
        clients = [cluster.client(number, load.call_s) for number in range(len(cluster.nodes))]
        self._cubes = [client.cube(load.cube) for client in clients]
        self._number = 0
        self._at = rng.randrange(len(self._cubes))

    async def run(self, stop: asyncio.Event) -> None:
        """Calls until told to stop."""
        kinds, weights = zip(*self._load.weights.items(), strict=True)
        while not stop.is_set():
            if self._rng.random() < 0.3:
                self._at = self._rng.randrange(len(self._cubes))
            await getattr(self, f"_{self._rng.choices(kinds, weights)[0]}")()
            if self._pause_s:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._pause_s)

    def _words(self) -> tuple[str, str]:
        self._number += 1
        return f"{self._name}-{self._number}", f"{self._name} says {self._number} {self._rng.getrandbits(32):08x}"

    def _known(self) -> str | None:
        ids = self._load.ids
        # Mostly what is new: several callers meet at it.
        return self._rng.choice(ids[-12:] if self._rng.random() < 0.8 else ids) if ids else None

    async def _add(self, expected: int = 0) -> None:
        items = tuple(self._words() for _ in range(self._rng.choice((1, 1, 3))))
        memories = [{"id": id_, "text": words, "tags": [self._name]} for id_, words in items]

        async def send(cube: AsyncCube, request_id: str) -> int:
            return await add_memories(cube, memories, request_id, expected)

        if await self._write(Add(items, expected), send):
            self._load.ids.extend(id_ for id_, _ in items)

    async def _add_expected(self) -> None:
        head = await self._head()
        if head is not None:
            await self._add(head)

    async def _update(self, seen: Held | None = None, etag: str = "", id_: str | None = None) -> None:
        id_ = id_ or self._known()
        if id_ is None:
            return
        words = self._words()[1]

        async def send(cube: AsyncCube, request_id: str) -> int:
            memory = await cube.update(id_, words, etag=etag, request_id=request_id)
            return memory.commit.revision if memory.commit is not None else 0

        await self._write(Update(id_, words, seen.versioned if seen is not None else None), send)

    async def _update_etag(self) -> None:
        found = await self._get()
        if found is not None:
            await self._update(held(found), found.etag, found.id)

    async def _archive(self) -> None:
        id_ = self._known()
        if id_ is None:
            return

        async def send(cube: AsyncCube, request_id: str) -> int:
            return (await cube.archive(id_, request_id=request_id)).commit.revision

        await self._write(Archive(id_), send)

    async def _rollback(self) -> None:
        head = await self._head()
        if head is None:
            return
        to = max(1, head - self._rng.randrange(4))

        async def send(cube: AsyncCube, request_id: str) -> int:
            return (
                await cube.rollback(to, request_id=request_id, timeout=self._load.call_s * PATIENCE)
            ).commit.revision

        await self._write(Rollback(to), send)

    async def _head(self) -> int | None:
        async def ask(cube: AsyncCube) -> tuple[Value, int]:
            revision = (await cube.refresh()).revision
            return Value(revision), revision

        return await self._read(GetHead(), ask)

    async def _get(self) -> Memory | None:
        id_ = self._known()
        if id_ is None:
            return None

        async def ask(cube: AsyncCube) -> tuple[Value, Memory]:
            memory = await cube.get(id_)
            return Value(held(memory)), memory

        return await self._read(Get(id_), ask)

    async def _list(self) -> None:
        await self._read(ListAll(), list_all)

    async def _find(self) -> None:
        writer = self._rng.choice(self._load.writers)
        await self._read(Find(writer), lambda cube: self._found(cube, writer))

    async def _found(self, cube: AsyncCube, writer: str) -> tuple[Value | None, None]:
        answer = await find(cube, writer)
        if isinstance(answer, str):
            self._load.degraded[answer] += 1
            return None, None
        return answer, None

    async def _read(self, call: Call, ask: Callable[[AsyncCube], Awaitable[tuple[Value | None, Any]]]) -> Any:
        with self._load.history.record(self._name, call) as recording:
            begun = time.monotonic()
            try:
                recording.answer, found = await ask(self._cubes[self._at])
            except (NotFound, AlreadyExists) as error:
                # A memory that was added and is not there is an answer, and a wrong one.
                recording.answer = Value(None) if isinstance(call, Get) else Refused(error.reason)
                return None
            except MipError as error:
                self._load.errors.note(error)
                await self._move_on(error)
                return None
            finally:
                self._load.longest_s = max(self._load.longest_s, time.monotonic() - begun)
            return found

    async def _write(self, call: Call, send: Callable[[AsyncCube, str], Awaitable[int]]) -> bool:
        """Makes a write, on one server after the other, until one answers; returns whether it took effect for sure."""
        request_id = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        until = time.monotonic() + self._load.patience_s * PATIENCE
        with self._load.history.record(self._name, call, request_id) as recording:
            while True:
                begun = time.monotonic()
                try:
                    recording.answer = Done(await send(self._cubes[self._at], request_id))
                    self._load.acknowledged += 1
                    return True
                except _ANSWERED as error:
                    recording.answer = Refused(error.reason, int(error.metadata.get("current_revision", "0")))
                    return False
                except MipError as error:
                    self._load.errors.note(error)
                    if not isinstance(error, Unavailable | DeadlineExceeded) or time.monotonic() > until:
                        return False
                    await self._move_on(error)
                finally:
                    self._load.longest_s = max(self._load.longest_s, time.monotonic() - begun)

    async def _move_on(self, error: MipError) -> None:
        """Turns to the next server, after as long as the error says."""
        self._at = (self._at + 1) % len(self._cubes)
        await asyncio.sleep(min(error.retry_after or 0.1, 2.0) * self._rng.uniform(0.5, 1.0))


async def add_memories(cube: AsyncCube, memories: list[dict[str, Any]], request_id: str, expected: int = 0) -> int:
    """Adds memories in one commit and returns its revision."""
    from memos_sdk import _stubs
    from memos_sdk._core.build import new_memory

    request = _stubs.ADD_MEMORIES(
        parent=cube.name,
        memories=[
            new_memory(cube.name, {"text": memory["text"], "tags": memory["tags"]}, id=memory["id"])
            for memory in memories
        ],
        expected_revision=expected,
        request_id=request_id,
    )
    response = await cube._caller.call(_stubs.ADD_MEMORIES, request)
    return int(response.commit.revision)


def held(memory: Memory) -> Held:
    """Returns what the model holds of a memory."""
    return Held(memory.text, str(memory.state.name), memory.revision)


async def list_all(cube: AsyncCube) -> tuple[Value, None]:
    """Lists every memory, in any state."""
    found = [(memory.id, held(memory)) async for memory in cube.list(show_deleted=True, page_size=1000)]
    return Value(frozenset(found)), None


async def find(cube: AsyncCube, writer: str) -> Value | str:
    """Returns what search finds of a writer, or the word with which the answer says that it may not be all."""
    result = await cube.search(filter=f'tags:"{writer}"', top_k=1000)
    if result.unreachable:
        return "unreachable"
    if result.stale:
        return "stale"
    return Value(frozenset((hit.memory.id, held(hit.memory)) for hit in result))


async def read_log(client: AsyncClient, cube: str) -> list[LogEntry]:
    """Returns a cube's whole log, oldest first."""
    commits = [commit async for commit in client.cube(cube).log(page_size=1000)]
    return [
        LogEntry(commit.revision, commit.request_id, commit.digest, commit.parent_digest) for commit in commits[::-1]
    ]
