"""The doctor tells in time that a certificate ends, and examines the folder all the same; also through a server."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from memos_server.configs import tls
from memos_server.configs.settings import Settings
from memos_server.doctor import Check, examine
from tests.conftest import MakeWorld, World
from tests.support.tls import Authority

DAY_S = 86_400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An authority, and a server's certificate."""
    tls.init(tmp_path / "tls", ["localhost"])
    return tmp_path / "tls"


async def certificate(tmp_path: Path, folder: Path) -> list[Check]:
    """Returns what the doctor says of certificates, after it examined a folder."""
    files = {"cert": folder / "server.pem", "key": folder / "server.key", "client_ca": folder / "ca.pem"}
    (tmp_path / "data").mkdir(exist_ok=True)
    settings = Settings(data=tmp_path / "data", tls=files, embedder={"backend": "none"})  # type: ignore[arg-type]
    checks = await examine(settings)
    assert [check.status for check in checks if check.name == "record"] == ["ok"]
    return [check for check in checks if check.name == "certificate"]


async def test_fresh_certificates_are_ok(tmp_path: Path, folder: Path) -> None:
    found = await certificate(tmp_path, folder)
    assert [check.status for check in found] == ["ok", "ok"]
    assert "server.pem expires on 20" in found[0].message


@pytest.mark.parametrize(
    ("until_s", "status", "word"),
    [(31 * DAY_S, "ok", "expires"), (29 * DAY_S, "warn", "expires"), (-1, "fail", "expired")],
)
async def test_a_certificate_near_its_end_is_told(
    tmp_path: Path, folder: Path, until_s: float, status: str, word: str
) -> None:
    shown = Authority(folder).issue(None, after_s=-60, until_s=until_s, server=True)
    (folder / "server.pem").write_bytes(shown.cert)
    (folder / "server.key").write_bytes(shown.key)
    (check, _) = await certificate(tmp_path, folder)
    assert check.status == status
    assert f" {word} on " in check.message
    assert check.remedy == ("" if status == "ok" else "Renew it, for instance with `memos tls init --renew`.")


async def beside_a_server(make_world: MakeWorld, files: dict[str, Path]) -> list[tuple[str, str, str]]:
    """Returns name, status and message of what the doctor says of a running server with certificates, the data folder's
    own checks left out."""
    world: World = await make_world(health={"interval_s": 0.05})
    await world.admin.CreateCube(cube_id="c")
    await world.stop()
    world.settings["tls"] = files
    await world.start()
    (world.data / "blobs").rename(world.data / "away")
    for _ in range(100):
        if not all(part.serving for part in world.server.mos.vitals.dependencies()):
            break
        await asyncio.sleep(0.05)
    checks = await examine(Settings(data=world.data, **world.settings))
    (world.data / "away").rename(world.data / "blobs")
    assert not [check for check in checks if check.remedy.startswith("Look into")]
    shown = [check for check in checks if check.name not in ("model", "certificate", "folder")]
    return [(check.name, check.status, check.message) for check in shown]


HEALTHY = [
    ("blobs", "fail", "the running server says that it does not work"),
    (
        "record",
        "ok",
        "in use; the server verified its cubes. Its file is examined page by page when the server is stopped",
    ),
    ("cubes/c", "ok", "revision 1, chain, content, blobs and index agree"),
    ("cubes", "ok", "1 cubes examined"),
]


async def test_a_server_that_speaks_tls_is_asked_all_the_same(make_world: MakeWorld, folder: Path) -> None:
    assert await beside_a_server(make_world, {"cert": folder / "server.pem", "key": folder / "server.key"}) == HEALTHY


async def test_a_certificate_that_signed_itself_is_trusted_by_the_doctor(make_world: MakeWorld, folder: Path) -> None:
    (folder / "own").mkdir()
    key, cert = folder / "own" / "server.key", folder / "own" / "server.pem"
    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "memory.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(made.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.example.com")]), critical=False)
        .sign(made, hashes.SHA256())
    )
    cert.write_bytes(signed.public_bytes(Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert await beside_a_server(make_world, {"cert": cert, "key": key}) == HEALTHY


async def test_a_server_with_other_certificates_than_the_settings_name_is_not_checked_and_said_so(
    make_world: MakeWorld, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memos_server.doctor._ANSWER_S", 1.0)
    world = await make_world(tls={"cert": folder / "server.pem", "key": folder / "server.key"})
    tls.init(tmp_path / "other", ["localhost"])
    for files, message in (
        ({}, "server.pem cannot be read (No such file or directory)."),
        (
            {"cert": tmp_path / "other" / "server.pem", "key": tmp_path / "other" / "server.key"},
            "no connection comes about with the certificates that the settings name",
        ),
    ):
        checks = await examine(Settings(data=world.data, tls=files, embedder={"backend": "none"}))  # type: ignore[arg-type]
        assert [check.status for check in checks if check.status == "fail"] == []
        record = next(check for check in checks if check.name == "record")
        assert record.status == "warn"
        assert record.message.startswith("not checked, nor what the server depends on: ")
        assert record.message.endswith(message)
        assert "stop the server first" in record.remedy


async def test_a_server_that_asks_for_certificates_is_asked_with_the_administrators(
    make_world: MakeWorld, folder: Path
) -> None:
    files = {"cert": folder / "server.pem", "key": folder / "server.key", "client_ca": folder / "ca.pem"}
    ((name, status, message),) = await beside_a_server(make_world, files)
    assert (name, status) == ("record", "warn")
    assert message == (
        "not checked, nor what the server depends on: the server asks for a client's certificate,"
        " and the administrator of this machine has none."
    )
    tls.client(folder, "local-admin")
    assert await beside_a_server(make_world, files) == HEALTHY


async def test_a_file_that_is_no_certificate_is_told(tmp_path: Path, folder: Path) -> None:
    (folder / "server.pem").write_text("not a certificate")
    (check,) = await certificate(tmp_path, folder)
    assert (check.status, check.remedy) == ("fail", "Correct the path in the tls settings.")


def test_the_id_of_a_certificate_is_that_of_the_specification(folder: Path) -> None:
    made = tls.client(folder, "phone")
    der = x509.load_pem_x509_certificate(made.client_cert.read_bytes()).public_bytes(Encoding.DER)
    digest = int.from_bytes(hashlib.sha256(der).digest()[:16])
    expected = digest & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    shown = tls.show(made.client_cert)
    assert shown.certificate_id == str(uuid.UUID(int=expected))
    assert (uuid.UUID(shown.certificate_id).version, shown.principals) == (8, ["principals/phone"])
