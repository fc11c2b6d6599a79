"""Certificates for tests, sound ones and all others, and a caller that shows one."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.mip import Mip

_SECOND = datetime.timedelta(seconds=1)


class Certified(NamedTuple):
    """A certificate and its key, PEM."""

    cert: bytes
    key: bytes


class Authority:
    """An authority read from the files of `memos tls init`."""

    def __init__(self, folder: Path) -> None:
        """Reads ca.pem and ca.key."""
        self.pem = (folder / "ca.pem").read_bytes()
        self._cert = x509.load_pem_x509_certificate(self.pem)
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def issue(
        self, uris: Sequence[str] | None, *, after_s: float = -60, until_s: float = 3600, server: bool = False
    ) -> Certified:
        """Returns a certificate.

        Args:
            uris: Its alternative names; None leaves the extension out.
            after_s: From when on it holds, seconds from now.
            until_s: Until when.
            server: True makes it a server's, which is no client's.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")]))
            .issuer_name(self._cert.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + after_s * _SECOND)
            .not_valid_after(now + until_s * _SECOND)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if uris is not None:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        cert = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Certified(cert.public_bytes(serialization.Encoding.PEM), private)


class TlsMip(Mip):
    """Calls one server over TLS."""

    def __init__(self, address: str, authority: bytes, shown: Certified | None = None, token: str = "") -> None:
        """Connects, trusting an authority, with a certificate and a token where they are given."""
        credentials = grpc.ssl_channel_credentials(
            authority, shown.key if shown else None, shown.cert if shown else None
        )
        self.channel = grpc.aio.secure_channel(address, credentials)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
