"""After a purge and its compaction nothing of what was purged is in any file of the data folder, nor in the log output.

What stays by design, and is searched for by nobody: the names that the caller chose (of the memory, its session, its
cube), owner, label, times and commitments, which the chain holds; the cause that a caller gave a commit; request ids;
grants and audit events on the names.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server._pb.mip.v1.common_pb2 import VIEW_SEALED
from memos_server.graph_dbs.base import JobRow
from memos_server.graph_dbs.sqlite.files import lost_commits
from memos_server.mem_scheduler import jobs
from memos_server.mem_scheduler.jobs import Progress
from memos_server.memories.analysis import analyze
from tests.conftest import MakeWorld, World
from tests.support.mip import Label, Memory, Mip, Provenance, Vector, text

DIMENSION = 16
CUBE = "cubes/c"
SECRET = f"{CUBE}/memories/s"
TEXT = "Quixotine Zamboree keeps the Vermilion Ledgers beneath Hollowmere; its cipher is 441798"
CHANGED = "Quixotine Zamboree moved them to Brackwaterly on the Pendulous Wednesdays; still 441798"
KEPT = "a lighthouse and a harbour, which stay"
BLOB = hashlib.sha256(b"weights").digest() * 3000
PART = hashlib.sha256(b"an upload that nobody finished").digest() * 300


def words(*texts: str) -> set[bytes]:
    """Returns what may be left of texts: each of their words as written, folded, and as the index keeps it."""
    kept = {*KEPT.split(), "the", "to", "on", "are", "is", "still", "and", "number", "move", "keep", "them"}
    found: set[str] = set()
    for written in texts:
        parts = written.replace(";", " ").replace('"', " ").split()
        found |= {written, *parts, *(part.casefold() for part in parts), *analyze(written)}
    return {part.encode() for part in found if len(part) >= 5 and part not in kept}


def pieces(data: bytes, step: int = 16) -> set[bytes]:
    """Returns pieces of bytes that no chance would make again."""
    return {data[at : at + step] for at in range(0, min(len(data), 4096) - step + 1, step)}


def digests(data: bytes) -> set[bytes]:
    """Returns a digest as bytes and in hexadecimal digits."""
    digest = hashlib.sha256(data)
    return {digest.digest(), digest.hexdigest().encode()}


def vector(seed: int) -> Vector:
    """Returns a unit vector."""
    numbers = np.random.default_rng(seed).normal(size=DIMENSION)
    unit = (numbers / np.linalg.norm(numbers)).astype("<f4")
    return Vector(dtype=1, dimension=DIMENSION, data=unit.tobytes())


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yields every file below a folder, its name among its bytes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            yield name, name.encode() + b"\0" + path.read_bytes()


def left(folder: Path, needles: set[bytes]) -> dict[bytes, list[str]]:
    """Returns needle -> the files that hold it."""
    found: dict[bytes, list[str]] = {}
    for name, content in files(folder):
        for needle in needles:
            if needle in content:
                found.setdefault(needle, []).append(name)
    return found


def secret(words_: str, **fields: object) -> Memory:
    """Returns a memory with every field that a plaintext memory can have."""
    return text(
        words_,
        name=SECRET,
        tags=["tagged-mumblecrust"],
        labels=[Label(key="labelkey-frobnitz", value="labelvalue-Splendour")],
        attributes_json='{"attribute-wherewithal":"Attributed-Gorgonzola"}',
        provenance=[Provenance(kind=2, source="file:///home/ann/Provenancial.md", speaker="Speakeasy Ottoline")],
        session=f"{CUBE}/sessions/talk",
        **fields,
    )


FIELDS = words(
    *("tagged-mumblecrust", "labelkey-frobnitz", "labelvalue-Splendour", "attribute-wherewithal"),
    *("Attributed-Gorgonzola", "file:///home/ann/Provenancial.md", "Speakeasy Ottoline"),
)


async def upload(mip: Mip, cube: str, data: bytes, *, finish: bool = True) -> str:
    """Uploads a blob, or a part of one."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    header = BlobHeader(parent=cube, digest=digest, size=len(data) + (0 if finish else 100))
    frames = [WriteBlobRequest(header=header), WriteBlobRequest(data=BlobData(data=data))]
    if finish:
        await mip.upload("WriteBlob", [*frames, WriteBlobRequest(finish=True)])
    else:
        with pytest.raises(Exception, match="finish"):
            await mip.upload("WriteBlob", frames)
    return digest


