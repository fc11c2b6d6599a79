"""What the server depends on is tried again and again; what hangs or fails strangely is told and hurts nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from memos_server.errors import MipError
from memos_server.mem_os.vitals import Dependency, Vitals, folder_bytes


class Part:
    """A dependency that does as it is told."""

    def __init__(self) -> None:
        self.tries = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: Exception | None = None

    async def probe(self) -> None:
        self.tries += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error


async def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def vitals(folder: Path, **parts: Part) -> Vitals:
    known = [Dependency(name, "test", part.probe) for name, part in parts.items()]
    return Vitals(folder, known, interval_s=0.02, timeout_s=0.1)


def told(vitals: Vitals) -> dict[str, str]:
    return {part.name: part.problem for part in vitals.dependencies()}


async def test_what_hangs_is_told_tried_once_and_holds_up_nothing_else(tmp_path: Path) -> None:
    record, blobs = Part(), Part()
    looked = vitals(tmp_path, record=record, blobs=blobs)
    assert looked.serves()
    blobs.answers.clear()
    looked.start()
    slow = "no answer within 0.1 s; look whether its disk or the processor is overloaded"
    await until(lambda: told(looked) == {"record": "", "blobs": slow})
    before = record.tries
    await until(lambda: record.tries > before + 5)
    assert blobs.tries == 1
    assert looked.serves()
    blobs.answers.set()
    await until(lambda: told(looked) == {"record": "", "blobs": ""})
    await until(lambda: blobs.tries > 2)
    await looked.close()


async def test_changes_are_told_once_each_and_a_listener_that_fails_ends_nothing(tmp_path: Path) -> None:
    part = Part()
    looked = vitals(tmp_path, record=part)
    changes: list[tuple[str, bool]] = []

    async def changed(name: str, works: bool) -> None:
        changes.append((name, works))
        if len(changes) == 2:
            raise RuntimeError("nobody hears")

    looked.changed = changed
    looked.start()
    await until(lambda: len(changes) == 1)
    part.error = MipError("STORAGE_FULL", "the disk is full; free some space")
    await until(lambda: told(looked) == {"record": "the disk is full; free some space"})
    assert not looked.serves()
    part.error = ValueError("content of somebody")
    await until(lambda: told(looked) == {"record": "it fails with ValueError; the server's log says where"})
    part.error = None
    await until(lambda: len(changes) == 3)
    assert changes == [("record", True), ("record", False), ("record", True)]
    await looked.close()


def test_the_size_of_a_folder_is_that_of_its_files_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(bytes(1000))
    (tmp_path / "a" / "b" / "two").write_bytes(bytes(234))
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "large").write_bytes(bytes(100_000))
    (tmp_path / "link").symlink_to(outside)
    assert folder_bytes(tmp_path) == 1234 + (tmp_path / "link").lstat().st_size
    assert folder_bytes(tmp_path / "absent") == 0
