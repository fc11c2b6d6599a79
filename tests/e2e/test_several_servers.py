"""One client of several servers: calls are spread, and a server that says it is going gets no more of them."""

from __future__ import annotations

import time
from pathlib import Path

from memos_sdk import Client, RetryPolicy
from tests.e2e.process import ServerProcess


def test_a_server_that_drains_fails_no_call_of_a_client_that_knows_another(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text("[health]\ndrain_s = 2.0\n", encoding="utf-8")
    config = ("--config", str(tmp_path / "slow.toml"))
    servers = [ServerProcess(tmp_path / name, *config) for name in ("one", "two")]
    target = ",".join(server.address for server in servers)
    try:
        with Client(target, retry=RetryPolicy(max_attempts=1)) as client:
            for _ in range(20):
                client.capabilities()
            servers[0].process.terminate()
            until = time.monotonic() + 3.5
            while time.monotonic() < until:
                client.capabilities()
                time.sleep(0.005)
        with Client(servers[1].address, token=servers[1].token) as client:
            counted = {call.method: call.succeeded for call in client.server_stats().calls}
        assert counted["mip.v1.ServerService.GetCapabilities"] > 100
    finally:
        for server in servers:
            server.stop()
