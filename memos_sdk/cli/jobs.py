"""`memos job …`: long work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memos_sdk.cli.context import Cli, command
from memos_sdk.cli.cubes import when
from memos_sdk.cli.parsing import CubeArgument, RequestIdOption

if TYPE_CHECKING:
    from memos_sdk import Job

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's name, cubes/CUBE/jobs/ID.")]
_OPEN = ("UNSPECIFIED", "PENDING", "RUNNING")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    job = typer.Typer(no_args_is_help=True, help="Show long work, wait for it, cancel it.")
    app.add_typer(job, name="job")
    for name, function in (("list", list_jobs), ("show", show), ("wait", wait), ("cancel", cancel)):
        command(job, name)(function)


def list_jobs(cli: Cli, cube: CubeArgument) -> None:
    """List the jobs of a cube, newest first."""
    cli.rows(
        cli.client.jobs.list(cube),
        ["JOB", "KIND", "STATE", ">DONE", "CREATED", "~ERROR"],
        lambda job: [job.name, job.kind, job.state.name.lower(), _done(job), when(job.create_time), job.error_message],
        empty="no jobs",
    )


def show(cli: Cli, job: JobArgument) -> None:
    """Show a job."""
    found = cli.client.jobs.get(job)
    cli.emit(found, lambda: _show(cli, found))


def wait(
    cli: Cli,
    job: JobArgument,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to wait.", min=0)] = 600.0,
) -> None:
    """Wait until a job has ended. Status 1 when it failed or was cancelled, 6 when the time is over."""
    left = seconds
    found = cli.client.jobs.get(job)
    with cli.progress(found.kind or "job", found.total or None) as advance:
        while found.state.name in _OPEN and left > 0:
            # Short waits, so that the bar moves.
            pause = min(2.0, left)
            found = cli.client.jobs.wait(job, seconds=pause)
            advance(found.done)
            left -= pause
    cli.emit(found, lambda: _show(cli, found))
    if found.state.name in _OPEN:
        raise typer.Exit(6)
    if found.state.name != "SUCCEEDED":
        raise typer.Exit(1)


def cancel(cli: Cli, job: JobArgument, request_id: RequestIdOption = "") -> None:
    """Ask a job to end."""
    found = cli.client.jobs.cancel(job, request_id=request_id)
    cli.emit(found, lambda: _show(cli, found))


def _done(job: Job) -> str:
    return f"{job.done}/{job.total}" if job.total else str(job.done)


def _show(cli: Cli, job: Job) -> None:
    cli.say(f"{job.name}: {job.kind}, {job.state.name.lower()}, {_done(job)} done")
    if job.error_message:
        cli.say(f"{job.error_reason}: {job.error_message}")