async def filled(world: World) -> set[bytes]:
    """Makes a cube in which a secret has a long history, and returns everything of it that a file could hold."""
    mip = world.admin
    settings = {"embedding_model": "m", "embedding_dimension": DIMENSION, "display_name": "Vaultonomy of Ann"}
    await mip.CreateCube(cube_id="c", cube=settings)
    await mip.CreateSession(parent=CUBE, session_id="talk", session={"display_name": "Privatissimum"})
    await mip.AddMemories(parent=CUBE, memories=[text(KEPT, name=f"{CUBE}/memories/k", vectors=[vector(9)])])
    digest = await upload(mip, CUBE, BLOB)
    adapter = {"base_fingerprint": "Fingerprintly", "method": "lora", "blobs": [{"digest": digest, "size": len(BLOB)}]}
    await mip.AddMemories(
        parent=CUBE,
        memories=[secret(TEXT, vectors=[vector(1)]), Memory(name=f"{CUBE}/memories/b", parametric=adapter)],
        request_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77",
    )
    await mip.UpdateMemory(
        memory=secret(CHANGED, vectors=[vector(2)]), request_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c78"
    )
    await mip.RollbackCube(name=CUBE, to_revision=4)
    await mip.TransitionMemories(parent=CUBE, names=[SECRET], state="MEMORY_STATE_ARCHIVED")
    await mip.MergeMemories(
        parent=CUBE, sources=[SECRET], merged=text(f"merged: {TEXT}", name=f"{CUBE}/memories/m", vectors=[vector(3)])
    )
    await mip.SearchMemories(cubes=[CUBE], query="Zamboree", vector=None)
    needles = FIELDS | words(TEXT, CHANGED) | pieces(BLOB) | digests(BLOB) | {b"Fingerprintly"}
    for number in (1, 2, 3):
        needles |= pieces(vector(number).data)
    head = (await mip.GetCube(name=CUBE)).cube.revision
    for id_ in "sbm":
        for revision in range(4, head + 1):
            if id_ == "m" and revision < head:
                continue
            name = f"{CUBE}/memories/{id_}"
            sealed = (await mip.GetMemory(name=name, view=VIEW_SEALED, as_of_revision=revision)).sealed
            needles |= digests(sealed.payload) | {sealed.salt, sealed.salt.hex().encode()}
    # What the index keeps in memory goes to disk when the server stops.
    await world.restart()
    return needles


def checked(found: dict[bytes, list[str]], needles: set[bytes]) -> None:
    """Checks that the search finds most of what it looks for in record, index and blobs while it is there.

    Not everything is anywhere: the index has no salts, no file has digests in hexadecimal digits.
    """
    assert len(found) > len(needles) // 2
    places = {name.split("/")[0] for names in found.values() for name in names}
    assert {"index", "blobs"} <= places
    assert places & {"record.sqlite", "record.sqlite-wal"}
    assert b"zambore" in found, sorted(found)


async def purge(mip: Mip) -> None:
    """Purges everything that holds the secret."""
    names = [f"{CUBE}/memories/{id_}" for id_ in "sbm"]
    await mip.PurgeMemories(parent=CUBE, names=names, reason="a person asked for it")


