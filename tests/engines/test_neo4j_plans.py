"""How Neo4j finds what it is asked for: by an index, never by looking through all nodes of a label."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from neo4j import AsyncGraphDatabase, AsyncSession

from memos_server.graph_dbs.neo4j import (
    Neo4jRecordStore,
    access_reader,
    access_writer,
    evidence,
    pins,
    reader,
    sequences,
    writer,
)
from tests.support import engines

pytestmark = pytest.mark.engines

SCANS = ("AllNodesScan", "NodeByLabelScan", "NodeIndexScan", "AllRelationshipsScan", "RelationshipTypeScan")
PARTS = ("_CHANGES", "_CHANGED", "_ITEMS_CHANGED", "_BY_ID", "_BY_UID", "_END_SEEN", "AT", "NOW", "CURRENT", "CONTENT")
"""Texts that statements are made of, and that are none themselves."""


def statements() -> Iterator[tuple[str, str]]:
    """Yields (name, text) of every statement of the port's methods."""
    for module in (reader, access_reader, writer, access_writer, pins, evidence, sequences):
        for name, value in vars(module).items():
            texts = value if isinstance(value, dict) else {"": value}
            for key, text in texts.items():
                is_one = isinstance(text, str) and any(word in text for word in ("MATCH (", "MERGE (", "CREATE ("))
                if is_one and name not in PARTS and name.strip("_").isupper() and name not in ("HEAD", "_CUBE"):
                    yield f"{module.__name__.rpartition('.')[2]}.{name} {key}", text


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    config = engines.clean_neo4j()
    store = Neo4jRecordStore("", **config)
    await store.open()
    await store.close()
    auth = (config["user"], config["password"]) if config["user"] else None
    driver = AsyncGraphDatabase.driver(config["uri"], auth=auth, notifications_min_severity="OFF")
    async with driver, driver.session() as opened:
        yield opened


async def steps(session: AsyncSession, statement: str) -> list[str]:
    """Returns the names of the steps of a statement's plan."""
    plan = (await (await session.run(f"EXPLAIN {statement}")).consume()).plan
    assert plan is not None
    found = []
    left: list[dict[str, Any]] = [plan]
    while left:
        step = left.pop()
        found.append(step["operatorType"].partition("@")[0])
        left += step.get("children", [])
    return found


async def test_no_statement_looks_through_all_nodes_of_a_label(session: AsyncSession) -> None:
    plans = {name: await steps(session, text) for name, text in statements()}
    assert len(plans) > 80
    slow = {name: plan for name, plan in plans.items() if any(scan in step for step in plan for scan in SCANS)}
    assert slow == {}


async def test_pages_are_read_in_the_order_of_an_index(session: AsyncSession) -> None:
    pages = {
        **{f"list {key}": text for key, text in (reader._LISTS | reader._SEEN_LISTS).items()},
        "commits": reader._COMMITS,
        "commits back": reader._COMMITS_BACK,
        "cube blobs": reader._CUBE_BLOBS,
        "jobs": access_reader._JOBS,
        "unfinished": access_reader._UNFINISHED,
        "audit": access_reader._AUDITS,
        "principals": access_reader._PRINCIPALS,
    }
    sorted_first = {}
    for name, text in pages.items():
        plan = await steps(session, text)
        if any(step in ("Sort", "Top", "PartialSort", "PartialTop") for step in plan):
            sorted_first[name] = plan
    assert sorted_first == {}
