"""A server that lies: whatever it answers, the SDK and the command line return or raise an error of their own."""

from __future__ import annotations

import contextlib
import io
import random
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from hypothesis import strategies as st

from memos_sdk import Client
from memos_sdk.cli import main
from memos_sdk.errors import MipError
from memos_sdk.models import View
from memos_server._pb.mip.v1 import options_pb2
from tests.fuzz.corpus import EFFORTS, fuzz
from tests.fuzz.messages import Draw, Pool, mutated
from tests.support.mip import METHODS, path_of

CUBE = "cubes/c"
POOL = Pool()
POOL.add(
    {
        options_pb2.FORMAT_CUBE_NAME: [CUBE],
        options_pb2.FORMAT_MEMORY_NAME: [f"{CUBE}/memories/m1", "cubes/other/memories/m1"],
        options_pb2.FORMAT_SESSION_NAME: [f"{CUBE}/sessions/s"],
        options_pb2.FORMAT_BLOB_DIGEST: ["sha256:" + "0" * 64],
    }
)
BY_PATH = {path_of(method): method for method in METHODS.values()}


class Liar(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every RPC with what `rng` says."""

    def __init__(self) -> None:
        self.rng = random.Random(0)
        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def service(self, details: Any) -> Any:
        method = BY_PATH[details.method]

        def one(_: Any, context: grpc.ServicerContext) -> bytes:
            if self.rng.random() < 0.1:
                context.set_trailing_metadata(
                    (("grpc-status-details-bin", self.rng.randbytes(self.rng.randrange(90))),)
                )
                context.abort(
                    self.rng.choice(list(grpc.StatusCode)[1:]), self.rng.choice(["", "x\x1b[2J\ny", "\u202e"])
                )
            return self.answer(method)

        def many(_: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            for _ in range(self.rng.randrange(5)):
                yield one(None, context)

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(many)
        if method.client_streaming:
            return grpc.stream_unary_rpc_method_handler(lambda frames, context: one(list(frames), context))
        return grpc.unary_unary_rpc_method_handler(one)

    def answer(self, method: Any) -> bytes:
        """Returns a message of the right type with odd values, one with changed bytes, or no message at all."""
        message: Any = Draw(self.rng, POOL).message(method.output_type)
        if self.rng.random() < 0.7 and hasattr(message, "next_page_token"):
            message.next_page_token = ""
        body = bytes(message.SerializeToString())
        return mutated(self.rng, body) if self.rng.random() < 0.4 else body


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    server = Liar()
    yield server
    server.stop()


def some(items: Any) -> list[Any]:
    """Reads the first items; a server that never ends a listing must not hold a test up."""
    return list(islice(items, 20))


CALLS: list[Callable[[Client], Any]] = [
    lambda c: c.capabilities(),
    lambda c: c.server_stats(),
    lambda c: c.search("tea", cubes=["c"]),
    lambda c: c.cubes.create("c"),
    lambda c: c.cubes.get("c"),
    lambda c: some(c.cubes.list()),
    lambda c: c.cubes.purge("c", reason="x"),
    lambda c: c.cube("c").refresh(),
    lambda c: c.cube("c").add("tea"),
    lambda c: c.cube("c").add_many(["a", "b"]),
    lambda c: c.cube("c").get("m1"),
    lambda c: c.cube("c").sealed("m1"),
    lambda c: c.cube("c").batch_get(["m1", "m2"]),
    lambda c: some(c.cube("c").list()),
    lambda c: some(c.cube("c").history("m1")),
    lambda c: c.cube("c").update("m1", text="x"),
    lambda c: c.cube("c").delete("m1"),
    lambda c: c.cube("c").relate("m1", "m2"),
    lambda c: some(c.cube("c").relations("m1")),
    lambda c: c.cube("c").traverse("m1"),
    lambda c: some(c.cube("c").log()),
    lambda c: some(c.cube("c").changes(1)),
    lambda c: c.cube("c").rollback(1),
    lambda c: c.cube("c").fork("d"),
    lambda c: c.cube("c").verify(),
    lambda c: c.cube("c").blobs.upload(b"abc"),
    lambda c: c.cube("c").blobs.read("sha256:" + "0" * 64),
    lambda c: c.cube("c").blobs.stat("sha256:" + "0" * 64),
    lambda c: some(c.access.grants("server")),
    lambda c: some(c.access.audit()),
    lambda c: c.access.issue_token("principals/p"),
]


def shown(value: Any) -> None:
    """Reads everything that a result offers."""
    for item in value if isinstance(value, list | tuple) else [value]:
        repr(item)
        for name in dir(item):
            if not name.startswith("_") and not callable(getattr(type(item), name, None)):
                getattr(item, name)
        if isinstance(item, View):
            item.to_dict()


@EFFORTS
def test_the_sdk_returns_or_raises_its_own_error_whatever_a_server_answers(liar: Liar, effort: int) -> None:
    client = Client(liar.address, token="t", timeout=5.0)

    def lie(seed: int) -> None:
        liar.rng = random.Random(seed)
        for call in CALLS:
            with contextlib.suppress(MipError):
                shown(call(client))

    fuzz(5 * effort, lie, st.integers(0, 2**64))
    client.close()


COMMANDS = [
    ["cube", "list"],
    ["cube", "show", "c"],
    ["list", "c"],
    ["search", "c", "tea"],
    ["show", "c/m1"],
    ["log", "c"],
    ["--json", "list", "c"],
    ["grant", "list", "server"],
]


@pytest.fixture
def memos(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., int]:
    """Runs the command line in this process and returns its status."""
    for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    # Putting the commands together takes longer than most of them, and comes out the same for every call.
    command = typer.main.get_command(main.build())
    monkeypatch.setattr(main, "build", lambda: command)

    def call(arguments: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", ["memos", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO("some text\n"))
        status = main.run()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err, err
        assert "fault of memos" not in err, (arguments, err)
        assert "\x1b" not in out + err, (arguments, out + err)
        return status

    return call


STATUSES = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 130})
"""What the command line may return (memos_sdk/cli/main.py)."""


@EFFORTS
def test_the_command_line_shows_a_line_whatever_a_server_answers(
    liar: Liar, memos: Callable[[list[str]], int], effort: int
) -> None:
    def lie(seed: int) -> None:
        liar.rng = random.Random(seed)
        for command in COMMANDS:
            assert memos(["--target", liar.address, "--token", "t", "--timeout", "5", *command]) in STATUSES

    fuzz(2 * effort, lie, st.integers(0, 2**64))


NAMES = "add search list show cube session grant token log relate verify tls doctor backup update"
WORDS = st.one_of(
    st.sampled_from(
        [
            *NAMES.split(),
            "create",
            "c",
            "c/m1",
            "cubes/c",
            "--json",
            "--help",
            "--filter",
            "--limit",
            "-1",
            "1e999",
            "--",
            "-",
            "",
        ]
    ),
    st.sampled_from(
        ["--as-of", "9" * 400, "--token", "\x1b[31m", "../../x", "--timeout", "nan", "-0", "\u202e", "@x", "="]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)


@EFFORTS
def test_any_arguments_are_understood_or_refused_with_a_status(memos: Callable[[list[str]], int], effort: int) -> None:
    def attempt(arguments: list[str]) -> None:
        # What would start servers, wait for ever or write where it should not is not run from here.
        if {"server", "watch", "demo", "top", "models"} & set(arguments):
            return
        assert memos(["--target", "127.0.0.1:1", "--timeout", "0.2", *arguments]) in STATUSES

    fuzz(15 * effort, attempt, st.lists(WORDS, max_size=6))
