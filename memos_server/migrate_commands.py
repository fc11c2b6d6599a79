"""`memos migrate`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from memos_server.command_line import err, explained, settings_of, wants_json
from memos_server.configs.errors import SetupError

if TYPE_CHECKING:
    from memos_server.migrate import Plan, Report

T = TypeVar("T")

_MIB = 2**20


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(migrate)


class _Bar:
    """Shows what a migration tells: a bar on a terminal, nothing elsewhere."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("migrate", total=None)

    def stage(self, what: str, total: int | None) -> None:
        """Begins a stage."""
        self._bar.reset(self._task, description=what, total=total)

    def done(self, count: int) -> None:
        """Tells that so many steps more are done."""
        self._bar.advance(self._task, count)


@contextmanager
def _bar(hidden: bool) -> Iterator[_Bar]:
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    hidden = hidden or not err.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=hidden) as bar:
        yield _Bar(bar)


@explained
def migrate(
    ctx: typer.Context,
    to: Annotated[
        str,
        typer.Option("--to", help="The target's backends, RECORD+INDEX[+BLOBS]: neo4j+weaviate+s3."),
    ] = "",
    target_config: Annotated[
        Path | None, typer.Option("--target-config", help="The settings file of the target's servers.")
    ] = None,
    target_data: Annotated[
        Path | None,
        typer.Option("--target-data", help="The target's data folder. Default: the source's."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The data folder to copy from.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="The settings file of the source's server.")] = None,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="The source's servers are stopped: copy the rest and switch over."),
    ] = False,
    wait_index: Annotated[
        bool, typer.Option("--wait-index", help="Fill the target's search index too before this returns.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what there is to copy, and copy nothing.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Let the server of a record that was migrated start on it again.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Move all that a server holds to other engines, or back, while it runs; run it again to go on."""
    from memos_server import logs
    from memos_server import migrate as work
    from memos_server.migrate_sides import target_settings

    source = settings_of(ctx, data, config)
    as_json = wants_json(ctx, json_)
    logs.set_up("error", "text")
    if undo:
        if to or target_config or target_data or finish or dry_run or wait_index:
            raise SetupError("--undo goes with no other option than --data and --config.", "Leave the others out.")
        mark = _run(work.undo(source))
        if as_json:
            print(json.dumps({"undone": True, "was": mark.role, "other": mark.other, "time": mark.time}))
        else:
            print(f"the mark of the migration to {mark.other} is gone; a server starts on this record again")
            err.print("What was written to the other record since then is not here.", soft_wrap=True)
        return
    if not to:
        raise SetupError("Where to is not said.", "Name the target's backends: --to neo4j+weaviate.")
    target = target_settings(to, target_config, target_data, source)
    began = time.monotonic()
    with _bar(as_json) as progress:
        if dry_run:
            plan = _run(work.plan(source, target, progress))
        else:
            report = _run(work.migrate(source, target, progress, finish=finish, wait_index=wait_index))
    if dry_run:
        _show_plan(plan, as_json)
    else:
        _show(report, time.monotonic() - began, as_json)


def _run(work: Awaitable[T]) -> T:
    """Runs a coroutine; what disks and libraries raise becomes an error of the server with what to do."""
    from memos_server.api.status import from_exception
    from memos_server.telemetry.probing import explained as explained_disk

    async def awaited() -> T:
        return await work

    try:
        return asyncio.run(awaited())
    except OSError as error:
        raise explained_disk(Path(error.filename or "a file"), error) from error
    except sqlite3.DatabaseError as error:
        raise from_exception(error) from error
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on where this one ended", soft_wrap=True)
        raise typer.Exit(130) from None


def _show_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(plan), indent=2))
        return
    print(f"from      {plan.source}{', in use by a server' if plan.running else ''}")
    print(f"to        {plan.target}{', which holds a part already' if plan.continued else ''}")
    print(f"cubes     {plan.cubes} with {plan.commits} commits and {plan.changes} changes, {plan.left} commits to copy")
    print(f"blobs     {plan.blobs} with {plan.blob_bytes / _MIB:.1f} MiB")
    if plan.record_bytes:
        print(f"record    {plan.record_bytes / _MIB:.1f} MiB in its file")
    print(f"besides   {', '.join(f'{count} {name}' for name, count in plan.rows.items() if name != 'blobs')}")


def _show(report: Report, seconds: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        commits, size = sum(copied.commits for copied in report.passes), report.blob_bytes / _MIB
        print(
            f"copied {commits} commits and {report.blobs} blobs ({size:.1f} MiB) in {seconds:.1f} s, "
            f"{len(report.passes)} passes"
        )
    if not report.finished:
        if not as_json:
            print(f"not finished: the source was {report.behind} commits ahead when this ended")
            err.print("Stop its servers, then run the same command with --finish.", soft_wrap=True)
        return
    if not as_json:
        total = sum(table["rows"] for table in report.tables.values())
        print(f"compared {len(report.cubes)} cubes, {report.blobs_read} blobs and {total} rows besides: equal")
        print(f"moved to {report.target}; a start on {report.source} is refused from now on")
    if report.keys in ("different", "absent"):
        err.print(
            "[bold]note:[/bold] the target signs tokens with another key: those that were issued do not open it."
            if report.keys == "different"
            else "[bold]note:[/bold] the key that signs tokens is not in this folder; give the target's servers the "
            "one of the source's ([keys] in the settings).",
            soft_wrap=True,
        )
    for line in report.index or ():
        err.print("[yellow]index:[/yellow]", escape(line), soft_wrap=True)
