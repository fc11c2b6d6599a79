"""A data folder in which one file was damaged: the server starts and answers, or says which file is wrong and what to
do. Never a traceback, a hang, or an answer that is the server's own fault."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import pickle
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from tests.conftest import World
from tests.fuzz.corpus import EFFORTS, fuzz
from tests.support.mip import Mip, Relation, RpcError, Vector, text

BLOB = b"the bytes of a blob"
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
ANSWERS = frozenset({"DATA_CORRUPT", "BLOB_NOT_FOUND"})
"""What a damaged folder may answer with; everything else is an answer that only a fault explains."""


async def _build(folder: Path) -> None:
    world = World(folder)
    await world.start()
    mip = world.admin
    await mip.CreateCube(cube_id="c", cube={"embedding_model": "toy", "embedding_dimension": 2})
    vector = Vector(model="toy", dtype=1, dimension=2, data=np.array([1, 2], "<f4").tobytes())
    memories = [text(f"Ana prefers tea {number}", name=f"cubes/c/memories/m{number}") for number in range(6)]
    for memory in memories:
        memory.vectors.append(vector)
    added = (await mip.AddMemories(parent="cubes/c", memories=memories)).memories
    edge = Relation(source=added[0].name, target=added[1].name, type="RELATES_TO")
    await mip.CreateRelations(parent="cubes/c", relations=[edge])
    header = WriteBlobRequest(header=BlobHeader(parent="cubes/c", digest=DIGEST, size=len(BLOB)))
    data = WriteBlobRequest(data=BlobData(data=BLOB))
    await mip.upload("WriteBlob", [header, data, WriteBlobRequest(finish=True)])
    header.header.digest = "sha256:" + "1" * 64
    with pytest.raises(RpcError):
        await mip.upload("WriteBlob", [header, data])
    await mip.SearchMemories(cubes=["cubes/c"], query="tea", mode=1)
    await world.stop()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data folder of a server that has stopped."""
    folder = tmp_path_factory.mktemp("sound") / "data"
    asyncio.run(_build(folder))
    return folder


@pytest.fixture(autouse=True)
def _nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


@pytest.fixture
def copies(tmp_path: Path, sound: Path) -> Callable[[], Path]:
    """Makes copies of the sound folder, one at a time."""
    folder = tmp_path / "data"

    def fresh() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        return folder

    return fresh


