"""Calls of the SDK over a real channel: request ids, retries, deadlines, errors, discovery of who answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memos_sdk import (
    Aborted,
    Client,
    ConnectError,
    DataLoss,
    DeadlineExceeded,
    InvalidArgument,
    MipError,
    NotFound,
    ResourceExhausted,
    RetryPolicy,
    Unavailable,
    Unimplemented,
    Unknown,
    UsageError,
)
from memos_sdk._core.retry import Attempts
from memos_sdk._core.status import parse_details
from memos_sdk._stubs import ADD_MEMORIES, GET_MEMORY, ISSUE_TOKEN
from memos_sdk.errors import FieldViolation, error_from_status
from memos_server._pb.mip.v1 import access_service_pb2, server_service_pb2
from tests.unit.fake_mip import FakeMip, Notes, Refusal

FAST = RetryPolicy(initial_delay=0.01, max_delay=0.02)


@pytest.fixture
def fake() -> Iterator[FakeMip]:
    server = FakeMip()
    yield server
    server.stop()


@pytest.fixture
def client(fake: FakeMip) -> Iterator[Client]:
    with Client(fake.address, token="secret", retry=FAST) as made:
        yield made


def failing(times: int, refusal: Refusal, then: Any) -> Any:
    """Returns a handler that refuses some times and then answers."""
    left = [times]

    def handler(request: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise refusal
        return then(request)

    return handler


def test_every_call_carries_the_token(fake: FakeMip, client: Client) -> None:
    Notes(fake)
    client.cubes.get("notes")
    assert fake.calls[0].metadata["authorization"] == "Bearer secret"


def test_a_mutation_gets_a_uuid_as_request_id(fake: FakeMip, client: Client) -> None:
    Notes(fake)
    cube = client.cubes.create("notes")
    cube.add("one")
    cube.add("two")
    ids = [call.request.request_id for call in fake.calls]
    assert len({str(uuid.UUID(value)) for value in ids}) == 3


def test_a_request_id_of_the_caller_is_kept(fake: FakeMip, client: Client) -> None:
    Notes(fake)
    mine = "7b0ff1ae-8e5a-4a5c-9f31-0a2b3c4d5e6f"
    client.cube("notes").add("one", request_id=mine)
    assert fake.calls[0].request.request_id == mine


def test_a_mutation_is_repeated_with_identical_bytes(fake: FakeMip, client: Client) -> None:
    notes = Notes(fake)
    fake.on("AddMemories", failing(2, Refusal("UNAVAILABLE", "BACKEND_UNAVAILABLE"), notes.add))
    assert client.cube("notes").add("one").name == "cubes/notes/memories/m1"
    tries = fake.named("AddMemories")
    assert len(tries) == 3
    assert len({call.raw for call in tries}) == 1


def test_an_error_that_stays_is_raised_after_the_last_try(fake: FakeMip, client: Client) -> None:
    notes = Notes(fake)
    fake.on("AddMemories", failing(99, Refusal("UNAVAILABLE", "SHUTTING_DOWN", "going down"), notes.add))
    with pytest.raises(Unavailable, match="SHUTTING_DOWN: going down"):
        client.cube("notes").add("one")
    assert len(fake.named("AddMemories")) == 5


def test_issuing_a_token_is_not_repeated(fake: FakeMip, client: Client) -> None:
    answer = access_service_pb2.IssueTokenResponse(token="t")
    fake.on("IssueToken", failing(1, Refusal("UNAVAILABLE", "BACKEND_UNAVAILABLE"), lambda request: answer))
    with pytest.raises(Unavailable):
        client.access.issue_token("alice")
    assert len(fake.named("IssueToken")) == 1


@pytest.mark.parametrize("code", ["NOT_FOUND", "INVALID_ARGUMENT", "ABORTED", "INTERNAL", "PERMISSION_DENIED"])
def test_an_error_that_a_repetition_cannot_cure_is_raised_at_once(fake: FakeMip, client: Client, code: str) -> None:
    notes = Notes(fake)
    fake.on("GetMemory", failing(9, Refusal(code), notes.get))
    with pytest.raises(MipError):
        client.cube("notes").get("m1")
    assert len(fake.calls) == 1


def test_retry_info_delays_the_next_try(fake: FakeMip, client: Client) -> None:
    notes = Notes(fake)
    refusal = Refusal("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", retry_after=0.2)
    fake.on("AddMemories", failing(1, refusal, notes.add))
    began = time.monotonic()
    client.cube("notes").add("one")
    assert time.monotonic() - began >= 0.2


def test_a_retry_that_would_come_too_late_is_not_awaited(fake: FakeMip, client: Client) -> None:
    notes = Notes(fake)
    refusal = Refusal("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", retry_after=60.0)
    fake.on("AddMemories", failing(1, refusal, notes.add))
    began = time.monotonic()
    with pytest.raises(ResourceExhausted) as caught:
        client.cube("notes").add("one")
    assert caught.value.retry_after == 60.0
    assert time.monotonic() - began < 5


def test_a_full_quota_is_awaited_as_often_as_the_calls_time_allows(fake: FakeMip, client: Client) -> None:
    notes = Notes(fake)
    refusal = Refusal("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", retry_after=0.02)
    fake.on("AddMemories", failing(9, refusal, notes.add))
    assert client.cube("notes").add("one").id == "m1"
    tries = fake.named("AddMemories")
    assert len(tries) == 10
    assert len({call.raw for call in tries}) == 1
    fake.on("AddMemories", failing(10**6, refusal, notes.add))
    began = time.monotonic()
    with pytest.raises(ResourceExhausted):
        client.cube("notes").add("two", timeout=0.5)
    assert time.monotonic() - began < 2


def test_a_call_ends_at_its_deadline(fake: FakeMip, client: Client) -> None:
    Notes(fake)
    fake.on("GetMemory", lambda request: time.sleep(1.5))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        client.cube("notes").get("m1", timeout=0.2)
    assert time.monotonic() - began < 1.2
    assert isinstance(caught.value, TimeoutError)


def test_an_error_shows_all_that_the_server_said(fake: FakeMip, client: Client) -> None:
    Notes(fake)
    refusal = Refusal(
        "INVALID_ARGUMENT",
        "FIELD_TOO_LARGE",
        "memories[0].tags[0]: longer than 128 bytes",
        metadata={"limit": "128"},
        violations=(("memories[0].tags[0]", "longer than 128 bytes"),),
    )
    fake.on("AddMemories", failing(1, refusal, None))
    with pytest.raises(InvalidArgument) as caught:
        client.cube("notes").add("one", tags=["x" * 129])
    error = caught.value
    assert error.reason == "FIELD_TOO_LARGE"
    assert error.message == "memories[0].tags[0]: longer than 128 bytes"
    assert error.remedy == "Shorten the named field to its limit, or split the request."
    assert error.metadata == {"limit": "128"}
    assert error.violations == (FieldViolation("memories[0].tags[0]", "longer than 128 bytes"),)
    assert error.method == "/mip.v1.MemoryService/AddMemories"
    assert error.diagnostics() == (
        "FIELD_TOO_LARGE: memories[0].tags[0]: longer than 128 bytes\n"
        "  call: /mip.v1.MemoryService/AddMemories (INVALID_ARGUMENT)\n"
        "  field memories[0].tags[0]: longer than 128 bytes\n"
        "  limit: 128\n"
        "  remedy: Shorten the named field to its limit, or split the request."
    )


def test_a_remedy_of_the_server_is_said_once(fake: FakeMip, client: Client) -> None:
    refusal = Refusal(
        "NOT_FOUND",
        "MEMORY_NOT_FOUND",
        "m1 does not exist. Look in the attic.",
        metadata={"remedy": "Look in the attic.", "name": "m1"},
    )
    fake.on("GetMemory", failing(1, refusal, None))
    with pytest.raises(NotFound) as caught:
        client.cube("notes").get("m1")
    error = caught.value
    assert (error.message, error.remedy, error.metadata) == ("m1 does not exist.", "Look in the attic.", {"name": "m1"})


def test_an_rpc_that_the_server_lacks_is_unimplemented(client: Client) -> None:
    with pytest.raises(Unimplemented):
        client.capabilities()


def test_an_answer_that_does_not_parse_is_data_loss(fake: FakeMip, client: Client) -> None:
    fake.on("GetCapabilities", lambda request: b"\x0a\xff")
    with pytest.raises(DataLoss) as caught:
        client.capabilities()
    assert caught.value.reason == "MALFORMED_RESPONSE"


def test_fields_that_the_sdk_does_not_know_are_no_error(fake: FakeMip, client: Client) -> None:
    answer = server_service_pb2.GetCapabilitiesResponse(server_name="other").SerializeToString()
    fake.on("GetCapabilities", lambda request: answer + bytes([0xF2, 0x3F, 0x03]) + b"abc")
    assert client.capabilities().server_name == "other"


def test_nobody_listening_is_a_connection_error_with_a_remedy() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        with Client(address, token="", retry=FAST) as client, pytest.raises(ConnectionError) as caught:
            client.capabilities()
    assert isinstance(caught.value, ConnectError)
    assert caught.value.message == f"no server answers at {address}"
    assert "memos serve" in caught.value.remedy


def test_a_closed_client_says_so(fake: FakeMip) -> None:
    client = Client(fake.address, token="")
    client.close()
    with pytest.raises(UsageError) as caught:
        client.capabilities()
    assert caught.value.reason == "CLIENT_CLOSED"


def test_an_argument_that_cannot_travel_is_refused_before_anything_is_sent(fake: FakeMip, client: Client) -> None:
    Notes(fake)
    with pytest.raises(UsageError):
        client.cube("notes").add("a lone surrogate \ud800")
    with pytest.raises(UsageError):
        client.cube("notes").add({"text": 3})
    assert fake.calls == []


def test_an_error_of_a_proxy_without_details_is_still_typed() -> None:
    error = error_from_status("NOT_FOUND", "no route", b"\xff\xff\xff", method="/m", target="t")
    assert isinstance(error, NotFound)
    assert error.reason == ""
    assert str(error) == "NOT_FOUND: no route"
    assert isinstance(error_from_status("WHATEVER", "", None, method="/m", target="t"), Unknown)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_details(raw: bytes) -> None:
    assert isinstance(parse_details(raw).reason, str)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def attempts(method: Any = GET_MEMORY, policy: RetryPolicy | None = None, **settings: Any) -> Attempts:
    settings = {"has_request_id": True, "timeout": 30.0, "uniform": lambda low, high: high, **settings}
    return Attempts(method, policy or RetryPolicy(), settings.pop("timeout"), **settings)


def test_delays_double_up_to_the_largest() -> None:
    plan = attempts(policy=RetryPolicy(max_attempts=6, initial_delay=1.0, max_delay=5.0), timeout=None)
    delays = []
    for _ in range(6):
        plan.next_timeout()
        delays.append(plan.delay_after(Unavailable("x")))
    assert delays == [1.0, 2.0, 4.0, 5.0, 5.0, None]


def test_each_try_gets_what_is_left_of_the_calls_time() -> None:
    clock = Clock()
    plan = attempts(timeout=10.0, clock=clock)
    assert plan.next_timeout() == 10.0
    clock.now = 4.0
    assert plan.next_timeout() == 6.0


def test_a_try_that_ran_out_of_its_own_time_is_repeated_while_the_call_has_time() -> None:
    clock = Clock()
    plan = attempts(policy=RetryPolicy(attempt_timeout=2.0), timeout=10.0, clock=clock)
    assert plan.next_timeout() == 2.0
    clock.now = 2.0
    assert plan.delay_after(DeadlineExceeded("x")) == 0.1
    plan.next_timeout()
    clock.now = 10.0
    assert plan.delay_after(DeadlineExceeded("x")) is None


def test_a_mutation_without_request_id_is_not_repeated() -> None:
    plan = attempts(ADD_MEMORIES, has_request_id=False)
    plan.next_timeout()
    assert plan.delay_after(Unavailable("x")) is None
    plan = attempts(ISSUE_TOKEN)
    plan.next_timeout()
    assert plan.delay_after(Unavailable("x")) is None


def test_a_quota_without_a_word_on_when_is_tried_as_often_as_other_failures() -> None:
    plan = attempts(policy=RetryPolicy(max_attempts=3, initial_delay=1.0))
    delays = []
    for _ in range(3):
        plan.next_timeout()
        delays.append(plan.delay_after(ResourceExhausted("x", reason="QUOTA_EXCEEDED")))
    assert delays == [1.0, 2.0, None]


def test_waits_that_the_server_asks_for_are_drawn_above_what_it_says_and_end_at_the_deadline() -> None:
    clock = Clock()
    plan = attempts(policy=RetryPolicy(max_attempts=2, initial_delay=1.0), timeout=10.0, clock=clock)
    full = ResourceExhausted("x", reason="QUOTA_EXCEEDED", retry_after=3.0)
    for _ in range(5):
        plan.next_timeout()
        assert plan.delay_after(full) == 4.0
    clock.now = 6.0
    plan.next_timeout()
    assert plan.delay_after(full) is None


def test_a_quota_on_a_call_without_a_time_limit_is_not_awaited_for_ever() -> None:
    plan = attempts(policy=RetryPolicy(max_attempts=2), timeout=None)
    full = ResourceExhausted("x", reason="QUOTA_EXCEEDED", retry_after=3.0)
    plan.next_timeout()
    assert plan.delay_after(full) is not None
    plan.next_timeout()
    assert plan.delay_after(full) is None


def test_one_attempt_means_one_also_for_a_quota() -> None:
    plan = attempts(policy=RetryPolicy(max_attempts=1))
    plan.next_timeout()
    assert plan.delay_after(ResourceExhausted("x", reason="QUOTA_EXCEEDED", retry_after=0.1)) is None


def test_an_error_shows_nothing_of_grpc_before_itself(fake: FakeMip, client: Client) -> None:
    Notes(fake)
    with pytest.raises(NotFound) as caught:
        client.cube("notes").get("none")
    shown = "".join(traceback.format_exception(caught.value))
    assert "RpcError" not in shown
    assert "during handling" not in shown.lower()
    assert "direct cause" not in shown


QUIET = """
import os, socket, threading
from memos_sdk import TLS, Client, MipError, RetryPolicy
with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    address = "127.0.0.1:%d" % listening.getsockname()[1]
    client = Client(address, tls=TLS(ca=b"no certificate"), token="", retry=RetryPolicy(max_attempts=1))
    try:
        client.capabilities(timeout=2)
    except MipError as error:
        print(error.reason, os.environ.get("GRPC_VERBOSITY"))
"""


@pytest.mark.parametrize(("given", "lines"), [(None, 0), ("ERROR", 1)])
def test_grpc_itself_prints_nothing_unless_the_user_wants_it(given: str | None, lines: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_VERBOSITY"}
    if given:
        environment["GRPC_VERBOSITY"] = given
    made = subprocess.run([sys.executable, "-c", QUIET], env=environment, capture_output=True, text=True, check=True)
    assert made.stdout == f"CONNECT_FAILED {given}\n"
    assert min(len(made.stderr.splitlines()), 1) == lines, made.stderr


def test_a_conflict_is_never_repeated() -> None:
    plan = attempts(ADD_MEMORIES)
    plan.next_timeout()
    assert plan.delay_after(Aborted("x")) is None
