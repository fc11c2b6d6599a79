"""What a review found to be lost, refused or forgotten: blobs, forks, sessions, notifications, jobs, pages."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from memos_server._pb.mip.v1 import access_pb2, common_pb2
from memos_server._pb.mip.v1.access_service_pb2 import DeleteGrantRequest
from memos_server._pb.mip.v1.blob_service_pb2 import BlobData, BlobHeader, WriteBlobRequest
from memos_server._pb.mip.v1.job_pb2 import JOB_STATE_SUCCEEDED
from memos_server._pb.mip.v1.memory_service_pb2 import SEARCH_MODE_LEXICAL, BulkAddMemoriesRequest
from memos_server.errors import MipError
from memos_server.graph_dbs.base import CubeRow, Reader
from memos_server.mem_os.access import require
from memos_server.mem_os.context import Call
from memos_server.mem_os.principals import delete_grant
from memos_server.mem_os.watching import AccessChanges
from tests.conftest import World
from tests.support.mip import Label, Memory, Mip, Relation, RpcError, Session, text

READER, WRITER = access_pb2.ROLE_READER, access_pb2.ROLE_WRITER
INTERNAL = common_pb2.SENSITIVITY_INTERNAL


@pytest.fixture
async def cube(mip: Mip) -> str:
    """The name of a fresh cube."""
    return (await mip.CreateCube(cube_id="c")).cube.name


def digest_of(data: bytes) -> str:
    """Returns the digest of a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def frames(cube: str, data: bytes) -> list[WriteBlobRequest]:
    """Returns the frames of an upload."""
    header = BlobHeader(parent=cube, digest=digest_of(data), size=len(data))
    pieces = [WriteBlobRequest(data=BlobData(offset=0, data=data))] if data else []
    return [WriteBlobRequest(header=header), *pieces, WriteBlobRequest(finish=True)]


def with_blob(data: bytes) -> Memory:
    """Returns a memory that names a blob."""
    blob = {"digest": digest_of(data), "size": len(data), "title": "adapter_model.safetensors"}
    return Memory(parametric={"base_fingerprint": "m", "method": "lora", "blobs": [blob]})


async def test_a_blob_that_comes_back_while_it_is_erased_stays(
    world: World, mip: Mip, cube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"weights" * 1000
    await mip.upload("WriteBlob", frames(cube, data))
    name = (await mip.AddMemories(parent=cube, memories=[with_blob(data)])).memories[0].name
    keeper = world.server.mos.keeper
    caught_up = keeper.caught_up
    again: list[str] = []

    async def upload_meanwhile(row: CubeRow) -> int:
        if row.revision == 3 and not again:
            # The purge is committed, and the compaction knows which blobs it will erase.
            again.append("uploaded")
            await mip.upload("WriteBlob", frames(cube, data))
        return await caught_up(row)

    monkeypatch.setattr(keeper, "caught_up", upload_meanwhile)
    await mip.PurgeMemories(parent=cube, names=[name], reason="asked")
    assert again
    received = [frame async for frame in mip.ReadBlob(parent=cube, digest=digest_of(data))]
    assert b"".join(frame.data.data for frame in received) == data
    await mip.AddMemories(parent=cube, memories=[with_blob(data)])


async def test_a_fork_copies_a_session_without_any_words(mip: Mip, cube: str) -> None:
    session = (await mip.CreateSession(parent=cube)).session
    await mip.AddMemories(parent=cube, memories=[text("x", session=session.name)])
    fork = (await mip.ForkCube(name=cube, cube_id="f")).cube.name
    assert len((await mip.ListSessions(parent=fork)).sessions) == 1
    assert (await mip.VerifyCube(name=fork)).valid


async def test_a_memory_of_an_ended_session_can_still_be_changed(mip: Mip, cube: str) -> None:
    session = (await mip.CreateSession(parent=cube)).session
    memory = (await mip.AddMemories(parent=cube, memories=[text("x", session=session.name)])).memories[0]
    await mip.EndSession(name=session.name)
    changed = (await mip.UpdateMemory(memory=Memory(name=memory.name, tags=["a"]))).memory
    assert (list(changed.tags), changed.session) == (["a"], session.name)
    with pytest.raises(RpcError) as raised:
        await mip.UpdateMemory(
            memory=Memory(name=(await mip.AddMemories(parent=cube, memories=[text("y")])).memories[0].name,
                          session=session.name)
        )  # fmt: skip
    assert raised.value.reason == "SESSION_ENDED"


async def test_a_copied_memory_of_a_session_can_be_changed_in_the_fork(mip: Mip, cube: str) -> None:
    session = (await mip.CreateSession(parent=cube)).session
    memory = (await mip.AddMemories(parent=cube, memories=[text("x", session=session.name)])).memories[0]
    fork = (await mip.ForkCube(name=cube, cube_id="f")).cube.name
    name = memory.name.replace(cube, fork)
    assert list((await mip.UpdateMemory(memory=Memory(name=name, tags=["a"]))).memory.tags) == ["a"]


async def test_a_merge_without_content_keeps_the_label_that_was_asked_for(mip: Mip, cube: str) -> None:
    added = (await mip.AddMemories(parent=cube, memories=[text("x"), text("y")])).memories
    merged = Memory(sensitivity=common_pb2.SENSITIVITY_SECRET)
    answer = await mip.MergeMemories(parent=cube, sources=[memory.name for memory in added], merged=merged)
    assert answer.memory.sensitivity == common_pb2.SENSITIVITY_SECRET


async def test_a_request_id_is_the_same_in_any_case(mip: Mip, cube: str) -> None:
    id_ = "0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77"
    first = await mip.AddMemories(parent=cube, memories=[text("x")], request_id=id_)
    again = await mip.AddMemories(parent=cube, memories=[text("x")], request_id=id_.upper())
    assert again.commit.revision == first.commit.revision


async def test_unrelated_grants_leave_a_watch_open(world: World, mip: Mip, cube: str) -> None:
    seen: set[int] = set()

    async def watch() -> None:
        async for frame in mip.WatchCube(name=cube, start_revision=1):
            if frame.HasField("end"):
                seen.add(frame.end.revision)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0.2)
    await mip.CreateCube(cube_id="other")
    await world.principal("somebody", ("cubes/other", READER, INTERNAL))
    await mip.AddMemories(parent=cube, memories=[text("x")])
    await asyncio.sleep(0.3)
    assert not task.done()
    assert seen == {1, 2}
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_change_of_access_between_looking_and_waiting_is_not_missed() -> None:
    changes = AccessChanges()
    seen = changes.generation
    task = asyncio.ensure_future(changes.wait(seen))
    changes.changed()
    await asyncio.wait_for(task, 1)


