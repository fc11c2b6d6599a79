"""Runs the mutants.

    python -m conformance.mutants.run              each mutant against the checks that kills.yaml names for it
    python -m conformance.mutants.run --all        each mutant against the whole suite; takes hours
    python -m conformance.mutants.run --write      finds out which checks find which mutant, and writes kills.yaml
    python -m conformance.mutants.run --only 'another-reason/*'

Exit status 1 when a mutant survives, when a check that should find it does not, or when a MUST check has no mutant.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml
from mip_conformance.cases import all_checks
from mip_conformance.verdicts import Result
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from conformance.mutants.faults import all_mutants
from conformance.mutants.trials import KILLS, Trial, chosen, must_checks, read_kills, run_checks, try_many

_console = Console(stderr=True)
_KEPT = 3
"""Checks that kills.yaml keeps for a mutant, beyond those that nothing else has."""


def _tried(plan: dict[str, Sequence[str]]) -> list[Trial]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console, transient=True) as bar:
        task = bar.add_task("mutants", total=len(plan))
        return try_many(plan, lambda trial: bar.update(task, advance=1, description=trial.mutant[:50].ljust(50)))


def judge(only: str, *, everything: bool) -> int:
    """Tries every mutant; returns the exit status."""
    kills = read_kills()
    mutants = [name for name in all_mutants() if fnmatch.fnmatchcase(name, only)]
    names = [check.name for check in all_checks()]
    problems = [f"{name} has no line in kills.yaml" for name in mutants if not kills.get(name)]
    problems += [f"kills.yaml names {name}, which is no mutant" for name in kills if name not in all_mutants()]
    known = set(names)
    problems += [
        f"kills.yaml: {mutant} names {check}, which is no check"
        for mutant, checks in kills.items()
        for check in checks
        if check not in known
    ]
    plan = {name: names if everything else kills[name] for name in mutants if kills.get(name)}
    trials = _tried(plan)
    for trial in trials:
        if trial.dead:
            continue
        missed = [check for check in kills[trial.mutant] if check not in trial.failed]
        if not trial.failed:
            problems.append(f"{trial.mutant} SURVIVES")
        elif missed:
            problems.append(f"{trial.mutant} is not found by {', '.join(missed)}")
    if only == "*":
        judged = {check for checks in kills.values() for check in checks}
        problems += [f"{check} is a MUST that no mutant trips" for check in must_checks() if check not in judged]
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    killed = sum(bool(trial.failed or trial.dead) for trial in trials)
    sys.stdout.write(f"{killed} of {len(mutants)} mutants killed, {len(problems)} problems\n")
    return 1 if problems else 0


def _reasons_and_rpcs(results: Sequence[Result]) -> dict[str, set[str]]:
    """Returns, by RPC and by reason, the checks in whose calls it occurs."""
    found: dict[str, set[str]] = defaultdict(set)
    for result in results:
        for trace in result.traces:
            found[trace.rpc].add(result.check.name)
            if trace.reason:
                found[trace.reason].add(result.check.name)
    return found


def write(only: str) -> int:
    """Tries every mutant against the checks that might find it, and writes kills.yaml."""
    clean = run_checks(None, list(all_checks()))
    if failed := [result for result in clean if result.outcome == "failed"]:
        for result in failed:
            sys.stdout.write(f"without a fault: {result.check.name}: {result.message}\n")
        return 1
    exercised = [result.check.name for result in clean if result.outcome == "passed"]
    occurs = _reasons_and_rpcs(clean)
    plan: dict[str, Sequence[str]] = {}
    for mutant in all_mutants().values():
        if not fnmatch.fnmatchcase(mutant.name, only):
            continue
        member = mutant.name.partition("/")[2]
        if mutant.tries:
            plan[mutant.name] = [check.name for check in chosen(mutant.tries)]
        else:
            plan[mutant.name] = [name for name in exercised if name in occurs[member]] if member else exercised
    trials = {trial.mutant: trial for trial in _tried({name: checks for name, checks in plan.items() if checks})}
    found = read_kills() if KILLS.exists() else {}
    found = {name: checks for name, checks in found.items() if name in all_mutants() and name not in plan}
    judged = {check for checks in found.values() for check in checks}
    musts = set(must_checks())
    # Those with the fewest first: what only one mutant trips is its own, and the mutants for everything come last.
    for name, trial in sorted(trials.items(), key=lambda item: (len(item[1].failed), item[0])):
        if trial.dead:
            sys.stdout.write(f"{name} keeps the server from answering at all: {trial.dead}\n")
            continue
        own = [check for check in trial.failed if check not in judged and check in musts]
        more = [check for check in trial.failed if check not in own]
        found[name] = sorted(own + more[: max(0, _KEPT - len(own))])
        judged |= set(found[name])
        if not found[name]:
            del found[name]
            sys.stdout.write(f"{name} SURVIVES {len(trial.passed)} checks\n")
    for name in [name for name in plan if not plan[name]]:
        sys.stdout.write(f"{name}: no check touches it\n")
    header = "# Which checks must find which mutant. Written by `python -m conformance.mutants.run --write`.\n"
    Path(KILLS).write_text(header + yaml.safe_dump(found, sort_keys=True, width=120), encoding="utf-8")
    for check in sorted(musts - judged):
        sys.stdout.write(f"{check} is a MUST that no mutant trips\n")
    return 0


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole suite against each mutant")
    parser.add_argument("--write", action="store_true", help="write kills.yaml")
    parser.add_argument("--only", default="*", help="a pattern of mutants")
    options = parser.parse_args()
    raise SystemExit(write(options.only) if options.write else judge(options.only, everything=options.all))


if __name__ == "__main__":
    main()
