"""`python -m memos_server serve`: the server's commands without the SDK's."""

from __future__ import annotations

import typer

from memos_server.commands import register

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
register(app)


def main() -> None:
    """Runs the command line."""
    app(prog_name="python -m memos_server")


if __name__ == "__main__":
    main()
