"""TLS: the rule about loopback, and certificates that a gRPC client accepts, or not."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from memos_server.configs import tls
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import Settings, load


def settings(tmp_path: Path, **flags: object) -> Settings:
    return load({"data": tmp_path / "data", **flags})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST.", "::ffff:127.0.0.1"])
def test_loopback_is_recognised(host: str) -> None:
    assert tls.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org", "", "127.1"])
def test_everything_else_is_not_loopback(host: str) -> None:
    assert not tls.is_loopback(host)


def test_loopback_needs_no_certificate(tmp_path: Path) -> None:
    assert tls.server_credentials(settings(tmp_path)) is None
    assert tls.server_credentials(settings(tmp_path, listen="[::1]:0")) is None


def test_off_loopback_plain_text_must_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        tls.server_credentials(settings(tmp_path, listen="0.0.0.0:7600"))
    assert "0.0.0.0:7600 can be reached from other machines" in caught.value.message
    assert "memos tls init" in caught.value.remedy
    assert "--insecure" in caught.value.remedy
    assert tls.server_credentials(settings(tmp_path, listen="0.0.0.0:7600", insecure=True)) is None


def test_init_writes_certificates_with_their_names_and_keys_for_the_owner_only(tmp_path: Path) -> None:
    files = tls.init(tmp_path / "tls", ["memory.example.org", "10.0.0.7"])
    for key in (files.ca_key, files.server_key, files.client_key):
        assert key.stat().st_mode & 0o777 == 0o600
    server = x509.load_pem_x509_certificate(files.server_cert.read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["memory.example.org", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "127.0.0.1", "::1"]
    assert isinstance(server.public_key(), ec.EllipticCurvePublicKey)
    assert server.not_valid_after_utc - server.not_valid_before_utc < datetime.timedelta(days=398)
    authority = x509.load_pem_x509_certificate(files.ca_cert.read_bytes())
    server.verify_directly_issued_by(authority)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    client = x509.load_pem_x509_certificate(files.client_cert.read_bytes())
    names = client.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["mip:principals/client"]


def test_nothing_is_overwritten_unless_asked_and_renewing_keeps_the_authority(tmp_path: Path) -> None:
    files = tls.init(tmp_path, ["localhost"])
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(SetupError, match=r"holds ca\.pem, ca\.key"):
        tls.init(tmp_path, ["localhost"])
    assert {path: path.read_bytes() for path in files} == before
    tls.init(tmp_path, ["localhost"], renew=True)
    assert files.ca_cert.read_bytes() == before[files.ca_cert]
    assert files.server_cert.read_bytes() != before[files.server_cert]


@pytest.mark.parametrize("host", ["", "a b", "-x", "é.org", "a..b", "x" * 64 + ".org", "http://x"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(SetupError, match="neither a DNS name nor an IP address"):
        tls.init(tmp_path / "tls", [host])
    assert not (tmp_path / "tls").exists()


def test_no_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No host"):
        tls.init(tmp_path, [])


def test_files_that_do_not_fit_are_refused_before_the_server_starts(tmp_path: Path) -> None:
    files = tls.init(tmp_path / "a", ["localhost"])
    other = tls.init(tmp_path / "b", ["localhost"])

    def refused(words: str, **section: Path) -> None:
        with pytest.raises(SetupError, match=words):
            tls.server_credentials(settings(tmp_path, tls=section))

    refused("is not the key of", cert=files.server_cert, key=other.server_key)
    refused("holds no PEM certificate", cert=files.server_key, key=files.server_key)
    refused("cannot be read", cert=tmp_path / "absent", key=files.server_key)
    refused("cannot be read", cert=files.server_cert, key=tmp_path / "absent")
    refused("holds no PEM certificate", cert=files.server_cert, key=files.server_key, client_ca=files.ca_key)
    files.server_key.chmod(0o644)
    refused("chmod 600", cert=files.server_cert, key=files.server_key)


@contextmanager
def serving(configured: Settings) -> Iterator[int]:
    credentials = tls.server_credentials(configured)
    assert credentials is not None
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def connects(port: int, credentials: grpc.ChannelCredentials) -> bool:
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        try:
            channel.unary_unary("/mip.v1.ServerService/GetCapabilities")(b"", timeout=5, wait_for_ready=False)
        except grpc.RpcError as error:
            # An empty server answers UNIMPLEMENTED: the connection stands.
            return bool(error.code() is grpc.StatusCode.UNIMPLEMENTED)  # type: ignore[attr-defined]
    return True


def test_a_client_that_trusts_the_authority_connects_and_another_does_not(tmp_path: Path) -> None:
    files = tls.init(tmp_path / "a", ["localhost"])
    other = tls.init(tmp_path / "b", ["localhost"])
    section = {"cert": files.server_cert, "key": files.server_key}
    with serving(settings(tmp_path, listen="0.0.0.0:0", tls=section)) as port:
        assert connects(port, grpc.ssl_channel_credentials(files.ca_cert.read_bytes()))
        assert not connects(port, grpc.ssl_channel_credentials(other.ca_cert.read_bytes()))


def test_with_a_client_authority_only_its_clients_connect(tmp_path: Path) -> None:
    files = tls.init(tmp_path / "a", ["localhost"])
    other = tls.init(tmp_path / "b", ["localhost"])
    section = {"cert": files.server_cert, "key": files.server_key, "client_ca": files.ca_cert}
    trusted = files.ca_cert.read_bytes()
    with serving(settings(tmp_path, tls=section)) as port:
        own = (files.client_key.read_bytes(), files.client_cert.read_bytes())
        foreign = (other.client_key.read_bytes(), other.client_cert.read_bytes())
        assert connects(port, grpc.ssl_channel_credentials(trusted, *own))
        assert not connects(port, grpc.ssl_channel_credentials(trusted, *foreign))
        assert not connects(port, grpc.ssl_channel_credentials(trusted))
