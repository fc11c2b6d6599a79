"""The metrics are the numbers of GetServerStats under Prometheus' names; nobody gets them who was not meant to."""

from __future__ import annotations

import asyncio
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from memos_server._pb.mip.v1.server_service_pb2 import GetServerStatsResponse
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import MetricsSettings, Settings
from memos_server.main import serving
from memos_server.telemetry.prometheus import Metrics
from tests.conftest import MakeWorld
from tests.support.mip import RpcError, text
from tests.support.ports import free_port


def fetch(port: int, accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def families(body: str) -> dict[str, Metric]:
    return {family.name: family for family in parse_text(body)}  # type: ignore[no-untyped-call]


async def test_a_scrape_has_the_numbers_of_get_server_stats(make_world: MakeWorld) -> None:
    port = free_port()
    world = await make_world(metrics={"listen": f"127.0.0.1:{port}"}, health={"interval_s": 0.05})
    mip = world.admin
    await mip.CreateCube(cube_id="very-private-name")
    await mip.AddMemories(parent="cubes/very-private-name", memories=[text("hush")])
    for _ in range(4):
        await mip.GetCube(name="cubes/very-private-name")
    with pytest.raises(RpcError, match="CUBE_NOT_FOUND"):
        await mip.GetCube(name="cubes/absent")
    await asyncio.sleep(0.3)
    stats: GetServerStatsResponse = await mip.GetServerStats()
    body = await asyncio.to_thread(fetch, port)
    found = families(body)
    handled = {
        (sample.labels["method"], sample.labels["reason"]): sample.value
        for sample in found["mip_server_handled"].samples
        if sample.name == "mip_server_handled_total"
    }
    assert handled["mip.v1.CubeService.GetCube", "OK"] == 4
    assert handled["mip.v1.CubeService.GetCube", "CUBE_NOT_FOUND"] == 1
    assert handled["mip.v1.MemoryService.AddMemories", "OK"] == 1
    (get_cube,) = [call for call in stats.calls if call.method == "mip.v1.CubeService.GetCube"]
    buckets = [
        sample.value
        for sample in found["mip_server_handling_seconds"].samples
        if sample.name.endswith("_bucket") and sample.labels["method"] == get_cube.method
    ]
    assert [after - before for before, after in zip([0.0, *buckets], buckets, strict=False)] == get_cube.latency_counts
    assert buckets[-1] == 5
    assert {sample.labels["dependency"]: sample.value for sample in found["mip_server_dependency_up"].samples} == {
        "record": 1,
        "index": 1,
        "blobs": 1,
    }
    assert found["process_resident_memory_bytes"].samples[0].value > 10_000_000
    assert found["process_start_time_seconds"].samples[0].value == pytest.approx(stats.start_time.seconds, abs=1)
    # Labels have few values: nothing in them grows with what is stored or who calls.
    labels = {key for family in found.values() for sample in family.samples for key in sample.labels}
    assert labels == {"method", "reason", "le", "dependency", "backend", "version"}
    assert "private" not in body
    assert "local-admin" not in body


async def test_every_metric_follows_the_conventions(make_world: MakeWorld) -> None:
    port = free_port()
    await make_world(metrics={"listen": f"127.0.0.1:{port}"})
    body = await asyncio.to_thread(fetch, port, "application/openmetrics-text; version=1.0.0")
    # This parser refuses what breaks a rule: counters without _total, units, order, a missing end.
    found = list(parse_openmetrics(body))  # type: ignore[no-untyped-call]
    assert len(found) >= 18
    assert all(family.documentation.endswith(".") for family in found)
    assert all(family.name.startswith(("mip_server_", "process_")) for family in found)


async def test_nothing_listens_unless_it_is_set(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "d", listen="127.0.0.1:0", embedder={"backend": "none"})
    assert settings.metrics.listen is None
    assert settings.tracing.endpoint is None


async def test_another_address_than_this_machines_needs_permission(tmp_path: Path) -> None:
    common: dict[str, Any] = {"listen": "127.0.0.1:0", "embedder": {"backend": "none"}}
    settings = Settings(data=tmp_path / "d", metrics={"listen": "0.0.0.0:0"}, **common)
    with pytest.raises(SetupError, match="can be reached from other machines") as caught:
        async with serving(settings):
            pass
    assert "metrics.insecure" in caught.value.remedy
    permitted = Settings(data=tmp_path / "d", metrics={"listen": "0.0.0.0:0", "insecure": True}, **common)
    async with serving(permitted):
        pass


async def test_a_taken_port_and_a_missing_package_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings(data=tmp_path / "d", listen="127.0.0.1:0", metrics={"listen": listen})
        with pytest.raises(SetupError, match=f"cannot be served on {listen}: Address already in use"):
            Metrics(settings.metrics, GetServerStatsResponse)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SetupError, match="prometheus-client is not installed") as caught:
        Metrics(MetricsSettings(listen="127.0.0.1:0"), GetServerStatsResponse)
    assert 'pip install "memos-mip[telemetry]"' in caught.value.remedy


async def test_slow_readers_take_up_a_few_threads_and_a_scrape_that_fails_says_so() -> None:
    def fails() -> GetServerStatsResponse:
        raise RuntimeError("no numbers for SECRET")

    metrics = Metrics(MetricsSettings(listen="127.0.0.1:0"), fails)
    port = int(metrics.address.rpartition(":")[2])
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            await asyncio.to_thread(fetch, port)
        assert caught.value.code == 503
        assert b"SECRET" not in caught.value.read()
        caught.value.close()
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        await asyncio.sleep(0.2)
        # All sixteen are taken: the others were closed at once.
        slow[-1].settimeout(5)
        assert slow[-1].recv(1) == b""
        for connection in slow:
            connection.close()
    finally:
        await asyncio.to_thread(metrics.close)
