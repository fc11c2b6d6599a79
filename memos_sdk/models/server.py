"""What a server declares, and the tokens that it issues."""

from __future__ import annotations

import datetime

from memos_sdk._gen.mip import v1 as mip
from memos_sdk.models.view import View


class Capabilities(View[mip.GetCapabilitiesResponse]):
    """What a server declares."""

    __slots__ = ()
    _shown = ("server_name", "server_version", "protocol_version")

    @property
    def protocol_version(self) -> str:
        """The version of the protocol."""
        return self._message.protocol_version

    @property
    def server_name(self) -> str:
        """The software."""
        return self._message.server_name

    @property
    def server_version(self) -> str:
        """The software's version."""
        return self._message.server_version

    @property
    def features(self) -> tuple[str, ...]:
        """Optional abilities, such as `search.vector`."""
        return tuple(self._message.features)

    @property
    def embedding_models(self) -> tuple[mip.EmbeddingModel, ...]:
        """The embedding models."""
        return tuple(self._message.embedding_models)

    @property
    def limits(self) -> mip.Limits:
        """The largest requests that the server accepts."""
        return self._message.limits or mip.Limits()

    @property
    def notices(self) -> tuple[str, ...]:
        """What is missing or degraded, for people."""
        return tuple(self._message.notices)


class Token(View[mip.IssueTokenResponse]):
    """A token, shown once."""

    __slots__ = ()
    _shown = ("token_id", "expire_time")

    def __str__(self) -> str:
        """Returns the token itself."""
        return self._message.token

    @property
    def token(self) -> str:
        """The token, for `authorization: Bearer`."""
        return self._message.token

    @property
    def token_id(self) -> str:
        """The token's id, for revoking it."""
        return self._message.token_id

    @property
    def expire_time(self) -> datetime.datetime | None:
        """When it expires, in UTC."""
        return self._message.expire_time
