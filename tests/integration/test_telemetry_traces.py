"""Traces reach a collector that speaks OTLP, hold what they should and nothing else, and never hurt a call."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from memos_server.configs.errors import SetupError
from memos_server.configs.settings import TracingSettings
from memos_server.telemetry.tracing import Tracing
from tests.conftest import MakeWorld, World
from tests.support.mip import Mip, RpcError, text
from tests.support.ports import free_port

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps what it gets."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def Export(self, request: Any, context: object) -> Any:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(None).wait()

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def children(self, span: Span) -> list[str]:
        return [child.name for child in self.spans if child.parent_span_id == span.span_id]


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


def attributes(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, str(pair.value.WhichOneof("value")))

    return {pair.key: value(pair) for pair in pairs}


async def traced(make_world: MakeWorld, port: int, **settings: Any) -> World:
    tracing = {"endpoint": f"http://127.0.0.1:{port}", "delay_s": 0.05, **settings}
    return await make_world(tracing=tracing)


async def until(so: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def with_trace(mip: Mip, flags: str = "01") -> Mip:
    mip.metadata = [*mip.metadata, ("traceparent", f"00-{TRACE}-{PARENT}-{flags}")]
    return mip


async def test_a_call_is_one_span_with_its_steps_below_it(make_world: MakeWorld, collector: Collector) -> None:
    world = await traced(make_world, collector.port)
    mip = world.admin
    await mip.CreateCube(cube_id="c")
    await mip.AddMemories(parent="cubes/c", memories=[text("the harbour")])
    await mip.SearchMemories(cubes=["cubes/c"], query="harbour")
    await until(lambda: bool(collector.named("mip.v1.MemoryService/SearchMemories")))
    (add,) = collector.named("mip.v1.MemoryService/AddMemories")
    assert add.kind == Span.SPAN_KIND_SERVER
    assert add.parent_span_id == b""
    assert attributes(add.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "mip.v1.MemoryService",
        "rpc.method": "AddMemories",
        "rpc.grpc.status_code": 0,
    }
    assert add.status.code == Status.STATUS_CODE_UNSET
    assert collector.children(add) == ["record.read", "record.write"]
    (search,) = collector.named("mip.v1.MemoryService/SearchMemories")
    assert {"record.read", "index.search"} <= set(collector.children(search))
    assert add.trace_id != search.trace_id
    for child in collector.spans:
        if child.parent_span_id == search.span_id:
            assert search.start_time_unix_nano <= child.start_time_unix_nano
            assert child.end_time_unix_nano <= search.end_time_unix_nano
    (resource,) = {request.resource_spans[0].resource.SerializeToString() for request in collector.requests}
    described = attributes(collector.requests[0].resource_spans[0].resource.attributes)
    assert described["service.name"] == "memos"
    assert b"local-admin" not in resource


async def test_a_failed_call_says_why_and_only_faults_of_the_server_are_errors(
    make_world: MakeWorld, collector: Collector
) -> None:
    world = await traced(make_world, collector.port)
    mip = world.admin
    with pytest.raises(RpcError, match="CUBE_NOT_FOUND"):
        await mip.GetCube(name="cubes/absent")

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("SECRET in an exception")

    world.server.mos.store.read = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(RpcError, match="INTERNAL"):
        await mip.GetCube(name="cubes/absent")
    await until(lambda: len(collector.named("mip.v1.CubeService/GetCube")) == 2)
    missing, failed = collector.named("mip.v1.CubeService/GetCube")
    assert attributes(missing.attributes)["error.type"] == "CUBE_NOT_FOUND"
    assert attributes(missing.attributes)["rpc.grpc.status_code"] == 5
    assert missing.status.code == Status.STATUS_CODE_UNSET
    assert attributes(failed.attributes)["error.type"] == "INTERNAL"
    assert failed.status.code == Status.STATUS_CODE_ERROR
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"SECRET" not in sent


async def test_a_call_joins_its_callers_trace(make_world: MakeWorld, collector: Collector) -> None:
    world = await traced(make_world, collector.port)
    await with_trace(world.admin).ListCubes()
    await until(lambda: bool(collector.named("mip.v1.CubeService/ListCubes")))
    (span,) = collector.named("mip.v1.CubeService/ListCubes")
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT


async def test_the_ratio_says_how_many_traces_are_sent_and_the_caller_may_decide(
    make_world: MakeWorld, collector: Collector
) -> None:
    world = await traced(make_world, collector.port, ratio=0.0)
    await world.admin.ListCubes()
    await with_trace(world.admin, "00").ListCubes()
    await with_trace(world.admin, "01").GetServerStats()
    await until(lambda: bool(collector.spans))
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert not collector.named("mip.v1.CubeService/ListCubes")


async def test_a_malformed_parent_begins_a_trace_of_its_own(make_world: MakeWorld, collector: Collector) -> None:
    world = await traced(make_world, collector.port)
    hostile = ["", "x", f"00-{'0' * 32}-{'0' * 16}-01", "00-" * 300, f"00-{TRACE}-{PARENT}", f"ff-{TRACE}-{PARENT}-01"]
    for value in hostile:
        mip = world.admin
        mip.metadata = [*mip.metadata, ("traceparent", value), ("tracestate", value)]
        await mip.ListCubes()
    await until(lambda: len(collector.named("mip.v1.CubeService/ListCubes")) == len(hostile))
    spans = collector.named("mip.v1.CubeService/ListCubes")
    assert {span.parent_span_id for span in spans} == {b""}
    assert len({span.trace_id for span in spans}) == len(hostile)


async def test_nothing_of_content_names_or_tokens_is_in_a_span(make_world: MakeWorld, collector: Collector) -> None:
    world = await traced(make_world, collector.port)
    mip = world.admin
    await mip.CreateCube(cube_id="mark-cube")
    await mip.AddMemories(
        parent="cubes/mark-cube", memories=[text("mark-text", name="cubes/mark-cube/memories/mark-id")], cause="mark-c"
    )
    await mip.SearchMemories(cubes=["cubes/mark-cube"], query="mark-query", filter='tags:"mark-filter"')
    with pytest.raises(RpcError):
        await mip.SearchMemories(cubes=["cubes/mark-cube"], query="x", filter="mark-filter ((")
    with pytest.raises(RpcError):
        await world.caller("mark-token").ListCubes()
    await until(lambda: len(collector.named("mip.v1.CubeService/ListCubes")) == 1)
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"mark-" not in sent
    assert mip.metadata[0][1].encode() not in sent


async def test_a_collector_that_is_away_hurts_no_call_and_gets_the_next_spans_when_it_is_back(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    world = await traced(make_world, port)
    began = time.monotonic()
    for _ in range(50):
        await world.admin.GetCapabilities()
    assert time.monotonic() - began < 10
    began = time.monotonic()
    await world.stop()
    assert time.monotonic() - began < 10
    await world.start()
    collector = Collector(port)
    try:

        async def arrived() -> None:
            deadline = time.monotonic() + 30
            while not collector.spans:
                assert time.monotonic() < deadline
                await world.admin.GetCapabilities()
                await asyncio.sleep(0.2)

        await arrived()
        await world.stop()
    finally:
        collector.stop()
    assert "Traceback" not in caplog.text


def test_a_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(SetupError, match="OpenTelemetry is not installed") as caught:
        Tracing(TracingSettings(endpoint="http://127.0.0.1:1"))
    assert 'pip install "memos-mip[telemetry]"' in caught.value.remedy
