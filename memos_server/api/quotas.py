"""How much one caller may ask of the server: calls, open streams, request bytes. Judged before a request is read.

Each principal has an account of token buckets, which fill at the quota's rate. A bucket of bytes may go into debt by
one request, so that a quota smaller than a message slows its sender and never locks it out. Calls without an identity,
and signatures that were not seen before, are counted per peer address: a flood of them costs little, and callers whose
tokens are known are served all the same.

Everything here is in memory, for this process and since its start, in tables of bounded size, and takes a few
microseconds a call (docs/guide/configuration.md).
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import unquote

from memos_server.errors import MipError

MAX_ACCOUNTS: Final = 10_000
"""The most principals, and the most peer addresses, that are accounted for one by one."""

UNLIMITED: Final = math.inf

_PREFIX: Final = "principals/"
_OTHERS: Final = "others"
_SWEEP_S: Final = 1.0
"""Full tables are swept this often at most: a sweep takes a millisecond, which is what a flood must not buy."""


class Quota(Protocol):
    """What one principal may ask for; 0 means no limit. The settings' sections have this form."""

    @property
    def calls_per_second(self) -> int:
        """Calls a second on average."""

    @property
    def burst_calls(self) -> int:
        """Calls at once, after a pause."""

    @property
    def open_streams(self) -> int:
        """Streams at the same time."""

    @property
    def bytes_per_second(self) -> int:
        """Request bytes a second on average; one second's worth may come at once."""


class Bucket:
    """A token bucket on a monotonic clock.

    Attributes:
        rate: What flows in, per second.
        size: The most that it holds.
    """

    __slots__ = ("_at", "_level", "rate", "size")

    def __init__(self, rate: float, size: float, now: float) -> None:
        """Makes a full bucket."""
        self.rate = rate
        self.size = size
        self._level = size
        self._at = now

    def take(self, amount: float, now: float, need: float) -> float:
        """Takes an amount, and returns 0; takes nothing and returns the seconds to wait when less than `need` is in it.

        Args:
            amount: What is taken; it may leave the bucket in debt.
            now: The clock's reading, in seconds.
            need: What must be in it.
        """
        level = self._level + (now - self._at) * self.rate
        if level > self.size:
            level = self.size
        self._at = now
        if level < need:
            self._level = level
            return (need - level) / self.rate
        self._level = level - amount
        return 0.0

    def debt(self, now: float) -> float:
        """Returns the seconds until the bucket is out of debt; 0 when it is in none."""
        return max(0.0, -(self._level + (now - self._at) * self.rate) / self.rate)

    def is_full(self, now: float) -> bool:
        """Returns whether it is as it was made, so that nothing is lost by forgetting it."""
        return self._level + (now - self._at) * self.rate >= self.size


class _Account:
    __slots__ = ("bytes", "calls", "max_streams", "streams")

    def __init__(self, quota: Quota, now: float) -> None:
        rate = quota.calls_per_second
        self.calls = Bucket(rate, max(quota.burst_calls, rate), now) if rate else None
        rate = quota.bytes_per_second
        self.bytes = Bucket(rate, rate, now) if rate else None
        self.max_streams = quota.open_streams
        self.streams = 0

    def is_idle(self, now: float) -> bool:
        return self.streams == 0 and all(bucket is None or bucket.is_full(now) for bucket in (self.calls, self.bytes))


