"""Calls to the server under test: bytes in, bytes out, and a trace of everything for the report."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from mip_conformance.contract import Rpc
from mip_conformance.open_services import callable_rpcs
from mip_conformance.values import as_json, plain

_SHOWN = 4000
"""Characters of a message that a trace keeps."""
_SHOWN_FRAMES = 20
"""Frames of a stream from the server that a trace keeps."""
DEADLINE_S = 30.0


@dataclass
class Answer:
    """What a call ended with.

    Attributes:
        code: The name of the status code.
        message: The status message.
        reason: The reason of the ErrorInfo, empty without one.
        domain: Its domain.
        metadata: Its metadata.
        violations: The paths that the violations of BadRequest name.
        details: The names of the details' types.
        detail_values: Their values, serialized: equal answers have equal ones.
        retry_seconds: The delay of RetryInfo, None without one.
        response: The response, None for an error or a stream.
        frames: The frames of a stream.
        elapsed: Seconds from the call to its end.
        undecodable: What could not be parsed, empty where all could.
    """

    code: str = "OK"
    message: str = ""
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    detail_values: list[bytes] = field(default_factory=list)
    retry_seconds: float | None = None
    response: dict[str, Any] | None = None
    frames: list[dict[str, Any]] = field(default_factory=list)
    elapsed: float = 0.0
    undecodable: str = ""

    def described(self) -> dict[str, Any]:
        """Returns what expressions see of an error."""
        return {
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "metadata": self.metadata,
            "violations": self.violations,
            "details": self.details,
            "detail_values": self.detail_values,
            "retry_seconds": self.retry_seconds,
        }


@dataclass
class Trace:
    """A call as a report shows it.

    Attributes:
        rpc: The RPC, `CubeService.GetCube`.
        as_: Who called: an alias.
        requests: The requests as JSON, or `hex:…` for bytes that are sent as they are.
        code: The status code.
        reason: The reason.
        message: The status message.
        elapsed: Seconds.
        answers: What came back, as it was on the wire: the response, or the first frames of a stream.
    """

    rpc: str
    as_: str
    requests: list[str]
    code: str = ""
    reason: str = ""
    message: str = ""
    elapsed: float = 0.0
    answers: list[bytes] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        """Returns what a report holds of the call: `responses` are JSON, or `hex:…` for what does not parse."""
        return {
            "rpc": self.rpc,
            "as": self.as_,
            "requests": self.requests,
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "responses": [_answer_text(self.rpc, data) for data in self.answers],
            "seconds": round(self.elapsed, 4),
        }

    def note(self, data: bytes) -> None:
        """Keeps what came back, as far as a report shows it."""
        if len(self.answers) < _SHOWN_FRAMES:
            self.answers.append(data)


def _answer_text(name: str, data: bytes) -> str:
    try:
        message = callable_rpcs()[name].response.FromString(data)
    except DecodeError:
        return f"hex:{data[: _SHOWN // 2].hex()}"
    if name == "AccessService.IssueToken" and "token" in message.DESCRIPTOR.fields_by_name:
        # Reports are handed around, and with --keep the token would still be good.
        setattr(message, "token", "(left out of the report)")  # noqa: B010  the class is made at run time
    try:
        return shown(message)
    except (ValueError, json_format.Error):
        # It parses, and holds what JSON cannot say, such as a time before the year 1.
        return f"hex:{data[: _SHOWN // 2].hex()}"


def read_error(error: Any, answer: Answer) -> None:
    """Reads status and details of a `grpc.RpcError`, which is a call as well, into an answer."""
    answer.code = error.code().name
    answer.message = error.details() or ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                _read_details(status_pb2.Status.FromString(value), answer)
            except DecodeError:
                answer.undecodable = "grpc-status-details-bin"


def _read_details(status: status_pb2.Status, answer: Answer) -> None:
    for detail in status.details:
        name = detail.type_url.rpartition("/")[2]
        answer.details.append(name)
        answer.detail_values.append(detail.value)
        if name == "google.rpc.ErrorInfo":
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            answer.reason, answer.domain, answer.metadata = info.reason, info.domain, dict(info.metadata)
        elif name == "google.rpc.BadRequest":
            request = error_details_pb2.BadRequest.FromString(detail.value)
            answer.violations += [violation.field for violation in request.field_violations]
        elif name == "google.rpc.RetryInfo":
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            answer.retry_seconds = delay.seconds + delay.nanos / 1e9


class Stream:
    """A stream from the server that goes on in the background."""

    def __init__(self, rpc: Rpc, call: Any, trace: Trace, *, held: bool) -> None:
        """Begins to read, unless `held`."""
        self.rpc = rpc
        self.frames: list[dict[str, Any]] = []
        self.ended: Answer | None = None
        self._call = call
        self._trace = trace
        self._queue: queue.SimpleQueue[dict[str, Any] | Answer] = queue.SimpleQueue()
        self._began = time.perf_counter()
        self._reader: threading.Thread | None = None
        if not held:
            self._read()

    def _read(self) -> None:
        if self._reader is None:
            self._reader = threading.Thread(target=self._pump, name="stream", daemon=True)
            self._reader.start()

    def _pump(self) -> None:
        answer = Answer()
        try:
            for data in self._call:
                self._trace.note(data)
                self._queue.put(plain(self.rpc.response.FromString(data)))
        except grpc.RpcError as error:
            read_error(error, answer)
        except DecodeError:
            answer.code, answer.undecodable = "UNKNOWN", "a frame"
        answer.elapsed = time.perf_counter() - self._began
        self._queue.put(answer)

    def receive(self, enough: Callable[[list[dict[str, Any]]], bool] | None, within: float) -> bool:
        """Takes frames until they are enough or the stream ends; False when the time is over before.

        Args:
            enough: Tells whether the frames so far are enough; None for until the end.
            within: Seconds.
        """
        self._read()
        until = time.monotonic() + within
        while True:
            if enough is not None and enough(self.frames):
                return True
            if self.ended is not None:
                return enough is None
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
            if isinstance(item, Answer):
                self.ended = item
                self._trace.code, self._trace.reason = item.code, item.reason
                self._trace.message = item.message[:_SHOWN]
                if enough is None:
                    return True
            else:
                self.frames.append(item)

    def cancel(self) -> None:
        """Ends the stream from here."""
        self._call.cancel()
        if not self._trace.code:
            self._trace.code = "(cancelled by the suite)"


class Client:
    """A connection to the server under test."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Opens channels.

        Args:
            address: Host and port.
            credentials: For TLS; None for plain text.
        """
        self.address = address
        self.credentials = credentials
        self.deadline = DEADLINE_S
        """Seconds that a call may take which has no other deadline."""
        # Several connections, as several clients have; the option keeps grpc from sharing one among channels.
        # Typed as anything: the stubs demand serializers, without which a call takes and gives bytes.
        self._channels: list[Any] = [self._channel(number) for number in range(4)]
        self._next = itertools.cycle(self._channels)

    def _channel(self, number: int) -> Any:
        options = [("grpc.use_local_subchannel_pool", 1), ("mip.conformance.channel", number)]
        if self.credentials is None:
            return grpc.insecure_channel(self.address, options=options)
        return grpc.secure_channel(self.address, self.credentials, options=options)

    def wait(self, seconds: float) -> None:
        """Waits until the server takes connections.

        Raises:
            grpc.FutureTimeoutError: It does not.
        """
        for channel in self._channels:
            grpc.channel_ready_future(channel).result(timeout=seconds)

    def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            channel.close()

    def call(
        self,
        rpc: Rpc,
        requests: Sequence[bytes],
        metadata: Sequence[tuple[str, str]],
        trace: Trace,
        *,
        deadline: float = 0.0,
        abandoned: bool = False,
        enough: Callable[[list[dict[str, Any]]], bool] | None = None,
    ) -> Answer:
        """Makes a call and returns its end, whatever it is.

        Args:
            rpc: The RPC.
            requests: The request, or those of the client's stream, serialized.
            metadata: What goes with it.
            trace: Where to note what happened.
            deadline: Seconds; 0 means the client's own.
            abandoned: Cancel a client's stream after its frames.
            enough: For a stream from the server: tells when to cancel it; None reads to the end.
        """
        answer = Answer()
        began = time.perf_counter()
        deadline = deadline or self.deadline
        try:
            if rpc.server_streaming:
                self._read_stream(rpc, requests[0], metadata, trace, deadline, enough, answer)
            elif rpc.client_streaming:
                frames = _abandoning(requests) if abandoned else iter(requests)
                call = next(self._next).stream_unary(rpc.path).future(frames, metadata=metadata, timeout=deadline)
                if abandoned:
                    # What was sent is on its way; that it arrived shows in what the server says of it later.
                    with contextlib.suppress(grpc.FutureTimeoutError):
                        call.result(timeout=0.3)
                    call.cancel()
                    answer.code = "CANCELLED"
                else:
                    self._answered(rpc, call.result(), trace, answer)
            else:
                data = next(self._next).unary_unary(rpc.path)(requests[0], metadata=metadata, timeout=deadline)
                self._answered(rpc, data, trace, answer)
        except grpc.RpcError as error:
            read_error(error, answer)
        except grpc.FutureCancelledError:
            answer.code = "CANCELLED"
        answer.elapsed = time.perf_counter() - began
        trace.code, trace.reason, trace.elapsed = answer.code, answer.reason, answer.elapsed
        trace.message = (answer.message or trace.message)[:_SHOWN]
        return answer

    def _answered(self, rpc: Rpc, data: bytes, trace: Trace, answer: Answer) -> None:
        trace.note(data)
        try:
            answer.response = plain(rpc.response.FromString(data))
        except DecodeError:
            answer.undecodable = "the response"

    def _read_stream(
        self,
        rpc: Rpc,
        request: bytes,
        metadata: Sequence[tuple[str, str]],
        trace: Trace,
        deadline: float,
        enough: Callable[[list[dict[str, Any]]], bool] | None,
        answer: Answer,
    ) -> None:
        call = next(self._next).unary_stream(rpc.path)(request, metadata=metadata, timeout=deadline)
        for data in call:
            trace.note(data)
            try:
                answer.frames.append(plain(rpc.response.FromString(data)))
            except DecodeError:
                answer.undecodable = "a frame"
                call.cancel()
                return
            if enough is not None and enough(answer.frames):
                call.cancel()
                return

    def open(
        self, rpc: Rpc, request: bytes, metadata: Sequence[tuple[str, str]], trace: Trace, *, held: bool
    ) -> Stream:
        """Begins a stream from the server."""
        call = next(self._next).unary_stream(rpc.path)(request, metadata=metadata, timeout=120)
        return Stream(rpc, call, trace, held=held)


def _abandoning(requests: Iterable[bytes]) -> Iterator[bytes]:
    yield from requests
    time.sleep(5)


def shown(message: Message) -> str:
    """Returns a message as JSON for a trace, cut off where it is long."""
    text = as_json(message)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def reproduction(trace: Trace, address: str, *, tls: bool) -> str:
    """Returns a grpcurl command that makes the call again.

    Args:
        trace: The call.
        address: The server's.
        tls: Whether the connection was encrypted.
    """
    rpc = callable_rpcs()[trace.rpc]
    parts = ["grpcurl"] + ([] if tls else ["-plaintext"])
    if trace.as_ != "nobody":
        parts.append('-H "authorization: Bearer $TOKEN"')
    data = "\n".join(trace.requests)
    if data.startswith("hex:"):
        return f"# bytes that grpcurl cannot send: {json.dumps(data[:200])}"
    if any(request.endswith("…") for request in trace.requests):
        return f"# a request too long for this report, {rpc.path[1:]}"
    parts.append("-d " + "'" + data.replace("'", "'\\''") + "'")
    parts += [address, rpc.path[1:]]
    return " ".join(parts)
