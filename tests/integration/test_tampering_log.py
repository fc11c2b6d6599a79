"""A log cut, reordered or rewritten by hand: what is consistent in itself shows against a head known elsewhere."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from memos_sdk import AsyncClient, HeadMismatch, HeadStore
from memos_server._pb.mip.v1.commit_pb2 import Change, CommitHeader
from memos_server._pb.mip.v1.memory_pb2 import Memory
from memos_server.mem_cube import commitments
from tests.conftest import MakeWorld, World
from tests.support.mip import Relation, text

CUBE = "cubes/c"
Head = tuple[int, bytes]


async def written(make_world: MakeWorld) -> tuple[World, Head]:
    """Returns a stopped server that holds a cube of six commits, and the head that a caller remembers."""
    world = await make_world()
    mip = world.admin
    await mip.CreateCube(cube_id="c")
    named = {id_: f"{CUBE}/memories/{id_}" for id_ in "abc"}
    await mip.AddMemories(
        parent=CUBE, memories=[text(f"first words of {id_}", name=name) for id_, name in named.items()]
    )
    await mip.UpdateMemory(memory=text("second words of a", name=named["a"]))
    await mip.CreateRelations(parent=CUBE, relations=[Relation(source=named["a"], target=named["b"], type="FOLLOWS")])
    await mip.TransitionMemories(parent=CUBE, names=[named["c"]], state="MEMORY_STATE_ARCHIVED")
    last = await mip.UpdateMemory(memory=text("third words of a", name=named["a"]))
    assert last.commit.revision == 6
    # The index has seen all of it, too.
    assert (await mip.VerifyCube(name=CUBE)).indexed_revision == 6
    await world.stop()
    return world, (6, last.commit.digest)


@contextmanager
def hand(world: World, *, index: bool = True) -> Iterator[sqlite3.Connection]:
    """Opens the record of a stopped server; the index may go, as one who knows the place would see to."""
    with closing(sqlite3.connect(world.data / "record.sqlite")) as db:
        yield db
        db.commit()
    if not index:
        shutil.rmtree(world.data / "index")


async def findings(world: World, head: Head | None = None) -> list[tuple[str, str, int]]:
    """Starts the server and returns what it finds, with a head known elsewhere or without."""
    if world.running is None:
        await world.start()
    expected = {} if head is None else {"expected_revision": head[0], "expected_head_digest": head[1]}
    verdict = await world.admin.VerifyCube(name=CUBE, **expected)
    assert verdict.valid == (not verdict.findings)
    return [(finding.kind, finding.resource, finding.revision) for finding in verdict.findings]


def drop_last(db: sqlite3.Connection) -> None:
    """Takes the last commit back with all its rows, so that the log looks as if it had never been."""
    (cube, revision, first) = db.execute(
        "SELECT cube, revision, first_version FROM commits ORDER BY revision DESC LIMIT 1"
    ).fetchone()
    made = db.execute("SELECT key, item, content FROM versions WHERE key >= ?", (first,)).fetchall()
    for key, item, content in made:
        db.execute("DELETE FROM versions WHERE key = ?", (key,))
        db.execute("DELETE FROM contents WHERE key = ?", (content,))
        db.execute("UPDATE versions SET to_revision = 1 << 62 WHERE item = ? AND to_revision = ?", (item, revision))
        db.execute("DELETE FROM items WHERE key NOT IN (SELECT item FROM versions)")
        db.execute(
            "UPDATE items SET version = (SELECT max(key) FROM versions WHERE item = items.key) WHERE key = ?", (item,)
        )
    db.execute("DELETE FROM commits WHERE revision = ?", (revision,))
    db.execute(
        """UPDATE cubes SET (revision, head_digest, head_time) =
        (SELECT revision, digest, time FROM commits ORDER BY revision DESC LIMIT 1) WHERE key = ?""",
        (cube,),
    )


def rechain(db: sqlite3.Connection) -> None:
    """Makes every header hold the digests that its changes and its parent have now."""
    parent = b""
    for revision, header, first, count in db.execute(
        "SELECT revision, header, first_version, change_count FROM commits ORDER BY revision"
    ).fetchall():
        changes = db.execute("SELECT change FROM versions WHERE key BETWEEN ? AND ?", (first, first + count - 1))
        sealed = CommitHeader.FromString(header)
        sealed.parent_digest = parent
        sealed.changes_digest = commitments.changes_digest(commitments.change_digest(row[0]) for row in changes)
        raw = sealed.SerializeToString(deterministic=True)
        parent = commitments.commit_digest(raw)
        db.execute("UPDATE commits SET header = ?, digest = ? WHERE revision = ?", (raw, parent, revision))
    db.execute("UPDATE cubes SET head_digest = ?", (parent,))


def rewrite(db: sqlite3.Connection, old: bytes, new: bytes) -> None:
    """Lets one content have said something else from the start: content, commitments, changes and the whole chain."""
    key, salt, commitment, payload = db.execute(
        "SELECT key, salt, commitment, payload FROM contents WHERE instr(payload, ?)", (old,)
    ).fetchone()
    memory = Memory.FromString(payload)
    memory.plaintext.text = new.decode()
    forged = memory.SerializeToString(deterministic=True)
    digest = commitments.content_digest(forged)
    other = commitments.commitment(salt, digest)
    db.execute(
        "UPDATE contents SET payload = ?, digest = ?, commitment = ? WHERE key = ?", (forged, digest, other, key)
    )
    for version, raw in db.execute("SELECT key, change FROM versions").fetchall():
        change = Change.FromString(raw)
        for field in ("before_commitment", "after_commitment"):
            if getattr(change, field) == commitment:
                setattr(change, field, other)
        raw = change.SerializeToString(deterministic=True)
        db.execute("UPDATE versions SET change = ? WHERE key = ?", (raw, version))
    rechain(db)


async def test_a_cut_tail_shows_against_the_head_that_somebody_remembers(make_world: MakeWorld) -> None:
    world, head = await written(make_world)
    with hand(world, index=False) as db:
        drop_last(db)
    assert await findings(world) == []
    assert await findings(world, head) == [("head", CUBE, 6)]
    assert await findings(world, (6, b"")) == [("head", CUBE, 6)]
    await world.admin.AddMemories(parent=CUBE, memories=[text("another sixth commit")])
    assert await findings(world) == []
    assert await findings(world, head) == [("head", CUBE, 6)]


async def test_a_cut_tail_shows_as_long_as_the_index_has_seen_it(make_world: MakeWorld) -> None:
    world, _ = await written(make_world)
    with hand(world) as db:
        drop_last(db)
    assert ("head", CUBE, 6) in await findings(world)


async def test_a_log_rewritten_as_a_whole_shows_against_a_head_known_elsewhere(make_world: MakeWorld) -> None:
    world, head = await written(make_world)
    with hand(world, index=False) as db:
        rewrite(db, b"first words of b", b"forged words")
    assert await findings(world) == []
    assert (await world.admin.GetMemory(name=f"{CUBE}/memories/b")).memory.plaintext.text == "forged words"
    assert await findings(world, head) == [("head", CUBE, 6)]


async def test_a_content_rewritten_without_the_chain_is_found_by_itself(make_world: MakeWorld) -> None:
    world, _ = await written(make_world)
    with hand(world, index=False) as db:
        before = db.execute("SELECT revision, header, digest FROM commits").fetchall()
        rewrite(db, b"first words of b", b"forged words")
        db.executemany("UPDATE commits SET header = ?2, digest = ?3 WHERE revision = ?1", before)
        db.execute("UPDATE cubes SET head_digest = ?", (before[-1][2],))
    assert await findings(world) == [("chain", f"{CUBE}/commits/2", 2)]


async def test_commits_in_another_order_are_found(make_world: MakeWorld) -> None:
    world, _ = await written(make_world)
    with hand(world, index=False) as db:
        db.execute("UPDATE commits SET revision = 7 - revision + 100 WHERE revision IN (3, 4)")
        db.execute("UPDATE commits SET revision = revision - 100 WHERE revision > 100")
    found = await findings(world)
    assert {("chain", f"{CUBE}/commits/{revision}", revision) for revision in (3, 4, 5)} <= set(found)


@pytest.mark.parametrize("revision", [1, 3, 6])
async def test_a_commit_that_is_missing_is_found(make_world: MakeWorld, revision: int) -> None:
    world, _ = await written(make_world)
    with hand(world, index=False) as db:
        db.execute("DELETE FROM commits WHERE revision = ?", (revision,))
    found = await findings(world)
    assert (("head", CUBE, 6) if revision == 6 else ("chain", f"{CUBE}/commits/{revision + 1}", revision + 1)) in found


async def test_a_client_that_remembers_its_head_notices_both(make_world: MakeWorld) -> None:
    for attack in (drop_last, lambda db: rewrite(db, b"first words of b", b"forged words")):
        world = await make_world()
        heads = HeadStore(world.data / "heads.json")
        async with AsyncClient(world.server.address, data=world.data, heads=heads) as client:
            cube = await client.cubes.create("c")
            await cube.add("first words of b")
            await cube.add("and some more")
        await world.stop()
        with hand(world, index=False) as db:
            attack(db)
        await world.start()
        async with AsyncClient(world.server.address, data=world.data, heads=heads) as client:
            cube = client.cube("c")
            assert await cube.verify(use_known_head=False)
            verdict = await cube.verify()
            assert [(finding.kind, finding.revision) for finding in verdict.findings] == [("head", 3)]
            with pytest.raises(HeadMismatch):
                await cube.add("the next commit continues another head")
        await world.stop()
