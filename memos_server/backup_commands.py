"""`memos backup` and `memos restore`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from memos_server.command_line import err, explained, settings_of, wants_json

if TYPE_CHECKING:
    from memos_server.backup_manifest import Manifest

_JSON = typer.Option("--json", help="Print JSON.")


def register(app: typer.Typer) -> None:
    """Adds the two commands."""
    app.command()(backup)
    app.command()(restore)


@contextmanager
def _bar(what: str, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on the error stream where that is a terminal; yields what takes the bytes done and in all."""
    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    hidden = hidden or not err.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@explained
def backup(
    ctx: typer.Context,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to make; it must not exist yet.")],
    data: Annotated[Path | None, typer.Option("--data", help="The data folder to copy.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="The server's settings file.")] = None,
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Copy a data folder while its server runs: all that was acknowledged, verified by digest."""
    from memos_server.backup import make

    settings = settings_of(ctx, data, config)
    as_json = wants_json(ctx, json_)
    began = time.monotonic()
    with _bar("backup", as_json) as progress:
        made = make(settings, destination, progress)
    _show("backed up", made, destination, destination, time.monotonic() - began, as_json)
    if not as_json:
        err.print("Who has it has everything: it holds content and keys.", soft_wrap=True)


@explained
def restore(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder that `memos backup` made.")],
    data: Annotated[Path | None, typer.Option("--data", help="The data folder to make; absent or empty.")] = None,
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="For a copy beside the original: tokens of the original do not open it.")
    ] = False,
    expect: Annotated[str, typer.Option(help="The SHA-256 that the backup's manifest must have.")] = "",
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Make a data folder from a backup; every file is verified before any of it appears."""
    from memos_server.backup_restore import restore as make
    from memos_server.configs.settings import default_data_folder

    # Not by the settings: those of the folder come with the backup.
    target = data or getattr(ctx.find_root().obj, "data", None) or default_data_folder()
    as_json = wants_json(ctx, json_)
    began = time.monotonic()
    with _bar("restore", as_json) as progress:
        made = make(source, target, new_keys=new_keys, expect=expect, progress=progress)
    _show("restored", made, source, target, time.monotonic() - began, as_json)
    if not as_json:
        err.print(f"Try: memos serve --data {target}", soft_wrap=True, markup=False)


def _show(what: str, made: Manifest, backup: Path, where: Path, seconds: float, as_json: bool) -> None:
    from memos_server.backup_manifest import cube_json, megabytes
    from memos_server.configs.data_folder import BACKUP_MANIFEST

    digest = hashlib.sha256((backup / BACKUP_MANIFEST).read_bytes()).hexdigest()
    if as_json:
        shown: dict[str, Any] = {
            "path": str(where.absolute()),
            "manifest_sha256": digest,
            "format": made.format,
            "time": made.time,
            "files": len(made.files),
            "bytes": made.size,
            "seconds": round(seconds, 3),
            "cubes": [cube_json(cube) for cube in made.cubes],
        }
        print(json.dumps(shown, indent=2))
        return
    blobs = sum(name.startswith("blobs/") for name in made.files)
    print(f"{what} {len(made.cubes)} cubes and {blobs} blobs, {megabytes(made.size)}, as of {made.time}: {where}")
    print(f"manifest: sha256 {digest}")
