"""Settings of gRPC channels that both clients use."""

from __future__ import annotations

import json
from typing import Any

from memos_sdk._core.discovery import TLS, Endpoint, channel_address, read_material
from memos_sdk._core.quiet_grpc import grpc
from memos_sdk._core.status import DETAILS_TRAILER
from memos_sdk.errors import MipError, error_from_status

# Pages and batches of the protocol stay far below; the bound keeps a broken server from filling the memory.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024


_SEVERAL = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})


def channel_options(endpoint: Endpoint, version: str) -> list[tuple[str, Any]]:
    """Returns the options of a channel to the endpoint."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.primary_user_agent", f"memos-sdk/{version}"),
        # A server that starts a moment later is found within the first retries.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 5000),
    ]
    if channel_address(endpoint.target)[1]:
        # Calls are spread, and a server that says NOT_SERVING before it ends gets no more of them.
        options.append(("grpc.service_config", _SEVERAL))
    if endpoint.loopback:
        options.append(("grpc.enable_http_proxy", 0))
    if endpoint.tls is not None and endpoint.tls.server_name:
        options.append(("grpc.ssl_target_name_override", endpoint.tls.server_name))
    return options


def channel_credentials(tls: TLS) -> grpc.ChannelCredentials:
    """Returns the TLS credentials of a channel."""
    return grpc.ssl_channel_credentials(
        root_certificates=read_material(tls.ca),
        private_key=read_material(tls.key),
        certificate_chain=read_material(tls.cert),
    )


def open_channel(endpoint: Endpoint, version: str, module: Any = grpc) -> Any:
    """Returns a channel to the endpoint: a blocking one, or with `grpc.aio` one of the running event loop."""
    options = channel_options(endpoint, version)
    address, _ = channel_address(endpoint.target)
    if endpoint.tls is None:
        return module.insecure_channel(address, options=options)
    return module.secure_channel(address, channel_credentials(endpoint.tls), options=options)


def call_metadata(endpoint: Endpoint) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of every call."""
    return (("authorization", f"Bearer {endpoint.token}"),) if endpoint.token else ()


def to_error(error: Any, path: str, endpoint: Endpoint) -> MipError:
    """Makes the SDK's error of a grpc.RpcError of either kind of channel."""
    code: grpc.StatusCode = error.code()
    trailer = None
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_TRAILER and isinstance(value, bytes):
            trailer = value
    tls = endpoint.tls is not None
    return error_from_status(code.name, error.details() or "", trailer, method=path, target=endpoint.target, tls=tls)
