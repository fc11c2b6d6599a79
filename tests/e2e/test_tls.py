"""Beyond loopback: certificates of one's own, a server with TLS, and clients that trust it or refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memos_sdk import TLS, Client, RetryPolicy
from memos_sdk.errors import ConnectError
from tests.e2e.process import ServerProcess

MEMOS = str(Path(sys.executable).with_name("memos"))
ONCE = RetryPolicy(max_attempts=1)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `memos` without a person's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MEMOS_", "XDG_"))}
    return subprocess.run(
        [MEMOS, *arguments], capture_output=True, text=True, check=False, timeout=60, env={**kept, **environment}
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `memos tls init` writes, by what it is."""
    folder = str(tmp_path_factory.mktemp("tls"))
    made = run("tls", "init", "--dir", folder, "--name", "memory.example.com", "--client", "local-admin", "--json")
    assert made.returncode == 0, made.stderr
    files: dict[str, str] = json.loads(made.stdout)
    return files


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificates: dict[str, str]) -> Iterator[ServerProcess]:
    """A server with TLS that every address of this machine reaches."""
    tls = ("--tls-cert", certificates["server_cert"], "--tls-key", certificates["server_key"])
    process = ServerProcess(tmp_path_factory.mktemp("e2e") / "data", "--listen", "0.0.0.0:0", *tls)
    yield process
    assert process.stop() == 0


def local(server: ServerProcess) -> str:
    """Returns the server's address as this machine reaches it by name."""
    return f"localhost:{server.address.rpartition(':')[2]}"


def test_keys_are_readable_by_their_owner_only(certificates: dict[str, str]) -> None:
    modes = {name: Path(path).stat().st_mode & 0o777 for name, path in certificates.items()}
    assert modes == {
        "ca_cert": 0o644,
        "ca_key": 0o600,
        "server_cert": 0o644,
        "server_key": 0o600,
        "client_cert": 0o644,
        "client_key": 0o600,
    }


def test_certificates_are_not_overwritten_unless_renewed(certificates: dict[str, str]) -> None:
    folder = str(Path(certificates["ca_cert"]).parent)
    again = run("tls", "init", "--dir", folder, "--name", "other.example.com")
    assert again.returncode == 1
    assert "Pass --renew to keep the authority" in again.stderr
    assert again.stderr.count("--renew") == 1


def test_certificates_go_where_clients_of_the_data_folder_look(tmp_path: Path) -> None:
    assert run("tls", "init", "--name", "memory.example.com", "--data", str(tmp_path / "data")).returncode == 0
    assert (tmp_path / "data" / "tls" / "ca.pem").is_file()


def test_the_sdk_connects_with_the_authority(server: ServerProcess, certificates: dict[str, str]) -> None:
    with Client(local(server), token=server.token, tls=TLS(ca=certificates["ca_cert"])) as mip:
        assert mip.cubes.create("by-sdk").name == "cubes/by-sdk"


def test_the_name_in_the_certificate_can_be_named(server: ServerProcess, certificates: dict[str, str]) -> None:
    tls = TLS(ca=certificates["ca_cert"], server_name="memory.example.com")
    with Client(local(server), token=server.token, tls=tls) as mip:
        assert mip.capabilities().protocol_version == "1.0-alpha"


@pytest.mark.parametrize("tls", [True, False], ids=["without the authority", "in plaintext"])
def test_the_sdk_does_not_connect(server: ServerProcess, tls: bool) -> None:
    with (
        Client(local(server), token=server.token, tls=tls, retry=ONCE, timeout=5.0) as mip,
        pytest.raises(ConnectError),
    ):
        mip.capabilities()


def test_another_name_is_refused(server: ServerProcess, certificates: dict[str, str]) -> None:
    tls = TLS(ca=certificates["ca_cert"], server_name="other.example.com")
    with (
        Client(local(server), token=server.token, tls=tls, retry=ONCE, timeout=5.0) as mip,
        pytest.raises(ConnectError),
    ):
        mip.capabilities()


def test_the_command_line_connects_with_the_authority(server: ServerProcess, certificates: dict[str, str]) -> None:
    where = ("--target", local(server), "--token", server.token)
    done = run(*where, "--tls-ca", certificates["ca_cert"], "cube", "create", "by-cli")
    assert (done.returncode, done.stdout) == (0, "cubes/by-cli at revision 1\n"), done.stderr
    by_environment = run("cube", "show", "by-cli", MEMOS_TARGET=local(server), MEMOS_TOKEN=server.token,
                         MEMOS_TLS_CA=certificates["ca_cert"])  # fmt: skip
    assert by_environment.returncode == 0, by_environment.stderr


def test_the_command_line_refuses_an_unknown_authority(server: ServerProcess) -> None:
    done = run("--target", local(server), "--token", server.token, "--tls", "cube", "list")
    assert done.returncode == 6
    assert "error: CONNECT_FAILED: " in done.stderr
    assert "--tls-ca" in done.stderr


def test_off_loopback_without_tls_does_not_start(tmp_path: Path) -> None:
    done = run("serve", "--data", str(tmp_path / "data"), "--listen", "0.0.0.0:0")
    assert done.returncode == 1
    assert "can be reached from other machines" in done.stderr
    assert not (tmp_path / "data" / "server.json").exists()


def test_insecure_starts_off_loopback_and_the_token_needs_the_same_word(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "data", "--listen", "0.0.0.0:0", "--insecure")
    try:
        with Client(local(process), token=process.token) as mip:
            assert mip.cubes.create("plain").name == "cubes/plain"
    finally:
        assert process.stop() == 0
    done = run("--target", "memory.example.com", "--token", "abc", "cube", "list")
    assert done.returncode == 2
    assert done.stderr.startswith("error: INSECURE_CHANNEL: ")


def test_a_client_without_a_certificate_is_refused_where_one_is_required(
    tmp_path: Path, certificates: dict[str, str]
) -> None:
    tls = ("--tls-cert", certificates["server_cert"], "--tls-key", certificates["server_key"])
    process = ServerProcess(tmp_path / "data", *tls, "--tls-client-ca", certificates["ca_cert"])
    try:
        mine = TLS(ca=certificates["ca_cert"], cert=certificates["client_cert"], key=certificates["client_key"])
        with Client(process.address, tls=mine) as mip:
            assert mip.cubes.create("mutual").name == "cubes/mutual"
        nobody = Client(process.address, token=process.token, tls=TLS(ca=certificates["ca_cert"]), retry=ONCE)
        with nobody as mip, pytest.raises(ConnectError):
            mip.capabilities(timeout=5.0)
    finally:
        assert process.stop() == 0
