"""Fixtures of the tests over engines."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from memos_server.vec_dbs.weaviate import WeaviateIndex
from tests.engines.fleet import Fleet, started

SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))


@pytest.fixture(scope="session")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with started(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    """The engines, all alive."""
    _fleet.whole()
    yield _fleet
    _fleet.mend()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Chances that MEMOS_TEST_SEED and the test's name choose."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
async def index(config: dict[str, Any]) -> AsyncIterator[WeaviateIndex]:
    """An index in Weaviate, by the module's `config`."""
    async with _opened(config) as made:
        yield made


@pytest.fixture
async def other(config: dict[str, Any]) -> AsyncIterator[WeaviateIndex]:
    """A second server over the same index."""
    async with _opened(config) as made:
        yield made


@asynccontextmanager
async def _opened(config: dict[str, Any]) -> AsyncIterator[WeaviateIndex]:
    made = WeaviateIndex("", **config)
    await made.open("1")
    try:
        yield made
    finally:
        await made.close()
