"""Commands that other packages add by the entry point group `memos.commands`.

Each entry is a Typer app, added under the entry's name, or a function `register(app)`. So `memos serve` comes with the
server's package, and the client never imports the server.
"""

from __future__ import annotations

import importlib.metadata

import typer
from typer.models import CommandInfo

from memos_sdk.errors import FailedPrecondition

# What the server's package adds; without it these commands say what to install.
OF_SERVER = {
    "serve": "Start a server (needs the server's package).",
    "doctor": "Examine a server's folder (needs the server's package).",
    "backup": "Copy a server's folder while it runs (needs the server's package).",
    "restore": "Make a server's folder from a backup (needs the server's package).",
    "migrate": "Move a server to other engines (needs the server's package).",
    "index": "Compare search indexes with the record and make them anew (needs the server's package).",
    "models": "Install models for the server (needs the server's package).",
    "tls": "Make certificates for the server (needs the server's package).",
}


def register(app: typer.Typer) -> None:
    """Adds the commands of all installed packages."""
    failed = ""
    for entry in sorted(importlib.metadata.entry_points(group="memos.commands"), key=lambda entry: entry.name):
        try:
            loaded = entry.load()
        except ImportError as error:
            # The package is there without its extra; the commands below say which.
            failed = str(error)
            continue
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=entry.name)
        else:
            loaded(app)
    present = {_name(command) for command in app.registered_commands}
    present |= {str(group.name) for group in app.registered_groups}
    for name, help_text in OF_SERVER.items():
        if name not in present:
            _add_missing(app, name, help_text, failed)


def _name(command: CommandInfo) -> str:
    """Returns a command's name; without one of its own it is that of its function."""
    return command.name or (command.callback.__name__.replace("_", "-") if command.callback else "")


def _add_missing(app: typer.Typer, name: str, help_text: str, failed: str) -> None:
    def missing() -> None:
        raise FailedPrecondition(
            f"`memos {name}` comes with the server, which is not installed" + (f" ({failed})" if failed else ""),
            reason="SERVER_NOT_INSTALLED",
            remedy='pip install "memos-mip[server]"',
        )

    missing.__doc__ = help_text
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name, context_settings=settings, hidden=True)(missing)
