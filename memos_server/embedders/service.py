"""Embedding for the server: calls share batches, queries do not wait for bulk work, results are cached by content."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from memos_server.embedders.base import Embedder
from memos_server.errors import MipError

_ENTRY_BYTES: Final = 256
"""What a cache entry takes beside its vector's bytes, about."""
_HASHED_INLINE: Final = 65_536
"""Characters that are hashed on the event loop; more would hold it up."""

_PROBE: Final = "well"

Vector = NDArray[np.float32]
_Answer = Callable[["list[_Task]", "list[Vector] | Exception"], None]


class _Call:
    """A caller who waits for the vectors of some texts.

    Attributes:
        future: Done when all vectors are there, or one failed.
        vectors: Text digest -> vector, as they come.
        missing: The tasks that are still to come, by text digest.
    """

    __slots__ = ("future", "missing", "vectors")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.vectors: dict[bytes, Vector] = {}
        self.missing: dict[bytes, _Task] = {}

    def receive(self, key: bytes, vector: Vector) -> None:
        """Takes a vector; the last one ends the wait."""
        self.vectors[key] = vector
        self.missing.pop(key, None)
        if not self.missing and not self.future.done():
            self.future.set_result(None)


class _Task:
    """A text to embed, once, for everybody who waits for it.

    Attributes:
        key: SHA-256 of the text.
        text: The text.
        calls: Who waits. Changed on the event loop only; the lane looks whether anybody is left.
    """

    __slots__ = ("calls", "key", "text")

    def __init__(self, key: bytes, text: str) -> None:
        self.key = key
        self.text = text
        self.calls: set[_Call] = set()


class _Lane:
    """A worker thread that embeds what is queued, in batches of whatever waits."""

    def __init__(self, name: str, embedder: Embedder, window: int, batch: int, answer: _Answer) -> None:
        """Makes a lane.

        Args:
            name: The thread's name.
            embedder: The model.
            window: The most tasks that are taken at once, to be sorted by length.
            batch: The most texts of one call of the embedder.
            answer: Called on the event loop with the tasks of a call and their vectors, or its error.
        """
        self._embedder = embedder
        self._window = window
        self._batch = batch
        self._answer = answer
        self._queue: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def put(self, tasks: Sequence[_Task]) -> None:
        """Queues tasks; called on the event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        with self._changed:
            self._queue.extend(tasks)
            self._changed.notify()

    def stop(self) -> None:
        """Lets the thread end after the call that it is in."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    async def ended(self) -> None:
        """Waits for the thread's end."""
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        loop = self._loop
        assert loop is not None
        while tasks := self._take():
            for start in range(0, len(tasks), self._batch):
                batch = [task for task in tasks[start : start + self._batch] if task.calls]
                if self._closed:
                    return
                if not batch:
                    continue
                for answered, result in self._embed(batch):
                    try:
                        loop.call_soon_threadsafe(self._answer, answered, result)
                    except RuntimeError:
                        return  # the loop is closed: nobody waits any more

    def _embed(self, batch: list[_Task]) -> Iterator[tuple[list[_Task], list[Vector] | Exception]]:
        """Yields tasks with their vectors or their error. A vector that cannot be searched for is an error."""
        try:
            rows = np.asarray(self._embedder.embed([task.text for task in batch]), np.float32)
        except Exception as error:
            yield batch, error
            return
        if rows.shape != (len(batch), self._embedder.dimension):
            yield batch, _no_vector()
            return
        if np.isfinite(rows).all():
            yield batch, list(rows)
            return
        # A text on which the model fails takes none down that it happens to share a batch with.
        answers = [(task, row, bool(np.isfinite(row).all())) for task, row in zip(batch, rows, strict=True)]
        yield [task for task, _, well in answers if not well], _no_vector()
        yield [task for task, _, well in answers if well], [row for _, row, well in answers if well]

    def _take(self) -> list[_Task]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._closed:
                return []
            tasks = [self._queue.popleft() for _ in range(min(len(self._queue), self._window))]
        # Texts of similar length share batches, so that little is padded.
        tasks.sort(key=lambda task: len(task.text))
        return tasks


