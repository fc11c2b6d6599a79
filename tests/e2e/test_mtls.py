"""A network of devices: each with a certificate of its own and no token, until one is lost and revoked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from memos_sdk import TLS, Client, RetryPolicy
from memos_sdk.errors import MipError
from memos_server.configs import tls
from memos_server.configs.errors import SetupError
from tests.e2e.process import ServerProcess
from tests.e2e.test_tls import run

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates for the administrator and two devices."""
    made = tmp_path_factory.mktemp("tls")
    assert run("tls", "init", "--dir", str(made), "--name", "localhost", "--client", "local-admin").returncode == 0
    done = run("tls", "client", "phone", "--dir", str(made))
    assert done.returncode == 0, done.stderr
    for device in ("tablet", "watch"):
        tls.client(made, device)
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[ServerProcess]:
    """A server that takes certificates of the authority only."""
    files = ("--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))
    process = ServerProcess(tmp_path_factory.mktemp("e2e") / "data", *files, "--tls-client-ca", str(folder / "ca.pem"))
    yield process
    assert process.stop() == 0


def shown(folder: Path, name: str) -> TLS:
    """Returns the certificate of a client."""
    return TLS(ca=folder / "ca.pem", cert=folder / f"{name}.pem", key=folder / f"{name}.key")


def test_devices_call_without_tokens_and_a_lost_one_is_shut_out_at_once(server: ServerProcess, folder: Path) -> None:
    where = ("--target", server.address, "--tls-ca", str(folder / "ca.pem"))
    admin = (*where, "--tls-cert", str(folder / "client.pem"), "--tls-key", str(folder / "client.key"))
    phone = (*where, "--tls-cert", str(folder / "phone.pem"), "--tls-key", str(folder / "phone.key"))
    done = run(*admin, "cube", "create", "home")
    assert done.returncode == 0, done.stderr
    with Client(server.address, tls=shown(folder, "client")) as mip:
        for device, role in (("phone", "writer"), ("tablet", "reader")):
            mip.access.create_principal(device)
            mip.access.grant(device, "home", role)
    done = run(*phone, "add", "home", "The stove is off.", "--id", "stove")
    assert done.returncode == 0, done.stderr
    with Client(server.address, tls=shown(folder, "tablet")) as tablet:
        assert tablet.cube("home").get("stove").text == "The stove is off."

    ended: list[BaseException] = []
    opened = threading.Event()

    def watch() -> None:
        try:
            with Client(server.address, tls=shown(folder, "phone"), retry=ONCE) as mip:
                for _ in mip.cube("home").watch(start_revision=1):
                    opened.set()
        except BaseException as error:
            ended.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert opened.wait(20)
    certificate = json.loads(run("tls", "show", str(folder / "phone.pem"), "--json").stdout)
    assert certificate["principals"] == ["principals/phone"]
    done = run(*admin, "token", "revoke", certificate["certificate_id"])
    assert done.returncode == 0, done.stderr
    watcher.join(20)
    assert [getattr(error, "reason", repr(error)) for error in ended] == ["TOKEN_REVOKED"]
    assert run(*phone, "list", "home").returncode != 0
    with Client(server.address, tls=shown(folder, "tablet")) as tablet:
        assert tablet.cube("home").get("stove").text == "The stove is off."


def test_certificates_are_made_for_ids_only_and_never_over_others(folder: Path, tmp_path: Path) -> None:
    again = run("tls", "client", "phone", "--dir", str(folder))
    assert again.returncode == 1
    assert "phone.pem, phone.key already" in again.stderr
    for name in ("ca", "Server", "../phone", ""):
        with pytest.raises(SetupError, match="is no id of a principal"):
            tls.client(folder, name)
    elsewhere = run("tls", "client", "phone", "--dir", str(tmp_path / "none"))
    assert "memos tls init" in elsewhere.stderr


def test_a_stranger_to_the_network_gets_an_error_that_says_what_to_do(server: ServerProcess, folder: Path) -> None:
    with (
        Client(server.address, tls=shown(folder, "watch"), retry=ONCE) as mip,
        pytest.raises(MipError) as raised,
    ):
        mip.cubes.get("home")
    # The device has a certificate, and nobody has made its principal yet.
    assert raised.value.reason == "TOKEN_REVOKED"
