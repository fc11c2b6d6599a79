"""TLS: certificates for a network of one's own (`memos tls`), and the rule that no token crosses a network in clear.

A client certificate names its principal by one URI, `mip:principals/{principal}`, among its alternative names, and is
revoked by its id, a UUID made of its SHA-256 fingerprint, as a token is by its own.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from memos_server import names
from memos_server._pb.mip.v1.options_pb2 import FORMAT_ID
from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import read_secret, write_file
from memos_server.configs.settings import Settings

CA_LIFETIME: Final = datetime.timedelta(days=3650)
LEAF_LIFETIME: Final = datetime.timedelta(days=397)
"""How long certificates hold: the authority ten years, the others the 397 days that TLS clients widely accept."""

RENEW_BEFORE: Final = datetime.timedelta(days=30)
"""How long before its end a certificate is worth a warning."""

URI_SCHEME: Final = "mip:"
"""Begins the alternative name of a certificate that names a principal."""

_BACKDATE: Final = datetime.timedelta(minutes=5)
_RESERVED: Final = frozenset({"ca", "server"})


class TlsFiles(NamedTuple):
    """What `init` writes."""

    ca_cert: Path
    ca_key: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


class ClientFiles(NamedTuple):
    """What `client` writes."""

    client_cert: Path
    client_key: Path


class Shown(NamedTuple):
    """What a certificate says, for people.

    Attributes:
        subject: Its common name, or the whole subject.
        principals: The principals that it names: none, one, or, wrongly, several.
        certificate_id: What `memos token revoke` takes.
        not_after: When it expires.
    """

    subject: str
    principals: list[str]
    certificate_id: str
    not_after: datetime.datetime


def certificate_names(cert: x509.Certificate) -> list[str]:
    """Returns what the `mip:` names of a certificate say, `principals/{principal}` in a sound one, as they stand there.

    Raises:
        ValueError: The extension does not parse.
    """
    try:
        alternatives = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    # A scheme is compared without case (RFC 3986, section 3.1).
    return [uri[len(URI_SCHEME) :] for uri in uris if uri[: len(URI_SCHEME)].lower() == URI_SCHEME]


def certificate_id(cert: x509.Certificate) -> str:
    """Returns the id by which a certificate is revoked: the first 16 bytes of its SHA-256 fingerprint as a UUIDv8
    (RFC 9562, section 5.8), so that it is no token's id."""
    digest = bytearray(cert.fingerprint(hashes.SHA256())[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(digest)))


def show(path: Path) -> Shown:
    """Returns what the first certificate of a PEM file says.

    Raises:
        SetupError: The file cannot be read, or holds none.
    """
    cert = _certificates(path, _read_public(path))[0]
    common = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    subject = str(common[0].value) if common else cert.subject.rfc4514_string()
    return Shown(subject, certificate_names(cert), certificate_id(cert), cert.not_valid_after_utc)


def a_name(path: Path) -> str:
    """Returns a name of a host that the first certificate of a PEM file holds for; empty where it names none.

    Raises:
        SetupError: The file cannot be read, or holds no certificate.
    """
    cert = _certificates(path, _read_public(path))[0]
    try:
        alternatives = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    hosts = alternatives.get_values_for_type(x509.DNSName)
    # Nobody is called as a wildcard is; any label in its place will do.
    return next((f"any{host[1:]}" if host.startswith("*.") else host for host in hosts), "")


def ends(settings: Settings) -> list[tuple[Path, datetime.datetime]]:
    """Returns the files that the settings name for TLS, each with the time at which its first certificate expires.

    Raises:
        SetupError: A file cannot be read, or holds no certificate.
    """
    files = [path for path in (settings.tls.cert, settings.tls.client_ca) if path is not None]
    return [(path, show(path).not_after) for path in files]


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches a host: `localhost`, 127.0.0.0/8 or ::1. Nothing is resolved."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Returns the credentials to listen with; None means plain text, which loopback or `insecure` permits.

    Raises:
        SetupError: The address is off loopback and there is neither TLS nor `insecure`, or a file cannot be read.
    """
    tls = settings.tls
    if tls.cert is None or tls.key is None:
        host = settings.endpoint.host
        if settings.insecure or is_loopback(host):
            return None
        raise SetupError(
            f"{settings.listen} can be reached from other machines, and the server has no TLS certificate.",
            f"Make one with `memos tls init --name {host}` and set tls.cert and tls.key, listen on 127.0.0.1, or pass "
            "--insecure where the network itself is trusted.",
        )
    key = read_secret(tls.key)
    chain = _read_public(tls.cert)
    _check_pair(tls.cert, chain, tls.key, key)
    authorities = None
    if tls.client_ca is not None:
        authorities = _read_public(tls.client_ca)
        _certificates(tls.client_ca, authorities)
    return grpc.ssl_server_credentials(
        [(key, chain)], root_certificates=authorities, require_client_auth=authorities is not None
    )


def _read_public(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read: {error.strerror}.", "Correct the path in the tls settings."
        ) from error


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise SetupError(f"{path} holds no PEM certificate.", "Correct the path in the tls settings.") from error


def _check_pair(cert_path: Path, chain: bytes, key_path: Path, key: bytes) -> None:
    """Refuses a key that is not the certificate's: gRPC would start and then fail every handshake."""
    try:
        private_key = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise SetupError(f"{key_path} holds no readable private key.", "Name an unencrypted PEM key.") from error
    leaf = _certificates(cert_path, chain)[0]
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*spki) != private_key.public_key().public_bytes(*spki):
        raise SetupError(f"{key_path} is not the key of {cert_path}.", "Name the two files of one certificate.")
    if leaf.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        raise SetupError(f"{cert_path} has expired.", "Renew it, for instance with `memos tls init --renew`.")


