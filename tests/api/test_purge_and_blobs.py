"""Purge erases everywhere; blobs are judged per cube."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from memos_server._pb.mip.v1 import common_pb2
from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_SUCCEEDED
from memos_server.errors import MipError
from tests.conftest import World
from tests.support.mip import Memory, Mip, Provenance, RpcError, text

PIN = "the PIN of the green card is 4417"


@pytest.fixture
async def cube(mip: Mip) -> str:
    """The name of a fresh cube."""
    return (await mip.CreateCube(cube_id="c")).cube.name


def bytes_of(folder: Path) -> bytes:
    """Returns every byte of every file below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def frames(cube: str, data: bytes, *, digest: str = "", size: int = -1, step: int = 100_000) -> list[WriteBlobRequest]:
    """Returns the frames of an upload."""
    digest = digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
    header = BlobHeader(parent=cube, digest=digest, size=len(data) if size < 0 else size)
    pieces = [BlobData(offset=at, data=data[at : at + step]) for at in range(0, len(data), step)]
    return [
        WriteBlobRequest(header=header),
        *(WriteBlobRequest(data=piece) for piece in pieces),
        WriteBlobRequest(finish=True),
    ]


async def test_a_purge_leaves_no_byte_of_text_or_digest_in_the_folder(world: World, mip: Mip, cube: str) -> None:
    request_id = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"
    added = (await mip.AddMemories(parent=cube, memories=[text(PIN)], request_id=request_id)).memories[0]
    await mip.UpdateMemory(memory=text(f"{PIN} indeed", name=added.name))
    await mip.SearchMemories(cubes=[cube], query="PIN of the green card")
    sealed = (await mip.GetMemory(name=added.name, view=common_pb2.VIEW_SEALED, as_of_revision=2)).sealed
    digest = hashlib.sha256(sealed.payload).digest()
    purged = await mip.PurgeMemories(parent=cube, names=[added.name], reason="a person asked for it")
    job = (await mip.GetJob(name=purged.compaction_job)).job
    assert job.state == JOB_STATE_SUCCEEDED
    left = bytes_of(world.data)
    assert b"4417" not in left
    assert digest not in left
    assert sealed.salt not in left
    await world.stop()
    left = bytes_of(world.data)
    assert b"4417" not in left
    assert digest not in left


async def test_what_was_purged_stays_purged_in_every_reading(mip: Mip, cube: str) -> None:
    names = [f"{cube}/memories/{id_}" for id_ in ("a", "b")]
    await mip.AddMemories(parent=cube, memories=[text(PIN, name=names[0]), text("kept", name=names[1])])
    await mip.PurgeMemories(parent=cube, names=names[:1], reason="asked")
    for fields in ({}, {"as_of_revision": 2}):
        memory = (await mip.GetMemory(name=names[0], **fields)).memory
        assert memory == Memory(name=names[0], uid=memory.uid, revision=3, state="MEMORY_STATE_PURGED")
    with pytest.raises(RpcError) as raised:
        await mip.GetMemory(name=names[0], view=common_pb2.VIEW_SEALED, as_of_revision=2)
    assert (raised.value.reason, raised.value.metadata["revision"]) == ("MEMORY_PURGED", "3")
    rolled = await mip.RollbackCube(name=cube, to_revision=2)
    assert [(skipped.name, skipped.purge_revision) for skipped in rolled.skipped_purges] == [(names[0], 3)]
    fork = (await mip.ForkCube(name=cube, cube_id="f", revision=2)).cube.name
    assert [memory.plaintext.text for memory in (await mip.ListMemories(parent=fork)).memories] == ["kept"]
    assert not (await mip.SearchMemories(cubes=[cube], query="PIN", as_of_revision=2)).hits
    for call in (
        mip.TransitionMemories(parent=cube, names=names[:1], state="MEMORY_STATE_ACTIVE"),
        mip.UpdateMemory(memory=text("x", name=names[0])),
        mip.PurgeMemories(parent=cube, names=names[:1], reason="again"),
    ):
        with pytest.raises(RpcError) as raised:
            await call
        assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "MEMORY_PURGED")
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=cube, memories=[text("new", name=names[0])])
    assert raised.value.reason == "ALREADY_EXISTS"
    assert (await mip.VerifyCube(name=cube)).valid


async def test_a_purge_names_what_derives_from_the_content(mip: Mip, cube: str) -> None:
    source = (await mip.AddMemories(parent=cube, memories=[text(PIN)])).memories[0].name
    cites = Provenance(kind="PROVENANCE_KIND_MEMORY", source=source)
    derived = (await mip.AddMemories(parent=cube, memories=[text("a PIN exists", provenance=[cites])])).memories[0].name
    fork = (await mip.ForkCube(name=cube, cube_id="f")).cube.name
    purged = await mip.PurgeMemories(parent=cube, names=[source], reason="asked")
    copy = source.replace(cube, fork)
    assert list(purged.derived) == sorted([derived, copy])


