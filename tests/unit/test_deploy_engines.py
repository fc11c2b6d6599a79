"""deploy/: the samples name the versions that tests run, no secret of their own, and settings that a server takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from memos_server.configs.backends import load_backend
from memos_server.configs.settings import Settings, load
from tools.engines.build import GO_TOOLS, NEO4J_VERSION

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PORTS = {"record": "memos.graph_dbs", "index": "memos.vec_dbs", "blobs": "memos.blob_stores"}


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def with_secrets(text: str) -> str:
    """Does what Docker does with `${NAME:?why}`."""
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: found[1].lower().replace("_", "") * 2, text)


def test_the_images_are_of_the_versions_that_the_tests_run() -> None:
    images = {name: service["image"] for name, service in compose()["services"].items()}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert images == {
        "memos-1": f"memos-mip:{version}",
        "memos-2": f"memos-mip:{version}",
        "neo4j": f"neo4j:{NEO4J_VERSION}-community",
        "weaviate": f"cr.weaviate.io/semitechnologies/weaviate:{GO_TOOLS['weaviate'].version.removeprefix('v')}",
        "s3": f"ghcr.io/versity/versitygw:{GO_TOOLS['s3'].version}",
    }


def test_only_the_loopback_interface_is_published() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:7600:7600", "127.0.0.1:7601:7600"]


def test_every_secret_comes_from_outside_and_stands_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    wanted = set(re.findall(r"\$\{(\w+):\?", text))
    example = (DEPLOY / "engines" / "example.env").read_text(encoding="utf-8")
    assert wanted == {"NEO4J_PASSWORD", "WEAVIATE_API_KEY", "S3_SECRET_KEY"}
    assert set(re.findall(r"^(\w+)=$", example, flags=re.MULTILINE)) == wanted


def test_every_volume_and_dependency_is_declared() -> None:
    file = compose()
    used = {volume.split(":")[0] for service in file["services"].values() for volume in service.get("volumes", [])}
    assert used == set(file["volumes"])
    depended = {name for service in file["services"].values() for name in service.get("depends_on", {})}
    assert depended <= set(file["services"])
    # What is waited for tells its health; the servers' own check stands in the Dockerfile.
    assert all("healthcheck" in file["services"][name] for name in depended - {"memos-1"})
    assert "HEALTHCHECK" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def test_the_servers_take_the_settings_of_compose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in compose()["services"]["memos-1"]["environment"].items():
        monkeypatch.setenv(name, with_secrets(value))
    settings = load({"data": tmp_path})
    assert (settings.listen, settings.insecure, str(settings.keys.folder)) == ("0.0.0.0:7600", True, "/keys")
    made(settings, tmp_path)


def test_a_server_takes_the_example_settings(tmp_path: Path) -> None:
    text = (DEPLOY / "engines" / "memos.toml").read_text(encoding="utf-8")
    # The files that it names are an operator's; here are some in their place.
    for path in re.findall(r'"(/etc/memos/[\w.-]+)"', text):
        secret = tmp_path / Path(path).name
        secret.touch(mode=0o600)
        secret.write_text("a-secret-of-this-test\n", encoding="utf-8")
    settings = Settings(**tomllib.loads(text.replace("/etc/memos", str(tmp_path))))
    assert settings.health.drain_s == 15
    made(settings, tmp_path)


def made(settings: Settings, folder: Path) -> None:
    """Makes the backends, which connect only when they are opened."""
    for section, group in PORTS.items():
        chosen = getattr(settings, section)
        load_backend(group, chosen.backend, str(folder), **chosen.config)
