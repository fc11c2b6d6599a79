"""A secret is not there: whatever a low reader asks, the answer is that of a world without it.

The walk asks every reading RPC at every revision, and tries every mutation on what is hidden, in two worlds
(tests/support/two_worlds.py) of which one has the secret; the answers are compared field by field. What differs for a
reason stands in docs/spec/access.md, and here by name.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from memos_server._pb.mip.v1 import access_pb2, common_pb2, options_pb2
from memos_server.errors import option
from memos_server.graph_dbs.sqlite.reader import SqliteReader
from tests.conftest import MakeWorld, World
from tests.support import two_worlds
from tests.support.mip import METHODS, Memory, Mip, Provenance, RpcError, text
from tests.support.two_worlds import CUBE, Probe, ask, name

READER, WRITER, ADMIN, CREATOR = (
    access_pb2.ROLE_READER,
    access_pb2.ROLE_WRITER,
    access_pb2.ROLE_ADMIN,
    access_pb2.ROLE_CREATOR,
)
PUBLIC, INTERNAL, SECRET = (
    common_pb2.SENSITIVITY_PUBLIC,
    common_pb2.SENSITIVITY_INTERNAL,
    common_pb2.SENSITIVITY_SECRET,
)
CALLERS = {
    "reader": [(CUBE, READER, INTERNAL)],
    "writer": [(CUBE, WRITER, INTERNAL)],
    "administrator": [(CUBE, ADMIN, INTERNAL), ("server", CREATOR, INTERNAL)],
    "guest of one memory": [(name("open1"), READER, INTERNAL)],
    "writer of one memory": [(name("open1"), WRITER, INTERNAL)],
    "reader of what is public": [(CUBE, READER, PUBLIC)],
}

Worlds = tuple[World, World]


@pytest.fixture
async def worlds(make_world: MakeWorld) -> Worlds:
    """A world with a secret, and one without."""
    made = []
    for secret in (True, False):
        world = await make_world()
        await two_worlds.tell(world.admin, secret=secret)
        made.append(world)
    return made[0], made[1]


async def both(worlds: Worlds, who: str) -> tuple[Mip, Mip]:
    """Returns the same caller in both worlds."""
    first, second = [await world.principal("low", *CALLERS[who]) for world in worlds]
    return first, second


async def head_of(world: World) -> int:
    """Returns the cube's revision."""
    revision: int = (await world.admin.GetCube(name=CUBE)).cube.revision
    return revision


def test_every_rpc_about_a_cube_is_asked() -> None:
    asked = {probe.rpc for probe in [*two_worlds.reads(3), *two_worlds.administration(3), *two_worlds.writes()]}
    about_cubes = {
        name for name, method in METHODS.items() if option(method.GetOptions(), options_pb2.auth).resource_fields
    }
    # Streams of requests are tried below; a session is made by who may write, and shows nothing of memories.
    assert about_cubes - asked == {"WriteBlob", "BulkAddMemories", "CreateSession"}


@pytest.mark.parametrize("who", ["reader", "administrator", "guest of one memory", "reader of what is public"])
async def test_every_answer_to_a_low_reader_is_that_of_a_world_without_the_secret(worlds: Worlds, who: str) -> None:
    here, there = await both(worlds, who)
    heads = [await head_of(world) for world in worlds]
    assert heads[0] == heads[1]
    different = []
    for probe in two_worlds.reads(heads[0]):
        found, expected = [await ask(caller, probe, heads[0]) for caller in (here, there)]
        if found != expected:
            different.append(f"{probe}: {two_worlds.difference(found, expected)}")
    assert not different, "\n".join(different[:10])


