"""Where the server is and which token opens it: arguments, environment, the local server's data folder, defaults."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
from collections.abc import Mapping
from pathlib import Path

from memos_sdk.errors import UsageError

DEFAULT_PORT = 7600
DEFAULT_TARGET = f"127.0.0.1:{DEFAULT_PORT}"


@dataclasses.dataclass(frozen=True)
class TLS:
    """How to speak TLS. Files are PEM, given as a path or as bytes.

    Attributes:
        ca: The certificates of the authorities to trust; None trusts those of the system.
        cert: The client's own certificate chain, for mutual TLS.
        key: The private key of `cert`.
        server_name: The name that the server's certificate must carry, when it is not the host of the address.
    """

    ca: str | Path | bytes | None = None
    cert: str | Path | bytes | None = None
    key: str | Path | bytes | None = None
    server_name: str | None = None


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A resolved server.

    Attributes:
        target: The address for gRPC, such as `127.0.0.1:7600`.
        token: The bearer token; None calls without one.
        tls: How to speak TLS; None speaks plaintext.
    """

    target: str
    token: str | None = dataclasses.field(repr=False)
    tls: TLS | None

    @property
    def loopback(self) -> bool:
        """True when the address cannot leave this machine."""
        return is_loopback(self.target)


def default_data_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Returns the folder of the local server: `$MEMOS_DATA`, else `memos` in the user's data folder (XDG)."""
    environment = os.environ if environment is None else environment
    if chosen := environment.get("MEMOS_DATA"):
        return Path(chosen).expanduser()
    base = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "memos"


def resolve(
    target: str | None = None,
    *,
    token: str | None = None,
    tls: bool | TLS | None = None,
    data: str | Path | None = None,
    insecure: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Endpoint:
    """Finds address, token and TLS: what is given, then the environment, then the local data folder, then defaults.

    The local server's token is used only where the address cannot leave this machine, and not beside a certificate.

    Args:
        target: `host:port`, `host`, `unix:PATH`, or several `IP:port` parted by commas; None looks for it.
        token: The token; None looks for it, an empty string means none.
        tls: True or a TLS to speak TLS, False not to; None decides by where the address comes from.
        data: The local server's data folder; None means the default one.
        insecure: True permits sending a token in plaintext to another machine.
        environment: The environment; None means that of the process.

    Raises:
        UsageError: The address is malformed, or a token would travel in plaintext to another machine.
    """
    environment = os.environ if environment is None else environment
    folder = Path(data).expanduser() if data is not None else default_data_folder(environment)
    local = _read_server_file(folder)
    if target is None:
        target = (environment.get("MEMOS_TARGET") or None) if data is None else None
    if target is None and "address" in local:
        target = str(local["address"])
        if tls is None and local.get("tls"):
            tls = True
    target = normalize_target(target or DEFAULT_TARGET)
    ca = environment.get("MEMOS_TLS_CA") or None
    if tls is None:
        tls = ca is not None
    if tls is True:
        local_ca = folder / "tls" / "ca.pem"
        tls = TLS(ca=ca or (local_ca if is_loopback(target) and local_ca.is_file() else None))
    if token is None and data is None:
        token = environment.get("MEMOS_TOKEN") or None
    # Who shows a certificate of its own is who that says; the local administrator's token would contradict it.
    if token is None and is_loopback(target) and not (isinstance(tls, TLS) and tls.cert is not None):
        token = read_local_token(folder)
    endpoint = Endpoint(target, token or None, tls or None)
    if endpoint.token and endpoint.tls is None and not endpoint.loopback and not insecure:
        raise UsageError(
            f"a token would travel to {target} in plaintext",
            reason="INSECURE_CHANNEL",
            remedy="Use TLS (tls=True, --tls), or permit plaintext in a trusted network: insecure=True, --insecure.",
        )
    if endpoint.token and (not endpoint.token.isascii() or not endpoint.token.isprintable() or " " in endpoint.token):
        raise UsageError("the token holds characters that no token has", reason="TOKEN_INVALID")
    return endpoint


def normalize_target(target: str) -> str:
    """Returns the address with a port; 7600 when it names none. Several servers are parted by commas.

    Raises:
        UsageError: The address is not `host:port`, `host` or `unix:PATH`, or one of several is not an IP address.
    """
    target = target.strip()
    if "," in target:
        addresses = [normalize_target(part) for part in target.split(",")]
        if not all(map(_is_ip, addresses)) or len({address.startswith("[") for address in addresses}) > 1:
            raise UsageError(
                f"{target!r} names several servers, not all by IP addresses of one version",
                reason="INVALID_TARGET",
                remedy="Write IP addresses, such as 10.0.0.1:7600,10.0.0.2:7600, or one name that resolves to all.",
            )
        return ",".join(addresses)
    if target.startswith("unix:"):
        return target
    remedy = "Write it as host:port, such as 127.0.0.1:7600 or [::1]:7600."
    if "://" in target or "/" in target or not target or any(char.isspace() for char in target):
        raise UsageError(f"{target!r} is not an address", reason="INVALID_TARGET", remedy=remedy)
    if target.count(":") > 1 and not target.startswith("["):
        target = f"[{target}]"
    host, separator, port = target.rpartition(":")
    if not separator or target.endswith("]"):
        return f"{target}:{DEFAULT_PORT}"
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{target!r} is not an address", reason="INVALID_TARGET", remedy=remedy)
    return target


def is_loopback(target: str) -> bool:
    """Returns True when nothing sent to the address leaves this machine."""
    if target.startswith("unix:"):
        return True
    if "," in target:
        return all(map(is_loopback, target.split(",")))
    host = target.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ip(target: str) -> bool:
    try:
        ipaddress.ip_address(target.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


def channel_address(target: str) -> tuple[str, bool]:
    """Returns what gRPC connects to, and whether that may be several servers.

    Args:
        target: A normalized address.
    """
    if "," in target:
        return f"ipv6:{target}" if "[" in target else f"ipv4:{target}", True
    # A name may resolve to several.
    return target, not (target.startswith("unix:") or _is_ip(target) or is_loopback(target))


def read_local_token(folder: Path) -> str | None:
    """Returns the local admin token of a data folder; None when there is none.

    Raises:
        UsageError: The file exists, but the user may not read it.
    """
    path = folder / "admin.token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise UsageError(
            f"{path} belongs to another user",
            reason="TOKEN_UNREADABLE",
            remedy="Run as the user that runs the server, or pass a token of your own (MEMOS_TOKEN, --token).",
        ) from None


def read_material(source: str | Path | bytes | None) -> bytes | None:
    """Returns the bytes of a PEM file, or the bytes themselves.

    Raises:
        UsageError: The file cannot be read.
    """
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {source}: {error.strerror}", reason="TLS_FILE_UNREADABLE", remedy="Check the file's path."
        ) from None


def _read_server_file(folder: Path) -> dict[str, object]:
    """Returns what a running server wrote about itself; nothing when none runs."""
    try:
        parsed = json.loads((folder / "server.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
