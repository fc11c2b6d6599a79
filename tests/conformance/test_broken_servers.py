"""Servers that are wrong as a whole fail every check, soon, and without an error of the suite's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from mip_conformance import client, running
from mip_conformance.contract import message_class
from mip_conformance.reports.junit import junit_of
from mip_conformance.reports.page import page_of
from mip_conformance.target import Target, TargetError
from mip_conformance.verdicts import as_report, passed

from tests.conformance.fake_servers import (
    SERVICES,
    always,
    capabilities,
    closing,
    hanging,
    refuse_as,
    run,
    serving,
    suite,
    unimplemented,
)

CASES = "name: all\nlevel: core\ncases:\n" + "".join(
    f"""
  - name: get-{number}
    requirements: [MIP-TEST-001]
    steps:
      - call:
          rpc: CubeService.GetCube
          request: {{name: cubes/a}}
          expect: {{response: {{cube: {{name: cubes/a}}}}}}
  - name: stream-{number}
    requirements: [MIP-TEST-001]
    steps:
      - call:
          rpc: CubeService.WatchCube
          request: {{name: cubes/a}}
          until: size(frames) == 1
          expect: {{that: ["size(frames) == 1"]}}
  - name: open-{number}
    requirements: [MIP-TEST-001]
    steps:
      - id: stream
        open: {{rpc: CubeService.WatchCube, request: {{name: cubes/a}}}}
      - receive: {{stream: stream, until: size(frames) == 1, within: 1}}
  - name: cube-{number}
    requirements: [MIP-TEST-001]
    cubes: [cube]
    steps:
      - verify: {{cube: "${{cube}}"}}
"""
    for number in range(3)
)
DECLARED = capabilities(of=["core", "history"], services=SERVICES)


def garbage(rpc: str, request: bytes, context: Any) -> Any:
    """Answers with bytes that are no message."""
    return iter([b"\xff" * 40]) if rpc.endswith("WatchCube") else b"\xff" * 40


def nothing(rpc: str, request: bytes, context: Any) -> Any:
    """Answers with empty messages."""
    return iter(()) if rpc.endswith("WatchCube") else b""


def aborting(rpc: str, request: bytes, context: Any) -> bytes:
    """Fails inside, as a server does whose handler raises."""
    raise RuntimeError("a fault of the server")


def ill_detailed(rpc: str, request: bytes, context: Any) -> bytes:
    """Sends details that do not parse."""
    context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no")
    return b""


def ill_typed(rpc: str, request: bytes, context: Any) -> bytes:
    """Sends a detail whose value is not of its type."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.rpc.status_pb2 import Status

    status = Status(code=5, details=[AnyMessage(type_url="x/google.rpc.ErrorInfo", value=b"\xff\xff")])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no")
    return b""


def impossible_times(rpc: str, request: bytes, context: Any) -> Any:
    """Sends a message that parses, with a time that no calendar has."""
    kind = "WatchCubeResponse" if rpc.endswith("WatchCube") else "GetCubeResponse"
    message: Any = message_class(kind)()
    owner = message if kind == "WatchCubeResponse" else message.cube
    for field in owner.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp":
            getattr(owner, field.name).seconds = 2**62
    data = message.SerializeToString()
    return iter([data]) if kind == "WatchCubeResponse" else data


def foreign_code(rpc: str, request: bytes, context: Any) -> bytes:
    """Ends every call with a status that the contract has no reason for."""
    refuse_as(context, "DATA_LOSS", "\x00<script>\u202e")


@pytest.mark.parametrize(
    "behave",
    [unimplemented, nothing, garbage, aborting, ill_detailed, ill_typed, foreign_code],
    ids=lambda behave: behave.__name__,
)
def test_a_broken_server_fails_every_check_and_the_report_is_written(tmp_path: Path, behave: Any) -> None:
    with serving(behave, DECLARED) as target:
        found = run(target, suite(tmp_path, all=CASES), jobs=8)
    assert {result.outcome for result in found.results} == {"failed"}
    assert all(result.message for result in found.results)
    assert not passed(found)
    report = as_report(found)
    assert "<h1>" in page_of(report)
    assert "<testsuites" in junit_of(report)


