"""What a run found: results of checks, of requirements and of levels, as the authoritative JSON report holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mip_conformance import __version__
from mip_conformance.cases import Check, Requirement
from mip_conformance.client import Trace, reproduction
from mip_conformance.contract import descriptor_hash, levels
from mip_conformance.values import jsonable

Outcome = Literal["passed", "failed", "warned", "known", "not applicable"]
"""Of a check. `warned`: it failed, and all that it checks is SHOULD. `known`: it failed, and is listed as known to."""

REQUIRED_SERVICES = {
    "core": ("ServerService", "CubeService", "MemoryService"),
    "history": ("CubeService", "MemoryService"),
    "access": ("AccessService",),
    "graph": ("GraphService",),
}


@dataclass
class Result:
    """What came of one check.

    Attributes:
        check: The check.
        outcome: The outcome.
        message: Why, empty where it passed.
        seconds: How long it took.
        traces: Its calls.
    """

    check: Check
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0
    traces: list[Trace] = field(default_factory=list)


@dataclass
class Run:
    """A whole run.

    Attributes:
        address: The server's.
        tls: Whether the connection was encrypted.
        capabilities: What it declared, plain.
        asked: The levels that the run was about.
        results: Of all checks of these levels.
        requirements: The lines of conformance/requirements/.
        whole: False when only some checks were chosen.
        began: When, RFC 3339.
        seconds: How long it took.
        problems: What is wrong with the run itself: lines of the known-failing file that match nothing, or that passed.
        cleaning: What could not be cleaned up.
    """

    address: str
    tls: bool
    capabilities: Mapping[str, Any]
    asked: Sequence[str]
    results: list[Result]
    requirements: Sequence[Requirement]
    whole: bool
    began: str
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    cleaning: list[str] = field(default_factory=list)


def severity(check: Check, keywords: Mapping[str, str]) -> str:
    """Returns `MUST` when any requirement of a check is one, else `SHOULD`."""
    return "MUST" if any(keywords.get(id_, "MUST") == "MUST" for id_ in check.requirements) else "SHOULD"


def requirement_results(run: Run) -> list[dict[str, Any]]:
    """Returns the result of every requirement of the levels that were asked for."""
    by_id: dict[str, list[Result]] = {}
    for result in run.results:
        for id_ in result.check.requirements:
            by_id.setdefault(id_, []).append(result)
    found = []
    for requirement in run.requirements:
        if requirement.level not in run.asked:
            continue
        results = by_id.get(requirement.id, [])
        found.append(
            {
                "id": requirement.id,
                "level": requirement.level,
                "keyword": requirement.keyword,
                "sentence": requirement.sentence,
                "result": _together(requirement, results),
                "excluded": requirement.excluded,
                "checks": [result.check.name for result in results],
            }
        )
    return found


def _together(requirement: Requirement, results: Iterable[Result]) -> str:
    if requirement.excluded:
        return "excluded"
    outcomes = {result.outcome for result in results}
    for worst in ("failed", "known", "warned", "passed", "not applicable"):
        if worst in outcomes:
            if worst in ("failed", "known") and requirement.keyword == "SHOULD":
                return "warned"
            return worst
    return "not run"


def level_results(run: Run) -> dict[str, dict[str, Any]]:
    """Returns the verdict on each level: `passed`, `failed` or `not declared`, with counts of checks.

    A level passes when the server declares it with its services, at least one MUST was exercised, and no check with a
    MUST failed. When only some checks were chosen, what did not fail is `partial`: they cannot tell that it passes.
    """
    keywords = {requirement.id: requirement.keyword for requirement in run.requirements}
    declared = run.capabilities.get("levels", [])
    services = {name.rpartition(".")[2] for name in run.capabilities.get("services", [])}
    found: dict[str, dict[str, Any]] = {}
    for level in levels():
        if level not in run.asked:
            found[level] = {"verdict": "not declared" if level not in declared else "not asked for"}
            continue
        of_level = [result for result in run.results if result.check.level == level]
        counts = dict.fromkeys(("passed", "failed", "warned", "known", "not applicable"), 0)
        exercised = 0
        for result in of_level:
            counts[result.outcome] += 1
            exercised += result.outcome == "passed" and severity(result.check, keywords) == "MUST"
        missing = [f"mip.v1.{name}" for name in REQUIRED_SERVICES[level] if name not in services]
        why = []
        if level not in declared:
            why.append("GetCapabilities does not declare the level")
        if missing:
            why.append(f"GetCapabilities does not declare {', '.join(missing)}")
        if counts["failed"] or counts["known"]:
            why.append(f"{counts['failed'] + counts['known']} checks failed")
        if not exercised and run.whole:
            why.append("no MUST was exercised with success")
        found[level] = {
            "verdict": "failed" if why else "passed" if run.whole else "partial",
            "why": why,
            "checks": counts,
            "must_passed": exercised,
        }
    return found


def passed(run: Run) -> bool:
    """Tells whether the run is a success: no failure that is not known, no problem of its own, some MUST exercised."""
    if run.problems or any(result.outcome == "failed" for result in run.results):
        return False
    verdicts = level_results(run)
    if not run.whole:
        return any(result.outcome in ("passed", "warned", "known") for result in run.results)
    return all(verdicts[level]["verdict"] == "passed" or _only_known(verdicts[level]) for level in run.asked)


def _only_known(verdict: dict[str, Any]) -> bool:
    """True when a level fails for nothing but failures that are listed as known."""
    known = verdict["checks"]["known"]
    return bool(known) and verdict["must_passed"] > 0 and verdict["why"] == [f"{known} checks failed"]


def as_report(run: Run) -> dict[str, Any]:
    """Returns the report: plain JSON, the authority that the other forms are made from."""
    return {
        "suite_version": __version__,
        "descriptor_sha256": descriptor_hash(),
        "began": run.began,
        "seconds": round(run.seconds, 3),
        "address": run.address,
        "server": {
            "name": run.capabilities.get("server_name", ""),
            "version": run.capabilities.get("server_version", ""),
            "protocol_version": run.capabilities.get("protocol_version", ""),
        },
        "capabilities": jsonable(dict(run.capabilities)),
        "passed": passed(run),
        "whole": run.whole,
        "levels": level_results(run),
        "requirements": requirement_results(run),
        "checks": [_check(result, run) for result in run.results],
        "problems": run.problems,
        "cleaning": run.cleaning,
    }


def _check(result: Result, run: Run) -> dict[str, Any]:
    check = result.check
    found: dict[str, Any] = {
        "name": check.name,
        "level": check.level,
        "requirements": list(check.requirements),
        "file": check.file,
        "result": result.outcome,
        "message": result.message,
        "seconds": round(result.seconds, 4),
    }
    if result.outcome in ("failed", "warned", "known"):
        # Of what passed nobody reads the calls, and with them a report would be a hundred times as large.
        found["calls"] = [
            trace.described() | {"reproduce": reproduction(trace, run.address, tls=run.tls)} for trace in result.traces
        ]
        # A check may break what belongs to a level that the run is not about, and that its requirements do not list.
        found["demands"] = {line.id: line.sentence for line in run.requirements if line.id in check.requirements}
    return found