class EmbeddingService:
    """Embeds texts off the event loop.

    All methods are called on one event loop. There are two lanes, each a thread, one for queries and one for the bulk
    of written memories: a query runs beside a bulk batch instead of after it.
    """

    def __init__(
        self,
        embedder: Embedder | None,
        *,
        cache_bytes: int = 64 * 2**20,
        window: int = 256,
        batch: int = 32,
    ) -> None:
        """Makes the service.

        Args:
            embedder: The model; None when the server runs none.
            cache_bytes: What cached vectors may take in memory.
            window: The most texts that are sorted by length together.
            batch: The most texts of one call of the embedder.
        """
        self._embedder = embedder
        self._cache: OrderedDict[bytes, Vector] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._cached = 0
        self._closed = False
        self._unanswered: set[_Task] = set()
        # Whether it is a query -> its lane, and by text digest the tasks in it that further calls may share.
        self._lanes: dict[bool, _Lane] = {}
        self._shared: dict[bool, dict[bytes, _Task]] = {True: {}, False: {}}
        if embedder is not None:
            self._lanes = {
                True: _Lane("embed-query", embedder, batch, batch, self._answered),
                False: _Lane("embed-bulk", embedder, window, batch, self._answered),
            }

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Embeds texts, in batches shared with other calls.

        A cancelled call leaves the queue; what others wait for too goes on.

        Args:
            texts: The texts.

        Returns:
            One read-only float32 vector of shape (dimension,) a text, L2-normalised.

        Raises:
            MipError: EMBEDDER_UNAVAILABLE when no model runs here, SHUTTING_DOWN; BACKEND_UNAVAILABLE when what the
                model returned is not one finite vector of its dimension a text.
        """
        return await self._embed(texts, query=False)

    async def embed_query(self, text: str) -> Vector:
        """Embeds a query, ahead of the bulk; see `embed`."""
        return (await self._embed([text], query=True))[0]

    @property
    def waiting(self) -> int:
        """The number of texts that are not embedded yet."""
        return len(self._unanswered)

    async def probe(self) -> None:
        """Tries whether the model embeds, beside what is queued.

        Raises:
            MipError: BACKEND_UNAVAILABLE.
        """
        if self._embedder is None or self._closed:
            return
        try:
            vectors = await asyncio.to_thread(self._embedder.embed, [_PROBE])
        except Exception as error:
            name = type(error).__name__
            raise MipError("BACKEND_UNAVAILABLE", f"the model fails ({name}); restart the server") from error
        if vectors.shape != (1, self._embedder.dimension) or not np.isfinite(vectors).all():
            raise _no_vector()

    def forget(self) -> None:
        """Empties the cache, so that no vector of a purged text stays; what is under way is not cached either."""
        self._cache.clear()
        self._cached = 0
        for shared in self._shared.values():
            shared.clear()

    async def close(self) -> None:
        """Ends the work; calls that wait get SHUTTING_DOWN. Closes the embedder."""
        if self._closed:
            return
        self._closed = True
        for lane in self._lanes.values():
            lane.stop()
        await asyncio.gather(*(lane.ended() for lane in self._lanes.values()))
        self._answered(list(self._unanswered), _shutting_down())
        self.forget()
        if self._embedder is not None:
            self._embedder.close()

    async def _embed(self, texts: Sequence[str], *, query: bool) -> list[Vector]:
        if self._embedder is None:
            raise MipError("EMBEDDER_UNAVAILABLE", "no embedding model runs here")
        large = sum(map(len, texts)) > _HASHED_INLINE
        keys = await asyncio.to_thread(_digests, texts) if large else _digests(texts)
        if self._closed:
            raise _shutting_down()
        call = _Call(asyncio.get_running_loop().create_future())
        self._enqueue(call, dict(zip(keys, texts, strict=True)), query)
        try:
            if call.missing:
                await call.future
        finally:
            for task in call.missing.values():
                task.calls.discard(call)
                if not task.calls:
                    self._leave(task)
        return [call.vectors[key] for key in keys]

    def _enqueue(self, call: _Call, texts: dict[bytes, str], query: bool) -> None:
        shared = self._shared[query]
        new = []
        for key, text in texts.items():
            vector = self._cache.get(key)
            if vector is not None:
                self._cache.move_to_end(key)
                call.vectors[key] = vector
                continue
            task = shared.get(key)
            if task is None:
                task = shared[key] = _Task(key, text)
                new.append(task)
            task.calls.add(call)
            call.missing[key] = task
        if new:
            self._unanswered.update(new)
            self._lanes[query].put(new)

    def _answered(self, tasks: list[_Task], result: list[Vector] | Exception) -> None:
        if isinstance(result, Exception):
            for task in tasks:
                self._leave(task)
                for call in task.calls:
                    if not call.future.done():
                        call.future.set_exception(result)
            return
        for task, row in zip(tasks, result, strict=True):
            vector = row.copy()  # by itself, not a view that keeps its whole batch in memory
            vector.flags.writeable = False
            if self._leave(task):
                self._to_cache(task.key, vector)
            for call in task.calls:
                call.receive(task.key, vector)

    def _leave(self, task: _Task) -> bool:
        """Takes a task that is answered or abandoned off the books; returns whether it was still shared."""
        self._unanswered.discard(task)
        for shared in self._shared.values():
            if shared.get(task.key) is task:
                del shared[task.key]
                return True
        return False

    def _to_cache(self, key: bytes, vector: Vector) -> None:
        size = vector.nbytes + _ENTRY_BYTES
        if size > self._cache_bytes or key in self._cache:
            return
        self._cache[key] = vector
        self._cached += size
        while self._cached > self._cache_bytes:
            _, old = self._cache.popitem(last=False)
            self._cached -= old.nbytes + _ENTRY_BYTES


def _digests(texts: Sequence[str]) -> list[bytes]:
    return [hashlib.sha256(text.encode()).digest() for text in texts]


def _no_vector() -> MipError:
    return MipError("BACKEND_UNAVAILABLE", "the model returns no vector; install it again and restart the server")


def _shutting_down() -> MipError:
    return MipError("SHUTTING_DOWN", "the server is shutting down")