def test_a_time_that_no_calendar_has_is_a_value_like_others(tmp_path: Path) -> None:
    with serving(impossible_times, DECLARED) as target:
        report = as_report(run(target, suite(tmp_path, all=CASES)))
    check = report["checks"][0]
    assert check["message"] == "CubeService.GetCube: response.cube.name is '' instead of 'cubes/a'"
    # JSON has no such time, so the report shows the bytes.
    assert check["calls"][0]["responses"][0].startswith("hex:")


def test_garbage_on_the_wire_is_shown_as_bytes(tmp_path: Path) -> None:
    with serving(garbage, DECLARED) as target:
        report = as_report(run(target, suite(tmp_path, all=CASES)))
    check = report["checks"][0]
    assert check["message"] == "CubeService.GetCube: the response does not parse"
    assert check["calls"][0]["responses"] == ["hex:" + "ff" * 40]


@pytest.fixture
def _short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DEADLINE_S", 0.3)


@pytest.mark.usefixtures("_short_deadline")
def test_a_run_against_a_server_that_hangs_ends_soon(tmp_path: Path) -> None:
    many = "name: all\nlevel: core\ncases:\n" + "".join(
        f"""
  - name: get-{number}
    requirements: [MIP-TEST-001]
    steps: [{{call: {{rpc: CubeService.GetCube, request: {{name: cubes/a}}}}}}]
"""
        for number in range(200)
    )
    began = time.monotonic()
    with serving(hanging, DECLARED) as target:
        found = run(target, suite(tmp_path, all=many), jobs=4)
    assert time.monotonic() - began < 20
    assert {result.outcome for result in found.results} == {"failed"}
    untried = [result for result in found.results if result.message == "not tried: the server stopped answering"]
    assert len(untried) >= 200 - running._DEAD_AFTER - 4
    assert not passed(found)


def test_silence_among_answers_stops_nothing(tmp_path: Path) -> None:
    cases = "name: all\nlevel: core\ncases:\n" + "".join(
        f"""
  - name: get-{number}
    requirements: [MIP-TEST-001]
    steps: [{{call: {{rpc: CubeService.{"ListCubes" if number % 2 else "GetCube"}, request: {{}}}}}}]
"""
        for number in range(24)
    )

    def behave(rpc: str, request: bytes, context: Any) -> bytes:
        if rpc == "CubeService.ListCubes":
            refuse_as(context, "UNAVAILABLE", "")
        return b""

    with serving(behave, DECLARED) as target:
        found = run(target, suite(tmp_path, all=cases), jobs=1)
    assert [result.outcome for result in found.results] == ["passed", "failed"] * 12
    assert not any("stopped answering" in result.message for result in found.results)


def test_a_server_that_closes_connections_is_no_server() -> None:
    with closing() as target, pytest.raises(TargetError, match="no server takes connections at"):
        _connect_soon(target)


def test_an_address_where_nothing_listens_is_no_server() -> None:
    with pytest.raises(TargetError, match="a server with TLS needs --tls"):
        _connect_soon(Target("127.0.0.1:1"))


def _connect_soon(target: Target) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mip_conformance.target._CONNECT_S", 0.5)
        target.connect()


@pytest.mark.parametrize("behave", [unimplemented, always(b"\xff" * 40)], ids=["unimplemented", "garbage"])
def test_a_server_without_capabilities_is_no_server_of_mip(tmp_path: Path, behave: Any) -> None:
    with serving(behave) as target, pytest.raises(TargetError, match="GetCapabilities, which every server answers"):
        run(target, suite(tmp_path, all=CASES))


def test_empty_capabilities_declare_nothing_and_pass_nothing(tmp_path: Path) -> None:
    with serving(always(b"")) as target:
        found = run(target, suite(tmp_path, all=CASES))
    assert {result.outcome for result in found.results} == {"not applicable"}
    assert not passed(found)
