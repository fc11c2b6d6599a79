"""The permission of every RPC: declared, resolvable, and a reason not to start where it is missing."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from memos_server._pb.mip.v1 import graph_service_pb2, memory_service_pb2, options_pb2
from memos_server.api.resources import rule_of
from memos_server.api.rpcs import FILES, USE_CASES
from memos_server.configs.errors import SetupError
from memos_server.errors import MipError

METHODS = [m for file in FILES for service in file.services_by_name.values() for m in service.methods]


def method_with(auth: options_pb2.Auth | None, level: int = options_pb2.LEVEL_CORE) -> MethodDescriptor:
    """Returns an RPC of a made-up service whose request has `string parent` and `repeated string names`."""
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
    file.dependency.append("mip/v1/options.proto")
    request = file.message_type.add(name="Request")
    request.field.add(name="parent", number=1, type=9, label=1)
    request.field.add(name="names", number=2, type=9, label=3)
    method = file.service.add(name="Test").method.add(
        name="Do", input_type=".test.Request", output_type=".test.Request"
    )
    if auth is not None:
        method.options.Extensions[options_pb2.auth].CopyFrom(auth)
    if level:
        method.options.Extensions[options_pb2.level] = level
    pool = descriptor_pool.DescriptorPool()
    descriptor = descriptor_pb2.FileDescriptorProto()
    descriptor_pb2.DESCRIPTOR.CopyToProto(descriptor)
    pool.Add(descriptor)
    options = descriptor_pb2.FileDescriptorProto()
    options_pb2.DESCRIPTOR.CopyToProto(options)
    pool.Add(options)
    pool.Add(file)
    return pool.FindServiceByName("test.Test").methods[0]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_rpc_declares_a_permission_that_resolves(method: MethodDescriptor) -> None:
    rule = rule_of(method)
    assert rule.permission != options_pb2.PERMISSION_UNSPECIFIED
    assert method.name in USE_CASES


def test_an_rpc_without_the_option_keeps_the_server_from_starting() -> None:
    with pytest.raises(SetupError, match="declares no"):
        rule_of(method_with(None))


def test_an_rpc_without_a_level_keeps_the_server_from_starting() -> None:
    with pytest.raises(SetupError, match=r"declares no \(mip.v1.level\)"):
        rule_of(method_with(options_pb2.Auth(permission=options_pb2.PERMISSION_OPEN), level=0))


@pytest.mark.parametrize("path", ["absent", "names", "parent[]", "parent.name"])
def test_a_field_that_the_request_lacks_keeps_the_server_from_starting(path: str) -> None:
    auth = options_pb2.Auth(permission=options_pb2.PERMISSION_READ, resource_fields=[path])
    with pytest.raises(SetupError, match="names the field"):
        rule_of(method_with(auth))


def test_a_permission_on_resources_without_a_field_keeps_the_server_from_starting() -> None:
    with pytest.raises(SetupError, match="does not go with"):
        rule_of(method_with(options_pb2.Auth(permission=options_pb2.PERMISSION_WRITE)))


def test_all_elements_of_all_paths_are_resolved() -> None:
    rule = rule_of(graph_service_pb2.DESCRIPTOR.services_by_name["GraphService"].methods_by_name["CreateRelations"])
    request = graph_service_pb2.CreateRelationsRequest(
        parent="cubes/a",
        relations=[{"source": "s1", "target": "t1"}, {"source": "s2", "target": "t2"}],  # type: ignore[list-item]
    )
    assert rule.resolve(request) == ["cubes/a", "s1", "s2", "t1", "t2"]


def test_a_request_that_names_nothing_is_refused() -> None:
    rule = rule_of(memory_service_pb2.DESCRIPTOR.services_by_name["MemoryService"].methods_by_name["UpdateMemory"])
    with pytest.raises(MipError) as raised:
        rule.resolve(memory_service_pb2.UpdateMemoryRequest())
    assert raised.value.reason == "FIELD_REQUIRED"
    assert raised.value.violations[0].field == "memory.name"
