"""Neo4j Community: Bolt alone, with a password, its memory modest."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tools.engines.build import java, neo4j_home
from tools.engines.process import LOOPBACK, Engine

USER: Final = "neo4j"
_OPENED: Final = ("java.nio", "java.io", "sun.nio.ch", "java.lang")
_HELLO: Final = bytes.fromhex("6060b017 00000005 00000004 00000000 00000000")
"""Bolt's handshake: its magic number, and the versions that the caller speaks."""


class Neo4jEngine(Engine):
    """Neo4j in a folder."""

    name = "neo4j"
    port_names = ("bolt",)

    def __init__(
        self,
        folder: Path | str,
        *,
        password: str | None = None,
        tls: bool = False,
        tied: bool = True,
        environment: Mapping[str, str] | None = None,
        heap: str = "512m",
        page_cache: str = "256m",
        settings: Mapping[str, str] | None = None,
        quick: bool = False,
    ) -> None:
        """Describes it.

        Args:
            folder: Its home; data stays in it.
            password: Of the user `neo4j`, eight characters at least, set by the first start in the folder; by default
                one by chance, kept in the folder.
            tls: Whether Bolt demands TLS.
            tied: Whether it ends with this process.
            environment: Further environment variables.
            heap: The largest heap of the Java process.
            page_cache: Neo4j's own cache of the store's pages, beside the heap.
            settings: Further lines of neo4j.conf.
            quick: Whether it starts with 6.8 s of CPU time instead of 10.7 s, and works more slowly from then on: Java
                compiles less. For tests, not for measurements.
        """
        super().__init__(folder, tls=tls, tied=tied, environment=environment)
        self._given, self._heap, self._page_cache, self._quick = password, heap, page_cache, quick
        self._settings = dict(settings or {})

    @property
    def password(self) -> str:
        """The password of the user `neo4j`."""
        return self._secret(self._given, "password")

    @property
    def uri(self) -> str:
        """Where drivers connect to."""
        return f"{'bolt+s' if self.tls else 'bolt'}://{LOOPBACK}:{self.ports['bolt']}"

    def config(self, *, files: bool = False) -> dict[str, Any]:
        """Returns the settings of the record's backend `neo4j`."""
        config: dict[str, Any] = {"uri": self.uri, "user": USER}
        config |= {"password_file": str(self.folder / "password")} if files else {"password": self.password}
        return config | ({"ca_file": str(self.ca_file)} if self.tls else {})

    def _command(self) -> tuple[list[str], dict[str, str]]:
        conf = self.folder / "conf"
        conf.mkdir(exist_ok=True)
        address = f"{LOOPBACK}:{self.ports['bolt']}"
        lines = {
            "server.bolt.enabled": "true",
            "server.bolt.listen_address": address,
            "server.bolt.advertised_address": address,
            # Words that the connection lives make the driver bound every read of the socket, which costs it a
            # millisecond a statement; the server bounds statements itself.
            "server.bolt.connection_keep_alive_for_requests": "OFF",
            "server.http.enabled": "false",
            "server.https.enabled": "false",
            "dbms.security.auth_enabled": "true",
            "dbms.usage_report.enabled": "false",
            "server.memory.pagecache.size": self._page_cache,
            # Logs that grow as they are written: a database of a few memories does not take half a gigabyte.
            "db.tx_log.preallocate": "false",
            # By default a stop waits twice five seconds for threads of Bolt after the databases are closed.
            "internal.server.bolt.thread_pool_shutdown_wait_time": "200ms",
        }
        if self.tls:
            self._lay_out_certificate()
            lines |= {
                "server.bolt.tls_level": "REQUIRED",
                "dbms.ssl.policy.bolt.enabled": "true",
                "dbms.ssl.policy.bolt.base_directory": "certificates/bolt",
                "dbms.ssl.policy.bolt.private_key": "private.key",
                "dbms.ssl.policy.bolt.public_certificate": "public.crt",
                "dbms.ssl.policy.bolt.client_auth": "NONE",
            }
        lines |= self._settings
        (conf / "neo4j.conf").write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
        self._ready.unlink(missing_ok=True)
        home = neo4j_home()
        arguments = [
            java(),
            f"-Xms{self._heap}",
            f"-Xmx{self._heap}",
            *(("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC") if self._quick else ("-XX:+UseG1GC",)),
            "-XX:+ExitOnOutOfMemoryError",
            *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
            "-Dfile.encoding=UTF-8",
            "-cp",
            f"{home / 'classes'}:{home / 'lib' / '*'}",
            "Engine",
            str(self.folder),
            str(self._ready),
        ]
        first = not (self.folder / "data" / "databases" / "system").exists()
        return arguments, ({"INITIAL_PASSWORD": self.password} if first else {})

    def _answers(self) -> bool:
        if not self._ready.exists():
            return False
        with socket.create_connection((LOOPBACK, self.ports["bolt"]), timeout=5) as plain:
            context = self._context()
            stream = context.wrap_socket(plain, server_hostname=LOOPBACK) if context else plain
            stream.sendall(_HELLO)
            chosen = stream.recv(4)
            stream.close()
        return len(chosen) == 4 and any(chosen)

    @property
    def _ready(self) -> Path:
        return self.folder / "ready"

    def _lay_out_certificate(self) -> None:
        certificate, key = self._certificate()
        folder = self.folder / "certificates" / "bolt"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "public.crt").write_bytes(certificate.read_bytes())
        (folder / "private.key").touch(mode=0o600)
        (folder / "private.key").write_bytes(key.read_bytes())