async def test_nothing_of_a_purged_memory_is_left_in_any_file(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world = await make_world()
    needles = await filled(world)
    checked(left(world.data, needles), needles)
    await purge(world.admin)
    assert left(world.data, needles) == {}
    assert (await world.admin.VerifyCube(name=CUBE)).valid
    await world.restart()
    assert left(world.data, needles) == {}
    found = await world.admin.SearchMemories(cubes=[CUBE], query="lighthouse Zamboree")
    assert [hit.memory.plaintext.text for hit in found.hits] == [KEPT]
    await world.stop()
    assert left(world.data, needles) == {}
    assert [needle for needle in needles if needle in caplog.text.encode()] == []


async def test_nothing_of_a_purged_cube_is_left_in_any_file(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world = await make_world()
    needles = await filled(world) | words(KEPT, "Vaultonomy of Ann", "Privatissimum") | pieces(vector(9).data)
    await upload(world.admin, CUBE, PART, finish=False)
    needles |= pieces(PART) | digests(PART)
    await world.admin.UpdateCube(cube={"name": CUBE, "display_name": "Vaultonomy, second name"})
    checked(left(world.data, needles), needles)
    await world.admin.PurgeCube(name=CUBE, reason="a person asked for it")
    assert left(world.data, needles) == {}
    assert (await world.admin.VerifyCube(name=CUBE)).valid
    await world.restart()
    await world.stop()
    assert left(world.data, needles) == {}
    assert [needle for needle in needles if needle in caplog.text.encode()] == []


async def test_a_purge_in_source_and_fork_leaves_nothing_in_either(make_world: MakeWorld) -> None:
    world = await make_world()
    needles = await filled(world)
    await world.admin.ForkCube(name=CUBE, cube_id="f")
    await purge(world.admin)
    assert left(world.data, needles), "the fork holds a copy of its own"
    copies = [f"cubes/f/memories/{id_}" for id_ in "sbm"]
    await world.admin.PurgeMemories(parent="cubes/f", names=copies, reason="the copies too")
    assert left(world.data, needles) == {}
    await world.admin.RollbackCube(name="cubes/f", to_revision=1)
    await world.admin.RollbackCube(name=CUBE, to_revision=5)
    await world.stop()
    assert left(world.data, needles) == {}


async def test_a_server_killed_before_the_compaction_compacts_after_its_restart(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = await make_world()
    needles = await filled(world)
    monkeypatch.setattr(jobs, "INLINE_S", 0.1)
    monkeypatch.setattr(jobs, "LEASE_S", 0)

    async def hangs(job: JobRow, progress: Progress) -> None:
        await asyncio.sleep(3600)

    world.server.mos.jobs.register("compaction", hangs, cancellable=False)
    await purge(world.admin)
    # What a killed process leaves behind: its files, with a write-ahead log that nobody has folded in.
    # The lease of the job is written again and again: a log that was copied in the midst of that is copied anew.
    for _ in range(50):
        shutil.copytree(world.data, tmp_path / "killed", ignore=shutil.ignore_patterns("*.lock", "server.json"))
        if not lost_commits(tmp_path / "killed" / "record.sqlite"):
            break
        shutil.rmtree(tmp_path / "killed")
    await world.stop()
    killed = World(tmp_path / "killed")
    assert left(killed.data, needles), "the purge was compacted before the server was killed"
    await killed.start()
    try:
        job = (await killed.admin.ListJobs(parent=CUBE)).jobs[0]
        for _ in range(200):
            if (await killed.admin.GetJob(name=job.name)).job.state == 3:
                break
            await asyncio.sleep(0.1)
        assert left(killed.data, needles) == {}
    finally:
        await killed.stop()
    assert left(killed.data, needles) == {}


async def test_many_purges_among_many_memories_leave_nothing_and_take_nothing_else(make_world: MakeWorld) -> None:
    """Pages that are split and joined must not keep copies of rows that were purged later."""
    chance = random.Random(4417)
    world = await make_world()
    mip = world.admin
    await mip.CreateCube(cube_id="c", cube={"embedding_model": "m", "embedding_dimension": DIMENSION})
    alive: dict[str, bytes] = {}
    gone: set[bytes] = set()
    for number in range(6):
        batch, needles = [], {}
        for place in range(60):
            mark = f"m{secrets.token_hex(10)}"
            name = f"{CUBE}/memories/{number}-{place}"
            filler = " ".join(secrets.token_hex(8) for _ in range(chance.choice([1, 20, 100, 500])))
            batch.append(
                text(f"{mark} {filler}", name=name, vectors=[vector(chance.getrandbits(30))], tags=[f"t{mark}"])
            )
            needles[name] = mark.encode()
        await mip.AddMemories(parent=CUBE, memories=batch)
        alive |= needles
        if number == 3:
            await world.restart()
            mip = world.admin
        chosen = chance.sample(sorted(alive), 30)
        gone |= {alive.pop(name) for name in chosen}
        await mip.PurgeMemories(parent=CUBE, names=chosen, reason="asked for")
        assert left(world.data, gone) == {}
    assert (await mip.VerifyCube(name=CUBE)).valid
    await world.stop()
    assert left(world.data, gone) == {}
    assert set(left(world.data, set(alive.values()))) == set(alive.values())
