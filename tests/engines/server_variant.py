"""A server that differs from the one of this checkout in what a test says: its clock, the age of its index, its leases.

`python -m tests.engines.server_variant serve …` is `python -m memos_server serve …` with the changes that
`MEMOS_TEST_VARIANT` names in JSON:

    clock_s        SIGUSR1 sets the wall clock of this process by so many seconds, SIGUSR2 sets it right again
    index_version  what the index is told of the version of its content, as an older or newer server would
    lease_s        how long a job's lease lasts
    poll_s         how often jobs that others left are looked for
    retry_s        how long a job waits that could not be done
    slow_job_s     every job takes so long before it begins, and tells its progress meanwhile
    stalled_job_s  every job stands still for so long before it begins, and tells nothing
    inline_s       how long the call that caused a job waits for it
    journal        a file that gets a line for each job begun and ended: time, process, word, cube, job
    slow_call_s    every AddMemories waits so long inside its call
    lose_answers   this share of the answers to writes becomes UNAVAILABLE after the write took effect

and faults that the checks must find, or they check nothing:

    forget_requests  a repeated request_id is a new request
    ignore_etags     the etag of an update is not looked at
    stale_reads      GetMemory answers with what it answered up to so many seconds ago
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

_REAL_NS = time.time_ns
_REAL_S = time.time


def _shift_clock(seconds: float) -> None:
    """Lets signals move the wall clock as this process's Python code reads it; clocks of waiting go on as ever."""
    ahead = 0.0

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime.datetime.fromtimestamp(_REAL_S() + ahead, tz)

    def move(number: int, _: object) -> None:
        nonlocal ahead
        ahead = seconds if number == signal.SIGUSR1 else 0.0

    time.time_ns = lambda: _REAL_NS() + round(ahead * 1e9)
    time.time = lambda: _REAL_S() + ahead
    import jwt.api_jwt

    # Tokens are judged by this clock as well.
    jwt.api_jwt.datetime = Shifted  # type: ignore[misc]
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, move)


def _change_jobs(variant: dict[str, Any]) -> None:
    from memos_server.mem_scheduler import jobs

    jobs.LEASE_S = variant.get("lease_s", jobs.LEASE_S)
    jobs.RETRY_S = variant.get("retry_s", jobs.RETRY_S)
    # A job that outlasts this goes on behind its call.
    jobs.INLINE_S = variant.get("inline_s", jobs.INLINE_S)
    defaults = jobs.JobRunner.__init__.__kwdefaults__
    assert defaults is not None
    defaults["poll_s"] = variant.get("poll_s", defaults["poll_s"])
    register = jobs.JobRunner.register
    journal = Path(variant["journal"]) if "journal" in variant else None

    def note(word: str, row: Any) -> None:
        if journal is not None:
            line = f"{time.monotonic():.6f} {os.getpid()} {word} {row.cube_id} {row.id}\n"
            with journal.open("a") as file:
                file.write(line)

    def slowed(handler: jobs.Handler) -> jobs.Handler:
        async def run(row: Any, progress: jobs.Progress) -> None:
            note("begun", row)
            await asyncio.sleep(variant.get("stalled_job_s", 0.0))
            until = time.monotonic() + variant.get("slow_job_s", 0.0)
            while time.monotonic() < until:
                await progress(0, 1)
                await asyncio.sleep(min(0.2, variant.get("lease_s", 60) / 4))
            await handler(row, progress)
            note("ended", row)

        return run

    def registered(self: Any, kind: str, handler: jobs.Handler, *, cancellable: bool) -> None:
        register(self, kind, slowed(handler), cancellable=cancellable)

    jobs.JobRunner.register = registered  # type: ignore[method-assign]


def _change_index(version: str) -> None:
    from memos_server.mem_os import index_batches

    # Whichever the server takes as the version of the content: words of another analyzer are another index.
    index_batches.INDEX_VERSION = f"{index_batches.INDEX_VERSION}.{version}"


Around = Callable[[Callable[[], Awaitable[Any]], Any], Awaitable[Any]]
"""Answers a call: gets the use case as it is, and the request."""


def _wrap(names: Iterable[str], around: Around) -> None:
    from memos_server.api import rpcs

    def wrapped(use_case: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def run(mos: Any, call: Any, request: Any) -> Any:
            return await around(lambda: use_case(mos, call, request), request)

        return run

    for name in names:
        rpcs.USE_CASES[name] = wrapped(rpcs.USE_CASES[name])  # type: ignore[index,arg-type]


def _change_calls(variant: dict[str, Any]) -> None:
    from memos_server.errors import MipError
    from memos_server.mem_os import mutation

    async def slowly(go: Callable[[], Awaitable[Any]], _: Any) -> Any:
        await asyncio.sleep(variant["slow_call_s"])
        return await go()

    async def losing(go: Callable[[], Awaitable[Any]], _: Any) -> Any:
        answer = await go()
        if random.random() < variant["lose_answers"]:
            raise MipError("BACKEND_UNAVAILABLE", "the answer was lost", retry_after_s=0.05)
        return answer

    async def without_etag(go: Callable[[], Awaitable[Any]], request: Any) -> Any:
        request.memory.etag = ""
        return await go()

    answers: dict[str, tuple[float, Any]] = {}

    async def stale(go: Callable[[], Awaitable[Any]], request: Any) -> Any:
        told = answers.get(request.name)
        if told is None or time.monotonic() - told[0] > variant["stale_reads"]:
            told = answers[request.name] = time.monotonic(), await go()
        return told[1]

    if "slow_call_s" in variant:
        _wrap(["AddMemories"], slowly)
    if "lose_answers" in variant:
        _wrap(["AddMemories", "UpdateMemory", "TransitionMemories", "RollbackCube"], losing)
    if "ignore_etags" in variant:
        _wrap(["UpdateMemory"], without_etag)
    if "stale_reads" in variant:
        _wrap(["GetMemory"], stale)
    if "forget_requests" in variant:
        key = mutation._key
        mutation._key = lambda call, resource, request_id: key(call, resource, f"{request_id}{random.random()}")


def main() -> None:
    """Makes the changes and runs the server."""
    variant = json.loads(os.environ.pop("MEMOS_TEST_VARIANT", "{}"))
    if "clock_s" in variant:
        _shift_clock(variant["clock_s"])
    if "index_version" in variant:
        _change_index(variant["index_version"])
    if variant.keys() & {"lease_s", "poll_s", "retry_s", "slow_job_s", "stalled_job_s", "journal", "inline_s"}:
        _change_jobs(variant)
    _change_calls(variant)
    from memos_server.__main__ import main as serve

    serve()


if __name__ == "__main__":
    main()
