"""How the doctor reaches the server that runs in a folder: by what lies in that folder, over TLS too."""

from __future__ import annotations

from pathlib import Path

import grpc

from memos_server.configs import tls
from memos_server.configs.data_folder import DataFolder, ServerInfo
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import read_secret
from memos_server.configs.settings import Settings
from memos_server.main import LOCAL_ADMIN


def channel_to(settings: Settings, folder: DataFolder, running: ServerInfo) -> tuple[grpc.aio.Channel, bool]:
    """Returns a channel to the folder's server, and whether a certificate tells it who calls.

    Raises:
        SetupError: It speaks TLS, and a file that this needs cannot be read or is not there.
    """
    # An address on this machine: no proxy stands in between.
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    if not running.tls:
        return grpc.aio.insecure_channel(running.address, options=options), False
    own = settings.tls.cert or folder.path / "tls" / "server.pem"
    # Whoever signed it, `memos tls init` put the authority beside the certificate; one that signed itself is its own.
    roots = b"\n".join(_pem(path) for path in (own, own.with_name("ca.pem")) if path.exists() or path == own)
    if name := tls.a_name(own):
        options.append(("grpc.ssl_target_name_override", name))
    client: tuple[bytes | None, bytes | None] = None, None
    if settings.tls.client_ca is not None:
        stem = own.with_name(LOCAL_ADMIN.removeprefix("principals/"))
        if not stem.with_suffix(".pem").exists():
            raise SetupError(
                "the server asks for a client's certificate, and the administrator of this machine has none.",
                f"Make one: memos tls client {stem.name} --dir {own.parent}. Or stop the server first.",
            )
        client = read_secret(stem.with_suffix(".key")), _pem(stem.with_suffix(".pem"))
    credentials = grpc.ssl_channel_credentials(roots, *client)
    return grpc.aio.secure_channel(running.address, credentials, options=options), client[0] is not None


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "Name the server's certificate in memos.toml (tls.cert), or stop the server first."
        raise SetupError(f"{path} cannot be read ({error.strerror}).", remedy) from error