def init(folder: Path, hosts: Sequence[str], client: str = "client", renew: bool = False) -> TlsFiles:
    """Writes a certificate authority, a server certificate and a client certificate (EC P-256, PEM).

    Args:
        folder: Where to, made with 0700 where it is missing; keys are 0600.
        hosts: DNS names and IP addresses of the server, at least one; `localhost`, 127.0.0.1 and ::1 are added.
        client: The id of the principal that the client certificate authenticates.
        renew: True keeps the authority and replaces the other two; clients that trust it go on trusting.

    Raises:
        SetupError: A host is neither name nor address, `client` is no id, or files are there and `renew` is false.
    """
    files = TlsFiles(
        *(folder / name for name in ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key"))
    )
    _check_client(client)
    alternatives = _alternative_names(hosts)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    present = [path.name for path in files if path.exists()]
    if present and not renew:
        raise SetupError(
            f"{folder} holds {', '.join(present)} already.",
            "Pass --renew to keep the authority and replace the certificates, or name another folder.",
        )
    authority = _load_authority(files) if renew else _make_authority(files)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    _make_leaf(authority, hosts[0], alternatives, usage, files.server_cert, files.server_key)
    _make_client(authority, client, ClientFiles(files.client_cert, files.client_key))
    return files


def client(folder: Path, principal: str, renew: bool = False) -> ClientFiles:
    """Writes a certificate for one more client, `{principal}.pem` and `{principal}.key`, of the authority in a folder.

    Args:
        folder: Where `init` wrote the authority.
        principal: The id of the principal that it authenticates.
        renew: True replaces the files; the earlier certificate holds on until it expires or is revoked.

    Raises:
        SetupError: The id is none, the authority is missing, or files are there already and `renew` is false.
    """
    _check_client(principal)
    files = ClientFiles(folder / f"{principal}.pem", folder / f"{principal}.key")
    authority_files = TlsFiles(folder / "ca.pem", folder / "ca.key", *files, *files)
    if not authority_files.ca_key.exists():
        raise SetupError(f"{folder} holds no ca.key.", "Make an authority with `memos tls init`, or name its folder.")
    authority = _load_authority(authority_files)
    present = [path.name for path in files if path.exists()]
    if present and not renew:
        raise SetupError(
            f"{folder} holds {', '.join(present)} already.", "Pass --renew to replace them, or name another principal."
        )
    _make_client(authority, principal, files)
    return files


def _check_client(principal: str) -> None:
    if not names.matches(FORMAT_ID, principal) or principal.lower() in _RESERVED:
        raise SetupError(
            f"{principal!r} is no id of a principal with a certificate.",
            "Ids are 1 to 128 of a-z A-Z 0-9 . _ -, the first of them a letter or digit, and not `ca` or `server`.",
        )


def _make_client(authority: _Authority, principal: str, files: ClientFiles) -> None:
    uri = x509.UniformResourceIdentifier(URI_SCHEME + names.principal_name(principal))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    alternatives = x509.SubjectAlternativeName([uri])
    _make_leaf(authority, principal, alternatives, usage, files.client_cert, files.client_key)


class _Authority(NamedTuple):
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    if not hosts:
        raise SetupError("No host is named.", "Name the server's DNS name or address with --name.")
    found: list[x509.GeneralName] = []
    for host in dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"]):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
            continue
        except ValueError:
            labels = host.removeprefix("*.").split(".")
        if len(host) > 253 or not all(_is_label(label) for label in labels):
            raise SetupError(f"{host!r} is neither a DNS name nor an IP address.", "Correct --name.")
        found.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(found)


def _is_label(label: str) -> bool:
    return (
        0 < len(label) < 64
        and label.isascii()
        and label.replace("-", "a").isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _make_authority(files: TlsFiles) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("MemOS local authority")
    cert = (
        _builder(name, name, key.public_key(), CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_file(files.ca_key, _private_pem(key), 0o600)
    write_file(files.ca_cert, cert.public_bytes(serialization.Encoding.PEM), 0o644)
    return _Authority(cert, key)


def _load_authority(files: TlsFiles) -> _Authority:
    try:
        key = serialization.load_pem_private_key(read_secret(files.ca_key), password=None)
    except (ValueError, TypeError) as error:
        raise SetupError(f"{files.ca_key} holds no readable private key.", "Restore it, or start anew.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SetupError(f"{files.ca_key} holds no elliptic curve key.", "Restore it, or start anew.")
    return _Authority(_certificates(files.ca_cert, _read_public(files.ca_cert))[0], key)


def _make_leaf(
    authority: _Authority,
    common_name: str,
    alternatives: x509.SubjectAlternativeName,
    purpose: x509.ExtendedKeyUsage,
    cert_path: Path,
    key_path: Path,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    cert = (
        _builder(_name(common_name), authority.cert.subject, key.public_key(), LEAF_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(purpose, critical=False)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    write_file(key_path, _private_pem(key), 0o600)
    write_file(cert_path, cert.public_bytes(serialization.Encoding.PEM), 0o644)
