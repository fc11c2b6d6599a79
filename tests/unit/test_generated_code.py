"""The committed generated code fits the committed descriptor set. That the set fits the protos is checked by
`make check-proto`, which needs buf."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import betterproto2
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from memos_sdk._gen import reasons as sdk_reasons
from memos_sdk._gen.mip import v1 as sdk_messages
from memos_server._pb.mip.v1 import commit_pb2, cube_pb2, memory_pb2, session_pb2
from memos_server.errors import reason_rules

ROOT = Path(__file__).resolve().parents[2]
PROTOSET = ROOT / "protos" / "mip.protoset"
FILES = [
    file
    for file in descriptor_pb2.FileDescriptorSet.FromString(PROTOSET.read_bytes()).file
    if file.name.startswith("mip/v1/")
]


def test_the_descriptor_set_holds_every_proto_file() -> None:
    assert {file.name for file in FILES} == {f"mip/v1/{path.name}" for path in (ROOT / "protos/mip/v1").glob("*.proto")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_servers_messages_are_those_of_the_descriptor_set(file: descriptor_pb2.FileDescriptorProto) -> None:
    stem = file.name.removeprefix("mip/v1/").removesuffix(".proto")
    module = importlib.import_module(f"memos_server._pb.mip.v1.{stem}_pb2")
    served = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(served)
    expected = descriptor_pb2.FileDescriptorProto()
    expected.CopyFrom(file)
    # Comments, the names of JSON fields and what buf notes of the build (an extension of its own) are in the set alone.
    expected.ClearField("source_code_info")
    expected.DiscardUnknownFields()
    for message in (*expected.message_type, *served.message_type):
        _clear_json_names(message)
    assert served == expected


def _clear_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _clear_json_names(nested)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_sdk_has_every_message_with_every_field(file: descriptor_pb2.FileDescriptorProto) -> None:
    for message in file.message_type:
        sdk_class = getattr(sdk_messages, message.name)
        assert issubclass(sdk_class, betterproto2.Message)
        numbers = {meta.number for meta in sdk_class._betterproto.meta_by_field_name.values()}
        assert numbers == {field.number for field in message.field}, message.name


def test_the_sdks_table_of_reasons_is_the_servers() -> None:
    sdk = {name: tuple(reason) for name, reason in sdk_reasons.REASONS.items()}
    assert sdk == {name: tuple(rule) for name, rule in reason_rules().items()}


def test_generating_the_table_of_reasons_again_changes_no_byte() -> None:
    script = ROOT / "tools" / "gen_reasons.py"
    made = subprocess.run([sys.executable, str(script), str(PROTOSET)], capture_output=True, text=True, check=True)
    assert made.stdout == Path(sdk_reasons.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("outer", "content"),
    [
        (memory_pb2.Memory, memory_pb2.MemoryContent),
        (cube_pb2.Cube, cube_pb2.CubeContent),
        (session_pb2.Session, session_pb2.SessionContent),
        (commit_pb2.Commit, commit_pb2.CommitHeader),
    ],
)
def test_what_is_sealed_shares_numbers_and_types_with_the_resource(
    outer: type[Message], content: type[Message]
) -> None:
    def fields(message: type[Message]) -> dict[int, tuple[object, ...]]:
        return {
            field.number: (
                field.name,
                field.type,
                field.is_repeated,
                field.message_type,
                field.containing_oneof is None,
            )
            for field in message.DESCRIPTOR.fields
            if field.number < 32
        }

    assert fields(outer) == fields(content)
    assert max(field.number for field in content.DESCRIPTOR.fields) < 32
