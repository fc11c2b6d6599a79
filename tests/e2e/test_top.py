"""`memos top` beside a real server: one look, one object a look, and the live view in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import pytest

from memos_sdk import Client
from tests.e2e.process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    running = ServerProcess(tmp_path_factory.mktemp("top") / "data")
    yield running
    running.stop()


def environment(server: ServerProcess, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MEMOS_")}
    home = str(server.data.parent)
    return {**kept, "MEMOS_DATA": str(server.data), "HOME": home, "XDG_STATE_HOME": home, **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "memos_sdk.cli.main", *arguments]


def memos(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(server), capture_output=True, text=True, timeout=60, check=False
    )


def test_one_look_shows_what_was_called(server: ServerProcess) -> None:
    with Client(server.address, token=server.token) as client:
        client.cubes.create("notes")
    seen = memos(server, "top", "--once", "--interval", "0.2")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout.startswith("memos ")
    assert "CubeService.CreateCube" in seen.stdout
    assert "● record sqlite" in seen.stdout


def test_json_is_one_object_a_look(server: ServerProcess) -> None:
    with subprocess.Popen(
        command("top", "--json", "--interval", "0.2"), env=environment(server), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        looks: list[dict[str, Any]] = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.terminate()
    for look in looks:
        assert look["interval"]["all"]["per_second"] > 0
        assert look["interval"]["methods"][0]["method"] == "ServerService.GetServerStats"
        assert [part["serving"] for part in look["dependencies"]] == [True, True, True]


class Screen:
    """A terminal of 80 columns and 24 lines with `memos top` in it."""

    def __init__(self, server: ServerProcess) -> None:
        self.master, slave = pty.openpty()
        ioctl(slave, TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            command("top", "--interval", "0.3"),
            env=environment(server, TERM="xterm-256color"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str, times: int = 1) -> None:
        """Reads until a text was shown as often since the last call."""
        output = b""
        deadline = time.monotonic() + 40
        while output.decode(errors="replace").count(text) < times:
            assert time.monotonic() < deadline, output
            if select.select([self.master], [], [], 0.2)[0]:
                output += os.read(self.master, 65536)
        self.seen += output.decode(errors="replace")

    def end(self) -> int:
        """Types q; returns the exit status."""
        os.write(self.master, b"q")
        while select.select([self.master], [], [], 2)[0]:
            try:
                if not os.read(self.master, 65536):
                    break
            except OSError:
                break
        os.close(self.master)
        return self.process.wait(10)


def test_the_live_view_moves_outlives_its_server_and_ends_with_q(tmp_path: Path) -> None:
    running = ServerProcess(tmp_path / "data")
    screen = Screen(running)
    screen.wait_for("the last 0.3 s · q ends", times=3)
    # The view has a screen of its own, which leaves the person's as it was.
    assert "\x1b[?1049h" in screen.seen
    assert "ServerService.GetServerStats" in screen.seen
    assert running.stop() == 0
    screen.wait_for("no answer, trying again")
    running = ServerProcess(tmp_path / "data", "--listen", running.address)
    screen.wait_for("the last 0.3 s · q ends", times=2)
    assert screen.end() == 0
    running.stop()


def test_who_does_not_administer_the_server_is_told_so(server: ServerProcess) -> None:
    with Client(server.address, token=server.token) as client:
        client.access.create_principal("reader")
        token = client.access.issue_token("reader").token
    refused = memos(server, "--token", token, "top", "--once")
    assert refused.returncode == 4
    assert "PERMISSION_DENIED" in refused.stderr
    assert "Traceback" not in refused.stderr
