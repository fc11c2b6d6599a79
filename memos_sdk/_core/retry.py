"""When a call is tried again, and after how long: a plan without input or output that both clients follow."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable
from typing import Any

from memos_sdk._stubs import Method
from memos_sdk.errors import DeadlineExceeded, MipError, Unavailable


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How a client repeats calls that are safe to repeat: reads, and mutations that carry a request_id.

    The delay doubles from try to try and is drawn evenly from its upper half, so that many clients do not come back
    at once; RetryInfo of the server sets its lower bound. A call is repeated with identical bytes.

    A server that says how long to wait (QUOTA_EXCEEDED with RetryInfo) has not failed: such waits count against the
    call's time alone, not against `max_attempts`, unless the call has no time limit.

    Attributes:
        max_attempts: The most tries in all; 1 never repeats.
        initial_delay: Seconds before the second try.
        max_delay: The most seconds between two tries.
        attempt_timeout: The most seconds of one try; None lets a try take all that is left of the call's time.
    """

    max_attempts: int = 5
    initial_delay: float = 0.1
    max_delay: float = 5.0
    attempt_timeout: float | None = None


class Attempts:
    """The tries of one call: asks for the time of the next try and tells whether another follows an error."""

    def __init__(
        self,
        method: Method[..., Any, Any],
        policy: RetryPolicy,
        timeout: float | None,
        *,
        has_request_id: bool,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Starts the clock.

        Args:
            method: The RPC.
            policy: The policy of the client.
            timeout: Seconds for all tries together; None sets no limit.
            has_request_id: True when the request carries a request_id.
            clock: Seconds that never go back.
            uniform: Draws a number between two.
        """
        self._repeatable = method.replayable and (has_request_id or not method.mutation)
        self._path = method.path
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self._deadline = None if timeout is None or timeout == math.inf else clock() + timeout
        self._paced = 0
        self.made = 0

    def next_timeout(self) -> float | None:
        """Counts a try and returns the seconds that it may take; None sets no limit."""
        self.made += 1
        limits = [self._policy.attempt_timeout, self._left()]
        given = [limit for limit in limits if limit is not None]
        return max(0.0, min(given)) if given else None

    def delay_after(self, error: MipError) -> float | None:
        """Returns the seconds to wait before the next try; None when the error is final."""
        if not self._repeatable or self._policy.max_attempts <= 1:
            return None
        quota = error.reason == "QUOTA_EXCEEDED"
        if not quota and not isinstance(error, Unavailable | DeadlineExceeded) and error.retry_after is None:
            return None
        if quota and error.retry_after is not None and self._deadline is not None:
            self._paced += 1
        failed = self.made - self._paced
        if failed >= self._policy.max_attempts:
            return None
        ceiling = min(self._policy.max_delay, self._policy.initial_delay * 2 ** max(0, failed - 1))
        delay = self._uniform(ceiling / 2, ceiling)
        if error.retry_after is not None:
            delay += error.retry_after
        left = self._left()
        # A wait that ends past the deadline would only hide the error behind a worse one.
        return None if left is not None and delay >= left else delay

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - self._clock()
