"""TLS: certificates for a first set-up (`memos tls init`), and the rule that no token crosses a network in clear."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import read_secret, write_file
from memos_server.configs.settings import Settings

CA_LIFETIME: Final = datetime.timedelta(days=3650)
LEAF_LIFETIME: Final = datetime.timedelta(days=397)
"""How long certificates hold: the authority ten years, the others the 397 days that TLS clients widely accept."""

_BACKDATE: Final = datetime.timedelta(minutes=5)


class TlsFiles(NamedTuple):
    """What `init` writes."""

    ca_cert: Path
    ca_key: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


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
        client: The principal id in the client certificate's subject.
        renew: True keeps the authority and replaces the other two; clients that trust it go on trusting.

    Raises:
        SetupError: A host is neither name nor address, or files are there already and `renew` is false.
    """
    files = TlsFiles(
        *(folder / name for name in ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key"))
    )
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
    subject = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"mip:principals/{client}")])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    _make_leaf(authority, client, subject, usage, files.client_cert, files.client_key)
    return files


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