async def test_a_purged_cube_keeps_its_log_and_nothing_else(world: World, mip: Mip, cube: str) -> None:
    await mip.AddMemories(parent=cube, memories=[text(PIN)])
    await mip.CreateSession(parent=cube, session={"display_name": "a private talk"})
    await mip.UpdateCube(cube={"name": cube, "display_name": "the vault of Ann"})
    purged = await mip.PurgeCube(name=cube, reason="asked")
    assert purged.cube.state == 5
    left = bytes_of(world.data)
    for gone in (b"4417", b"a private talk", b"the vault of Ann"):
        assert gone not in left
    assert [commit.revision for commit in (await mip.ListCommits(parent=cube)).commits] == [5, 4, 3, 2, 1]
    assert (await mip.VerifyCube(name=cube)).valid
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=cube, memories=[text("x")])
    assert raised.value.reason == "CUBE_PURGED"


async def test_the_index_of_a_purged_cube_leaves_memory(world: World, mip: Mip, cube: str) -> None:
    await mip.AddMemories(parent=cube, memories=[text("a word that is found")])
    assert (await mip.SearchMemories(cubes=[cube], query="word")).hits
    uid = (await mip.GetCube(name=cube)).cube.uid
    held = world.server.mos.keeper
    assert await held.indexed_revision(uid) > 0
    await mip.DeleteCube(name=cube)
    job = (await mip.PurgeCube(name=cube, reason="asked")).compaction_job
    assert (await mip.GetJob(name=job)).job.state == JOB_STATE_SUCCEEDED
    # Nobody asked for it since, so nothing made it anew.
    assert await held.indexed_revision(uid) == 0
    assert not list((world.data / "index").glob(f"{uid}*"))


async def test_a_blob_is_written_read_and_named_by_a_memory(mip: Mip, cube: str) -> None:
    data = bytes(range(256)) * 2000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert list((await mip.FindMissingBlobs(parent=cube, digests=[digest])).digests) == [digest]
    memory = Memory(
        parametric={"base_fingerprint": "m", "method": "lora", "blobs": [{"digest": digest, "size": len(data)}]}
    )
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=cube, memories=[memory])
    assert (raised.value.code, raised.value.reason) == ("NOT_FOUND", "BLOB_NOT_FOUND")
    written = await mip.upload("WriteBlob", frames(cube, data))
    assert (written.digest, written.size) == (digest, len(data))
    assert not (await mip.FindMissingBlobs(parent=cube, digests=[digest])).digests
    await mip.AddMemories(parent=cube, memories=[memory])
    got = [frame async for frame in mip.ReadBlob(parent=cube, digest=digest)]
    assert got[0].header.size == len(data)
    assert b"".join(frame.data.data for frame in got[1:]) == data
    part = [frame async for frame in mip.ReadBlob(parent=cube, digest=digest, offset=10, limit=5)]
    assert part[1].data.data == data[10:15]


async def test_a_blob_with_other_bytes_than_announced_is_refused(mip: Mip, cube: str) -> None:
    wrong = f"sha256:{'0' * 64}"
    for upload, reason in (
        (frames(cube, b"abc", digest=wrong), "DIGEST_MISMATCH"),
        (frames(cube, b"abc", size=2), "DIGEST_MISMATCH"),
        (frames(cube, b"abc", size=9), "UPLOAD_INCOMPLETE"),
        (frames(cube, b"abc")[:-1], "INVALID_STREAM"),
        (frames(cube, b"abc")[1:], "INVALID_STREAM"),
    ):
        with pytest.raises(RpcError) as raised:
            await mip.upload("WriteBlob", upload)
        assert raised.value.reason == reason


async def test_an_upload_whose_end_was_cut_off_between_store_and_record_is_finished_by_the_next_call(
    world: World, mip: Mip, cube: str
) -> None:
    data = b"0123456789abcdef" * 100
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    mos = world.server.mos
    with pytest.MonkeyPatch.context() as patch:

        async def away(*_: object) -> None:
            raise MipError("BACKEND_UNAVAILABLE", "the record is away")

        patch.setattr(mos.store, "write", away)
        with pytest.raises(RpcError):
            await mip.upload("WriteBlob", frames(cube, data))
    row = await mos.read(lambda txn: txn.cube("c"))
    assert row is not None
    assert await mos.blobs.size(row.uid, digest) == len(data), "the blob is there, and nobody's"

    async def left(*_: object) -> int:
        return len(data)

    # A store in a network may have made the blob and not dropped the upload: its client goes on at the end of that.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mos.blobs, "upload_size", left)
        at = (await mip.QueryWrite(parent=cube, digest=digest)).committed_size
        header = WriteBlobRequest(header=BlobHeader(parent=cube, digest=digest, size=len(data), offset=at))
        await mip.upload("WriteBlob", [header, WriteBlobRequest(finish=True)])
    assert (await mip.QueryWrite(parent=cube, digest=digest)).complete


