"""The command line together with other packages, and without what it needs itself."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from memos_sdk.cli import commands, main


class Entry:
    """An entry point that loads what a test gives it."""

    def __init__(self, name: str, loaded: Any) -> None:
        self.name = name
        self._loaded = loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def run_with(monkeypatch: pytest.MonkeyPatch, entries: list[Entry], *arguments: str) -> int:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    monkeypatch.setattr(sys, "argv", ["memos", *arguments])
    return main.run()


def test_a_package_adds_commands_by_a_function(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def register(app: typer.Typer) -> None:
        @app.command()
        def serve(data: str) -> None:
            typer.echo(f"serving {data}")

    assert run_with(monkeypatch, [Entry("server", register)], "serve", "here") == 0
    assert capsys.readouterr().out == "serving here\n"


def test_a_package_adds_a_group_by_an_app(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.callback()
    def group() -> None:
        """A group."""

    @app.command("init")
    def init() -> None:
        typer.echo("made")

    assert run_with(monkeypatch, [Entry("tls", app)], "tls", "init") == 0
    assert capsys.readouterr().out == "made\n"


@pytest.mark.parametrize("entries", [[], [Entry("server", ImportError("no module named numpy"))]])
def test_serve_without_the_server_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], entries: list[Entry]
) -> None:
    assert run_with(monkeypatch, entries, "serve", "--data", "x") == 5
    err = capsys.readouterr().err
    assert "SERVER_NOT_INSTALLED: `memos serve` comes with the server" in err
    assert 'remedy: pip install "memos-mip[server]"' in err


def test_an_unforeseen_fault_is_a_line_and_not_a_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def register(app: typer.Typer) -> None:
        @app.command("broken")
        def broken() -> None:
            raise RuntimeError("boom")

    monkeypatch.delenv("MEMOS_DEBUG", raising=False)
    assert run_with(monkeypatch, [Entry("x", register)], "broken") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: RuntimeError: boom\nremedy: ")
    assert "Traceback" not in err


def test_an_interruption_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def register(app: typer.Typer) -> None:
        @app.command("long")
        def long() -> None:
            raise KeyboardInterrupt

    assert run_with(monkeypatch, [Entry("x", register)], "long") == 130


def test_without_typer_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('typer')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from memos_sdk.cli.main import run; sys.exit(run())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'error: the command line needs more: pip install "memos-mip[cli]"\n'


def test_the_commands_of_the_server_are_known_by_name() -> None:
    assert set(commands.OF_SERVER) == {"serve", "doctor", "backup", "restore", "migrate", "index", "models", "tls"}


def test_a_demo_without_text_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_with(monkeypatch, [], "demo") == 2
    assert "remedy: Name text files to remember." in capsys.readouterr().err


def test_the_folder_of_a_server_may_be_named_before_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.delenv("MEMOS_DATA", raising=False)
    monkeypatch.setattr(
        sys, "argv", ["memos", "--data", str(tmp_path / "mine"), "--json", "tls", "init", "--name", "localhost"]
    )
    assert main.run() == 0
    files = json.loads(capsys.readouterr().out)
    assert {str(Path(path).parent) for path in files.values()} == {str(tmp_path / "mine" / "tls")}


def test_without_the_extra_of_the_server_its_commands_say_what_to_install(tmp_path: Path) -> None:
    # The package is installed, what it needs is not: a finder hides it.
    code = (
        "import importlib.util, sys; there = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'numpy' else there(name, *rest)\n"
        "from memos_sdk.cli.main import run; sys.argv = ['memos', 'serve']; sys.exit(run())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, "")
    assert "SERVER_NOT_INSTALLED: `memos serve` comes with the server, which is not installed" in done.stderr
    assert 'remedy: pip install "memos-mip[server]"' in done.stderr


def test_a_command_of_the_client_loads_nothing_of_the_server(tmp_path: Path) -> None:
    code = (
        "import sys; from memos_sdk.cli.main import build; build()\n"
        "print(sorted({'numpy', 'pydantic_settings', 'lark', 'jwt', 'memos_server.main'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "[]\n"
