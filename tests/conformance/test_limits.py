"""The table of declared limits, against the server's own check of requests, which is written independently."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from google.protobuf import json_format
from mip_conformance.contract import levels, rpcs
from mip_conformance.limits import limits, violating
from mip_conformance.open_services import callable_rpcs, open_rpcs

from memos_server._pb.mip.v1 import memory_service_pb2
from memos_server.api.validation import validate
from memos_server.errors import MipError

CUBE = "cubes/absent"
KEPT = ("longest", "most")


def _message(rpc: str, fields: dict[str, Any]) -> Any:
    """Returns a request in the server's own classes."""
    name = rpcs()[rpc].request.DESCRIPTOR.name
    for service in ("access", "blob", "cube", "graph", "job", "memory", "server", "session"):
        module = importlib.import_module(f"memos_server._pb.mip.v1.{service}_service_pb2")
        if hasattr(module, name):
            return json_format.ParseDict(fields, getattr(module, name)())
    raise AssertionError(name)


@pytest.mark.parametrize("kind", ["missing", "too-long", "too-many", "malformed", "negative", *KEPT])
def test_the_server_finds_what_the_table_violates_and_nothing_else(kind: str) -> None:
    of_kind = [limit for limit in limits() if limit.kind == kind]
    assert of_kind
    for limit in of_kind:
        described = limit.described()
        request = violating(described, CUBE)
        message = _message(limit.rpc, request["frames"][described["frame"]] if "frames" in request else request)
        if kind in KEPT:
            validate(message)
            continue
        with pytest.raises(MipError) as raised:
            validate(message)
        assert raised.value.reason in limit.reasons, limit
        assert [violation.field for violation in raised.value.violations] == [limit.path]


def test_every_field_with_a_limit_is_in_the_table() -> None:
    found = {limit.path for limit in limits() if limit.rpc == "MemoryService.AddMemories"}
    assert {"parent", "memories", "memories[0].plaintext.text", "memories[0].labels[0].key", "request_id"} <= found
    assert {"memories[0].activation.blobs[0].digest", "memories[0].vectors[0].data"} <= found
    fields = {field.name for field in memory_service_pb2.AddMemoriesRequest.DESCRIPTOR.fields}
    assert fields == {path.partition("[")[0].partition(".")[0] for path in found}


def test_what_is_output_only_is_not_in_the_table() -> None:
    assert not [limit for limit in limits() if limit.path.endswith((".uid", ".merged_into", ".commitment"))]


def test_limits_name_rpcs_and_levels_of_the_contract() -> None:
    for limit in limits():
        assert limit.described()["level"] in levels()


def test_health_and_reflection_are_callable_and_no_rpcs_of_the_contract() -> None:
    assert set(open_rpcs()).isdisjoint(rpcs())
    assert set(callable_rpcs()) == set(open_rpcs()) | set(rpcs())
    health = open_rpcs()["Health.Check"]
    assert health.path == "/grpc.health.v1.Health/Check"
    assert health.request(service="x").SerializeToString() == b"\x0a\x01x"
    assert health.response.FromString(b"\x08\x01").status == 1  # type: ignore[attr-defined]
