"""What a hand in the graph leaves is named, and what only the port has written has nothing to name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from memos_server.errors import MipError
from memos_server.graph_dbs.neo4j import Neo4jRecordStore
from tests.ports.records import change, create, memory, relation
from tests.support import engines

pytestmark = pytest.mark.engines


@pytest.fixture
async def store() -> AsyncIterator[Neo4jRecordStore]:
    opened = Neo4jRecordStore("", **engines.clean_neo4j())
    await opened.open()
    yield opened
    await opened.close()


A = "MATCH (i:Memory {id: 'a'})<-[:VERSION_OF]-(v:Version {from_revision: 1})"


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        ("MATCH (m:Commit {revision: 1}) SET m.time = 'noon'", {("chain", "commits/1")}),
        ("MATCH (m:Commit {revision: 1}) SET m.first_version = m.first_version + 1", {("state", "")}),
        (f"{A} SET v.state = 9", {("state", "memories/a")}),
        (f"{A} SET v.sensitivity = '2'", {("state", "memories/a")}),
        (f"{A} SET v.to_revision = 3", {("state", "memories/a")}),
        (f"{A} SET v.from_revision = 2", {("state", "memories/a")}),
        (f"{A} DETACH DELETE i", {("state", "")}),
        ("MATCH (i:Memory {id: 'a'})<-[:VERSION_OF]-(v {from_revision: 2}) DETACH DELETE v", {("state", "memories/a")}),
        (f"{A} SET v.payload = null", {("content", "memories/a")}),
        (f"{A} SET v.digest = v.salt", {("content", "memories/a")}),
        (f"{A} SET v.vector = 'none'", {("content", "memories/a")}),
        (f"{A} SET v.content = 7", {("content", "memories/a")}),
        ("MATCH (i:Memory {id: 'b'}) SET i.id = 7", {("state", "memories/7")}),
        ("MATCH (i:Memory {id: 'b'}) REMOVE i:Memory", {("state", "memories/b")}),
        ("MATCH (b:Blob) SET b.size = 'large'", {("blob", "blobs/sha256:one")}),
        ("MATCH (b:Blob) SET b.held = false", {("blob", "blobs/sha256:one")}),
        ("MATCH ()-[e:RELATES]->() DELETE e", {("state", "relations/a-b")}),
        ("MATCH (u:Cube) SET u.forked_from = 7", {("state", "")}),
        ("CREATE (:BlobProof {cube: 1, digest: 'sha256:none', principal: 'p'})", {("blob", "blobs/sha256:none")}),
    ],
)
async def test_an_edit_of_the_graph_is_named(store: Neo4jRecordStore, edit: str, found: set[tuple[str, str]]) -> None:
    one = "sha256:one"
    key = await create(store, "c", memory("a", vector=b"\0" * 8), memory("b", blobs=(one,)), relation("a", "b"))
    await store.write(lambda txn: txn.put_blob(key, one, 1, 7))
    await change(store, "c", 1, ["a"], words="other words")  # type: ignore[arg-type]
    assert list(await store.read(lambda txn: txn.misfits(key, 9))) == []
    await store.rows(edit)
    named = {(misfit.sort, misfit.name) for misfit in await store.read(lambda txn: txn.misfits(key, 99))}
    assert found <= named


@pytest.mark.parametrize(
    "edit",
    [
        "MATCH (u:Cube) SET u.owner = 7",
        "MATCH (u:Cube) SET u.head = 'none'",
        "MATCH (i:Settings) DETACH DELETE i",
        "MATCH (m:Commit) DELETE m",
    ],
)
async def test_a_cube_that_cannot_be_read_is_damaged_and_says_so(store: Neo4jRecordStore, edit: str) -> None:
    await create(store, "c")
    await store.rows(edit)
    with pytest.raises(MipError, match="restore the database from a backup") as raised:
        await store.read(lambda txn: txn.cube("c"))
    assert raised.value.reason == "DATA_CORRUPT"


async def test_the_check_names_nodes_that_belong_to_nothing(store: Neo4jRecordStore) -> None:
    await create(store, "c", memory("a"))
    assert list(await store.check()) == []
    await store.rows("MATCH (i:Memory) DETACH DELETE i")
    await store.rows("CREATE (:Commit {cube: 99, revision: 1})")
    assert list(await store.check()) == [
        "nodes that belong to nothing: 1 commits of no cube",
        "nodes that belong to nothing: 1 versions of no item",
    ]
