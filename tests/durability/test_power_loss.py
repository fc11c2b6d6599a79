"""Power loss: what was not synced may be gone, in any part; what was acknowledged is there, whole, and verifies.

SIGKILL leaves the kernel's caches and so cannot see a missing fsync. Here a real server under concurrent writers is
recorded, with every write and sync of its files and every answer in one order (recorder.py); then the folder that a
machine would find after losing power is built at many moments (disk.py), a server is started on it and asked for
everything it had promised by then (promises.py). Servers that leave out a sync must lose something.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from memos_server.blob_stores import filesystem
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.graph_dbs.sqlite.store import SqliteRecordStore
from tests.conftest import World
from tests.durability import promises, vfs
from tests.durability.disk import Disk, Event
from tests.durability.promises import Promised
from tests.durability.recorder import Recorder, recording
from tests.support.mip import Mip, RpcError

SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))

pytestmark = pytest.mark.skipif(bool(vfs.not_run()), reason=f"not run: {vfs.not_run()}")


class Run(NamedTuple):
    """A recorded run of a server.

    Attributes:
        events: What happened to the disk, and the answers.
        token: The administrator's token, once there was one.
    """

    events: list[Event]
    token: str


async def record(folder: Path, *, answers: int, writers: int = 4) -> Run:
    """Runs a server on a new folder under writers, twice with a restart between, and returns what happened."""
    (folder / "disk").mkdir(parents=True)
    recorder = Recorder(folder / "disk")
    rng = random.Random(SEED)
    with recording(recorder):
        world = World(folder / "disk" / "data")
        for life in range(2):
            await world.start()
            stop = asyncio.Event()
            note = _until(stop, recorder, answers * (life + 1) // 2)
            await promises.begin(world.admin, note)
            load = [
                promises.write(world.admin, f"w{life}{number}", note, random.Random(rng.random()), stop)
                for number in range(writers)
            ]
            await asyncio.gather(*load)
            token = (world.data / "admin.token").read_text().strip()
            await world.stop()
    recorder.check(folder / "played")
    shutil.rmtree(folder / "played")
    return Run(recorder.events, token)


def _until(stop: asyncio.Event, recorder: Recorder, goal: int) -> promises.Note:
    """Returns a function that notes answers, and stops the writers when there are enough."""
    count = sum(event.kind == "note" for event in recorder.events)

    def note(data: tuple[str, Any]) -> None:
        nonlocal count
        recorder.note(data)
        count += 1
        if count >= goal:
            stop.set()

    return note


async def after_loss(image: Path, promised: Promised, token: str, rng: random.Random) -> list[str]:
    """Starts a server on what the power loss left and returns what is broken."""
    world = World(image / "data")
    try:
        await world.start()
    except (SetupError, MipError) as error:
        return [f"the server does not start: {error}"]
    except (OSError, sqlite3.Error) as error:
        return [f"the server fails to start: {error!r}"]
    try:
        return await promises.broken(world.caller(token), promised, rng, world.server.address)
    finally:
        await world.stop()


def moments(events: list[Event], count: int, rng: random.Random) -> list[int]:
    """Returns positions to lose power at: half of them right after an answer, half anywhere."""
    answers = [index + 1 for index, event in enumerate(events) if event.kind == "note"]
    anywhere = range(1, len(events) + 1)
    return sorted(rng.choice(answers if number % 2 else anywhere) for number in range(count))


async def lose_power(folder: Path, run: Run, trials: int) -> list[str]:
    """Loses power at many moments, and lets nothing, a random part or all survive that was not synced.

    Args:
        folder: Where the images go.
        run: What was recorded.
        trials: How many times.

    Returns:
        What was broken.
    """
    rng = random.Random(SEED + 1)
    disk = Disk(run.events)
    wrong: list[str] = []
    for number, moment in enumerate(moments(run.events, trials, rng)):
        disk.advance(moment)
        share = 0.0 if number % 4 < 2 else rng.choice((0.1, 0.5, 0.9, 1.0))
        found = await _trial(folder / f"image-{number}", run, disk, rng, share, shared=True)
        wrong += [f"trial {number} at {moment} of {len(run.events)} with {share} of the rest: {one}" for one in found]
    return wrong


async def first_loss(folder: Path, run: Run, trials: int = 25) -> str:
    """Loses power after answers, all that was not synced with it, until something is broken; returns what."""
    rng = random.Random(SEED + 2)
    disk = Disk(run.events)
    answers = [index + 1 for index, event in enumerate(run.events) if event.kind == "note"]
    for number, moment in enumerate(sorted(rng.sample(answers, trials))):
        disk.advance(moment)
        found = await _trial(folder / f"image-{number}", run, disk, rng, 0.0, shared=False)
        if found:
            return found[0]
    return ""


async def _trial(image: Path, run: Run, disk: Disk, rng: random.Random, share: float, *, shared: bool) -> list[str]:
    disk.image(image, lambda: rng.random() < share)
    if shared:
        disk.shared_memory(image, rng)
    found = await after_loss(image, Promised().add(disk.notes), run.token, rng)
    shutil.rmtree(image)
    return found


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the server as it is."""
    return asyncio.run(record(tmp_path_factory.mktemp("real"), answers=120))


