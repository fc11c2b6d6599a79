"""`memos blob …`: the bytes that memories name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from memos_sdk.cli.context import Cli, command
from memos_sdk.cli.parsing import CubeArgument
from memos_sdk.errors import NotFound, UsageError

DigestArgument = Annotated[str, typer.Argument(metavar="DIGEST", help="The blob, sha256:….")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    blob = typer.Typer(no_args_is_help=True, help="Upload, download and look up the bytes that memories name.")
    app.add_typer(blob, name="blob")
    for name, function in (("put", put), ("get", get), ("stat", stat)):
        command(blob, name)(function)


def put(
    cli: Cli,
    cube: CubeArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file.")],
    media_type: Annotated[str, typer.Option("--media-type", help="The media type, for the reference.")] = "",
    title: Annotated[str, typer.Option("--title", help="Its role within a memory, for the reference.")] = "",
) -> None:
    """Upload a file, unless the cube holds it. An interrupted upload goes on where it broke off."""
    if not file.is_file():
        raise UsageError(f"there is no file {file}", reason="FILE_UNREADABLE", remedy="Check the path.")
    blobs = cli.client.cube(cube).blobs
    with cli.progress(f"uploading {file.name}", file.stat().st_size, "bytes") as advance:
        kept = blobs.upload(file, media_type=media_type, title=title, progress=lambda done, total: advance(done))
    cli.emit(kept, lambda: cli.say(f"{kept.digest}  {kept.size} bytes"))


def get(
    cli: Cli,
    cube: CubeArgument,
    digest: DigestArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; - is the standard output.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Download a blob, checked against its digest. An interrupted download (FILE.part) goes on where it broke off."""
    blobs = cli.client.cube(cube).blobs
    if str(file) == "-":
        sys.stdout.buffer.write(blobs.read(digest))
        sys.stdout.buffer.flush()
        return
    if file.exists() and not force:
        raise UsageError(f"{file} is there already", reason="FILE_EXISTS", remedy="Name another file, or add --force.")
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent}", reason="FILE_UNREADABLE", remedy="Make the folder first.")
    found = blobs.stat(digest)
    with cli.progress(f"downloading {file.name}", found.size, "bytes") as advance:
        blobs.download(digest, file, progress=lambda done, total: advance(done))
    size = file.stat().st_size
    cli.emit({"digest": digest, "size": size, "file": str(file)}, lambda: cli.say(f"{file}  {size} bytes"))


def stat(cli: Cli, cube: CubeArgument, digest: DigestArgument) -> None:
    """Tell whether a cube holds a blob, and how much of an unfinished upload has arrived. Status 3 when it does not."""
    found = cli.client.cube(cube).blobs.stat(digest)
    if not found.held and not found.arrived:
        raise NotFound(f"{cube} has nothing of {digest}", reason="BLOB_NOT_FOUND")
    shown = f"{found.size} bytes" if found.held else f"unfinished, {found.arrived} bytes have arrived"
    cli.emit(found, lambda: cli.say(f"{digest}  {shown}"))
    if not found.held:
        raise typer.Exit(3)
