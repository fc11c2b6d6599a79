"""Runs the mutants.

    python -m conformance.mutants.run              each mutant against the checks that kills.yaml names for it
    python -m conformance.mutants.run --share 3    a third of them, each day another one
    python -m conformance.mutants.run --all        each mutant against the whole suite; takes hours
    python -m conformance.mutants.run --write      finds out which checks find which mutant, and writes kills.yaml
    python -m conformance.mutants.run --only 'another-reason/*'

Exit status 1 when a mutant survives, when a check that should find it does not, or when a MUST check has no mutant.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import sys
from collections import defaultdict
from collections.abc import Sequence

import yaml
from mip_conformance.cases import all_checks
from mip_conformance.verdicts import Result
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from conformance.mutants.faults import Mutant, all_mutants
from conformance.mutants.trials import KILLS, Trial, chosen, must_checks, read_kills, run_checks, try_many

_console = Console(stderr=True)
_KEPT = 3
"""Checks that kills.yaml keeps for a mutant, beyond those that nothing else has."""
_TRIED = 60
"""Checks that a member of a family is tried on."""


def _tried(plan: dict[str, Sequence[str]]) -> list[Trial]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console, transient=True) as bar:
        task = bar.add_task("mutants", total=len(plan))
        return try_many(plan, lambda trial: bar.update(task, advance=1, description=trial.mutant[:50].ljust(50)))


def _wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(fnmatch.fnmatchcase(name, pattern) for pattern in only)


def judge(only: Sequence[str], *, everything: bool, share: int) -> int:
    """Tries every mutant, or each `share`-th, beginning with another one each day; returns the exit status."""
    kills = read_kills()
    mutants = [name for name in all_mutants() if _wanted(name, only)]
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
    mutants = mutants[datetime.date.today().toordinal() % share :: share]
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
    if not only:
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


class _Plan:
    """Which checks are to be tried on which mutant, and what came of it."""

    def __init__(self, exercised: Sequence[str], occurs: dict[str, set[str]]) -> None:
        """Begins with nothing found.

        Args:
            exercised: The checks that pass without a fault.
            occurs: By RPC and by reason, those in whose calls it occurs.
        """
        self._exercised = exercised
        self._occurs = occurs
        self._musts = set(must_checks())
        self.found: dict[str, list[str]] = {}
        self.survived: dict[str, int] = {}

    def judged(self) -> set[str]:
        """Returns the checks that some mutant trips."""
        return {check for checks in self.found.values() for check in checks}

    def candidates(self, mutant: Mutant) -> list[str]:
        """Returns the checks that might find a mutant; of a family's, first those that nothing has tripped yet."""
        member = mutant.name.partition("/")[2]
        if mutant.tries:
            wanted = {check.name for check in chosen(mutant.tries)}
            if member:
                wanted &= self._occurs[member]
            # Also those that do not apply to the server without a fault: a fault may be what it declares.
            return sorted(wanted)
        if not member:
            return list(self._exercised)
        judged = self.judged()
        touching = sorted(self._occurs[member], key=lambda name: (name in judged, len(name), name))
        return touching[:_TRIED]

    def take(self, trial: Trial) -> None:
        """Notes what a trial found: what nothing else trips, and a few more."""
        if trial.dead:
            sys.stdout.write(f"{trial.mutant} keeps the server from answering at all: {trial.dead}\n")
            return
        judged = self.judged()
        before = self.found.get(trial.mutant, [])
        own = [check for check in trial.failed if check not in judged and check in self._musts]
        more = [check for check in trial.failed if check not in own and check not in before]
        kept = sorted({*before, *own, *more[: max(0, _KEPT - len(own) - len(before))]})
        if kept:
            self.found[trial.mutant] = kept
            self.survived.pop(trial.mutant, None)
        else:
            self.survived[trial.mutant] = self.survived.get(trial.mutant, 0) + len(trial.passed)

    def rest(self, traces: dict[str, set[str]]) -> dict[str, Sequence[str]]:
        """Returns, for checks that nothing trips yet, the mutant that forgets what they are about: of the RPCs that a
        check calls, the one that the fewest others call."""
        left = sorted(self._musts - self.judged())
        plan: dict[str, list[str]] = defaultdict(list)
        for name in left:
            rpcs = [rpc for rpc in traces.get(name, ()) if f"empty-answer/{rpc}" in all_mutants()]
            if rpcs:
                rarest = min(rpcs, key=lambda rpc: (len(self._occurs[rpc]), rpc))
                plan[f"empty-answer/{rarest}"].append(name)
        return dict(plan)

    def unjudged(self) -> list[str]:
        """Returns the MUST checks that nothing trips."""
        return sorted(self._musts - self.judged())


def write(only: Sequence[str]) -> int:
    """Tries every mutant against the checks that might find it, and writes kills.yaml."""
    clean = run_checks(None, list(all_checks()))
    if failed := [result for result in clean if result.outcome == "failed"]:
        for result in failed:
            sys.stdout.write(f"without a fault: {result.check.name}: {result.message}\n")
        return 1
    occurs = _reasons_and_rpcs(clean)
    plan = _Plan([result.check.name for result in clean if result.outcome == "passed"], occurs)
    mutants = [mutant for mutant in all_mutants().values() if _wanted(mutant.name, only)]
    if only:
        names = {check.name for check in all_checks()}
        known = {name: checks for name, checks in read_kills().items() if not _wanted(name, only)}
        plan.found = {name: [check for check in checks if check in names] for name, checks in known.items()}
    single = [mutant for mutant in mutants if mutant.tries]
    for group in (single, [mutant for mutant in mutants if mutant not in single]):
        work = {mutant.name: plan.candidates(mutant) for mutant in group}
        for name in [name for name, checks in work.items() if not checks]:
            sys.stdout.write(f"{name}: no check touches it\n")
        # What only few trip comes first, so that each mutant gets checks of its own.
        trials = _tried({name: checks for name, checks in work.items() if checks})
        for trial in sorted(trials, key=lambda trial: (len(trial.failed), trial.mutant)):
            plan.take(trial)
    calls = {result.check.name: {trace.rpc for trace in result.traces} for result in clean}
    for trial in _tried(plan.rest(calls)):
        plan.take(trial)
    header = "# Which checks must find which mutant. Written by `python -m conformance.mutants.run --write`.\n"
    KILLS.write_text(header + yaml.safe_dump(plan.found, sort_keys=True, width=120), encoding="utf-8")
    for name, count in sorted(plan.survived.items()):
        sys.stdout.write(f"{name} SURVIVES {count} checks\n")
    for check in plan.unjudged():
        sys.stdout.write(f"{check} is a MUST that no mutant trips\n")
    return 0


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole suite against each mutant")
    parser.add_argument("--write", action="store_true", help="write kills.yaml")
    parser.add_argument("--only", action="append", default=[], help="a pattern of mutants; may be repeated")
    parser.add_argument("--share", type=int, default=1, help="try one mutant in so many, each day others")
    options = parser.parse_args()
    if options.write:
        raise SystemExit(write(options.only))
    raise SystemExit(judge(options.only, everything=options.all, share=max(options.share, 1)))


if __name__ == "__main__":
    main()
