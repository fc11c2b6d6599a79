"""TLS from the client's side: an authority of one's own, mutual TLS, and what is said when it does not fit."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from memos_sdk import TLS, AsyncClient, Client, ConnectError, RetryPolicy
from memos_server._pb.mip.v1 import server_service_pb2
from tests.unit.fake_mip import FakeMip

ONCE = RetryPolicy(max_attempts=1)


class Pair(NamedTuple):
    """A certificate that is its own authority, and its key, PEM."""

    cert: bytes
    key: bytes


@pytest.fixture(scope="module")
def pair() -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(cert.public_bytes(serialization.Encoding.PEM), encoded)


@pytest.fixture
def fake(pair: Pair) -> Iterator[FakeMip]:
    credentials = grpc.ssl_server_credentials([(pair.key, pair.cert)], pair.cert, require_client_auth=True)
    server = FakeMip(credentials)
    server.on("GetCapabilities", lambda request: server_service_pb2.GetCapabilitiesResponse(server_name="safe"))
    yield server
    server.stop()


def test_a_client_with_a_certificate_of_its_own_is_let_in(fake: FakeMip, pair: Pair) -> None:
    tls = TLS(ca=pair.cert, cert=pair.cert, key=pair.key)
    with Client(fake.address, token="t", tls=tls) as client:
        assert client.capabilities().server_name == "safe"


async def test_the_asynchronous_client_is_let_in_too(fake: FakeMip, pair: Pair) -> None:
    tls = TLS(ca=pair.cert, cert=pair.cert, key=pair.key)
    async with AsyncClient(fake.address, token="t", tls=tls) as client:
        assert (await client.capabilities()).server_name == "safe"


def test_an_unknown_authority_is_a_connection_error_that_speaks_of_tls(fake: FakeMip) -> None:
    with Client(fake.address, token="t", tls=True, retry=ONCE) as client, pytest.raises(ConnectError) as caught:
        client.capabilities()
    assert "TLS" in caught.value.remedy
