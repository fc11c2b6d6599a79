"""The connection to Weaviate: made when it is needed and anew when it was lost, with the port's errors."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.collections.grpc.query import _QueryGRPC
from weaviate.config import GrpcConfig
from weaviate.exceptions import (
    InsufficientPermissionsError,
    UnexpectedStatusCodeError,
    WeaviateBaseError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateInvalidInputError,
    WeaviateStartUpError,
    WeaviateUnsupportedFeatureError,
)

from memos_server.configs.errors import SetupError
from memos_server.errors import MipError
from memos_server.vec_dbs.weaviate.config import WeaviateConfig

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE_S = 0.5
"""How long a call may take before it is asked whether Weaviate lives at all, seconds: the client itself would try a
dead one for a minute."""
_AGAIN_S = 0.2
"""How long a Weaviate that could not be reached is left alone, seconds."""
_GRACE_S = 2.0
"""How long a client that was replaced stays open for the calls that it carries yet, seconds."""
_NO_TENANT = "tenant not found"
_NO_COLLECTION = ("could not find class", "class not found", "has multi-tenancy disabled")
_FULL = ("read-only", "no space left", "disk usage")
_TOO_LARGE = "larger than max"
_FAULTS = (WeaviateBaseError, httpx.HTTPError, grpc.RpcError, grpc.aio.UsageError, OSError)
"""What a call that went wrong raises, of all the layers below."""


# It logs objects that could not be written with all that they say.
logging.getLogger("weaviate-client").setLevel(logging.CRITICAL)


class MissingError(LookupError):
    """The tenant is not there (any more), or the whole collection."""


class RefusedError(MipError):
    """Weaviate refuses the API key, or what its user may do is too little."""


class TooLargeError(MipError):
    """What was asked for does not fit into one message of gRPC."""


class NoCollectionError(MissingError):
    """The collection is not there (any more)."""


class Connection:
    """One client, shared by everything; safe to use from many tasks."""

    def __init__(self, config: WeaviateConfig) -> None:
        """Describes the connection; connects to nothing."""
        self._config = config
        self._key = config.secret()
        self._context: ssl.SSLContext | None = None
        self._client: weaviate.WeaviateAsyncClient | None = None
        self._lost = True
        self._tried = 0.0
        self._why = ""
        self._lock = asyncio.Lock()
        self._closed = False
        self._retired: dict[asyncio.Task[None], weaviate.WeaviateAsyncClient] = {}

    @property
    def place(self) -> str:
        """Where Weaviate is expected, for messages."""
        return f"{self._config.host}:{self._config.http_port}"

    async def open(self) -> None:
        """Tries to connect. A Weaviate that is away now is no error: it is tried again with each call.

        Raises:
            SetupError: The settings are wrong: an authority's file that is none, a key that Weaviate refuses.
        """
        self._closed = False
        if self._config.tls:
            try:
                self._context = ssl.create_default_context(cafile=self._config.ca_file or None)
            except (OSError, ssl.SSLError) as error:
                raise SetupError(
                    f"The ca_file of the index backend 'weaviate' cannot be used: {error}.",
                    "Name a PEM file with the certificate of the authority that signed Weaviate's.",
                ) from error
        try:
            await self.ask(lambda client: client.collections.exists(self._config.prefix))
        except RefusedError as error:
            raise SetupError(
                f"{error.message[:1].upper()}{error.message[1:]}.",
                "Set api_key or api_key_file to the key of a user who may create and use collections.",
            ) from error
        except MipError as error:
            _LOG.warning("the search index is not reachable; the server starts without it: %s", error.message)

    async def close(self) -> None:
        """Lets go of the connection."""
        self._closed = True
        client, self._client = self._client, None
        retired = dict(self._retired)
        for task in retired:
            task.cancel()
        await asyncio.gather(*retired, return_exceptions=True)
        self._retired.clear()
        for each in [client, *retired.values()]:
            if each is not None:
                await each.close()

    async def ask(self, call: Callable[[weaviate.WeaviateAsyncClient], Awaitable[T]], *, writes: bool = False) -> T:
        """Returns what Weaviate answers.

        Args:
            call: Makes the call of a client.
            writes: Whether it may take as long as a write.

        Raises:
            MipError: BACKEND_UNAVAILABLE when Weaviate does not answer, or answers that it cannot; STORAGE_FULL when
                its disk is full.
            MissingError: A collection or tenant is not there.
        """
        client = await self._connected()
        task = asyncio.ensure_future(call(client))
        try:
            done, _ = await asyncio.wait([task], timeout=_PATIENCE_S)
            if not done:
                limit = self._config.write_timeout_s if writes else self._config.timeout_s
                if not await self._lives():
                    raise self._away("does not answer", client)
                done, _ = await asyncio.wait([task], timeout=max(limit - _PATIENCE_S, 0.0))
                if not done:
                    raise self._away(f"did not answer within {limit:g} s", client)
            return task.result()
        except (WeaviateInvalidInputError, WeaviateUnsupportedFeatureError):
            raise
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            # gRPC cancels the calls of a channel that is closed, as if their own tasks had been cancelled.
            raise self._away("cannot be reached", client) from None
        except _FAULTS as error:
            raise self._told(error, client) from error
        finally:
            if not task.done():
                task.cancel()

    async def search(self, collection: str, tenant: str | None, build: Callable[[Any], Any]) -> Sequence[Any]:
        """Returns what a search finds, as messages.

        The client would make Python objects of them, 25 microseconds apiece, which with hundreds of candidates is
        longer than Weaviate takes to find them; and a call that found no server it would repeat for a minute.

        Args:
            collection: The collection.
            tenant: The tenant; None for a collection without.
            build: Makes the request of the client's own builder, of which it calls one method.

        Raises:
            MipError: As `ask` does.
            MissingError: As `ask` does.
        """
        client = await self._connected()
        connection: Any = client._connection
        builder = _QueryGRPC(
            connection._weaviate_version, collection, tenant, None, validate_arguments=False,
            uses_125_api=True, uses_127_api=True,
        )  # fmt: skip
        try:
            reply: Any = await connection.grpc_stub.Search(
                build(builder), metadata=connection.grpc_headers(), timeout=self._config.timeout_s
            )
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise self._away("cannot be reached", client) from None
        except _FAULTS as error:
            raise self._told(error, client) from error
        results: Sequence[Any] = reply.results
        return results

    async def _lives(self) -> bool:
        """Returns whether anything listens where Weaviate should; the client's own question prints what it meets."""
        try:
            async with asyncio.timeout(2.0):
                _, writer = await asyncio.open_connection(self._config.host, self._config.grpc_port)
        except (TimeoutError, OSError):
            return False
        writer.close()
        return True

    async def _connected(self) -> weaviate.WeaviateAsyncClient:
        """Returns the client; a new one when the old one lost its server, whose channel would wait ever longer."""
        if self._client is not None and not self._lost:
            return self._client
        async with self._lock:
            if self._client is not None and not self._lost:
                return self._client
            if self._closed:
                raise MipError("BACKEND_UNAVAILABLE", "the search index is closed, as the server ends")
            if time.monotonic() - self._tried < _AGAIN_S and self._why:
                raise MipError("BACKEND_UNAVAILABLE", self._why)
            self._tried = time.monotonic()
            old, self._client = self._client, None
            if old is not None:
                self._retire(old, _GRACE_S)
            made = self._made()
            try:
                await made.connect()
            except _FAULTS as error:
                # Those who waited for this attempt are told its end instead of making one each, one after the other.
                self._tried = time.monotonic()
                self._retire(made, 0.0)
                raise self._told(error, None) from error
            except asyncio.CancelledError:
                self._retire(made, 0.0)
                raise
            if self._closed:
                await made.close()
                raise MipError("BACKEND_UNAVAILABLE", "the search index is closed, as the server ends")
            self._client, self._lost, self._why = made, False, ""
            return made

    def _retire(self, client: weaviate.WeaviateAsyncClient, grace_s: float) -> None:
        """Closes a client beside the work of others, whose calls it may carry yet."""

        async def close() -> None:
            await asyncio.sleep(grace_s)
            try:
                await client.close()
            except _FAULTS as error:
                _LOG.debug("a lost connection to Weaviate did not close: %s", error)

        task = asyncio.create_task(close(), name="weaviate connection")
        self._retired[task] = client
        task.add_done_callback(lambda done: self._retired.pop(done, None))

    def _made(self) -> weaviate.WeaviateAsyncClient:
        config, context = self._config, self._context
        credentials = None
        if context is not None:
            roots = Path(config.ca_file).read_bytes() if config.ca_file else None
            credentials = grpc.ssl_channel_credentials(root_certificates=roots)
        # The proxies of the environment are for the world outside, not for the store beside the server.
        options = [("grpc.enable_http_proxy", 0), ("grpc.keepalive_time_ms", 30000)]
        timeout = Timeout(init=5, query=config.timeout_s, insert=config.write_timeout_s)
        made = weaviate.use_async_with_custom(
            http_host=config.host,
            http_port=config.http_port,
            http_secure=config.tls,
            grpc_host=config.host,
            grpc_port=config.grpc_port,
            grpc_secure=config.tls,
            auth_credentials=Auth.api_key(self._key) if self._key else None,
            additional_config=AdditionalConfig(
                timeout=timeout, grpc_config=GrpcConfig(channel_options=options, credentials=credentials)
            ),
            # Otherwise it asks an index of packages in the internet for its own newest version.
            skip_init_checks=True,
        )
        if config.ca_file and context is not None:
            # The client has a setting for the authority of gRPC, but none for that of REST.
            connection: Any = made._connection
            connection._make_client = lambda _: httpx.AsyncClient(
                headers=connection._headers, verify=context, trust_env=False
            )
        return made

    def _away(self, how: str, client: weaviate.WeaviateAsyncClient | None) -> MipError:
        if client is None or client is self._client:
            self._lost = True
        self._why = f"Weaviate at {self.place} {how}; check that it runs and that this server reaches it"
        return MipError("BACKEND_UNAVAILABLE", self._why, retry_after_s=1.0)

    def _told(self, error: Exception, client: weaviate.WeaviateAsyncClient | None) -> Exception:
        """Returns the port's error for one of the client's. Its text may repeat content, and is only logged."""
        code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
        text = (error.details() or "" if isinstance(error, grpc.aio.AioRpcError) else str(error)).lower()
        if _NO_TENANT in text:
            return MissingError("the tenant is not in Weaviate")
        if any(missing in text for missing in _NO_COLLECTION):
            return NoCollectionError("the collection is not in Weaviate")
        _LOG.debug("Weaviate: %s", error)
        if (
            isinstance(error, InsufficientPermissionsError)
            or (isinstance(error, UnexpectedStatusCodeError) and error.status_code in (401, 403))
            or code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        ):
            return RefusedError("BACKEND_UNAVAILABLE", f"Weaviate at {self.place} refuses the API key of the index")
        if any(full in text for full in _FULL):
            return MipError("STORAGE_FULL", f"Weaviate at {self.place} takes no more data; free some space on its disk")
        lost = isinstance(
            error,
            WeaviateConnectionError
            | WeaviateStartUpError
            | WeaviateGRPCUnavailableError
            | httpx.HTTPError
            | grpc.aio.UsageError
            | OSError,
        )
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
            return TooLargeError(
                "BACKEND_UNAVAILABLE",
                f"what Weaviate at {self.place} was asked for is too large for one message; raise its "
                "GRPC_MAX_MESSAGE_SIZE",
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._away(f"did not answer within {self._config.timeout_s:g} s", client)
        if (
            lost
            or code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            or "unavailable" in text
            or "connect" in text
            or "deadline" in text
        ):
            return self._away("cannot be reached", client if client is not None else self._client)
        kind = code.name if code is not None else type(error).__name__
        return MipError(
            "BACKEND_UNAVAILABLE", f"Weaviate at {self.place} refused a call ({kind}); see its log, and this server's"
        )


def _is_cancelled() -> bool:
    """Returns whether the task that asks was itself cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
