"""The cube as a log: merge, rollback, fork, undelete, commits, watch, verify."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from memos_server._pb.mip.v1 import commit_pb2, common_pb2, memory_pb2
from tests.conftest import World
from tests.support.mip import Memory, Mip, Relation, RpcError, text

ACTIVE, MERGED, ARCHIVED, DELETED, PURGED = 1, 2, 3, 4, 5


@pytest.fixture
async def cube(mip: Mip) -> str:
    """The name of a fresh cube."""
    return (await mip.CreateCube(cube_id="c")).cube.name


async def states(mip: Mip, cube: str, **at: int) -> dict[str, tuple[int, str]]:
    """Returns id -> (state, text) of all memories."""
    listed = await mip.ListMemories(parent=cube, show_deleted=True, **at)
    return {memory.name.rpartition("/")[2]: (memory.state, memory.plaintext.text) for memory in listed.memories}


async def add(mip: Mip, cube: str, **texts: str) -> None:
    """Adds memories with the given ids and texts."""
    await mip.AddMemories(
        parent=cube, memories=[text(words, name=f"{cube}/memories/{id_}") for id_, words in texts.items()]
    )


async def test_a_merge_keeps_every_id_readable_and_names_what_absorbed_it(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="likes tea", b="likes green tea")
    merged = await mip.MergeMemories(parent=cube, sources=[f"{cube}/memories/a", f"{cube}/memories/b"], merged=Memory())
    assert merged.memory.plaintext.text == "likes tea\n\nlikes green tea"
    assert {item.source for item in merged.memory.provenance} == {f"{cube}/memories/a", f"{cube}/memories/b"}
    gone = (await mip.GetMemory(name=f"{cube}/memories/a")).memory
    assert (gone.state, gone.merged_into) == (MERGED, merged.memory.name)
    assert gone.plaintext.text == "likes tea"


async def test_a_merge_into_an_existing_memory_gives_it_a_new_version(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="likes tea", b="likes green tea")
    merged = await mip.MergeMemories(
        parent=cube, sources=[f"{cube}/memories/a"], target=f"{cube}/memories/b", merged=text("likes green tea most")
    )
    assert merged.memory.name == f"{cube}/memories/b"
    assert merged.memory.plaintext.text == "likes green tea most"
    assert (await mip.GetCommit(name=f"{cube}/commits/3")).commit.change_count == 2


async def test_rollback_undoes_updates_merges_transitions_deletions_and_additions(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="one", b="two", c="three", d="four")
    await mip.TransitionMemories(parent=cube, names=[f"{cube}/memories/d"], state="MEMORY_STATE_ARCHIVED")
    before = await states(mip, cube)
    revision = (await mip.GetCube(name=cube)).cube.revision
    await mip.UpdateMemory(memory=text("one, changed", name=f"{cube}/memories/a"))
    await mip.MergeMemories(parent=cube, sources=[f"{cube}/memories/b", f"{cube}/memories/c"], merged=Memory())
    await mip.DeleteMemories(parent=cube, names=[f"{cube}/memories/d"])
    await add(mip, cube, e="five")
    after = await states(mip, cube)
    rolled = await mip.RollbackCube(name=cube, to_revision=revision)
    assert rolled.cube.revision == revision + 5
    assert rolled.commit.cause == f"rollback to revision {revision}"
    now = await states(mip, cube)
    assert {id_: now[id_] for id_ in before} == before
    assert {state for id_, (state, _) in now.items() if id_ not in before} == {DELETED}
    # The rollback is a commit like any other: rolling back to before it undoes it.
    await mip.RollbackCube(name=cube, to_revision=revision + 4)
    assert await states(mip, cube) == after
    assert await states(mip, cube, as_of_revision=revision) == before
    assert (await mip.VerifyCube(name=cube)).valid


async def test_rollback_restores_relations_and_settings_and_refuses_a_wrong_revision(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="one", b="two")
    edge = Relation(source=f"{cube}/memories/a", target=f"{cube}/memories/b", type="RELATES_TO", weight=2)
    await mip.CreateRelations(parent=cube, relations=[edge])
    await mip.UpdateCube(cube={"name": cube, "display_name": "later"})
    await mip.DeleteRelations(parent=cube, relations=[edge])
    assert not (await mip.ListRelations(parent=cube)).relations
    rolled = await mip.RollbackCube(name=cube, to_revision=3, expected_revision=5)
    assert rolled.cube.display_name == ""
    (back,) = (await mip.ListRelations(parent=cube)).relations
    assert (back.type, back.weight) == ("RELATES_TO", 2.0)
    for wrong, reason in (
        ({"to_revision": 99}, "REVISION_NOT_FOUND"),
        ({"to_revision": 1, "expected_revision": 2}, "REVISION_MISMATCH"),
    ):
        with pytest.raises(RpcError) as raised:
            await mip.RollbackCube(name=cube, **wrong)
        assert raised.value.reason == reason


async def test_rollback_never_lowers_a_label(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="one")
    change = Memory(name=f"{cube}/memories/a", sensitivity=common_pb2.SENSITIVITY_SECRET)
    await mip.UpdateMemory(memory=change, update_mask={"paths": ["sensitivity"]})
    await mip.RollbackCube(name=cube, to_revision=2)
    assert (await mip.GetMemory(name=f"{cube}/memories/a")).memory.sensitivity == common_pb2.SENSITIVITY_SECRET


async def test_a_fork_is_a_cube_of_its_own_with_the_same_memories(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="one", b="two")
    edge = Relation(source=f"{cube}/memories/a", target=f"{cube}/memories/b", type="PARENT_OF")
    await mip.CreateRelations(parent=cube, relations=[edge])
    await mip.UpdateMemory(memory=text("changed", name=f"{cube}/memories/a"))
    fork = (await mip.ForkCube(name=cube, cube_id="f", revision=3)).cube.name
    assert await states(mip, fork) == {"a": (ACTIVE, "one"), "b": (ACTIVE, "two")}
    first = (await mip.GetCommit(name=f"{fork}/commits/1")).commit
    source = (await mip.GetCommit(name=f"{cube}/commits/3")).commit
    assert first.merged_heads[0].digest == source.digest
    assert (await mip.GetMemory(name=f"{fork}/memories/a")).memory.commitment == (
        await mip.GetMemory(name=f"{cube}/memories/a", as_of_revision=3)
    ).memory.commitment
    await mip.UpdateMemory(memory=text("only here", name=f"{fork}/memories/b"))
    assert (await states(mip, cube))["b"] == (ACTIVE, "two")
    assert len((await mip.ListRelations(parent=fork)).relations) == 1
    assert (await mip.VerifyCube(name=fork)).valid


async def test_a_deleted_cube_refuses_work_until_it_is_restored(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="one")
    await mip.DeleteCube(name=cube)
    with pytest.raises(RpcError) as raised:
        await add(mip, cube, b="two")
    assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "CUBE_DELETED")
    assert not (await mip.ListCubes()).cubes
    assert len((await mip.ListCubes(show_deleted=True)).cubes) == 1
    await mip.UndeleteCube(name=cube)
    assert await states(mip, cube) == {"a": (ACTIVE, "one")}
    with pytest.raises(RpcError) as raised:
        await mip.CreateCube(cube_id="c")
    assert raised.value.reason == "ALREADY_EXISTS"


async def test_the_chain_recomputes_from_the_sealed_bytes_alone(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="one", b="two")
    await mip.UpdateMemory(memory=text("changed", name=f"{cube}/memories/a"))
    parent = b""
    for revision in (1, 2, 3):
        name = f"{cube}/commits/{revision}"
        header = (await mip.GetCommit(name=name, view=common_pb2.VIEW_SEALED)).sealed_header
        parsed = commit_pb2.CommitHeader.FromString(header)
        changes = (await mip.ListCommitChanges(parent=name, view=common_pb2.VIEW_SEALED)).sealed_changes
        digests = b"".join(hashlib.sha256(change).digest() for change in changes)
        assert parsed.parent_digest == parent
        assert parsed.changes_digest == hashlib.sha256(digests).digest()
        assert parsed.change_count == len(changes)
        parent = hashlib.sha256(header).digest()
        assert (await mip.GetCommit(name=name)).commit.digest == parent
    assert (await mip.GetCube(name=cube)).cube.head_digest == parent


async def test_commits_come_newest_first_in_pages(mip: Mip, cube: str) -> None:
    for number in range(5):
        await add(mip, cube, **{f"m{number}": "x"})
    first = await mip.ListCommits(parent=cube, page_size=4)
    second = await mip.ListCommits(parent=cube, page_size=4, page_token=first.next_page_token)
    assert [commit.revision for commit in [*first.commits, *second.commits]] == [6, 5, 4, 3, 2, 1]
    times = [commit.create_time.ToNanoseconds() for commit in first.commits]
    assert times == sorted(times, reverse=True)


async def test_watch_sends_the_past_then_the_present_in_order(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="one", b="two")
    seen: list[str] = []

    async def watch() -> None:
        async for frame in mip.WatchCube(name=cube, start_revision=1):
            kind = frame.WhichOneof("frame")
            if kind == "commit":
                seen.append(f"commit {frame.commit.revision}")
            elif kind == "changes":
                seen.extend(change.name for change in frame.changes.changes)
            elif kind == "end":
                seen.append(f"end {frame.end.revision}")
                if frame.end.revision == 4:
                    return

    task = asyncio.create_task(watch())
    await asyncio.sleep(0.3)
    await add(mip, cube, c="three")
    await mip.DeleteMemories(parent=cube, names=[f"{cube}/memories/a"])
    await asyncio.wait_for(task, 10)
    assert seen == [
        "commit 1", "", "end 1",
        "commit 2", "memories/a", "memories/b", "end 2",
        "commit 3", "memories/c", "end 3",
        "commit 4", "memories/a", "end 4",
    ]  # fmt: skip


async def test_watch_sends_heartbeats_and_refuses_a_revision_beyond_the_next(make_world) -> None:  # type: ignore[no-untyped-def]
    world: World = await make_world(watch={"heartbeat_s": 0.1})
    mip = world.admin
    cube = (await mip.CreateCube()).cube.name
    async for frame in mip.WatchCube(name=cube):
        assert frame.heartbeat.revision == 1
        break
    with pytest.raises(RpcError) as raised:
        async for _ in mip.WatchCube(name=cube, start_revision=9):
            pass
    assert raised.value.reason == "REVISION_NOT_FOUND"


async def test_verify_takes_a_head_that_the_caller_remembers(mip: Mip, cube: str) -> None:
    await add(mip, cube, a="one")
    head = (await mip.GetCube(name=cube)).cube
    await add(mip, cube, b="two")
    good = await mip.VerifyCube(name=cube, expected_revision=head.revision, expected_head_digest=head.head_digest)
    assert good.valid
    assert (good.commits_checked, good.changes_checked, good.indexed_revision) == (3, 3, 3)
    rewritten = await mip.VerifyCube(name=cube, expected_revision=2, expected_head_digest=b"\1" * 32)
    assert [finding.kind for finding in rewritten.findings] == ["head"]
    cut = await mip.VerifyCube(name=cube, expected_revision=9)
    assert not cut.valid
    assert "tail" in cut.findings[0].message


async def test_sessions_are_commits_and_an_ended_one_takes_no_memories(mip: Mip, cube: str) -> None:
    session = (await mip.CreateSession(parent=cube, session_id="s", session={"participants": ["Ann"]})).session
    await mip.AddMemories(parent=cube, memories=[text("said", session=session.name)])
    ended = (await mip.EndSession(name=session.name)).session
    assert ended.HasField("end_time")
    with pytest.raises(RpcError) as raised:
        await mip.AddMemories(parent=cube, memories=[text("late", session=session.name)])
    assert (raised.value.code, raised.value.reason) == ("FAILED_PRECONDITION", "SESSION_ENDED")
    assert [item.name for item in (await mip.ListSessions(parent=cube)).sessions] == [session.name]
    assert (await mip.GetCube(name=cube)).cube.revision == 4
    assert (
        await mip.GetMemory(name=(await mip.ListMemories(parent=cube)).memories[0].name)
    ).memory.session == session.name
    assert ended.state == memory_pb2.MEMORY_STATE_ARCHIVED
