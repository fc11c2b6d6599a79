"""The backend's settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from memos_server.configs.secret_files import read_secret


@dataclass(frozen=True, slots=True)
class WeaviateConfig:
    """The backend's settings.

    Attributes:
        host: Where Weaviate listens, a name or an address.
        http_port: Its REST port.
        grpc_port: Its gRPC port, on the same host.
        tls: Whether both speak TLS.
        ca_file: PEM file of the authority that signed Weaviate's certificate; "" for those that the system trusts.
        api_key: The key that Weaviate asks for; "" for none.
        api_key_file: A file that holds the key, readable by its owner alone; instead of `api_key`.
        prefix: What the names of collections begin with; two deployments that share a Weaviate have two prefixes.
        active_tenants: How many cubes this server keeps loaded in Weaviate. Each takes about 2.5 MB of memory and 12
            open files there while it is used, so this, times the number of servers, stays below 400 for each GiB of
            Weaviate's memory limit, and well below a twelfth of its file limit.
        timeout_s: How long Weaviate may take to answer a query, seconds.
        write_timeout_s: How long it may take to write a few hundred objects, seconds.
        k1: How slowly a term's weight saturates with its frequency (BM25).
        b: How much the length of a text counts against it, 0 to 1 (BM25).
    """

    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int = 50051
    tls: bool = False
    ca_file: str = ""
    api_key: str = field(default="", repr=False)
    api_key_file: str = ""
    prefix: str = "Memos"
    active_tenants: int = 250
    timeout_s: float = 10.0
    write_timeout_s: float = 60.0
    k1: float = 0.9
    b: float = 0.4

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not self.host or "/" in self.host or "@" in self.host:
            raise ValueError("host must be the name or address of a host, without a scheme")
        if not all(0 < port < 65536 for port in (self.http_port, self.grpc_port)):
            raise ValueError("http_port and grpc_port must lie between 1 and 65535")
        if self.http_port == self.grpc_port:
            raise ValueError("http_port and grpc_port must differ")
        if not re.fullmatch(r"[A-Z][A-Za-z0-9]{0,31}", self.prefix):
            raise ValueError("prefix must be 1 to 32 letters and digits and begin with a capital letter")
        if self.api_key and self.api_key_file:
            raise ValueError("api_key and api_key_file exclude one another")
        if self.ca_file and not self.tls:
            raise ValueError("ca_file goes with tls = true")
        if self.active_tenants < 1:
            raise ValueError("active_tenants must be at least 1")
        if not (0 < self.timeout_s <= 600 and 0 < self.write_timeout_s <= 3600):
            raise ValueError("timeout_s and write_timeout_s must be positive, at most 600 and 3600")
        if not (self.k1 >= 0.0 and 0.0 <= self.b <= 1.0):
            raise ValueError("k1 must not be negative and b must lie between 0 and 1")

    def secret(self) -> str:
        """Returns the API key, "" for none.

        Raises:
            SetupError: The file cannot be read, or others may read it.
        """
        if not self.api_key_file:
            return self.api_key
        return read_secret(Path(self.api_key_file)).decode().strip()
