"""The command `mip-conformance`."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.message import DecodeError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mip_conformance import __version__
from mip_conformance.cases import Check, SuiteError, all_checks, read_yaml
from mip_conformance.contract import levels, rpcs
from mip_conformance.records import RecordError, as_json, read
from mip_conformance.reports import write_reports
from mip_conformance.requirements import all_requirements, gaps
from mip_conformance.running import KnownFailures, Runner, capabilities_of, levels_to_run
from mip_conformance.story import CheckFailed, asker
from mip_conformance.target import Target, TargetError, started
from mip_conformance.verdicts import Result, Run, level_results, passed
from mip_conformance.verifying import check_record, read_record

FAILED, WRONG_USE, NO_SERVER = 1, 2, 3

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Checks whether a server speaks the Memory Interchange Protocol (MIP), sentence by sentence.",
)
# Names of checks are long: where the output is no terminal, a line that breaks in one could not be searched.
_out, _err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
_MARKS = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "not declared": "[dim]not declared[/]"}


@app.callback()
def _main() -> None:
    """Holds the commands; without it one command alone would have no name."""


@app.command()
def run(
    target: Annotated[str, typer.Option(help="The server, HOST:PORT.")] = "",
    command: Annotated[
        str, typer.Option(help="A command that starts the server; see the README for what it does.")
    ] = "",
    token: Annotated[str, typer.Option(envvar="MIP_TOKEN", help="The token of an administrator of the server.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="A file that holds the token.")] = None,
    level: Annotated[
        list[str] | None, typer.Option(help="A level to check; without it, those that are declared.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Connect with TLS.")] = False,
    tls_ca: Annotated[Path | None, typer.Option(help="The certificates to trust, PEM; implies --tls.")] = None,
    client_cert: Annotated[Path | None, typer.Option(help="A certificate to show, PEM.")] = None,
    client_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Checks to run, a pattern such as 'log/*' or a requirement.")
    ] = None,
    known_failing: Annotated[Path | None, typer.Option(help="A file of checks that are known to fail.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="How many checks at once.")] = 8,
    keep: Annotated[bool, typer.Option("--keep", help="Leave cubes and principals on the server.")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the report, JSON.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report, XML.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page, HTML.")] = None,
    badge: Annotated[Path | None, typer.Option(help="Write a badge, SVG.")] = None,
) -> None:
    """Check a server. Exit status: 0 passed, 1 failed, 2 wrong use or broken suite, 3 no server."""
    if bool(target) == bool(command):
        _stop(WRONG_USE, "Name the server with --target HOST:PORT, or one to start with --command.")
    if unknown := [name for name in level or () if name not in levels()]:
        _stop(WRONG_USE, f"There is no level {unknown[0]}; there are {', '.join(levels())}.")
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            _stop(WRONG_USE, f"{token_file} cannot be read: {error.strerror}.")
    try:
        known = _known(known_failing)
        with _server(
            command, Target(target, token, tls or tls_ca is not None, tls_ca, client_cert, client_key)
        ) as server:
            # A server that was started for the run ends with it, and with all that is in it.
            found = _run(server, level or [], only or [], known, jobs=jobs, keep=keep or bool(command))
        write_reports(found, json_=json_, junit=junit, html=html, badge=badge)
    except SuiteError as error:
        _stop(WRONG_USE, f"The suite is broken: {error}")
    except TargetError as error:
        _stop(NO_SERVER, str(error))
    except OSError as error:
        _stop(WRONG_USE, f"{error.filename} cannot be written: {error.strerror}.")
    _summary(found)
    if not passed(found):
        raise typer.Exit(FAILED)


@contextlib.contextmanager
def _server(command: str, target: Target) -> Iterator[Target]:
    if not command:
        yield target
        return
    with started(command) as server:
        yield server


def _known(path: Path | None) -> KnownFailures:
    if path is None:
        return KnownFailures({})
    lines: dict[str, str] = {}
    for line in read_yaml(path, "KnownFailures").known_failures:
        if not line.reason or not line.link:
            raise SuiteError(f"{path.name}: {line.check} needs a reason and a link")
        if line.check in lines:
            raise SuiteError(f"{path.name}: {line.check} is listed twice")
        lines[line.check] = f"{line.reason}; {line.link}"
    return KnownFailures(lines)


def _run(target: Target, asked: list[str], only: list[str], known: KnownFailures, *, jobs: int, keep: bool) -> Run:
    client = target.connect()
    try:
        capabilities = capabilities_of(client)
        chosen_levels = levels_to_run(asked, capabilities)
        checks = [check for check in all_checks() if check.level in chosen_levels]
        if only:
            checks = [check for check in checks if any(_matches(check, pattern) for pattern in only)]
            if not checks:
                _stop(WRONG_USE, "No check of these levels matches --only.")
        runner = Runner(target, client, capabilities, all_requirements(), known)
        with _progress(len(checks)) as note:
            return runner.run(checks, chosen_levels, jobs=jobs, keep=keep, whole=not only, progress=note)
    finally:
        client.close()


def _matches(check: Check, pattern: str) -> bool:
    # The name of a check may hold brackets, which in a pattern mean something else.
    return check.name == pattern or fnmatch.fnmatchcase(check.name, pattern) or pattern in check.requirements


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True) as bar:
        task = bar.add_task("checking", total=total)
        failures = 0

        def note(result: Result) -> None:
            nonlocal failures
            failures += result.outcome == "failed"
            description = f"checking, [red]{failures} failed[/]" if failures else "checking"
            bar.update(task, advance=1, description=description)

        yield note


def _summary(found: Run) -> None:
    server = found.capabilities
    name = f"{server['server_name']} {server['server_version']}".strip() or "a server without a name"
    _out.print(f"{name} at {found.address}, MIP {server['protocol_version']}", highlight=False)
    failed = [result for result in found.results if result.outcome == "failed"]
    for result in failed:
        _out.print(
            f"[red]failed[/] {result.check.name} [dim]({', '.join(result.check.requirements)})[/]", highlight=False
        )
        _out.print(f"       {result.message}", markup=False, highlight=False)
    for result in found.results:
        if result.outcome == "warned":
            _out.print(f"[yellow]warned[/] {result.check.name}: {result.message}", highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in ("level", "verdict", "passed", "failed", "warned", "known", "not applicable"):
        table.add_column(column, justify="left" if column in ("level", "verdict") else "right")
    for level, verdict in level_results(found).items():
        counts = verdict.get("checks", {})
        cells = [str(counts.get(key, "")) for key in ("passed", "failed", "warned", "known", "not applicable")]
        table.add_row(f"mip-1.0-{level}", _MARKS.get(verdict["verdict"], verdict["verdict"]), *cells)
    _out.print(table)
    for problem in [*found.problems, *(f"not cleaned up: {line}" for line in found.cleaning[:5])]:
        _out.print(f"[yellow]note[/] {problem}", highlight=False)
    totals = Counter(result.outcome for result in found.results)
    _out.print(f"{sum(totals.values())} checks in {found.seconds:.1f} s: {'PASSED' if passed(found) else 'FAILED'}")


@app.command("list")
def list_(
    level: Annotated[list[str] | None, typer.Option(help="A level; without it, all.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the checks with what they require."""
    try:
        checks = [check for check in all_checks() if not level or check.level in level]
    except SuiteError as error:
        _stop(WRONG_USE, f"The suite is broken: {error}")
    if json_:
        rows = [
            {"name": c.name, "level": c.level, "requirements": list(c.requirements), "file": c.file} for c in checks
        ]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for check in checks:
        _out.print(f"{check.level:8} {check.name}  [dim]{' '.join(check.requirements)}[/]", highlight=False)