@pytest.mark.parametrize("who", ["administrator", "reader", "guest of one memory"])
async def test_grants_audit_and_jobs_do_not_tell_a_low_administrator(worlds: Worlds, who: str) -> None:
    here, there = await both(worlds, who)
    head = await head_of(worlds[0])
    for probe in two_worlds.administration(head):
        found, expected = [await ask(caller, probe, head) for caller in (here, there)]
        if probe.rpc == "ListAuditEvents" and isinstance(found[0], dict):
            # The other world's filler commits are rollbacks, which are audited.
            found = two_worlds.without(found, "method", {"RollbackCube"})
            expected = two_worlds.without(expected, "method", {"RollbackCube"})
        assert found == expected, probe


@pytest.mark.parametrize("who", ["writer", "administrator", "reader", "writer of one memory"])
async def test_every_mutation_by_who_does_not_see_the_secret_ends_as_without_it(worlds: Worlds, who: str) -> None:
    here, there = await both(worlds, who)
    different = []
    for probe in two_worlds.writes():
        found, expected = [await ask(caller, probe, 0) for caller in (here, there)]
        if found != expected:
            different.append(f"{probe}: {two_worlds.difference(found, expected)}")
    assert not different, "\n".join(different[:10])


async def test_pages_are_full_however_many_hidden_memories_lie_between(world: World) -> None:
    admin = world.admin
    await admin.CreateCube(cube_id="c")
    await admin.AddMemories(parent=CUBE, memories=[text("first", name=name("first"))])
    for _ in range(6):
        batch = [text("x", sensitivity=SECRET) for _ in range(1000)]
        await admin.AddMemories(parent=CUBE, memories=batch)
    await admin.AddMemories(parent=CUBE, memories=[text("last", name=name("last"))])
    guest = (name("last"), READER, SECRET)
    for who, grants in {"low": [(CUBE, READER, INTERNAL)], "both": [(CUBE, READER, INTERNAL), guest]}.items():
        low = await world.principal(who, *grants)
        for fields in ({}, {"as_of_revision": 9}, {"show_deleted": True}, {"filter": "state = active"}):
            page = await low.ListMemories(parent=CUBE, **fields)
            assert [memory.name for memory in page.memories] == [name("first"), name("last")]
            assert page.next_page_token == ""


async def test_damage_to_hidden_memories_is_told_without_number_or_name(world: World) -> None:
    await two_worlds.tell(world.admin, secret=True)
    await world.stop()
    with sqlite3.connect(world.data / "record.sqlite") as record:
        changed = "CAST(replace(CAST(payload AS TEXT), 'spy', 'fly') AS BLOB)"
        record.execute(f"UPDATE contents SET payload = {changed} WHERE instr(CAST(payload AS TEXT), 'spy') > 0")
        assert record.total_changes >= 2
    record.close()
    await world.start()
    admin = world.admin
    assert len((await admin.VerifyCube(name=CUBE)).findings) >= 2
    low = await world.principal("low", *CALLERS["reader"])
    verdict = await low.VerifyCube(name=CUBE)
    found = [(finding.kind, finding.resource, finding.revision) for finding in verdict.findings]
    assert found == [("content", CUBE, 0)]
    assert not verdict.valid


async def test_the_id_of_a_hidden_memory_is_taken_and_only_that_is_told(worlds: Worlds) -> None:
    here, there = await both(worlds, "writer")
    for id_ in two_worlds.HIDDEN:
        probe = Probe("AddMemories", {"parent": CUBE, "memories": [text("mine", name=name(id_))]})
        found, expected = (await ask(here, probe, 0))[0], (await ask(there, probe, 0))[0]
        assert found[:2] == ("ALREADY_EXISTS", "ALREADY_EXISTS")
        # As for any id that was used once and is seen.
        seen = Probe("AddMemories", {"parent": CUBE, "memories": [text("mine", name=name("open1"))]})
        assert repr(found).replace(id_, "X") == repr((await ask(here, seen, 0))[0]).replace("open1", "X")
        assert expected["commit"]["changeCount"] == "1"


