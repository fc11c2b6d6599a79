"""A disk that is full, fails or turns read-only: nothing acknowledged is lost, reads go on, and writes after it.

Each operation on a file fails in turn, through the recorder that power loss is tested with.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
from collections.abc import Awaitable
from pathlib import Path

import pytest

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from tests.conftest import World
from tests.durability import promises, vfs
from tests.durability.promises import CUBE, Promised
from tests.durability.recorder import Recorder, recording
from tests.support.mip import Mip, RpcError, text

SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))

pytestmark = pytest.mark.skipif(bool(vfs.not_run()), reason=f"not run: {vfs.not_run()}")


class Failing:
    """Lets operations of some kinds fail, from the one with a number on."""

    def __init__(self, number: int, *operations: str, path: str = ".*") -> None:
        """Fails with an errno."""
        self.number = number
        self.operations = operations
        self.path = re.compile(path)
        self.after = 0
        self.count = 0
        self.on = False

    def begin(self, after: int) -> None:
        """Fails from now on, after some operations."""
        self.after, self.count, self.on = after, 0, True

    def __call__(self, operation: str, path: str) -> int:
        """See Fault."""
        if not self.on or operation not in self.operations or not self.path.fullmatch(path):
            return 0
        self.count += 1
        return self.number if self.count > self.after else 0


FULL = errno.ENOSPC, "open", "write", "mkdir"
DEAD = errno.EIO, "open", "write", "sync", "truncate", "rename", "mkdir"
READ_ONLY = errno.EROFS, "open", "write", "truncate", "rename", "mkdir", "delete"


async def refusal(work: Awaitable[object]) -> RpcError | SetupError | MipError | None:
    """Returns the error that a call or a start ends with; None when it succeeds."""
    try:
        await work
    except (RpcError, SetupError, MipError) as error:
        return error
    return None


async def reads(mip: Mip, promised: Promised) -> None:
    """Checks that what was acknowledged is served: by name, in the list and by search."""
    name, (words, _) = list(promised.memories.items())[-1]
    assert (await mip.GetMemory(name=name)).memory.plaintext.text == words
    listed = await mip.ListMemories(parent=CUBE, page_size=1000)
    assert {memory.name for memory in listed.memories} >= set(promised.memories)
    hits = (await mip.SearchMemories(cubes=[CUBE], query=words.split()[0])).hits
    assert name in [hit.memory.name for hit in hits]


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (FULL, ("RESOURCE_EXHAUSTED", "STORAGE_FULL", "Free disk space in the data folder")),
        (DEAD, ("UNAVAILABLE", "BACKEND_UNAVAILABLE", "look for errors of the disk")),
        (READ_ONLY, ("UNAVAILABLE", "BACKEND_UNAVAILABLE", "look for errors of the disk")),
    ],
    ids=["full", "input/output errors", "read-only"],
)
async def test_every_operation_of_a_write_fails_in_turn(
    fault: tuple[int, *tuple[str, ...]], answer: tuple[str, str, str], tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    recorder = Recorder(tmp_path / "disk")
    failing = Failing(*fault)
    promised = Promised()

    def note(data: tuple[str, object]) -> None:
        promised.add([data])

    with recording(recorder):
        world = World(tmp_path / "disk" / "data")
        await world.start()
        mip = world.admin
        await promises.begin(mip, note)
        await promises.add(mip, "00000000-0000-4000-8000-000000000000", [text("begin")], note)
        recorder.fault_of = failing
        refused = 0
        for kind in ("memories", "blob"):
            for after in range(200):
                failing.begin(after)
                if kind == "memories":
                    words = [text(f"{kind}{after} part {part}", tags=[f"b{after}"]) for part in range(3)]
                    error = await refusal(promises.add(mip, f"00000000-0000-4000-8000-{after + 1:012d}", words, note))
                else:
                    error = await refusal(promises.upload(mip, f"blob {after}".encode() * 1000, note))
                if error is not None:
                    refused += 1
                    assert isinstance(error, RpcError)
                    assert (error.code, error.reason) == answer[:2], error
                    assert answer[2] in error.message
                    await reads(mip, promised)
                failing.on = False
                if error is None:
                    break
            assert refused > 3, "no operation failed"
            refused = 0
        token = (world.data / "admin.token").read_text().strip()
        address = world.server.address
        assert await promises.broken(mip, promised, random.Random(SEED), address) == []
        await world.stop()
    await world.start()
    assert await promises.broken(world.caller(token), promised, random.Random(SEED), world.server.address) == []
    await world.stop()


@pytest.mark.parametrize("fault", [FULL, DEAD, READ_ONLY], ids=["full", "input/output errors", "read-only"])
@pytest.mark.parametrize("life", ["first", "later"])
async def test_a_server_whose_start_fails_at_any_operation_says_so(
    life: str, fault: tuple[int, *tuple[str, ...]], tmp_path: Path
) -> None:
    """Each operation of a start fails in turn: never a traceback, and the next start finds all in order."""
    (tmp_path / "disk").mkdir()
    recorder = Recorder(tmp_path / "disk")
    failing = Failing(*fault)
    recorder.fault_of = failing
    promised = Promised()
    token = ""
    with recording(recorder):
        if life == "later":
            world = World(tmp_path / "disk" / "data")
            await world.start()
            await promises.begin(world.admin, lambda note: promised.add([note]))
            token = (world.data / "admin.token").read_text().strip()
            await world.stop()
        refused = 0
        # A first start writes the record's pages one by one: of those, some.
        for after in [*range(20), *range(20, 400, 29)]:
            if life == "first":
                shutil.rmtree(tmp_path / "disk" / "data", ignore_errors=True)
            world = World(tmp_path / "disk" / "data")
            failing.begin(after)
            error = await refusal(world.start())
            failing.on = False
            await world.stop()
            if error is None:
                break
            refused += 1
            assert isinstance(error, SetupError | MipError)
            assert error.remedy
            assert "data" in error.message, error
            assert isinstance(error, SetupError) or error.reason in ("STORAGE_FULL", "BACKEND_UNAVAILABLE"), error
        assert refused > 2
    world = World(tmp_path / "disk" / "data")
    await world.start()
    if token:
        assert await promises.broken(world.caller(token), promised, random.Random(SEED), world.server.address) == []
    await world.stop()