@pytest.mark.timeout(600)
async def test_power_loss_loses_nothing_acknowledged(real_run: Run, tmp_path: Path) -> None:
    assert await lose_power(tmp_path, real_run, 40) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_thousand_power_losses_lose_nothing_acknowledged(tmp_path: Path) -> None:
    run = await record(tmp_path, answers=1200)
    assert await lose_power(tmp_path, run, 1000) == []


def unsynced_moments(events: list[Event], count: int) -> list[int]:
    """Returns positions to kill at, when a commit or a blob is complete in the kernel's cache and not yet synced."""
    logs = {event.data[1] for event in events if event.kind == "entry" and event.data[0] == "record.sqlite-wal"}
    commits = [index for index, event in enumerate(events) if event.kind == "sync" and event.node in logs]
    blobs = [index + 1 for index, event in enumerate(events) if event.kind == "rename" and ".part" in event.data[0]]
    rng = random.Random(SEED + 3)
    return sorted([*rng.sample(commits[len(commits) // 4 :], count), *rng.sample(blobs, count)])


async def test_what_a_killed_server_had_not_synced_is_synced_before_it_is_acknowledged(
    real_run: Run, tmp_path: Path
) -> None:
    """Killed between writing and syncing, started again, asked again with the same request_id, and then the power."""
    repeated = 0
    for number, moment in enumerate(unsynced_moments(real_run.events, 5)):
        recorder = Recorder.after_kill(tmp_path / f"disk-{number}", real_run.events[:moment])
        before = Promised().add(event.data for event in recorder.events if event.kind == "note")
        world = World(tmp_path / f"disk-{number}" / "data")
        answered = []
        with recording(recorder):
            await world.start()
            for request_id, memories in before.asked.items():
                await promises.add(world.admin, request_id, memories, recorder.note)
                answered.append(len(recorder.events))
            for data in before.sent.values():
                await promises.upload(world.admin, data, recorder.note)
                answered.append(len(recorder.events))
            await world.stop()
        repeated += len(answered)
        disk = Disk(recorder.events)
        rng = random.Random(SEED + number)
        run = Run(recorder.events, real_run.token)
        for position in answered:
            disk.advance(position)
            image = tmp_path / f"image-{number}-{position}"
            assert await _trial(image, run, disk, rng, 0.0, shared=False) == []
    assert repeated


async def test_what_a_failed_sync_lost_is_written_anew_before_it_is_acknowledged(tmp_path: Path) -> None:
    """The kernel forgets what it could not write, and reports success the next time (Linux, since ever)."""
    (tmp_path / "disk").mkdir()
    recorder = Recorder(tmp_path / "disk")
    rng = random.Random(SEED)
    failed = 0

    def fails(operation: str, path: str) -> int:
        nonlocal failed
        if operation != "sync" or rng.random() > 0.2:
            return 0
        failed += 1
        return errno.EIO

    async def persistent(mip: Mip, writer: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await promises.write(mip, f"{writer}x{rng.randrange(10**9)}", note, random.Random(rng.random()), stop)
            except RpcError as error:
                if error.reason != "BACKEND_UNAVAILABLE":
                    raise
                # As a client does: what was not answered is asked for again.
                open_uploads = Promised().add(event.data for event in recorder.events if event.kind == "note").sent
                for data in open_uploads.values():
                    with contextlib.suppress(RpcError):
                        await promises.upload(mip, data, note)

    with recording(recorder):
        world = World(tmp_path / "disk" / "data")
        await world.start()
        stop = asyncio.Event()
        note = _until(stop, recorder, 150)
        await promises.begin(world.admin, note)
        recorder.fault_of = fails
        await asyncio.gather(*(persistent(world.admin, f"w{number}", stop) for number in range(4)))
        recorder.fault_of = lambda operation, path: 0
        token = (world.data / "admin.token").read_text().strip()
        await world.stop()
    assert failed > 10
    assert await lose_power(tmp_path, Run(recorder.events, token), 20) == []


def _less_synchronous(patch: pytest.MonkeyPatch, mode: str) -> None:
    real = SqliteRecordStore._open

    def opened(store: SqliteRecordStore) -> None:
        real(store)
        assert store._writer is not None
        store._writer.execute(f"PRAGMA synchronous = {mode}")

    patch.setattr(SqliteRecordStore, "_open", opened)


def _no_fsync_of_blob_files(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(filesystem, "_fsync_file", lambda descriptor: None)


def _no_fsync_of_blob_folders(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(filesystem, "fsync_folder", lambda path: None)


_RECORD_LOST = r"was acknowledged at revision \d+ and is lost|CUBE_NOT_FOUND|verify: head"

MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "PRAGMA synchronous = NORMAL": (lambda patch: _less_synchronous(patch, "NORMAL"), _RECORD_LOST),
    "PRAGMA synchronous = OFF": (lambda patch: _less_synchronous(patch, "OFF"), _RECORD_LOST),
    "no fsync of a blob's file": (_no_fsync_of_blob_files, "verify: blob"),
    "no fsync of a blob's folders": (_no_fsync_of_blob_folders, "verify: blob"),
}
"""A server that leaves out a sync, and what it loses."""


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_server_that_leaves_out_a_sync_loses_something(name: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name][0](patch)
        run = await record(tmp_path, answers=60)
    assert re.search(MUTANTS[name][1], await first_loss(tmp_path, run))


SYNCED = {
    "the record's log": r"data/record\.sqlite-wal",
    "the record": r"data/record\.sqlite",
    "the data folder": r"data",
    "the folder above": r"\.",
    "the keys": r"data/keys/.*",
    "the keys' folder": r"data/keys",
    "a blob's file": r"data/blobs/.*\.part",
    "a blob's folder": r"data/blobs/[^/]+/[0-9a-f]{2}",
    "the folder of a cube's blobs": r"data/blobs/[^/]+",
    "the folder of all blobs": r"data/blobs",
}


@pytest.mark.parametrize("what", SYNCED)
async def test_every_sort_of_sync_is_needed(what: str, real_run: Run, tmp_path: Path) -> None:
    """The same run without the syncs of one sort: the power loss shows each, so none is missing by luck."""
    paths = {0: "."}
    events = []
    for event in real_run.events:
        if event.kind == "entry":
            paths[event.data[1]] = f"{paths[event.node]}/{event.data[0]}".removeprefix("./")
        if event.kind == "sync" and re.fullmatch(SYNCED[what], paths[event.node]):
            event = Event("shm", 0, ("none", b""))
        events.append(event)
    assert await first_loss(tmp_path, Run(events, real_run.token))
