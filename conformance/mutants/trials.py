"""Trying mutants: a server with one fault, some checks, and which of them found it."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import yaml
from mip_conformance.cases import Check, all_checks
from mip_conformance.contract import levels
from mip_conformance.requirements import all_requirements
from mip_conformance.running import Runner, capabilities_of
from mip_conformance.target import TargetError
from mip_conformance.verdicts import Result, severity

from conformance.mutants.faults import Mutant, all_mutants
from conformance.mutants.servers import EMBEDDING, reference_server

KILLS = Path(__file__).parent / "kills.yaml"
_DEADLINE_S = 10.0
"""A server in this process answers in milliseconds; what takes so long with a fault hangs."""
_PROCESSES = 2


class Trial(NamedTuple):
    """What became of a mutant.

    Attributes:
        mutant: Its name.
        failed: The checks that failed.
        passed: Those that did not.
        seconds: How long it took.
        dead: Why no check could be run: the fault kept the server from answering at all.
    """

    mutant: str
    failed: tuple[str, ...]
    passed: tuple[str, ...]
    seconds: float
    dead: str = ""


def chosen(patterns: Iterable[str]) -> list[Check]:
    """Returns the checks whose names match any of some patterns."""
    wanted = list(patterns)
    return [check for check in all_checks() if any(fnmatch.fnmatchcase(check.name, pattern) for pattern in wanted)]


def run_checks(mutant: Mutant | None, checks: Sequence[Check]) -> list[Result]:
    """Runs checks against a server with a fault, or without one.

    Raises:
        TargetError: The fault keeps GetCapabilities from answering.
    """
    settings = EMBEDDING if mutant is not None and mutant.embeds else {}
    with reference_server(mutant.apply if mutant else None, **settings) as target:
        client = target.connect()
        if mutant is not None:
            client.deadline = _DEADLINE_S
        try:
            capabilities = capabilities_of(client)
            runner = Runner(target, client, capabilities, all_requirements())
            return runner.run(checks, levels(), jobs=4, keep=True, whole=False).results
        finally:
            client.close()


def try_one(name: str, check_names: Sequence[str]) -> Trial:
    """Runs checks against one mutant."""
    began = time.perf_counter()
    wanted = set(check_names)
    try:
        results = run_checks(all_mutants()[name], [check for check in all_checks() if check.name in wanted])
    except TargetError as error:
        return Trial(name, (), (), time.perf_counter() - began, str(error))
    failed = tuple(result.check.name for result in results if result.outcome in ("failed", "warned"))
    passed = tuple(result.check.name for result in results if result.outcome not in ("failed", "warned"))
    return Trial(name, failed, passed, time.perf_counter() - began)


def try_many(plan: dict[str, Sequence[str]], note: Callable[[Trial], None]) -> list[Trial]:
    """Runs mutants beside each other, each in a process that serves one at a time."""
    found = []
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(try_one, name, list(checks)) for name, checks in plan.items()]:
            trial = future.result()
            note(trial)
            found.append(trial)
    return found


def read_kills() -> dict[str, list[str]]:
    """Returns kills.yaml: by mutant, the checks that must find it."""
    found: dict[str, list[str]] = yaml.safe_load(KILLS.read_text(encoding="utf-8")) or {}
    return found


def must_checks() -> list[str]:
    """Returns the names of all checks of a MUST."""
    keywords = {requirement.id: requirement.keyword for requirement in all_requirements()}
    return [check.name for check in all_checks() if severity(check, keywords) == "MUST"]
