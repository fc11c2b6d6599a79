"""A run: which checks apply to a server, all of them at once as far as they may, and what came of it."""

from __future__ import annotations

import datetime
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from mip_conformance.cases import Check, Requirement
from mip_conformance.client import Client, Trace
from mip_conformance.contract import levels, rpcs
from mip_conformance.expressions import ExpressionError, evaluate
from mip_conformance.story import CheckFailed, Story
from mip_conformance.target import Target, TargetError
from mip_conformance.verdicts import Result, Run, severity

_DEAD_AFTER = 8
"""Checks in a row that the server does not answer, after which the others are not tried."""
_SILENCE = ("UNAVAILABLE", "DEADLINE_EXCEEDED")

Progress = Callable[[Result], None]


class KnownFailures:
    """The checks that are known to fail."""

    def __init__(self, lines: Mapping[str, str]) -> None:
        """Takes check names with the reason of each."""
        self._lines = dict(lines)
        self._seen: dict[str, str] = {}

    def judge(self, result: Result) -> Result:
        """Returns a result as `known` where its failure is listed."""
        if result.check.name in self._lines:
            self._seen[result.check.name] = result.outcome
            if result.outcome == "failed":
                result.outcome = "known"
                result.message = f"{result.message} [known: {self._lines[result.check.name]}]"
        return result

    def problems(self) -> list[str]:
        """Returns what is wrong with the list: lines that match nothing, and checks that do not fail."""
        found = []
        for name in self._lines:
            if name not in self._seen:
                found.append(f"known failing: {name} matches no check of this run")
            elif self._seen[name] not in ("failed", "known"):
                found.append(f"known failing: {name} does not fail any more ({self._seen[name]}); take it off the list")
        return found


def capabilities_of(client: Client) -> dict[str, Any]:
    """Returns what the server declares.

    Raises:
        TargetError: GetCapabilities fails or does not parse.
    """
    rpc = rpcs()["ServerService.GetCapabilities"]
    answer = client.call(rpc, [b""], [], Trace(rpc.rpc, "nobody", ["{}"]), deadline=15.0)
    if answer.response is None:
        what = (
            f"its answer does not parse ({answer.undecodable})"
            if answer.undecodable
            else f"{answer.code} {answer.message}"
        )
        raise TargetError(f"GetCapabilities, which every server answers without a token, failed: {what}")
    return answer.response


def undeclared(check: Check, capabilities: Mapping[str, Any]) -> str:
    """Returns what a check needs that the server does not declare, empty where it applies."""
    if check.case.when:
        seen = {"capabilities": capabilities, "each": check.each}
        try:
            return "" if evaluate(check.case.when, seen) is True else f"applies only where {check.case.when}"
        except ExpressionError as error:
            return f"applies only where {check.case.when} ({error})"
    needed = list(check.needed)
    if isinstance(check.each, dict) and "rpc" in check.each:
        needed.append(check.each["rpc"])
    for name in needed:
        rpc = rpcs()[name]
        if rpc.service not in capabilities["services"]:
            return f"the server does not declare {rpc.service}"
        if rpc.level not in capabilities["levels"]:
            return f"the server does not declare the level {rpc.level}"
    offered = [*capabilities["features"], *(f"payload.{payload}" for payload in capabilities["payloads"])]
    missing = [feature for feature in check.features if feature not in offered]
    return f"the server does not declare {', '.join(missing)}" if missing else ""


class Runner:
    """Runs checks against one server."""

    def __init__(
        self,
        target: Target,
        client: Client,
        capabilities: Mapping[str, Any],
        requirements: Sequence[Requirement],
        known: KnownFailures | None = None,
    ) -> None:
        """Takes what a run needs.

        Args:
            target: The server.
            client: The connection to it.
            capabilities: What it declares.
            requirements: The lines of conformance/requirements/.
            known: The checks that are known to fail.
        """
        self._target = target
        self._client = client
        self._capabilities = capabilities
        self._requirements = requirements
        self._keywords = {requirement.id: requirement.keyword for requirement in requirements}
        self._known = known or KnownFailures({})
        self._id = secrets.token_hex(4)
        self._silent = 0
        self._lock = threading.Lock()
        self._cleaning: list[str] = []

    def run(
        self,
        checks: Iterable[Check],
        asked: Sequence[str],
        *,
        jobs: int = 8,
        keep: bool = False,
        whole: bool = True,
        progress: Progress | None = None,
    ) -> Run:
        """Runs checks and returns what came of them, in their order.

        Args:
            checks: The checks.
            asked: The levels that the run is about.
            jobs: How many checks at once.
            keep: True leaves cubes and principals where they are, for somebody to look at.
            whole: False when these are not all checks of the levels.
            progress: Told of each result.
        """
        began, moment = time.perf_counter(), datetime.datetime.now(datetime.UTC)
        chosen = list(checks)
        results: dict[str, Result] = {}
        together = [(n, check) for n, check in enumerate(chosen) if not check.case.alone]
        alone = [(n, check) for n, check in enumerate(chosen) if check.case.alone]

        def note(result: Result) -> None:
            results[result.check.name] = self._known.judge(result)
            if progress is not None:
                progress(result)

        with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="check") as pool:
            futures = [pool.submit(self._one, number, check, keep=keep) for number, check in together]
            for future in as_completed(futures):
                note(future.result())
        for number, check in alone:
            note(self._one(number, check, keep=keep))
        return Run(
            address=self._target.address,
            tls=self._target.tls,
            capabilities=self._capabilities,
            asked=asked,
            results=[results[check.name] for check in chosen],
            requirements=self._requirements,
            whole=whole,
            began=moment.isoformat(timespec="seconds"),
            seconds=time.perf_counter() - began,
            problems=self._known.problems(),
            cleaning=self._cleaning,
        )

    def _one(self, number: int, check: Check, *, keep: bool) -> Result:
        if lacks := undeclared(check, self._capabilities):
            return Result(check, "not applicable", lacks)
        if self._silent >= _DEAD_AFTER:
            return Result(check, "failed", "not tried: the server stopped answering")
        began = time.perf_counter()
        story = Story(check, self._client, self._target.token, self._id, self._capabilities, number)
        result = Result(check, "passed", traces=story.traces)
        try:
            story.tell()
        except CheckFailed as failure:
            result.outcome = "failed" if severity(check, self._keywords) == "MUST" else "warned"
            result.message = str(failure)
        self._listen(story.traces)
        if result.outcome == "passed":
            for trace in story.traces:
                trace.answers.clear()  # reports show them of failures alone
        if not keep and self._silent < _DEAD_AFTER:
            story.clean()
        result.seconds = time.perf_counter() - began
        with self._lock:
            self._cleaning += story.cleaning
        return result

    def _listen(self, traces: Sequence[Trace]) -> None:
        """Counts checks that heard nothing from the server but silence."""
        silent = bool(traces) and all(trace.code in _SILENCE and not trace.reason for trace in traces)
        with self._lock:
            self._silent = self._silent + 1 if silent else 0


def levels_to_run(asked: Sequence[str], capabilities: Mapping[str, Any]) -> list[str]:
    """Returns the levels of a run: those asked for, or those that the server declares, and `core` in any case."""
    declared = [level for level in levels() if level in capabilities["levels"] or level == "core"]
    return [level for level in levels() if level in asked] if asked else declared