async def test_a_blob_of_a_purged_memory_is_erased(world: World, mip: Mip, cube: str) -> None:
    data = b"0123456789abcdef" * 100
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await mip.upload("WriteBlob", frames(cube, data))
    memory = Memory(
        parametric={"base_fingerprint": "m", "method": "lora", "blobs": [{"digest": digest, "size": len(data)}]}
    )
    added = (await mip.AddMemories(parent=cube, memories=[memory])).memories[0]
    assert data in bytes_of(world.data)
    await mip.PurgeMemories(parent=cube, names=[added.name], reason="asked")
    assert data not in bytes_of(world.data)
    with pytest.raises(RpcError) as raised:
        _ = [frame async for frame in mip.ReadBlob(parent=cube, digest=digest)]
    assert raised.value.reason == "BLOB_NOT_FOUND"


async def test_knowing_the_digest_of_a_hidden_blob_helps_nobody(world: World, mip: Mip, cube: str) -> None:
    data = b"secret weights" * 100
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await mip.upload("WriteBlob", frames(cube, data))
    adapter = {"base_fingerprint": "m", "method": "lora", "blobs": [{"digest": digest, "size": len(data)}]}
    await mip.AddMemories(parent=cube, memories=[Memory(parametric=adapter, sensitivity=common_pb2.SENSITIVITY_SECRET)])
    low = await world.principal("low", (cube, 2, common_pb2.SENSITIVITY_INTERNAL))
    assert list((await low.FindMissingBlobs(parent=cube, digests=[digest])).digests) == [digest]
    query = await low.QueryWrite(parent=cube, digest=digest)
    assert (query.committed_size, query.complete) == (0, False)
    header = WriteBlobRequest(header=BlobHeader(parent=cube, digest=digest, size=len(data), offset=len(data)))
    garbage = frames(cube, b"x" * len(data), digest=digest)
    for attempt, reason in (
        (low.AddMemories(parent=cube, memories=[Memory(parametric=adapter)]), "BLOB_NOT_FOUND"),
        (anext(low.ReadBlob(parent=cube, digest=digest)), "BLOB_NOT_FOUND"),
        (low.upload("WriteBlob", garbage), "DIGEST_MISMATCH"),
        (low.upload("WriteBlob", [header, WriteBlobRequest(finish=True)]), "UPLOAD_INCOMPLETE"),
        (low.AddMemories(parent=cube, memories=[Memory(parametric=adapter)]), "BLOB_NOT_FOUND"),
    ):
        with pytest.raises(RpcError) as raised:
            await attempt
        assert raised.value.reason == reason
    # Who has the bytes shows it by sending them, and may then name them.
    await low.upload("WriteBlob", frames(cube, data))
    await low.AddMemories(parent=cube, memories=[Memory(parametric=adapter)])


async def test_a_fork_holds_the_blobs_that_its_memories_name(mip: Mip, cube: str) -> None:
    data = b"weights" * 1000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await mip.upload("WriteBlob", frames(cube, data))
    memory = Memory(parametric={"base_fingerprint": "m", "method": "lora", "blobs": [{"digest": digest, "size": 7000}]})
    added = (await mip.AddMemories(parent=cube, memories=[memory])).memories[0]
    fork = (await mip.ForkCube(name=cube, cube_id="f")).cube.name
    await mip.PurgeMemories(parent=cube, names=[added.name], reason="asked")
    got = [frame async for frame in mip.ReadBlob(parent=fork, digest=digest)]
    assert b"".join(frame.data.data for frame in got[1:]) == data


async def test_an_interrupted_upload_goes_on_where_query_write_says(mip: Mip, cube: str) -> None:
    data = b"x" * 300_000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with pytest.raises(RpcError):
        await mip.upload("WriteBlob", frames(cube, data)[:3])
    query = await mip.QueryWrite(parent=cube, digest=digest)
    assert (query.committed_size, query.complete) == (200_000, False)
    header = BlobHeader(parent=cube, digest=digest, size=len(data), offset=200_000)
    rest = BlobData(offset=200_000, data=data[200_000:])
    upload = [WriteBlobRequest(header=header), WriteBlobRequest(data=rest), WriteBlobRequest(finish=True)]
    await mip.upload("WriteBlob", upload)
    assert (await mip.QueryWrite(parent=cube, digest=digest)).complete
