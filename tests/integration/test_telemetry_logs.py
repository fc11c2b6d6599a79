"""The log tells what happened to whom, and never with what: no content, filter, query, token or secret is in it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sqlite3
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memos_server import logs
from memos_server.errors import MipError
from tests.conftest import World
from tests.e2e.process import ServerProcess
from tests.support.mip import METHODS, Label, Mip, Provenance, RpcError, path_of, text

Lines = Callable[[], list[dict[str, Any]]]

MARK = "m4rk3d"
NAMES = {
    "parent": "cubes/c",
    "cubes": "cubes/c",
    "resource": "cubes/c",
    "principal": "principals/local-admin",
    "owner": "principals/local-admin",
    "source": "cubes/c/memories/m",
    "target": "cubes/c/memories/m",
    "names": "cubes/c/memories/m",
    "session": "cubes/c/sessions/s",
}
OF_SERVICE = {
    "MemoryService": "cubes/c/memories/m",
    "SessionService": "cubes/c/sessions/s",
    "JobService": "cubes/c/jobs/j",
    "GraphService": "cubes/c/memories/m",
}


def marked(message: Message, service: str, *, valid_names: bool, depth: int = 0) -> None:
    """Fills every field of a message, text with the mark in it."""
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and field.containing_oneof.fields[0] is not field:
            continue
        value: Any
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth < 4 and not field.message_type.full_name.startswith("google."):
                inner = getattr(message, field.name)
                part = inner.add() if field.is_repeated else inner
                part.SetInParent()
                marked(part, service, valid_names=valid_names, depth=depth + 1)
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            value = f"{MARK} text"
            if valid_names:
                value = NAMES.get(field.name, value)
                value = OF_SERVICE.get(service, "cubes/c") if field.name == "name" else value
                value = str(uuid.uuid4()) if field.name == "request_id" else value
                value = f'tags:"{MARK}"' if field.name == "filter" else value
        elif field.type == FieldDescriptor.TYPE_BYTES:
            value = f"{MARK} bytes".encode()
        else:
            continue
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


async def every_rpc(mip: Mip, *, valid_names: bool) -> None:
    """Calls every RPC once with the mark in every field; how it answers does not matter here."""
    for name, method in METHODS.items():
        request = GetMessageClass(method.input_type)()
        marked(request, method.containing_service.name, valid_names=valid_names)
        if name in ("DisablePrincipal", "PurgeCube", "DeleteCube") and valid_names:
            continue
        body = request.SerializeToString()
        try:
            if method.client_streaming:
                call = mip.channel.stream_unary(path_of(method), lambda raw: raw, bytes)
                await call(iter([body, body]), metadata=mip.metadata, timeout=10)
            elif method.server_streaming:
                stream = mip.channel.unary_stream(path_of(method), lambda raw: raw, bytes)
                async for _ in stream(body, metadata=mip.metadata, timeout=0.5):
                    break
            else:
                await mip.raw(name, body)
        except (RpcError, grpc.RpcError):
            continue


async def scenario(mip: Mip, stranger: Mip) -> None:
    """A day of a server, each field of its content marked."""
    memory = text(
        f"{MARK} content",
        name="cubes/c/memories/m",
        tags=[f"{MARK}-tag"],
        labels=[Label(key=f"{MARK}-key", value=f"{MARK} value")],
        attributes_json=json.dumps({MARK: MARK}),
        provenance=[Provenance(kind=1, source=f"file:{MARK}", speaker=f"{MARK} speaker")],
    )
    await mip.CreateCube(cube_id="c")
    await mip.AddMemories(parent="cubes/c", memories=[memory], cause=f"{MARK} cause")
    found = await mip.SearchMemories(cubes=["cubes/c"], query=f"{MARK} query", filter=f'tags:"{MARK}-tag"')
    assert found.hits
    for bad in (f"{MARK} ((", f'tags:"{MARK}', f"{MARK} = 3"):
        with pytest.raises(RpcError):
            await mip.ListMemories(parent="cubes/c", filter=bad)
    with pytest.raises(RpcError):
        await mip.ListMemories(parent="cubes/c", page_token=f"{MARK}-page")
    with pytest.raises(RpcError):
        await mip.raw("AddMemories", b"\xff" + MARK.encode())
    with pytest.raises(RpcError):
        await stranger.ListCubes()
    await mip.UpdateMemory(memory=memory, update_mask={"paths": ["plaintext.text"]}, cause=f"{MARK} why")
    await mip.PurgeMemories(parent="cubes/c", names=["cubes/c/memories/m"], reason=f"{MARK} forget")
    await mip.VerifyCube(name="cubes/c")


@pytest.mark.parametrize("format_", ["json", "text"])
async def test_nothing_that_callers_send_is_in_the_log_even_at_debug(tmp_path: Path, format_: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "memos.toml").write_text(f'[log]\nformat = "{format_}"\nlevel = "debug"\n[health]\ninterval_s = 0.2\n')
    server = ServerProcess(data)
    token = server.token
    mip, stranger = Mip(server.address, token), Mip(server.address, f"{MARK}.token.{MARK}")
    try:
        await scenario(mip, stranger)
        await every_rpc(mip, valid_names=False)
        await every_rpc(mip, valid_names=True)
    finally:
        await mip.close()
        await stranger.close()
        assert server.stop() == 0
    log = (tmp_path / "data.log").read_text()
    assert MARK not in log
    assert MARK.encode().hex() not in log
    for part in token.split("."):
        assert part not in log
    for secret in ("keys/token.ed25519.pem", "keys/page-tokens.key"):
        for line in (data / secret).read_bytes().split(b"\n"):
            assert len(line) < 16 or line.decode("latin-1") not in log
    assert "Traceback" not in log
    if format_ == "text":
        assert " DEBUG   memos_server.access: call method=mip.v1.MemoryService/AddMemories code=OK" in log
        return
    lines = [json.loads(line) for line in log.splitlines()]
    (listens,) = [line for line in lines if line["message"] == "listens"]
    assert listens["address"] == server.address
    calls = [line for line in lines if line["logger"] == "memos_server.access"]
    assert {line["method"] for line in calls} == {path_of(method)[1:] for method in METHODS.values()}
    first = next(line for line in calls if line["method"].endswith("/AddMemories"))
    assert {key: first[key] for key in ("level", "code", "principal")} == {
        "level": "debug",
        "code": "OK",
        "principal": "principals/local-admin",
    }
    assert first["request_bytes"] > 0
    assert first["response_bytes"] > 0
    assert first["milliseconds"] > 0
    refused = [line for line in calls if line.get("reason") == "TOKEN_INVALID"]
    assert [line["code"] for line in refused] == ["UNAUTHENTICATED"]
    assert "principal" not in refused[0]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Reads what was logged so far as JSON; nothing of it, nor of the lines for people, may have the mark."""
    stream, plain = io.StringIO(), io.StringIO()
    handlers = []
    for target, formatter in ((stream, logs.JsonLines()), (plain, logs.TextLines())):
        handler = logging.StreamHandler(target)
        handler.setFormatter(formatter)
        handlers.append(handler)
        logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for handler in handlers:
        logging.getLogger().removeHandler(handler)
    assert stream.getvalue()
    assert MARK not in stream.getvalue()
    assert MARK not in plain.getvalue()


