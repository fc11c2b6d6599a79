"""A disk that is really full, under a server of its own: reads go on, writes say why not, and go on with space."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability import promises
from tests.durability.promises import CUBE, Promised
from tests.support.mip import Mip, RpcError, text

SIZE = 8 * 2**20
BALLAST = 2 * 2**20
SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))


class SmallDisk:
    """A disk of 8 MiB, and the servers on it."""

    def __init__(self, point: Path) -> None:
        """Mounts it; skips the test where that is not possible."""
        point.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MEMOS_")}
        environment |= {"MEMOS_EMBEDDER__BACKEND": "none", "MEMOS_EMBEDDING__DEFAULT_MODEL": "none"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.durability.small_disk", str(point), str(SIZE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment,
        )  # fmt: skip
        answer = self._answer()
        if answer != "ready":
            self.close()
            pytest.skip(answer or "not run: no disk can be mounted here without privileges")
        self.inner = point
        self.root = Path(f"/proc/{self.process.pid}/root{point}")
        self.log = point.parent / "server.log"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def order(self, line: str) -> str:
        """Gives an order and returns the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        return self._answer()

    def serve(self) -> tuple[str, str]:
        """Starts a server; returns its process id and where it listens, empty when it does not start."""
        info = self.root / "data" / "server.json"
        info.unlink(missing_ok=True)
        pid = self.order(f"serve {self.inner / 'data'} {self.log}")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if info.exists() and info.stat().st_size:
                return pid, str(json.loads(info.read_text())["address"])
            if self.order(f"state {pid}") == "ended":
                return pid, ""
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def close(self) -> None:
        """Ends the servers and the disk."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small disk."""
    made = SmallDisk(tmp_path / "disk")
    yield made
    made.close()


def fill(path: Path) -> None:
    """Writes a file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


async def refused(mip: Mip) -> RpcError:
    """Adds until the server refuses."""
    for number in range(10_000):
        try:
            await mip.AddMemories(parent=CUBE, memories=[text(f"more{number} " + "sea " * 5000)])
        except RpcError as error:
            return error
    raise AssertionError("the disk is never full")


async def test_a_full_disk_stops_writes_alone_until_there_is_space(disk: SmallDisk) -> None:
    _, address = await asyncio.to_thread(disk.serve)
    (disk.root / "ballast").write_bytes(bytes(BALLAST))
    token = (disk.root / "data" / "admin.token").read_text().strip()
    mip = Mip(address, token)
    promised = Promised()

    def note(data: tuple[str, object]) -> None:
        promised.add([data])

    try:
        await promises.begin(mip, note)
        for number in range(5):
            await promises.add(mip, f"00000000-0000-4000-8000-{number:012d}", [text(f"first{number} words")], note)
        error = await refused(mip)
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
        assert "Free disk space in the data folder; nothing acknowledged was lost." in error.message
        fill(disk.root / "rest")
        with pytest.raises(RpcError, match="STORAGE_FULL"):
            await promises.upload(mip, bytes(100_000), note)
        assert await promises.broken(mip, promised, random.Random(SEED), address) == []
        (disk.root / "rest").unlink()
        (disk.root / "ballast").unlink()
        await promises.add(mip, "00000000-0000-4000-8000-00000000000a", [text("space again")], note)
        await promises.upload(mip, bytes(100_000), note)
        assert await promises.broken(mip, promised, random.Random(SEED), address) == []
    finally:
        await mip.close()
    assert "Traceback" not in disk.log.read_text()


async def test_a_server_that_has_no_space_to_start_says_so_and_loses_nothing(disk: SmallDisk) -> None:
    pid, address = await asyncio.to_thread(disk.serve)
    token = (disk.root / "data" / "admin.token").read_text().strip()
    mip = Mip(address, token)
    promised = Promised()
    await promises.begin(mip, lambda data: promised.add([data]))
    await mip.close()
    assert disk.order(f"stop {pid}") == "0"
    fill(disk.root / "rest")
    pid, address = await asyncio.to_thread(disk.serve)
    assert address == ""
    said = disk.log.read_text()
    assert "is full" in said
    assert "remedy:" in said
    assert "Traceback" not in said
    (disk.root / "rest").unlink()
    pid, address = await asyncio.to_thread(disk.serve)
    mip = Mip(address, token)
    assert await promises.broken(mip, promised, random.Random(SEED), address) == []
    await mip.close()
    assert disk.order(f"stop {pid}") == "0"
