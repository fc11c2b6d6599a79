"""The doctor and engines beyond this machine: which of them answer, and what stands in for one that does not.

Record, index and blobs may each lie in an engine. One that is away keeps the doctor from comparing it, and
nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, cast

from memos_server.blob_stores.base import BlobStore
from memos_server.configs.backends import load_backend
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings
from memos_server.errors import MipError
from memos_server.graph_dbs.base import RecordStore
from memos_server.main import StandIns
from memos_server.mem_os import index_batches
from memos_server.memories.registry import MemoryTypes
from memos_server.vec_dbs.base import SearchIndex

ENGINES: Final = frozenset({"neo4j", "weaviate", "s3"})
"""The backends that several processes use at once. Any other may have files that belong to one server."""

_PATIENCE_S: Final = 60.0
"""How long an engine may take to answer, seconds."""


class Absent(NamedTuple):
    """An engine that cannot be used.

    Attributes:
        part: `record`, `index` or `blobs`.
        message: What is wrong.
        remedy: What to do.
    """

    part: str
    message: str
    remedy: str


def is_shared(settings: Settings) -> bool:
    """Returns whether record and index lie in engines that several processes use at once."""
    return settings.record.backend in ENGINES and settings.index.backend in ENGINES


def remedy(settings: Settings, part: str, reason: str, local: str) -> str:
    """Returns what to do about an error of a part.

    Args:
        settings: The settings.
        part: `record`, `index` or `blobs`.
        reason: The error's reason.
        local: What to do where the part lies in the data folder.
    """
    backend = getattr(settings, part).backend
    if backend not in ENGINES:
        return local
    if reason == "STORAGE_FULL":
        return f"Give {backend} more space; nothing acknowledged was lost."
    if reason == "BACKEND_UNAVAILABLE":
        return f"Look whether {backend} runs and can be reached from here, and at its log; nothing was changed."
    return f"Restore {backend} from its own backup, and run `memos doctor` again."


async def absent(settings: Settings) -> list[Absent]:
    """Tries each engine by itself, and returns those that cannot be used."""
    found = []
    for part, attempt in (("record", _record), ("index", _index), ("blobs", _blobs)):
        if getattr(settings, part).backend in ENGINES and (problem := await _tried(settings, part, attempt)):
            found.append(problem)
    return found


async def _tried(settings: Settings, part: str, attempt: Callable[[Settings], Awaitable[None]]) -> Absent | None:
    backend = getattr(settings, part).backend
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await attempt(settings)
    except SetupError as error:
        return Absent(part, error.message, error.remedy)
    except MipError as error:
        return Absent(part, error.message, remedy(settings, part, error.reason, error.remedy))
    except TimeoutError:
        text = f"{backend} did not answer within {_PATIENCE_S:g} s"
    except Exception as error:
        # Whatever a backend's library raises; its text may quote an address with a password.
        text = f"{backend} cannot be opened: {type(error).__name__}"
    else:
        return None
    return Absent(part, text, remedy(settings, part, "BACKEND_UNAVAILABLE", ""))


async def _record(settings: Settings) -> None:
    chosen = settings.record
    store = load_backend("memos.graph_dbs", chosen.backend, str(settings.data), port=RecordStore, **chosen.config)
    await _opened_and_probed(store, store.open())


async def _index(settings: Settings) -> None:
    chosen = settings.index
    index = load_backend("memos.vec_dbs", chosen.backend, str(settings.data), port=SearchIndex, **chosen.config)
    await _opened_and_probed(index, index.open(index_batches.version_of(MemoryTypes.installed(), chosen.backend)))


async def _blobs(settings: Settings) -> None:
    chosen = settings.blobs
    config = {"max_blob_bytes": settings.limits.max_blob_bytes, **chosen.config}
    blobs = load_backend("memos.blob_stores", chosen.backend, str(settings.data), port=BlobStore, **config)
    await _opened_and_probed(blobs, blobs.open())


async def _opened_and_probed(backend: Any, opening: Awaitable[None]) -> None:
    try:
        await opening
        await backend.probe()
    finally:
        await backend.close()


class _Away:
    """Answers every question with BACKEND_UNAVAILABLE."""

    name = "away"

    def __init__(self, problem: Absent) -> None:
        self._problem = problem

    async def open(self, *_: object) -> None:
        """Has nothing to open."""

    async def close(self) -> None:
        """Has nothing to close."""

    async def read(self, *_: object) -> AsyncIterator[bytes]:
        """Refuses when it is iterated, as the port's does."""
        raise self._refusal()
        yield b""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def refuse(*_: object, **__: object) -> Any:
            raise self._refusal()

        return refuse

    def _refusal(self) -> MipError:
        return MipError("BACKEND_UNAVAILABLE", self._problem.message)


def stand_ins(problems: list[Absent]) -> StandIns:
    """Returns what a server works with while index or blobs are away."""
    away = {problem.part: _Away(problem) for problem in problems}
    return StandIns(cast("SearchIndex | None", away.get("index")), cast("BlobStore | None", away.get("blobs")))
