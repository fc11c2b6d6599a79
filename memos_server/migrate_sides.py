"""The two sides of a migration: which settings they have, how they are opened, what keeps others out of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from memos_server.blob_stores.base import BlobStore
from memos_server.configs.backends import load_backend
from memos_server.configs.data_folder import DataFolder
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings, load, read_toml
from memos_server.graph_dbs.base import Reader
from memos_server.graph_dbs.moving import Mark, MovingStore

EMBEDDED: Final = "sqlite"
"""The record backend that lies in the data folder, where one process at a time may write it."""

FILES: Final = "filesystem"
"""The blob backend that lies in the data folder."""

_SECTIONS: Final = ("record", "index", "blobs")


@dataclass(slots=True)
class Side:
    """One side of a migration, opened.

    Attributes:
        settings: Its settings.
        folder: Its data folder.
        store: Its record.
        blobs: Its blobs.
        alone: Whether nobody else can write the record meanwhile.
        in_use: Whether a server uses its data folder.
    """

    settings: Settings
    folder: DataFolder
    store: MovingStore
    blobs: BlobStore
    alone: bool
    in_use: bool = False

    @property
    def embedded(self) -> bool:
        """Whether the record lies in the data folder."""
        return self.settings.record.backend == EMBEDDED

    async def mark(self) -> Mark | None:
        """Returns the record's mark."""
        return Mark.of(await self.store.mark())


def described(settings: Settings) -> str:
    """Returns where a server's record and blobs lie, in words and without secrets."""
    return f"{_place(settings, 'record')}, blobs in {_place(settings, 'blobs')}"


def _place(settings: Settings, section: str) -> str:
    chosen = getattr(settings, section)
    if chosen.backend in (EMBEDDED, FILES):
        return f"{chosen.backend} ({settings.data})"
    address = str(chosen.config.get("uri") or chosen.config.get("endpoint") or "")
    # An address may hold a password before its host; the database and the bucket are told beside it.
    host = urlsplit(address).netloc.rpartition("@")[2] if "//" in address else ""
    parts = [host, *(str(chosen.config[key]) for key in ("database", "bucket", "prefix") if chosen.config.get(key))]
    known = " ".join(part for part in parts if part)
    return f"{chosen.backend} ({known})" if known else str(chosen.backend)


def target_settings(to: str, config: Path | None, data: Path | None, source: Settings) -> Settings:
    """Returns the settings of the target.

    Args:
        to: `RECORD+INDEX[+BLOBS]`, the names of backends, as `--to` has it; without BLOBS they lie in files.
        config: The target's settings file, whose environment is not this process's: that belongs to the source.
        data: The target's data folder; None takes that of the file, else the source's.
        source: The settings of the source.

    Raises:
        SetupError: `to` names something else than the file does, or both sides are the same.
    """
    named = to.split("+")
    if not 2 <= len(named) <= 3 or not all(named):
        raise SetupError(
            f"--to {to} names no target.", "Name record and index, and blobs if not in files: neo4j+weaviate+s3."
        )
    chosen = dict(zip(_SECTIONS, named if len(named) == 3 else [*named, FILES], strict=True))
    embedded = chosen["record"] == EMBEDDED
    if config is None and not embedded:
        raise SetupError(
            f"How to reach {chosen['record']} is not said.", "Name the target's settings file with --target-config."
        )
    if config is not None and not config.is_file():
        raise SetupError(f"The settings file {config} does not exist.", "Correct --target-config.")
    stated = read_toml(config) if config is not None else {}
    _check_named(to, chosen, stated, config)
    flags: dict[str, Any] = {section: {"backend": backend} for section, backend in chosen.items()}
    if data is not None:
        flags["data"] = data
    elif "data" not in stated:
        if embedded:
            raise SetupError("The target's data folder is not named.", "Name a new folder with --target-data.")
        # The server goes on in the folder that it has, with its keys and models.
        flags["data"] = source.data
    settings = load(flags, config, environment=False)
    if _place(settings, "record") == _place(source, "record"):
        raise SetupError("Source and target are the same record.", "Name another target.")
    if embedded and settings.data.absolute() == source.data.absolute():
        raise SetupError(
            f"The target's record would lie in the source's data folder {source.data}.",
            "Name a new folder with --target-data.",
        )
    return settings


def _check_named(to: str, chosen: Mapping[str, str], stated: Mapping[str, Any], config: Path | None) -> None:
    """Refuses a file whose sections name other backends than `--to`."""
    for section, backend in chosen.items():
        found = stated.get(section)
        other = found.get("backend", backend) if isinstance(found, dict) else backend
        if other != backend:
            raise SetupError(
                f"--to {to} chooses {backend} for [{section}], and {config} chooses {other}.", "Make the two agree."
            )


