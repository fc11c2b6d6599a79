"""What a server declares, and the tokens that it issues."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from memos_sdk._core.convert import generated, time_of
from memos_sdk._gen import wire
from memos_sdk.models.view import View

if TYPE_CHECKING:
    from memos_sdk._gen.mip import v1 as mip


class Capabilities(View[wire.GetCapabilitiesResponse, "mip.GetCapabilitiesResponse"]):
    """What a server declares."""

    __slots__ = ()
    _type = wire.GetCapabilitiesResponse
    _shown = ("server_name", "server_version", "protocol_version")

    @property
    def protocol_version(self) -> str:
        """The version of the protocol."""
        return self._wire.protocol_version

    @property
    def server_name(self) -> str:
        """The software."""
        return self._wire.server_name

    @property
    def server_version(self) -> str:
        """The software's version."""
        return self._wire.server_version

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of the contract that the server implements: `core`, `history`, `access`, `graph`."""
        return tuple(self._wire.levels)

    @property
    def features(self) -> tuple[str, ...]:
        """Optional abilities, such as `search.vector`."""
        return tuple(self._wire.features)

    @property
    def embedding_models(self) -> tuple[mip.EmbeddingModel, ...]:
        """The embedding models."""
        return tuple(generated(model) for model in self._wire.embedding_models)

    @property
    def limits(self) -> mip.Limits:
        """The largest requests that the server accepts."""
        return generated(self._wire.limits)

    @property
    def notices(self) -> tuple[str, ...]:
        """What is missing or degraded, for people."""
        return tuple(self._wire.notices)


class Token(View[wire.IssueTokenResponse, "mip.IssueTokenResponse"]):
    """A token, shown once."""

    __slots__ = ()
    _type = wire.IssueTokenResponse
    _shown = ("token_id", "expire_time")

    def __str__(self) -> str:
        """Returns the token itself."""
        return self._wire.token

    @property
    def token(self) -> str:
        """The token, for `authorization: Bearer`."""
        return self._wire.token

    @property
    def token_id(self) -> str:
        """The token's id, for revoking it."""
        return self._wire.token_id

    @property
    def expire_time(self) -> datetime.datetime | None:
        """When it expires, in UTC."""
        return time_of(self._wire, "expire_time")