class _Incidents(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("incident") or record.name == "asyncio":
            self.found.append(f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''!r}")


def judge(folder: Path) -> str:
    """Starts a server on the folder and uses it; returns what came of it, in a word.

    Raises:
        AssertionError: It hung, failed in a way that names nothing, or took the blame for the damage.
    """
    handler = _Incidents()
    logging.getLogger().addHandler(handler)
    try:
        result = asyncio.run(asyncio.wait_for(_judge(folder), 20))
    finally:
        logging.getLogger().removeHandler(handler)
    assert not handler.found, handler.found
    return result


async def _judge(folder: Path) -> str:
    world = World(folder)
    try:
        await world.start()
    except (SetupError, MipError) as error:
        await world.stop()
        return _refused(folder, error)
    try:
        return await _use(world.admin)
    finally:
        await world.stop()


def _refused(folder: Path, error: SetupError | MipError) -> str:
    assert isinstance(error, SetupError) or error.reason == "DATA_CORRUPT", error
    assert str(folder) in error.message, error
    assert error.remedy
    return "refused"


async def _use(mip: Mip) -> str:
    cube = "cubes/c"
    outcomes = {
        await _answer(mip.GetCube(name=cube)),
        await _answer(mip.ListMemories(parent=cube)),
        await _answer(mip.GetMemory(name=f"{cube}/memories/m1")),
        await _answer(mip.SearchMemories(cubes=[cube], query="tea", mode=1)),
        await _answer(mip.ListRelations(parent=cube)),
        await _answer(mip.VerifyCube(name=cube)),
        await _answer(mip.QueryWrite(parent=cube, digest="sha256:" + "1" * 64)),
        await _answer(_read(mip)),
        await _answer(mip.AddMemories(parent=cube, memories=[text("one more")])),
    }
    return "answered" if outcomes == {""} else "named"


async def _read(mip: Mip) -> None:
    async for _ in mip.ReadBlob(parent="cubes/c", digest=DIGEST):
        pass


async def _answer(call: Any) -> str:
    try:
        await call
    except RpcError as error:
        if error.reason not in ANSWERS:
            raise AssertionError(f"answered with {error}") from None
        return error.reason
    return ""


def files_of(folder: Path) -> list[str]:
    """Returns the files of a data folder, relative to it, but the lock, which holds nothing."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return [str(path.relative_to(folder)) for path in found]


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2**40)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "emptied": lambda path: path.write_bytes(b"") and None,
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one bit flipped": _flip,
    "random bytes": lambda path: path.write_bytes(random.Random(1).randbytes(5000)) and None,
    "zeros": lambda path: path.write_bytes(bytes(5000)) and None,
    "a terabyte": _huge,
    "removed": lambda path: path.unlink(),
    "subfolder in its place": _replace_by_folder,
    "pipe that nobody writes": _replace_by_pipe,
    "endless device": lambda path: _link(path, "/dev/zero"),
    "a link to itself": lambda path: _link(path, path.name),
    "a link to nothing": lambda path: _link(path, "gone"),
}


FOUND = {
    "removed": ["record.sqlite"],
    "emptied": ["record.sqlite"],
    "a terabyte": ["index/VERSION", "blobs/"],
    "subfolder in its place": ["index/", "keys/", "admin.token", "record.sqlite"],
    "pipe that nobody writes": ["FORMAT", "record.sqlite", "index/VERSION"],
    "endless device": ["index/"],
    "a link to itself": ["index/", "record.sqlite"],
}
"""Damage -> files, or folders of them, where it once led to a fault: tried every time, the rest by turns."""


@pytest.mark.parametrize("damage", DAMAGES)
@EFFORTS
def test_a_damaged_file_is_survived_or_named(copies: Callable[[], Path], damage: str, effort: int) -> None:
    names = files_of(copies())
    assert len(names) >= 9
    turn = list(DAMAGES).index(damage) % 4
    found = tuple(FOUND.get(damage, ["nothing"]))
    failed = []
    for number, name in enumerate(names):
        if effort == 1 and number % 4 != turn and not name.startswith(found):
            continue
        folder = copies()
        DAMAGES[damage](folder / name)
        try:
            judge(folder)
        except (Exception, AssertionError) as error:  # all of them are told together
            failed.append(f"{name}: {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


@EFFORTS
def test_random_damage_is_survived_or_named(copies: Callable[[], Path], effort: int) -> None:
    def damage(seed: int) -> None:
        rng = random.Random(seed)
        folder = copies()
        path = folder / rng.choice(files_of(folder))
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 1, 3, 50))):
            at = rng.randrange(len(data) + 1)
            if rng.random() < 0.8 and data:
                data[at % len(data)] = rng.randrange(256)
            elif rng.random() < 0.5:
                del data[at : at + rng.choice((1, 16, 4096))]
            else:
                data[at:at] = rng.randbytes(rng.choice((1, 16, 4096)))
        path.write_bytes(data)
        judge(folder)

    fuzz(10 * effort, damage, st.integers(0, 2**64))


def test_a_manifest_that_claims_more_than_there_is_reserves_nothing(copies: Callable[[], Path]) -> None:
    """The checksums are right, the numbers are not: no memory is reserved by a number that nothing bears out."""
    for key, value in (
        ("dimension", 2**40),
        ("dimension", -1),
        ("dimension", 2**16),
        ("revision", -5),
        ("numbers", [0]),
    ):
        folder = copies()
        (manifest,) = (folder / "index").glob("*/manifest.json")
        body = json.loads(manifest.read_bytes())["body"]
        body[key] = value
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        manifest.write_bytes(json.dumps({"body": body, "crc32": zlib.crc32(canonical)}).encode())
        assert judge(folder) == "answered", (key, value)
