"""The schema of the record in Neo4j is made again where a killed database holds half of it."""

from __future__ import annotations

import pytest
from neo4j import GraphDatabase

from memos_server.graph_dbs.neo4j import Neo4jRecordStore
from tests.support import engines

pytestmark = pytest.mark.engines


async def test_the_index_of_a_constraint_that_was_never_finished_is_no_hindrance() -> None:
    config = engines.clean_neo4j()
    store = Neo4jRecordStore("", **config)
    await store.open()
    await store.close()
    with GraphDatabase.driver(config["uri"], auth=("neo4j", engines.neo4j().password)) as driver:
        driver.execute_query("DROP CONSTRAINT memos_job")
        driver.execute_query("CREATE INDEX memos_job FOR (j:Job) ON (j.cube_id, j.id)")
        driver.execute_query("MATCH (s:Schema) DETACH DELETE s")
    again = Neo4jRecordStore("", **config)
    await again.open()
    assert await again.check() == []
    await again.close()
