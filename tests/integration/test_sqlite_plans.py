"""No statement of the record scans a table: every one that the API runs is explained by SQLite and its plan read."""

from __future__ import annotations

import re
import sqlite3

import pytest

from memos_server.graph_dbs.sqlite import soundness
from memos_server.graph_dbs.sqlite.store import SqliteRecordStore
from tests.conftest import MakeWorld
from tests.support.mip import Memory, Provenance, Relation, text

# Table-valued functions over bound arguments, the result of a subquery, and the queue of unfinished jobs.
_FINE = re.compile(r"SCAN (json_each|wanted|changed|\(subquery|jobs USING INDEX jobs_unfinished)|CONSTANT ROW")
# A listing reads the items of a cube and kind in order; nothing else may go through all of them.
_ALL_ITEMS = re.compile(r"SEARCH (i|items) USING PRIMARY KEY \(cube=\?( AND kind=\?)?\)$")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Collects every statement that any connection of a store runs, its bound values filled in."""
    seen: set[str] = set()
    connect = SqliteRecordStore._connect

    def traced(self: SqliteRecordStore) -> sqlite3.Connection:
        connection = connect(self)
        connection.set_trace_callback(seen.add)
        return connection

    monkeypatch.setattr(SqliteRecordStore, "_connect", traced)
    return seen


async def test_no_statement_scans_a_table(make_world: MakeWorld, statements: set[str]) -> None:
    world = await make_world()
    mip = world.admin
    cube = (await mip.CreateCube(cube_id="c")).cube.name
    ids = [f"{cube}/memories/m{n}" for n in range(20)]
    await mip.AddMemories(parent=cube, memories=[text(f"word {n}", name=name) for n, name in enumerate(ids)])
    cites = Provenance(kind="PROVENANCE_KIND_MEMORY", source=ids[0])
    await mip.AddMemories(parent=cube, memories=[text("derived", provenance=[cites])])
    edge = Relation(source=ids[0], target=ids[1], type="PARENT_OF")
    await mip.CreateRelations(parent=cube, relations=[edge])
    session = (await mip.CreateSession(parent=cube)).session
    await mip.EndSession(name=session.name)
    await mip.UpdateMemory(memory=text("changed", name=ids[2]), request_id="0198c5a2-7f3e-7c41-9a52-3d1f0b6e8c77")
    await mip.MergeMemories(parent=cube, sources=ids[3:5], merged=Memory())
    await mip.TransitionMemories(parent=cube, names=ids[5:6], state="MEMORY_STATE_ARCHIVED")
    await mip.DeleteMemories(parent=cube, names=ids[6:7])
    for at in ({}, {"as_of_revision": 3}):
        await mip.GetMemory(name=ids[0], **at)
        await mip.BatchGetMemories(parent=cube, names=ids[:3], **at)
        await mip.ListMemories(parent=cube, **at)
        await mip.ListRelations(parent=cube, **at)
        await mip.ListRelations(parent=cube, memory=ids[0], **at)
        await mip.SearchMemories(cubes=[cube], query="word", **at)
        await mip.SearchMemories(cubes=[cube], query="word", mode="SEARCH_MODE_GRAPH", **at)
    await mip.Traverse(parent=cube, starts=ids[:1])
    await mip.ListMemoryRevisions(name=ids[2])
    await mip.ListSessions(parent=cube)
    await mip.ListCommits(parent=cube)
    await mip.ListCommitChanges(parent=f"{cube}/commits/2")
    await mip.SearchMemories(
        cubes=[cube], query="word", as_of_time=(await mip.GetCommit(name=f"{cube}/commits/2")).commit.create_time
    )
    await mip.RollbackCube(name=cube, to_revision=3)
    await mip.ForkCube(name=cube, cube_id="f")
    await mip.PurgeMemories(parent=cube, names=ids[:1], reason="asked")
    await mip.ListJobs(parent=cube)
    await mip.VerifyCube(name=cube)
    await mip.ListCubes()
    guest = await world.principal("g", (ids[1], 1, 2), (cube, 1, 1))
    await guest.ListMemories(parent=cube)
    await guest.ListCommits(parent=cube)
    await mip.ListGrants(resource=cube)
    await mip.ListAuditEvents(resource=cube)
    await mip.ListAuditEvents(resource="server")
    await mip.ListPrincipals()
    await mip.UpdateMemory(memory=Memory(name=ids[7], tags=["x"]), update_mask={"paths": ["tags"]})
    await world.stop()

    db = sqlite3.connect(world.data / "record.sqlite")
    # Verifying goes through a whole cube, in statements of its own, with functions of its own.
    assert not soundness.misfits(db, 1, 1)
    verifying = tuple(rule.query.partition(":")[0] for rule in soundness._RULES)
    explained = 0
    for statement in sorted(statements):
        if not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)", statement) or "sqlite_master" in statement:
            continue
        # A blob is traced as x'…', a text may have been cut: what does not parse says so here.
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
        explained += 1
        whole = "i.key >" in statement or statement.startswith(verifying)
        for step in plan:
            assert not step.startswith("SCAN") or _FINE.match(step), f"{step}\nin {statement}"
            assert whole or not _ALL_ITEMS.match(step), f"{step}\nin {statement}"
    db.close()
    assert explained > 80