class Quotas:
    """The accounts of all callers. It belongs to the event loop's thread."""

    def __init__(
        self,
        default: Quota,
        principals: Mapping[str, Quota],
        unauthenticated_per_second: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts with full buckets.

        Args:
            default: The quota of every principal that has none of its own.
            principals: Principal id -> its own quota.
            unauthenticated_per_second: Calls without identity, and unknown signatures, from one address; 0 means no
                limit. Twice as many may come at once.
            clock: Returns seconds; never goes back.
        """
        self._default = default
        self._own = {_PREFIX + principal: quota for principal, quota in principals.items()}
        self._strangers = unauthenticated_per_second
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._peers: dict[str, Bucket] = {}
        self._swept = -UNLIMITED

    def call(self, principal: str) -> None:
        """Counts a call, before its request is read.

        Args:
            principal: Who calls, authenticated.

        Raises:
            MipError: QUOTA_EXCEEDED.
        """
        account, now = self._account(principal)
        if account.bytes is not None and (wait := account.bytes.take(0, now, 0.0)):
            raise _exceeded("bytes_per_second", account.bytes.rate, wait)
        if account.calls is not None and (wait := account.calls.take(1, now, 1.0)):
            raise _exceeded("calls_per_second", account.calls.rate, wait)

    def received(self, principal: str, size: int) -> None:
        """Counts the bytes of a call's request; where they are too many, the next call is refused."""
        account, now = self._account(principal)
        if account.bytes is not None:
            account.bytes.take(size, now, -UNLIMITED)

    @contextmanager
    def stream(self, principal: str) -> Iterator[None]:
        """Counts a stream as open while the block runs.

        Raises:
            MipError: QUOTA_EXCEEDED.
        """
        account, _ = self._account(principal)
        if account.max_streams and account.streams >= account.max_streams:
            raise _exceeded("open_streams", account.max_streams, 1.0)
        account.streams += 1
        try:
            yield
        finally:
            account.streams -= 1

    async def frame(self, principal: str, size: int) -> None:
        """Counts a frame of a request stream, and waits until it is paid for: a stream is slowed, not refused."""
        account, now = self._account(principal)
        if account.bytes is not None:
            account.bytes.take(size, now, -UNLIMITED)
            if wait := account.bytes.debt(now):
                await asyncio.sleep(wait)

    def stranger(self, peer: str) -> None:
        """Counts a call that carries no identity known yet.

        Args:
            peer: The peer as gRPC names it, such as `ipv4:192.0.2.1:40000`.

        Raises:
            MipError: QUOTA_EXCEEDED.
        """
        if not self._strangers:
            return
        now = self._clock()
        key = address_of(peer)
        bucket = self._peers.get(key)
        if bucket is None:
            if len(self._peers) >= MAX_ACCOUNTS and now >= self._swept + _SWEEP_S:
                self._swept = now
                self._peers = {known: each for known, each in self._peers.items() if not each.is_full(now)}
            # Where as many addresses are in debt at once, all others share one bucket.
            key = key if len(self._peers) < MAX_ACCOUNTS else _OTHERS
            bucket = self._peers.setdefault(key, Bucket(self._strangers, 2 * self._strangers, now))
        if wait := bucket.take(1, now, 1.0):
            raise _exceeded("unauthenticated_per_second", self._strangers, wait)

    def _account(self, principal: str) -> tuple[_Account, float]:
        now = self._clock()
        account = self._accounts.get(principal)
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS and now >= self._swept + _SWEEP_S:
                self._swept = now
                # Principals are made by an administrator: beyond a table of busy ones, it grows with them.
                self._accounts = {known: each for known, each in self._accounts.items() if not each.is_idle(now)}
            account = self._accounts[principal] = _Account(self._own.get(principal, self._default), now)
        return account, now


@lru_cache(4096)
def address_of(peer: str) -> str:
    """Returns what of a peer stands for one machine: its IPv4 address, the /64 network of its IPv6 address, or the kind
    of a transport that has no addresses.

    Args:
        peer: The peer as gRPC names it: `ipv4:ADDRESS:PORT`, `ipv6:[ADDRESS]:PORT` (percent-encoded), `unix:PATH`.
    """
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind != "ipv6":
        return kind
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return kind
    # One machine commonly has a whole /64 to choose from (RFC 4291, section 2.5.4).
    return str(address.ipv4_mapped or ipaddress.IPv6Address(int(address) >> 64 << 64))


def _exceeded(quota: str, limit: float, wait_s: float) -> MipError:
    # No more than a minute: what is larger, the caller learns when it asks again.
    return MipError(
        "QUOTA_EXCEEDED",
        f"more than the quota {quota} of {limit:.0f}",
        metadata={"quota": quota, "limit": f"{limit:.0f}"},
        retry_after_s=min(max(wait_s, 0.001), 60.0),
    )