async def test_a_fault_is_logged_with_its_incident_and_trace_and_without_its_text(
    world: World, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger("memos_server.access").setLevel("DEBUG")

    async def broken(*_: object, **__: object) -> None:
        try:
            int(f"{MARK} is no number")
        except ValueError as error:
            raise RuntimeError(f"{MARK} in the text") from error

    mip = world.admin
    await mip.ListCubes()
    monkeypatch.setattr(world.server.mos.store, "read", broken)
    with pytest.raises(RpcError) as caught:
        await mip.GetCube(name="cubes/c")
    incident = caught.value.metadata["incident"]
    # The line is written once the answer is out, so the caller may be faster.
    for _ in range(1000):
        if any(line.get("incident") for line in lines()):
            break
        await asyncio.sleep(0.01)
    logging.getLogger("memos_server.access").setLevel("NOTSET")
    written = lines()
    (told,) = [line for line in written if line["message"] == f"incident {incident}: RuntimeError"]
    assert told["level"] == "error"
    assert told["traceback"].splitlines()[-1] == "RuntimeError"
    assert "ValueError\n" in told["traceback"]
    assert "in broken" in told["traceback"]
    (call,) = [line for line in written if line.get("incident") == incident]
    assert (call["code"], call["reason"]) == ("INTERNAL", "INTERNAL")


def test_only_texts_that_are_known_to_hold_no_content_are_written() -> None:
    database = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError) as caught:
        database.execute(f"SELECT '{MARK}' FROM {MARK}")
    database.close()
    assert logs.described(caught.value) == "OperationalError: SQLITE_ERROR"
    assert logs.described(KeyError(MARK)) == "KeyError"
    assert logs.described(OSError(28, "No space left on device")) == "OSError: [Errno 28] No space left on device"
    assert logs.described(OSError(MARK)) == "OSError"
    assert logs.described(MipError("STORAGE_FULL", "the disk is full")) == "MipError: STORAGE_FULL: the disk is full"
    assert logs.described(MipError("INVALID_FILTER", f"filter: {MARK}")) == "MipError: INVALID_FILTER"
    assert MARK not in logs.trace(ExceptionGroup(MARK, [ValueError(MARK)]))


async def test_what_python_itself_would_print_is_scrubbed_too(lines: Lines) -> None:
    async def fails() -> None:
        raise ValueError(MARK)

    task = asyncio.get_running_loop().create_task(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # As asyncio logs a task that nobody awaited: the repr of its exception is in the message.
    asyncio.get_running_loop().default_exception_handler(
        {"message": "Task exception was never retrieved", "exception": task.exception(), "future": task}
    )
    logging.getLogger("x").error("it failed with %s and %r", ValueError(MARK), ValueError(MARK))
    logging.getLogger("x").error(ValueError(MARK))
    assert [line["message"] for line in lines()] == [
        "Task exception was never retrieved",
        "it failed with ValueError and 'ValueError'",
        "ValueError",
    ]


def test_a_line_that_cannot_be_written_says_so_without_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level, threading.excepthook, sys.unraisablehook
    try:
        logs.set_up("info", "json")
        logging.getLogger("x").error("one %s and %s", MARK)
        thread = threading.Thread(target=lambda: int(MARK), name="doomed")
        thread.start()
        thread.join()
    finally:
        root.handlers[:], threading.excepthook = before[0], before[2]
        root.setLevel(before[1])
        sys.unraisablehook = before[3]
    written = capsys.readouterr().err
    assert MARK not in written
    assert "a line of x could not be logged" in written
    assert "the thread doomed ended" in written
