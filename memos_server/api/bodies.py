"""Request bodies, read after the caller is known: how many at once, and for how long.

gRPC reads a request before its handler runs, holds whatever length the request announces, and waits for the rest for
ever. Handlers here read for themselves instead: until they do, flow control keeps a call at its first window
(`FIRST_WINDOW_BYTES`); while they do, up to `RECEIVED_BYTES` are held for it. So what a caller can make the server hold
by sending half is the turns that it has times `RECEIVED_BYTES`, and one window for each call that waits for a turn
(docs/guide/configuration.md has the sums).
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

import grpc

from memos_server.errors import MipError
from memos_server.telemetry.calls import CURRENT

RECEIVED_BYTES: Final = 5 * 2**20
"""Over this the transport itself refuses a message, without a reason; below it the endpoint refuses with one."""

FIRST_WINDOW_BYTES: Final = 2**16 - 1
"""What HTTP/2 lets a caller send before anybody reads (RFC 9113, 6.9.2)."""

OPTIONS: Final[list[tuple[str, int]]] = [
    ("grpc.max_receive_message_length", RECEIVED_BYTES),
    # Who answers the server's probes quickly gets a window of 64 MiB for every call, read or not. While a message is
    # being read its window is its length anyway, so nothing is slower without.
    ("grpc.http2.bdp_probe", 0),
]
"""What keeps the transport to that."""

PRINCIPAL_TURNS: Final = 32
PRINCIPAL_WAITING: Final = 2048
"""A principal's requests that are read at once, and that wait for it: as many as `quotas.burst_calls` permits."""


class Turns:
    """Places for those who do something at the same time, so many for each key; others wait, first come first served.

    It belongs to the event loop's thread.
    """

    def __init__(self, quota: str, at_once: int, waiting: int) -> None:
        """Has no callers yet.

        Args:
            quota: What a refused caller is told it has too many of.
            at_once: The places of one key.
            waiting: The most that wait for one key; more are refused.
        """
        self._quota = quota
        self._at_once = at_once
        self._most = at_once + waiting
        self._keys: dict[str, list[Any]] = {}

    def turn(self, key: str) -> _Turn:
        """Returns an asynchronous context manager that holds one of the key's places while its block runs.

        Raises:
            MipError: QUOTA_EXCEEDED, on entering, where too many wait already.
        """
        return _Turn(self, key)

    async def take(self, key: str) -> None:
        """Takes a place, once there is one."""
        entry = self._keys.get(key)
        if entry is None:
            entry = self._keys[key] = [0, None]
        if entry[0] >= self._most:
            raise MipError(
                "QUOTA_EXCEEDED",
                f"more than the quota {self._quota} of {self._most}",
                metadata={"quota": self._quota, "limit": str(self._most)},
                retry_after_s=1.0,
            )
        entry[0] += 1
        # Most callers never meet another: the semaphore is made for the first who has to wait.
        if entry[1] is None:
            if entry[0] <= self._at_once:
                return
            entry[1] = asyncio.Semaphore(0)
        try:
            await entry[1].acquire()
        except BaseException:
            self._leave(key, entry)
            raise

    def give(self, key: str) -> None:
        """Gives a place back."""
        entry = self._keys[key]
        if entry[1] is not None:
            entry[1].release()
        self._leave(key, entry)

    def _leave(self, key: str, entry: list[Any]) -> None:
        entry[0] -= 1
        if not entry[0]:
            del self._keys[key]


class _Turn:
    __slots__ = ("_key", "_turns")

    def __init__(self, turns: Turns, key: str) -> None:
        self._turns = turns
        self._key = key

    async def __aenter__(self) -> None:
        await self._turns.take(self._key)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.give(self._key)


async def body(context: grpc.aio.ServicerContext[bytes, bytes], turns: Turns, key: str, limit_s: float) -> bytes:
    """Reads a call's request.

    Args:
        context: The call's context; nothing was read from it yet.
        turns: The places of those who read.
        key: Whose place it takes.
        limit_s: How long the caller may take to send it, seconds, waiting for a place included.

    Raises:
        MipError: DEADLINE_EXCEEDED, QUOTA_EXCEEDED, or MALFORMED_MESSAGE when the call ends without a request.
    """
    try:
        async with asyncio.timeout(limit_s), turns.turn(key):
            raw: object = await context.read()
    except TimeoutError:
        raise MipError("DEADLINE_EXCEEDED", f"the request did not come whole within {limit_s:g} seconds") from None
    if not isinstance(raw, bytes):
        raise MipError("MALFORMED_MESSAGE", "the call carries no request")
    if (seen := CURRENT.get()) is not None:
        seen.request_bytes += len(raw)
    return raw
