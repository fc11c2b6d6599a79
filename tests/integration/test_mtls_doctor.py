"""The doctor tells in time that a certificate ends, and examines the folder all the same."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from memos_server.configs import tls
from memos_server.configs.settings import Settings
from memos_server.doctor import Check, examine
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