@app.command()
def requirements(
    json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List every requirement with its checks, or why it has none. Exit status 2 when one has neither."""
    try:
        lines, checks, missing = all_requirements(), all_checks(), gaps()
    except SuiteError as error:
        _stop(WRONG_USE, f"The suite is broken: {error}")
    by_id: dict[str, list[str]] = {}
    for check in checks:
        for id_ in check.requirements:
            by_id.setdefault(id_, []).append(check.name)
    if json_:
        rows = [line._asdict() | {"checks": by_id.get(line.id, [])} for line in lines]
        sys.stdout.write(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    else:
        for line in lines:
            names = by_id.get(line.id, [])
            what = f"excluded: {line.excluded}" if line.excluded else ", ".join(names[:4]) + (" …" if names[4:] else "")
            _out.print(f"{line.id:14} {line.keyword:6} {line.level:8} {what}", highlight=False, markup=False)
    for gap in missing:
        _err.print(f"[red]gap[/] {gap}", highlight=False)
    if missing:
        raise typer.Exit(WRONG_USE)


@app.command()
def record(
    cube: Annotated[str, typer.Argument(help="The cube, cubes/{cube}.")],
    out: Annotated[Path, typer.Option(help="The file to write, JSON.")],
    target: Annotated[str, typer.Option(help="The server, HOST:PORT.")],
    token: Annotated[str, typer.Option(envvar="MIP_TOKEN", help="A token that reads all of the cube.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="A file that holds the token.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="The certificates to trust, PEM.")] = None,
) -> None:
    """Write a cube's state record, its sealed bytes, to a file that `verify-record` checks without a server."""
    try:
        if token_file is not None:
            token = token_file.read_text(encoding="utf-8").strip()
        client = Target(target, token, tls_ca is not None, tls_ca).connect()
        try:
            capabilities = capabilities_of(client)
            found = read_record(cube, asker(client, token))
        finally:
            client.close()
        out.write_text(as_json(found, str(capabilities["server_name"])), encoding="utf-8")
    except TargetError as error:
        _stop(NO_SERVER, str(error))
    except CheckFailed as error:
        _stop(FAILED, str(error))
    except OSError as error:
        _stop(WRONG_USE, f"{error.filename}: {error.strerror}.")
    _out.print(f"{cube}: {found.head_revision} commits, {len(found.contents)} memories", highlight=False)


@app.command("verify-record")
def verify_record(files: Annotated[list[Path], typer.Argument(help="Files that `record` wrote.")]) -> None:
    """Verify state records: the chain of commits, the changes and what is stored. Exit status 1 where one is wrong."""
    wrong = False
    for file in files:
        try:
            found = check_record(read(file))
        except (RecordError, DecodeError) as error:
            _stop(WRONG_USE, str(error))
        for finding in found["findings"]:
            _out.print(f"{file}: {finding}", highlight=False, markup=False)
        wrong = wrong or bool(found["findings"])
        _out.print(f"{file}: revision {found['head_revision']}, head {found['head_digest'].hex()}", highlight=False)
    if wrong:
        raise typer.Exit(FAILED)


@app.command()
def version() -> None:
    """Print the version of the suite, and of the contract that it knows."""
    _out.print(f"mip-conformance {__version__}, {len(rpcs())} RPCs, levels {', '.join(levels())}", highlight=False)


def _stop(status: int, message: str) -> Any:
    _err.print(f"[red]error[/] {message}", highlight=False)
    raise typer.Exit(status)


def main() -> None:
    """Runs the command."""
    app()
