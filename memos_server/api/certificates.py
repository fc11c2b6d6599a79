"""Client certificates: whom the certificate that a verified peer has shown names, read once for each certificate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from cryptography import x509

from memos_server._pb.mip.v1.options_pb2 import FORMAT_PRINCIPAL_NAME
from memos_server.configs.tls import certificate_id, certificate_names
from memos_server.errors import MipError
from memos_server.names import matches

CACHE_SIZE: Final = 4096
"""The number of certificates kept as they were read: reading one takes tens of microseconds, finding it one."""

_PEM: Final = "x509_pem_cert"
"""The property of gRPC's authentication context that holds the peer's certificate."""


class Certificate(NamedTuple):
    """What a client certificate says.

    Attributes:
        principal: The name of the principal, `principals/{principal}`; empty when it names none.
        id: What RevokeToken names it by, a UUID.
        expiry: When it ends, seconds since the epoch.
        fault: Why it is refused; empty when it is not.
    """

    principal: str
    id: str
    expiry: float
    fault: str = ""


class PeerCertificates:
    """Reads the certificates of peers. gRPC has verified them against `tls.client_ca` before a call arrives."""

    def __init__(self, cache_size: int = CACHE_SIZE) -> None:
        """Starts with nothing read."""
        self._cache_size = cache_size
        self._read: OrderedDict[bytes, Certificate] = OrderedDict()

    def of_peer(self, context: Mapping[str, Iterable[bytes]], now: float) -> Certificate | None:
        """Returns the certificate of a peer; None when it showed none.

        Args:
            context: gRPC's authentication context of the call.
            now: Seconds since the epoch.

        Raises:
            MipError: TOKEN_INVALID when its names are ambiguous or malformed; TOKEN_EXPIRED.
        """
        pem = next(iter(context.get(_PEM, ())), b"")
        if not pem:
            return None
        found = self._read.get(pem)
        if found is None:
            found = self._read[pem] = _read(pem)
            if len(self._read) > self._cache_size:
                self._read.popitem(last=False)
        else:
            self._read.move_to_end(pem)
        if found.fault:
            raise MipError("TOKEN_INVALID", f"The certificate {found.fault}")
        # The handshake refused expired ones; a connection outlives it.
        if now >= found.expiry:
            raise MipError("TOKEN_EXPIRED", "The certificate has expired", metadata={"expiry": str(int(found.expiry))})
        return found


def _read(pem: bytes) -> Certificate:
    try:
        cert = x509.load_pem_x509_certificate(pem)
        named = certificate_names(cert)
    except (ValueError, x509.DuplicateExtension):
        return Certificate("", "", 0.0, "cannot be read")
    fault = ""
    if len(named) > 1:
        fault = "names several principals"
    elif named and not matches(FORMAT_PRINCIPAL_NAME, named[0]):
        fault = "names no principal in its mip: name"
    principal = named[0] if len(named) == 1 else ""
    return Certificate(principal, certificate_id(cert), cert.not_valid_after_utc.timestamp(), fault)