async def test_a_second_parent_is_refused_also_where_the_first_is_hidden(worlds: Worlds) -> None:
    world, _ = worlds
    relation = {"source": name("hidden1"), "target": name("open5"), "type": "PARENT_OF"}
    await world.admin.CreateRelations(parent=CUBE, relations=[relation])
    low = await world.principal("low", *CALLERS["writer"])
    with pytest.raises(RpcError) as raised:
        await low.CreateRelations(parent=CUBE, relations=[{**relation, "source": name("open1")}])
    assert raised.value.reason == "INVALID_FIELD"
    assert "hidden1" not in raised.value.message


async def test_what_was_secret_once_shows_only_its_later_versions(world: World) -> None:
    admin = world.admin
    await admin.CreateCube(cube_id="c")
    await admin.AddMemories(
        parent=CUBE, memories=[text("the plan of the spy", name=name("fallen"), sensitivity=SECRET)]
    )
    await admin.AddMemories(parent=CUBE, memories=[text("other", name=name("other"))])
    edge = {"source": name("fallen"), "target": name("other"), "type": "RELATES_TO"}
    await admin.CreateRelations(parent=CUBE, relations=[edge])
    await admin.UpdateMemory(memory=text("the plan", name=name("fallen")), update_mask={"paths": ["plaintext"]})
    mask = {"paths": ["sensitivity"]}
    await admin.UpdateMemory(memory=Memory(name=name("fallen"), sensitivity=INTERNAL), update_mask=mask)
    await admin.UpdateMemory(memory=text("the plan, published", name=name("fallen")))
    low = await world.principal("low", (CUBE, READER, INTERNAL))
    assert (await low.GetMemory(name=name("fallen"))).memory.plaintext.text == "the plan, published"
    revisions = (await low.ListMemoryRevisions(name=name("fallen"))).memories
    assert [memory.revision for memory in revisions] == [7, 6]
    for revision in range(1, 6):
        at = {"as_of_revision": revision}
        for probe in (Probe("GetMemory", {"name": name("fallen"), **at}),
                      Probe("BatchGetMemories", {"parent": CUBE, "names": [name("fallen")], **at}),
                      Probe("ListRelations", {"parent": CUBE, "memory": name("fallen"), **at}),
                      Probe("Traverse", {"parent": CUBE, "starts": [name("fallen")], **at})):  # fmt: skip
            assert (await ask(low, probe, 0))[0][1] == "MEMORY_NOT_FOUND", probe
        listed = await low.ListMemories(parent=CUBE, as_of_revision=revision, show_deleted=True)
        assert name("fallen") not in [memory.name for memory in listed.memories]
        assert not (await low.ListRelations(parent=CUBE, as_of_revision=revision)).relations
        for query in ("plan", "spy", "published"):
            for mode in (0, 3, 4):
                assert not (await low.SearchMemories(cubes=[CUBE], query=query, mode=mode, **at)).hits
        changes = (await low.ListCommitChanges(parent=f"{CUBE}/commits/{revision}")).changes
        assert "memories/fallen" not in [change.name for change in changes]
    # The words of a hidden version find nothing today either.
    assert not (await low.SearchMemories(cubes=[CUBE], query="spy", mode=3)).hits
    assert [hit.memory.name for hit in (await low.SearchMemories(cubes=[CUBE], query="published", mode=3)).hits] == [
        name("fallen")
    ]


async def test_the_speaker_of_a_hidden_source_is_no_word_of_who_derives_from_it(world: World) -> None:
    admin = world.admin
    await admin.CreateCube(cube_id="c")
    hidden = Provenance(kind="PROVENANCE_KIND_MEMORY", source=name("absent"), speaker="Zorro")
    said = Provenance(kind="PROVENANCE_KIND_MESSAGE", source="chat/1", speaker="Ada")
    await admin.AddMemories(parent=CUBE, memories=[text("a house", name=name("child"), provenance=[hidden, said])])
    low = await world.principal("low", (CUBE, READER, INTERNAL))
    assert not (await low.SearchMemories(cubes=[CUBE], query="Zorro", mode=3)).hits
    assert len((await low.SearchMemories(cubes=[CUBE], query="Ada", mode=3)).hits) == 1


