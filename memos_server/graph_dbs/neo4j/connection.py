"""The driver, made from the settings: address, credentials, TLS, and how many connections."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from neo4j import AsyncDriver, AsyncGraphDatabase, TrustCustomCAs

from memos_server.configs.secret_files import read_secret

_SCHEMES: Final = ("bolt", "neo4j")
_RESERVE: Final = 8
"""Connections beside those of the units of work: for numbers, for what became of a commit, for probes."""


class Endpoint:
    """Where the database is and how it is spoken to.

    Attributes:
        shown: The address for messages and logs: scheme, host and port.
        database: The database's name.
    """

    def __init__(
        self,
        uri: str,
        *,
        user: str,
        password: str | None,
        password_file: str | None,
        database: str,
        ca_file: str | None,
        connections: int,
    ) -> None:
        """Checks the settings; connects to nothing.

        Raises:
            ValueError: A setting is wrong; the message names it.
            SetupError: `password_file` cannot be used.
        """
        parts = urlsplit(uri)
        scheme, _, security = parts.scheme.partition("+")
        if scheme not in _SCHEMES or security not in ("", "s", "ssc") or not parts.hostname:
            raise ValueError(
                "uri must be bolt://HOST:PORT or neo4j://HOST:PORT, with +s for TLS, such as bolt+s://db:7687"
            )
        if parts.username or parts.password:
            raise ValueError("uri must not hold credentials; set user and password_file")
        if (password is None) == (password_file is None):
            raise ValueError("exactly one of password and password_file must be set")
        if ca_file is not None and security != "s":
            raise ValueError("ca_file needs a uri with +s, such as bolt+s://db:7687")
        if not database:
            raise ValueError("database must not be empty")
        if connections < 2:
            raise ValueError("connections must be at least 2")
        self._plain_uri = f"{scheme}://{parts.netloc}"
        self._uri = uri
        self._user = user
        self._password = password if password is not None else _of_file(password_file or "")
        self._ca_file = ca_file
        self._connections = connections
        self.database = database
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.shown = f"{parts.scheme}://{host}:{parts.port or 7687}"

    def driver(self) -> AsyncDriver:
        """Returns a driver, which connects when it is used.

        Raises:
            ValueError: The file of certificates cannot be read.
        """
        # At debug level the driver writes every message, and with it what memories hold.
        logging.getLogger("neo4j.io").setLevel(logging.INFO)
        options: dict[str, object] = {}
        uri = self._uri
        if self._ca_file is not None:
            # The scheme's own check knows the system's authorities only; the driver takes either it or these.
            uri = self._plain_uri
            options = {"encrypted": True, "trusted_certificates": _authorities(self._ca_file)}
        return AsyncGraphDatabase.driver(
            uri,
            auth=(self._user, self._password) if self._user else None,
            max_connection_pool_size=self._connections + _RESERVE,
            connection_timeout=5.0,
            connection_acquisition_timeout=30.0,
            # Below the time after which common load balancers drop idle connections.
            max_connection_lifetime=3000.0,
            keep_alive=True,
            # Attempts are counted here, where it is known what may be done again.
            max_transaction_retry_time=-1.0,
            telemetry_disabled=True,
            notifications_min_severity="OFF",
            user_agent="memos-server",
            **options,  # type: ignore[arg-type]
        )


def _of_file(path: str) -> str:
    return read_secret(Path(path).expanduser()).decode("utf-8").strip()


def _authorities(path: str) -> TrustCustomCAs:
    file = Path(path).expanduser()
    try:
        ssl.create_default_context(cafile=str(file))
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"ca_file {file} holds no certificates in PEM that can be read") from error
    return TrustCustomCAs(str(file))
