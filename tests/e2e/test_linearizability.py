"""The history of many callers of one embedded server has one order, also when the server is killed between."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cluster import EMBEDDED, Cluster
from tests.engines.load import Load
from tests.engines.promises import settled
from tests.engines.watchers import Watcher

SEED = int(os.environ.get("MEMOS_TEST_SEED", "20261121"))


async def test_the_history_of_eight_callers_has_one_order_through_two_kills(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    async with Cluster(tmp_path, EMBEDDED, 1) as cluster:
        load = Load(cluster, "c", rng)
        await load.create()
        watcher = Watcher(cluster, "c", 0)
        watcher.start()
        load.start(8)
        for _ in range(2):
            await asyncio.sleep(rng.uniform(0.7, 1.2))
            await asyncio.to_thread(cluster.nodes[0].kill)
            await asyncio.to_thread(cluster.nodes[0].start)
        await asyncio.sleep(1.0)
        await load.finish()
        found = await settled(load)
        assert found.broken == []
        assert await watcher.caught_up(found.log) == []
        assert load.errors.unexpected(connections=True) == []
        assert load.acknowledged > 50


@pytest.mark.parametrize(
    ("variant", "finding"),
    [
        ({"lose_answers": 0.2}, ""),
        ({"lose_answers": 0.2, "forget_requests": True}, "took effect 2 times"),
        ({"ignore_etags": True}, "not linearizable"),
        ({"stale_reads": 0.3}, "not linearizable"),
    ],
    ids=["answers that are lost", "forgotten request ids", "etags ignored", "stale reads"],
)
async def test_a_server_with_a_fault_is_found_out_and_one_that_loses_answers_alone_is_not(
    variant: dict[str, Any], finding: str, tmp_path: Path
) -> None:
    async with Cluster(tmp_path, EMBEDDED, 1, variants=[variant]) as cluster:
        load = Load(cluster, "c", random.Random(SEED))
        await load.create()
        await load.run(8, 2.5)
        broken = (await settled(load)).broken
        assert any(finding in line for line in broken) if finding else not broken, broken
        assert load.errors.unexpected(connections=False) == []