async def test_a_revocation_whose_caller_went_away_still_ends_streams(world: World, cube: str) -> None:
    reader = await world.principal("r", (cube, READER, INTERNAL))

    async def watch() -> None:
        async for _ in reader.WatchCube(name=cube, start_revision=1):
            pass

    task = asyncio.create_task(watch())
    await asyncio.sleep(0.2)
    mos = world.server.mos

    async def admin(txn: Reader) -> Call:
        return Call("/mip.v1.AccessService/DeleteGrant", await txn.access("principals/local-admin"))

    request = DeleteGrantRequest(principal="principals/r", resource=cube)
    deletion = asyncio.create_task(delete_grant(mos, await mos.read(admin), request))
    await asyncio.sleep(0)
    deletion.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deletion
    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(task, 5)
    assert raised.value.code == "PERMISSION_DENIED"


async def test_a_lost_grant_ends_an_upload(world: World, cube: str) -> None:
    writer = await world.principal("w", (cube, WRITER, INTERNAL))
    data = b"y" * 1000
    header, piece, finish = frames(cube, data)
    lost = threading.Event()

    def sent() -> Iterator[WriteBlobRequest]:
        yield header
        yield piece
        lost.wait(30)
        yield finish

    upload = asyncio.create_task(writer.upload("WriteBlob", sent()))
    await asyncio.sleep(0.3)
    await world.admin.DeleteGrant(principal="principals/w", resource=cube)
    lost.set()
    with pytest.raises(RpcError) as raised:
        await upload
    assert raised.value.code == "PERMISSION_DENIED"
    assert (await world.admin.FindMissingBlobs(parent=cube, digests=[digest_of(data)])).digests