async def test_a_fork_names_its_source_to_nobody(world: World) -> None:
    admin = world.admin
    await admin.CreateCube(cube_id="origin-of-all")
    await admin.AddMemories(parent="cubes/origin-of-all", memories=[text("one")])
    await admin.ForkCube(name="cubes/origin-of-all", cube_id="copy")
    low = await world.principal("low", ("cubes/copy", ADMIN, SECRET))
    shown = [
        await low.ListCommits(parent="cubes/copy"),
        await low.GetCube(name="cubes/copy"),
        await low.ListAuditEvents(resource="cubes/copy"),
        await low.ListCommitChanges(parent="cubes/copy/commits/1"),
        await low.GetCommit(name="cubes/copy/commits/1", view=common_pb2.VIEW_SEALED),
    ]
    assert b"origin-of-all" not in b"".join(message.SerializeToString() for message in shown)
    assert "at revision 2" in shown[0].commits[0].cause


async def test_capabilities_count_no_cubes(world: World) -> None:
    await world.admin.CreateCube(cube_id="c")
    cube = (await world.admin.GetCube(name=CUBE)).cube
    world.server.mos.keeper._broken.update({cube.uid: "broken", "another": "broken"})
    notices = (await world.caller("").GetCapabilities()).notices
    assert not [notice for notice in notices if any(character.isdigit() for character in notice)]
    world.server.mos.keeper._broken.clear()


async def test_hidden_and_absent_memories_cost_the_same_reads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await two_worlds.tell(world.admin, secret=True)
    low = await world.principal("low", *CALLERS["administrator"])
    counted: list[str] = []
    # What is behind the log is caught up with first, so that nobody else reads meanwhile.
    await low.VerifyCube(name=CUBE)

    def wrap(method: str) -> None:
        original = getattr(SqliteReader, method)

        async def counting(self: SqliteReader, *arguments: Any, **options: Any) -> Any:
            counted.append(method)
            return await original(self, *arguments, **options)

        monkeypatch.setattr(SqliteReader, method, counting)

    for method in ("cube", "versions", "versions_by_uid", "list_versions", "history", "relations", "vectors", "changes",
                   "blobs", "blob_users", "commits", "grants_on", "grant", "audit_events", "request"):  # fmt: skip
        wrap(method)

    async def cost(probe: Probe) -> list[str]:
        counted.clear()
        assert (await ask(low, probe, 0))[0][1] == "MEMORY_NOT_FOUND", probe
        return list(counted)

    def probes(id_: str) -> list[Probe]:
        one = name(id_)
        return [
            Probe("GetMemory", {"name": one}),
            Probe("GetMemory", {"name": one, "as_of_revision": 4}),
            Probe("BatchGetMemories", {"parent": CUBE, "names": [name("open1"), one]}),
            Probe("ListMemoryRevisions", {"name": one}),
            Probe("ListRelations", {"parent": CUBE, "memory": one}),
            Probe("Traverse", {"parent": CUBE, "starts": [one]}),
            Probe("UpdateMemory", {"memory": text("x", name=one)}),
            Probe("TransitionMemories", {"parent": CUBE, "names": [one], "state": 3}),
            Probe("DeleteMemories", {"parent": CUBE, "names": [one]}),
            Probe("PurgeMemories", {"parent": CUBE, "names": [one], "reason": "x"}),
            Probe("MergeMemories", {"parent": CUBE, "sources": [one, name("open1")], "merged": Memory()}),
            Probe(
                "CreateRelations",
                {"parent": CUBE, "relations": [{"source": one, "target": name("open1"), "type": "X"}]},
            ),
            Probe("ListGrants", {"resource": one}),
            Probe("ListAuditEvents", {"resource": one}),
        ]

    for hidden, absent in zip(probes("hidden1"), probes("absent"), strict=True):
        assert await cost(hidden) == await cost(absent), hidden
