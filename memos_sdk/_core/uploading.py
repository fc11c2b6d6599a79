"""A call with a stream of requests and one response, fed frame by frame. Both clients use it.

The asynchronous client uses it in threads instead of grpc.aio, whose calls lose the server's status when a write meets
the end of the call (grpc/grpc#36066): a refusal would arrive as INTERNAL, and what may be repeated could not be told.
"""

from __future__ import annotations

import contextlib
import queue
from typing import Any

from memos_sdk._core.quiet_grpc import grpc


class Upload:
    """One call. gRPC takes the frames from here in a thread of its own."""

    def __init__(self, channel: Any, path: str, timeout: float | None, metadata: Any) -> None:
        """Begins the call on a blocking channel."""
        self._line: queue.Queue[bytes | None] = queue.Queue(maxsize=2)
        self._call = channel.stream_unary(path).future(iter(self._line.get, None), timeout=timeout, metadata=metadata)

    def put(self, frame: bytes | None) -> bool:
        """Hands a frame on, None after the last; waits for room. False when the call has ended, however."""
        while not self._call.done():
            with contextlib.suppress(queue.Full):
                self._line.put(frame, timeout=0.05)
                return True
        return False

    def result(self) -> bytes:
        """Waits for the response; raises grpc.RpcError."""
        try:
            data: bytes = self._call.result()
        except grpc.FutureCancelledError:
            # The call itself is the RpcError that says how it ended.
            raise self._call from None
        return data

    def end(self) -> None:
        """Cancels the call unless it has ended."""
        self._call.cancel()
        # The thread that waits for another frame ends with it.
        with contextlib.suppress(queue.Full):
            self._line.put_nowait(None)