async def test_the_index_failing_names_the_cube_and_comes_back(
    world: World, mip: Mip, cube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memos_server.mem_os.indexing._RETRY_S", 0.0)
    await mip.AddMemories(parent=cube, memories=[text("tea")])
    await mip.SearchMemories(cubes=[cube], query="tea")
    index = world.server.mos.keeper._index

    async def fail(*_: object) -> None:
        raise OSError("the disk is on fire")

    with monkeypatch.context() as broken:
        broken.setattr(index, "apply", fail)
        memory = (await mip.AddMemories(parent=cube, memories=[text("coffee")])).memories[0]
        found = await mip.SearchMemories(cubes=[cube], query="coffee")
        assert [(stale.cube, stale.indexed_revision) for stale in found.stale] == [(cube, 2)]
        # A purge erases whether the index can be reached or not; its bytes in the index are a job's work.
        purged = await mip.PurgeMemories(parent=cube, names=[memory.name], reason="asked")
        assert (await mip.GetJob(name=purged.compaction_job)).job.state in (1, 2)
    assert [hit.memory.plaintext.text for hit in (await mip.SearchMemories(cubes=[cube], query="tea")).hits] == ["tea"]
    mos = world.server.mos

    async def job(txn: Reader) -> object:
        return await txn.job("c", purged.compaction_job.rpartition("/")[2])

    row = await mos.read(job)

    async def now(txn: object) -> None:
        await txn.put_job(replace(row, lease_until=0))  # type: ignore[attr-defined,type-var]

    await mos.store.write(now)
    await mos.jobs.run_now("c", row.id)  # type: ignore[attr-defined]
    assert (await mip.GetJob(name=purged.compaction_job)).job.state == JOB_STATE_SUCCEEDED


async def test_the_poller_of_jobs_outlives_an_error_of_the_record(
    world: World, mip: Mip, cube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = world.server.mos.jobs
    monkeypatch.setattr(jobs, "_poll_s", 0.01)

    async def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(jobs, "_store", type("Broken", (), {"read": fail, "write": fail})())
        await jobs.close()
        jobs.start()
        await asyncio.sleep(0.1)
    assert not jobs._poller.done()


async def test_compaction_does_not_keep_writers_waiting_for_a_long_reader(world: World, mip: Mip, cube: str) -> None:
    store = world.server.mos.store
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def long(txn: Reader) -> None:
        await txn.cube("c")
        loop.call_soon_threadsafe(began.set)
        threading.Event().wait(1.5)

    reading = asyncio.create_task(store.read(long))
    await began.wait()
    await mip.AddMemories(parent=cube, memories=[text("x")])
    compacting = asyncio.create_task(store.compact())
    await asyncio.sleep(0.1)
    start = time.monotonic()
    await mip.AddMemories(parent=cube, memories=[text("y")])
    assert time.monotonic() - start < 0.8
    assert not await compacting
    await reading


async def test_a_purge_takes_every_version_out_of_the_index(
    world: World, mip: Mip, cube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memos_server.mem_os.index_batches._STEP", 3)
    name = (await mip.AddMemories(parent=cube, memories=[text("zebra 0")])).memories[0].name
    for number in range(1, 8):
        await mip.UpdateMemory(memory=text(f"zebra {number}", name=name))
    await mip.SearchMemories(cubes=[cube], query="zebra", mode=SEARCH_MODE_LEXICAL)
    erased: list[bytes] = []
    index = world.server.mos.keeper._index
    apply = index.apply

    async def watched(uid: str, dimension: int, batch: object) -> None:
        erased.extend(batch.erased)  # type: ignore[attr-defined]
        await apply(uid, dimension, batch)

    monkeypatch.setattr(index, "apply", watched)
    await mip.PurgeMemories(parent=cube, names=[name], reason="asked")
    assert len(set(erased)) == 8


async def test_lists_of_large_sessions_and_cubes_are_cut_to_what_a_client_accepts(mip: Mip, cube: str) -> None:
    labels = [Label(key=f"k{number}", value="v" * 1024) for number in range(64)]
    for number in range(70):
        await mip.CreateSession(parent=cube, session_id=f"s{number}", session=Session(labels=labels))
        await mip.CreateCube(cube_id=f"c{number}", cube={"labels": labels})
    for rpc, field, fields in (("ListSessions", "sessions", {"parent": cube}), ("ListCubes", "cubes", {})):
        found, token = 0, ""
        while True:
            page = await mip.call(rpc, page_size=1000, page_token=token, **fields)
            found += len(getattr(page, field))
            token = page.next_page_token
            if not token:
                break
        assert found == 70 + (rpc == "ListCubes")


async def test_naming_two_thousand_memories_does_not_hold_the_loop(world: World, cube: str) -> None:
    async def access(txn: Reader) -> object:
        return await txn.access("principals/local-admin")

    admin = await world.server.mos.read(access)
    names = [f"{cube}/memories/m{number}" for number in range(2000)]
    start = time.process_time()
    require(admin, 4, [cube, *names])  # type: ignore[arg-type]
    assert time.process_time() - start < 0.02


async def test_a_type_that_no_relation_has_is_looked_for_in_pages(
    mip: Mip, cube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memos_server.mem_os.relations._SCAN", 4, raising=False)
    monkeypatch.setattr("memos_server.mem_os.relations._STEP", 2)
    memories = [m.name for m in (await mip.AddMemories(parent=cube, memories=[text("x") for _ in range(8)])).memories]
    edges = [Relation(source=a, target=b, type="FOLLOWS") for a, b in pairwise(memories)]
    await mip.CreateRelations(parent=cube, relations=edges)
    page = await mip.ListRelations(parent=cube, types=["ABSENT"])
    assert not page.relations
    assert page.next_page_token
    found, token = 0, ""
    while True:
        page = await mip.ListRelations(parent=cube, page_token=token)
        found += len(page.relations)
        token = page.next_page_token
        if not token:
            break
    assert found == 7


async def test_a_search_of_a_revision_shows_that_revision_whatever_is_committed_meanwhile(
    world: World, mip: Mip, cube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = (await mip.AddMemories(parent=cube, memories=[text("tea then")])).memories[0].name
    keeper = world.server.mos.keeper
    search = keeper.search

    async def slow(*args: object) -> object:
        result = await search(*args)  # type: ignore[arg-type]
        await mip.UpdateMemory(memory=text("tea now", name=name))
        return result

    monkeypatch.setattr(keeper, "search", slow)
    found = await mip.SearchMemories(cubes=[cube], query="tea", as_of_revision=2)
    assert [hit.memory.plaintext.text for hit in found.hits] == ["tea then"]


async def test_a_lost_server_is_named_once(world: World, mip: Mip, cube: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = (await mip.CreateCube(cube_id="other")).cube.name
    await mip.AddMemories(parent=cube, memories=[text(f"tea {n}") for n in range(250)])
    keeper = world.server.mos.keeper
    search = keeper.search

    async def partly(row: CubeRow, query: object) -> object:
        if row.id == "other":
            raise MipError("BACKEND_UNAVAILABLE", "gone")
        return await search(row, query)  # type: ignore[arg-type]

    monkeypatch.setattr(keeper, "search", partly)
    found = await mip.SearchMemories(cubes=[cube, other], query="tea", filter='text:"absent"')
    assert list(found.unreachable) == [other]


async def test_a_hidden_source_does_not_show_in_the_kinds_and_speakers_that_a_filter_asks_for(
    world: World, mip: Mip, cube: str
) -> None:
    base = (await mip.AddMemories(parent=cube, memories=[text("base")])).memories[0].name
    source = {"kind": "PROVENANCE_KIND_MEMORY", "source": base, "speaker": "Ann"}
    await mip.AddMemories(parent=cube, memories=[text("child", provenance=[source])])
    await mip.UpdateMemory(memory=Memory(name=base, sensitivity=common_pb2.SENSITIVITY_SECRET))
    low = await world.principal("low", (cube, READER, INTERNAL))
    for filter_ in ("NOT provenance.kind = MEMORY", 'NOT provenance.speaker = "Ann"', "NOT provenance.speaker:*"):
        listed = [memory.plaintext.text for memory in (await low.ListMemories(parent=cube, filter=filter_)).memories]
        hits = (await low.SearchMemories(cubes=[cube], filter=filter_)).hits
        assert [hit.memory.plaintext.text for hit in hits] == listed == ["child"], filter_


async def test_a_repeated_call_is_answered_by_its_commit_also_when_the_cube_was_deleted(world: World) -> None:
    mip = world.admin
    await mip.CreateCube(cube_id="c")
    ids = [str(uuid.uuid4()) for _ in range(6)]
    named = [f"cubes/c/memories/{id_}" for id_ in "abc"]
    frames = [
        BulkAddMemoriesRequest(header={"parent": "cubes/c", "request_id": ids[1]}),
        BulkAddMemoriesRequest(batch={"memories": [text("bulk", name=named[2])]}),
        BulkAddMemoriesRequest(finish=True),
    ]
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: mip.AddMemories(
            parent="cubes/c", memories=[text("x", name=name) for name in named[:2]], request_id=ids[0]
        ),
        lambda: mip.upload("BulkAddMemories", frames),
        lambda: mip.UpdateMemory(memory=text("y", name=named[0]), request_id=ids[2]),
        lambda: mip.MergeMemories(parent="cubes/c", sources=named[:1], target=named[1], request_id=ids[3]),
        lambda: mip.ForkCube(name="cubes/c", cube_id="f", request_id=ids[4]),
        lambda: mip.PurgeMemories(parent="cubes/c", names=named[2:], reason="asked for", request_id=ids[5]),
    ]
    commits = [(await call()).commit for call in calls]
    await mip.DeleteCube(name="cubes/c")
    assert [(await call()).commit for call in calls] == commits
    await mip.PurgeCube(name="cubes/c", reason="asked for")
    assert [(await call()).commit for call in calls] == commits
