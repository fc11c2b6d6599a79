"""Weaviate, one node: REST and gRPC, with an API key and roles, no modules.

Its gRPC port and its cluster's data port listen on all interfaces and cannot be bound to one; both ask for the key.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.engines.build import program
from tools.engines.process import LOOPBACK, Engine

_USER = "memos"


class WeaviateEngine(Engine):
    """Weaviate in a folder."""

    name = "weaviate"
    # Gossip and data follow one another: that is Weaviate's own convention.
    port_names = ("http", "grpc", "gossip", "data", "raft", "raft_rpc", "profiling")

    def __init__(
        self,
        folder: Path | str,
        *,
        api_key: str | None = None,
        tls: bool = False,
        tied: bool = True,
        environment: Mapping[str, str] | None = None,
        memory: str = "1GiB",
    ) -> None:
        """Describes it.

        Args:
            folder: Holds its data, in `data`.
            api_key: The key that is asked for; by default one by chance, kept in the folder.
            tls: Whether REST and gRPC speak TLS, and nothing else.
            tied: Whether it ends with this process.
            environment: Further environment variables, which are Weaviate's settings.
            memory: What Go's collector tries to stay below.
        """
        super().__init__(folder, tls=tls, tied=tied, environment=environment)
        self._given, self._memory = api_key, memory

    @property
    def api_key(self) -> str:
        """The key of its only user, who may do everything."""
        return self._secret(self._given, "api.key")

    def config(self, *, files: bool = False) -> dict[str, Any]:
        """Returns the settings of the index's backend `weaviate`."""
        config: dict[str, Any] = {"host": LOOPBACK, "http_port": self.ports["http"], "grpc_port": self.ports["grpc"]}
        config |= {"api_key_file": str(self.folder / "api.key")} if files else {"api_key": self.api_key}
        return config | ({"tls": True, "ca_file": str(self.ca_file)} if self.tls else {})

    def _command(self) -> tuple[list[str], dict[str, str]]:
        key, cluster = self.api_key, self._secret(None, "cluster.key")
        environment = {
            "PERSISTENCE_DATA_PATH": str(self.folder / "data"),
            "CLUSTER_HOSTNAME": "node1",
            "CLUSTER_ADVERTISE_ADDR": LOOPBACK,
            "CLUSTER_BIND_ADDR": LOOPBACK,
            "CLUSTER_GOSSIP_BIND_PORT": str(self.ports["gossip"]),
            "CLUSTER_DATA_BIND_PORT": str(self.ports["data"]),
            "CLUSTER_BASIC_AUTH_USERNAME": _USER,
            "CLUSTER_BASIC_AUTH_PASSWORD": cluster,
            "RAFT_PORT": str(self.ports["raft"]),
            "RAFT_INTERNAL_RPC_PORT": str(self.ports["raft_rpc"]),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            # A folder that is started on other ports than before stays a cluster of one.
            "RAFT_ENABLE_ONE_NODE_RECOVERY": "true",
            "GRPC_PORT": str(self.ports["grpc"]),
            "GO_PROFILING_DISABLE": "true",
            "GO_PROFILING_PORT": str(self.ports["profiling"]),
            "DISABLE_TELEMETRY": "true",
            "DEFAULT_VECTORIZER_MODULE": "none",
            "ENABLE_MODULES": "",
            "API_BASED_MODULES_DISABLED": "true",
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
            "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": key,
            "AUTHENTICATION_APIKEY_USERS": _USER,
            "AUTHORIZATION_RBAC_ENABLED": "true",
            "AUTHORIZATION_RBAC_ROOT_USERS": _USER,
            # By default Weaviate becomes read-only on a disk that is nine tenths full, which many a developer's is.
            "DISK_USE_WARNING_PERCENTAGE": "97",
            "DISK_USE_READONLY_PERCENTAGE": "99",
            "GOMEMLIMIT": self._memory,
            "LOG_LEVEL": "warning",
        }
        arguments = [str(program(self.name)), "--graceful-timeout=10s", "--cleanup-timeout=2s"]
        if self.tls:
            certificate, private = self._certificate()
            environment |= {"GRPC_CERT_FILE": str(certificate), "GRPC_KEY_FILE": str(private)}
            arguments += ["--scheme=https", f"--tls-host={LOOPBACK}", f"--tls-port={self.ports['http']}"]
            arguments += [f"--tls-certificate={certificate}", f"--tls-key={private}"]
        else:
            arguments += ["--scheme=http", f"--host={LOOPBACK}", f"--port={self.ports['http']}"]
        return arguments, environment

    def _answers(self) -> bool:
        url = f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self.ports['http']}/v1/.well-known/ready"
        try:
            with urllib.request.urlopen(url, timeout=5, context=self._context()) as response:
                ready: bool = response.status == 200
        except urllib.error.HTTPError:
            return False
        return ready and self._connects(self.ports["grpc"])
