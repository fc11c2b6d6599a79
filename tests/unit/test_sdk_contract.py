"""The SDK against the published contract: every RPC, every reason, both clients alike, names exported."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

import memos_sdk
from memos_sdk import _stubs, errors
from memos_sdk._async.cube import AsyncCube
from memos_sdk._gen.reasons import REASONS
from memos_sdk._sync.cube import Cube

ROOT = Path(__file__).resolve().parents[2]


def published() -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString((ROOT / "protos" / "mip.protoset").read_bytes())


def test_the_stub_table_holds_every_rpc_of_the_published_descriptor_set() -> None:
    expected = {}
    for file in published().file:
        for service in file.service:
            for rpc in service.method:
                kind = "client_stream" if rpc.client_streaming else "server_stream" if rpc.server_streaming else "unary"
                path = f"/{file.package}.{service.name}/{rpc.name}"
                expected[path] = (rpc.input_type.rpartition(".")[2], rpc.output_type.rpartition(".")[2], kind)
    found = {
        path: (method.request.__name__, method.response.__name__, method.kind.value)
        for path, method in _stubs.METHODS.items()
    }
    assert found == expected


def test_a_mutation_is_an_rpc_whose_request_has_a_request_id() -> None:
    assert _stubs.ADD_MEMORIES.mutation
    assert _stubs.SET_GRANT.mutation
    assert not _stubs.SEARCH_MEMORIES.mutation
    assert not _stubs.WATCH_CUBE.mutation


def test_only_issue_token_is_never_replayed() -> None:
    assert [method.name for method in _stubs.METHODS.values() if not method.replayable] == ["IssueToken"]


def test_every_rpc_is_used_by_the_client() -> None:
    source = "".join(path.read_text() for path in (ROOT / "memos_sdk" / "_async").glob("*.py"))
    names = {name for name, value in vars(_stubs).items() if isinstance(value, _stubs.Method)}
    unused = {name for name in names if f"_stubs.{name}" not in source}
    assert unused == set()


def test_every_reason_of_the_contract_has_an_error_class_for_its_code() -> None:
    for name, reason in REASONS.items():
        error = errors.error_from_status(reason.code, "x", None, method="/m", target="t")
        assert error.code == reason.code, name
        assert type(error) is not errors.Unknown, name


def test_every_code_of_grpc_has_an_error_class_of_its_own() -> None:
    codes = {cls.code for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.MipError)}
    assert codes == {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "CANCELLED",
        "UNIMPLEMENTED",
        "DATA_LOSS",
        "INTERNAL",
        "UNKNOWN",
    }


def test_the_error_tree_in_the_docstring_names_every_error() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or "")) | {"MipError"}
    classes = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)} - {"FieldViolation"}
    assert drawn == classes


def test_all_exported_names_exist_and_are_sorted() -> None:
    for name in memos_sdk.__all__:
        assert hasattr(memos_sdk, name), name
    assert set(errors.__all__) <= set(memos_sdk.__all__)


def test_the_exported_members_of_a_cube_are_those_that_the_guide_describes() -> None:
    members = {name for name in dir(Cube) if not name.startswith("_")}
    assert members == {
        "add",
        "add_many",
        "archive",
        "batch_get",
        "changes",
        "commit",
        "delete",
        "fork",
        "get",
        "history",
        "id",
        "info",
        "list",
        "log",
        "merge",
        "purge",
        "refresh",
        "relate",
        "relate_many",
        "relations",
        "restore",
        "rollback",
        "sealed",
        "search",
        "session",
        "transition",
        "traverse",
        "unrelate",
        "update",
        "verify",
        "watch",
    }


@pytest.mark.parametrize("name", sorted(name for name in dir(AsyncCube) if not name.startswith("_")))
def test_a_method_takes_the_same_arguments_in_both_clients(name: str) -> None:
    synchronous, asynchronous = getattr(Cube, name), getattr(AsyncCube, name)
    if callable(synchronous):
        assert list(inspect.signature(synchronous).parameters) == list(inspect.signature(asynchronous).parameters)


def test_every_method_that_changes_something_takes_a_request_id() -> None:
    source = "".join(path.read_text() for path in sorted((ROOT / "memos_sdk" / "_async").glob("*.py")))
    mutations = {
        name for name, value in vars(_stubs).items() if isinstance(value, _stubs.Method) and value.mutation
    } | {"BULK_ADD_MEMORIES"}
    seen = set()
    for body in re.split(r"\n    async def ", source)[1:]:
        called = {name for name in mutations if f"_stubs.{name}" in body}
        seen |= called
        if called and not body.startswith("_"):
            assert "request_id: str" in body.partition(") ->")[0], body.partition("(")[0]
    assert seen == mutations


def test_the_synchronous_client_is_what_the_generator_writes() -> None:
    spec = importlib.util.spec_from_file_location("gen_sync_client", ROOT / "tools" / "gen_sync_client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.expected().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run tools/gen_sync_client.py"


def modules_after(code: str) -> set[str]:
    """Returns the top-level modules that a new interpreter has imported after some code."""
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    made = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(made.stdout.split())


def test_importing_the_sdk_imports_neither_the_server_nor_the_command_line_nor_grpc() -> None:
    heavy = {"memos_server", "typer", "rich", "google", "betterproto2", "grpc", "numpy", "pydantic_settings"}
    assert not modules_after("import memos_sdk") & heavy


def test_a_client_needs_no_generated_message() -> None:
    found = modules_after("from memos_sdk import Client; Client('127.0.0.1:1', token='').cube('notes')")
    assert not found & {"memos_server", "typer", "rich", "betterproto2", "dateutil", "numpy", "pydantic_settings"}
    assert {"grpc", "google"} <= found


def test_the_sdk_and_a_server_of_another_version_share_a_process() -> None:
    code = (
        "from google.protobuf import descriptor_pb2, descriptor_pool;"
        "file = descriptor_pb2.FileDescriptorProto(name='mip/v1/memory.proto', package='mip.v1');"
        "file.message_type.add(name='Memory').field.add(name='other', number=1, type=5, label=1);"
        "descriptor_pool.Default().Add(file);"
        "from memos_sdk._gen import wire;"
        "assert wire.Memory(name='x').name == 'x'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