async def open_source(settings: Settings, stack: AsyncExitStack, *, finish: bool = False) -> Side:
    """Opens the side that is copied from: beside its server where one runs, else with the folder locked.

    Args:
        settings: Its settings.
        stack: Closes it in the end.
        finish: Whether its servers are said to be stopped.

    Raises:
        SetupError: There is no record, or it cannot be moved.
        MipError: The record is damaged or away.
    """
    folder = DataFolder(settings.data, settings.keys.folder)
    embedded = settings.record.backend == EMBEDDED
    if embedded and (folder.check() is None or not folder.record.exists()):
        raise SetupError(f"{folder.path} is no data folder with a record.", "Name the server's folder with --data.")
    # A record in engines needs no lock to be read; one that is to be left must have no server in this folder either.
    locks = embedded or (finish and folder.path.exists())
    alone = locks and _locked(folder, stack)
    store = _store(settings, stack)
    if embedded and not alone:
        await store.open_beside()
    else:
        await store.open()
    return Side(settings, folder, store, await _blobs(settings, stack), alone and embedded, in_use=locks and not alone)


async def open_target(settings: Settings, source: Side, stack: AsyncExitStack) -> Side:
    """Opens the side that is copied to, with its folder locked where it is not the source's.

    Args:
        settings: Its settings.
        source: The source.
        stack: Closes it in the end.

    Raises:
        SetupError: A server uses its folder, or it cannot be written.
        MipError: It is away, or full.
    """
    folder = DataFolder(settings.data, settings.keys.folder)
    if folder.path != source.folder.path:
        stack.enter_context(folder)
    store = _store(settings, stack)
    await store.open()
    if settings.record.backend == EMBEDDED:
        folder.up_to_date()
    return Side(settings, folder, store, await _blobs(settings, stack), settings.record.backend == EMBEDDED)


def _locked(folder: DataFolder, stack: AsyncExitStack) -> bool:
    """Locks a folder against servers; False when one uses it."""
    try:
        folder.open()
    except SetupError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return False
        raise
    stack.callback(folder.close)
    return True


def _store(settings: Settings, stack: AsyncExitStack) -> MovingStore:
    record = settings.record
    store: MovingStore = load_backend("memos.graph_dbs", record.backend, str(settings.data), **record.config)
    if not isinstance(store, MovingStore):
        raise SetupError(
            f"The record backend {record.backend!r} cannot be migrated from or to.",
            "It lacks what memos_server/graph_dbs/moving.py describes; ask its makers.",
        )
    stack.push_async_callback(store.close)
    return store


async def _blobs(settings: Settings, stack: AsyncExitStack) -> BlobStore:
    config = {"max_blob_bytes": settings.limits.max_blob_bytes, **settings.blobs.config}
    blobs: BlobStore = load_backend(
        "memos.blob_stores", settings.blobs.backend, str(settings.data), port=BlobStore, **config
    )
    stack.push_async_callback(blobs.close)
    await blobs.open()
    return blobs


async def check_pair(source: Side, target: Side) -> Mark | None:
    """Makes sure that a target is empty, or is what an earlier run of the same migration has filled.

    Returns:
        The target's mark; None for an empty target.

    Raises:
        SetupError: It is neither, or the source has moved elsewhere.
    """
    ours, theirs = await source.mark(), await target.mark()
    if ours is not None and ours.role == "target":
        raise SetupError(
            f"The source itself is being filled by a migration from {ours.other}, which is not finished.",
            "Finish that one first.",
        )
    if theirs is not None and theirs.role == "target":
        if ours is None or ours.id != theirs.id:
            raise SetupError(
                f"The target is being filled by another migration, from {theirs.other} ({theirs.time}).",
                "Name an empty target, or finish that migration.",
            )
        return theirs
    if ours is not None and ours.role == "moved":
        raise SetupError(
            f"The source has moved to {ours.other} already ({ours.time}).",
            "To migrate it once more, to another target: memos migrate --undo, then again.",
        )
    if theirs is not None:
        raise SetupError(
            f"The target has itself been migrated, or is being: its mark says {theirs.role}, {theirs.other}.",
            "Name an empty target.",
        )

    async def holds(txn: Reader) -> str:
        cubes, principals = await txn.cubes(0, 1), await txn.principals(0, 1)
        return f"cubes/{cubes[0].id}" if cubes else f"principals/{principals[0].id}" if principals else ""

    if found := await target.store.read(holds):
        raise SetupError(
            f"The target is not empty and is not this migration's: it holds {found}.",
            "Name an empty database or folder. One on which a server was started once is not empty.",
        )
    return None
