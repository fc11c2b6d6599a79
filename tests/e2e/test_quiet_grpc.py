"""Errors say what happened in our words alone: gRPC's core, which has a log of its own, stays silent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("MEMOS_", "GRPC_"))}


@pytest.mark.parametrize("program", ["memos_server", "memos_sdk.cli.main"])
def test_a_taken_port_is_told_in_two_lines(tmp_path: Path, program: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", program, "serve", "--data", str(tmp_path / "data"), "--listen", address]
        environment = ENVIRONMENT | {"MEMOS_EMBEDDER__BACKEND": "none", "MEMOS_LOG__LEVEL": "error"}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    error, remedy = ended.stderr.splitlines()
    assert error == (
        f"error: The server cannot listen on {address}: the port is taken, or the address is not this machine's."
    )
    assert remedy.startswith("remedy: ")


def test_a_handshake_that_fails_leaves_no_line_of_grpc_in_the_servers_log(tmp_path: Path) -> None:
    init = [
        sys.executable,
        "-m",
        "memos_server",
        "tls",
        "init",
        "--dir",
        str(tmp_path / "tls"),
        "--name",
        "localhost",
        "--json",
    ]
    made = json.loads(subprocess.run(init, env=ENVIRONMENT, check=True, capture_output=True).stdout)
    tls = ("--tls-cert", made["server_cert"], "--tls-key", made["server_key"])
    server = ServerProcess(tmp_path / "data", *tls)
    host, _, port = server.address.rpartition(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection.settimeout(5)
            connection.recv(100)
    time.sleep(0.2)
    assert server.stop() == 0
    log = (tmp_path / "data.log").read_text()
    assert ".cc:" not in log
    assert "MemOS listens" in log
