"""The server's settings: one typed tree, read from the file, then the environment, then flags; the later wins.

The file is TOML: the one that `--config` names, else `memos.toml` in the data folder. Environment variables are
`MEMOS_` and the key in capitals, `__` between levels (`MEMOS_TLS__CERT`). docs/guide/configuration.md lists the keys.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from memos_server.configs.errors import SetupError
from memos_server.configs.secret_files import read_small

ENV_PREFIX: Final = "MEMOS_"
DEFAULT_LISTEN: Final = "127.0.0.1:7600"
MAX_FILE_BYTES: Final = 2**20
"""The largest settings file that is read."""

_LISTEN: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


_Path = Annotated[Path, AfterValidator(Path.expanduser)]


class Endpoint(NamedTuple):
    """A host, without brackets, and a port."""

    host: str
    port: int


def parse_listen(text: str) -> Endpoint:
    """Returns host and port of `HOST:PORT` or `[IPV6]:PORT`; raises ValueError."""
    found = _LISTEN.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError("must be HOST:PORT or [IPV6]:PORT, the port between 0 (any free one) and 65535")
    return Endpoint(found["six"] or found["host"], int(found["port"]))


def _checked_listen(text: str) -> str:
    parse_listen(text)
    return text


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class TlsSettings(_Section):
    """The server's certificate.

    Attributes:
        cert: The certificate chain, PEM.
        key: Its private key, PEM, readable by its owner only.
        client_ca: Certificate authorities, PEM; every client must show a certificate of one. None asks for none.
    """

    cert: _Path | None = None
    key: _Path | None = None
    client_ca: _Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> TlsSettings:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca needs cert and key")
        return self


class BackendSettings(_Section):
    """Which backend of a port runs, and its own settings.

    Attributes:
        backend: The entry point's name.
        config: What the backend is made with.
    """

    backend: str
    config: dict[str, Any] = Field(default_factory=dict)


class RecordSettings(BackendSettings):
    """The system of record."""

    backend: str = "sqlite"


class IndexSettings(BackendSettings):
    """The search index."""

    backend: str = "embedded"


class BlobSettings(BackendSettings):
    """The blob store."""

    backend: str = "filesystem"


class EmbedderSettings(BackendSettings):
    """The embedder."""

    backend: str = "minilm"


class KeySettings(_Section):
    """Where the keys lie that sign tokens and page tokens.

    Attributes:
        folder: A folder with `token.ed25519.pem` and `page-tokens.key`, which are made where they are missing. Servers
            over one record share it, so that each takes the tokens of all. None means `keys` in the data folder.
    """

    folder: _Path | None = None


class LimitSettings(_Section):
    """The largest requests, as GetCapabilities declares them; none may exceed what the contract permits.

    Attributes:
        max_request_bytes: The most bytes of a request message.
        max_response_bytes: The most bytes of a response message.
        max_batch_memories: The most memories in an AddMemories request.
        max_page_size: The largest page.
        max_top_k: The largest top_k.
        max_blob_bytes: The most bytes of a blob.
        request_id_retention_seconds: How long a request_id is remembered, at least 7 days.
        max_search_cubes: The most cubes that one SearchMemories names.
        max_bulk_memories: The most memories of one BulkAddMemories.
        max_bulk_bytes: The most bytes of all batches of one BulkAddMemories.
        max_staged_bytes: The most bytes of all running BulkAddMemories together, which the server holds in memory.
    """

    # A batch as large as a request may be comes back whole, names and times added, and must fit the 4 MiB that gRPC
    # clients accept by default (docs/adr/0007-add-memories-fits-default-message-limits.md).
    max_request_bytes: int = Field(default=3 * 2**20, ge=2**20 + 2**16, le=3 * 2**20)
    max_response_bytes: int = Field(default=4 * 2**20, ge=4 * 2**20, le=4 * 2**20)
    max_batch_memories: int = Field(default=1000, ge=1, le=1000)
    max_page_size: int = Field(default=1000, ge=1, le=1000)
    max_top_k: int = Field(default=1000, ge=1, le=1000)
    max_blob_bytes: int = Field(default=16 * 2**30, ge=1, le=2**40)
    request_id_retention_seconds: int = Field(default=7 * 86400, ge=7 * 86400)
    max_search_cubes: int = Field(default=100, ge=1, le=100)
    max_bulk_memories: int = Field(default=100_000, ge=1, le=1_000_000)
    max_bulk_bytes: int = Field(default=512 * 2**20, ge=3 * 2**20)
    max_staged_bytes: int = Field(default=2**30, ge=3 * 2**20)


class PrincipalQuota(_Section):
    """What one principal may ask for; 0 means no limit.

    Attributes:
        calls_per_second: The most calls a second on average.
        burst_calls: The most calls at once, after a pause; at least calls_per_second.
        open_streams: The most streams open at the same time.
        bytes_per_second: The most request bytes a second on average.
    """

    calls_per_second: int = Field(default=0, ge=0)
    burst_calls: int = Field(default=0, ge=0)
    open_streams: int = Field(default=0, ge=0, le=2**31 - 1)
    bytes_per_second: int = Field(default=0, ge=0)


class QuotaSettings(PrincipalQuota):
    """How much one caller may ask for (GetCapabilities declares it): every principal but those named here.

    Attributes:
        unauthenticated_per_second: The most calls a second, from one address, that no known token or certificate
            comes with; twice as many at once. 0 means no limit.
        principals: Principal id -> a quota of its own. The local administrator has none unless it is named here.
    """

    # More than an agent in earnest asks for, and well below what one server answers.
    calls_per_second: int = Field(default=1000, ge=0)
    burst_calls: int = Field(default=2000, ge=0)
    open_streams: int = Field(default=100, ge=0, le=2**31 - 1)
    bytes_per_second: int = Field(default=64 * 2**20, ge=0)
    unauthenticated_per_second: int = Field(default=200, ge=0)
    principals: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")], PrincipalQuota] = Field(
        default_factory=dict
    )


class EmbeddingSettings(_Section):
    """How new cubes are embedded.

    Attributes:
        default_model: The embedding model of cubes that name none; `none` means no vectors.
    """

    default_model: str = Field(default="all-MiniLM-L6-v2", min_length=1, max_length=256)


class WatchSettings(_Section):
    """How long callers are waited for.

    Attributes:
        heartbeat_s: How often WatchCube tells that it lives while nothing happens, seconds.
        poll_s: How often a record that other servers write to as well is asked for new commits of watched cubes, and
            for changed access while streams are open, seconds.
        slow_request_s: How long a caller may take to send a request whole, seconds.
        slow_reader_s: How long a client may take for one frame of a stream, seconds.
        idle_upload_s: How long an upload may go without a frame, seconds; then it ends, and can be gone on with later.
    """

    heartbeat_s: float = Field(default=10.0, gt=0, le=3600)
    poll_s: float = Field(default=0.2, ge=0.01, le=60)
    slow_request_s: float = Field(default=30.0, gt=0, le=3600)
    slow_reader_s: float = Field(default=60.0, gt=0, le=3600)
    idle_upload_s: float = Field(default=60.0, gt=0, le=3600)


class SearchSettings(_Section):
    """How searches behave.

    Attributes:
        index_wait_s: How long a search waits for its index to reach the log's head, seconds; then it says `stale`.
    """

    index_wait_s: float = Field(default=10.0, ge=0, le=600)


class LogSettings(_Section):
    """What the server logs, to standard error.

    Attributes:
        level: The least severe level that is written.
        format: `text` for people, `json` for machines, one object a line.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class MetricsSettings(_Section):
    """Where Prometheus finds the server's metrics; needs the extra `telemetry`.

    Attributes:
        listen: `HOST:PORT`, over plain HTTP; port 0 takes a free one. None serves none.
        insecure: True permits an address off loopback, where everybody may read the metrics.
    """

    listen: Annotated[str, AfterValidator(_checked_listen)] | None = None
    insecure: bool = False

    @property
    def endpoint(self) -> Endpoint | None:
        """Where to listen; None for nowhere."""
        return parse_listen(self.listen) if self.listen is not None else None


class TracingSettings(_Section):
    """Where traces of calls are sent, by OpenTelemetry's OTLP/gRPC; needs the extra `telemetry`.

    Attributes:
        endpoint: The collector, `http://HOST:PORT`, or `https://HOST:PORT` for TLS. None sends none.
        ratio: The share of traces that are sent, 0 to 1. The caller's decision holds where it comes with the call.
        delay_s: How long spans wait for others before they are sent together, seconds.
    """

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/@\s]+$", max_length=512)] | None = None
    ratio: float = Field(default=1.0, ge=0, le=1)
    delay_s: float = Field(default=5.0, ge=0.01, le=600)


class HealthSettings(_Section):
    """How the server looks after what it depends on.

    Attributes:
        interval_s: How often record, index, blobs and embedder are tried, seconds.
        timeout_s: How long one may take before it counts as failed, seconds.
        drain_s: How long a server that is told to end says NOT_SERVING and still answers, seconds: as long as whatever
            spreads the calls over several servers needs to notice.
        grace_s: How long it then waits for running calls, seconds.
    """

    interval_s: float = Field(default=10.0, ge=0.05, le=3600)
    timeout_s: float = Field(default=10.0, ge=0.05, le=3600)
    drain_s: float = Field(default=0.0, ge=0, le=600)
    grace_s: float = Field(default=5.0, ge=0, le=600)


class Settings(BaseSettings):
    """The settings of a server.

    Attributes:
        data: The data folder.
        listen: `HOST:PORT`; port 0 takes a free one.
        insecure: True permits listening off loopback without TLS.
        tls: The server's certificate.
        record: The system of record (`memos.graph_dbs`).
        index: The search index (`memos.vec_dbs`).
        blobs: The blob store (`memos.blob_stores`).
        embedder: The embedder (`memos.embedders`); backend `none` runs none.
        keys: Where the keys of tokens lie.
        limits: The largest requests.
        quotas: How much one caller may ask for.
        embedding: How new cubes are embedded.
        watch: How long callers are waited for.
        search: How searches behave.
        log: What is logged.
        metrics: Where metrics are found.
        tracing: Where traces are sent.
        health: How dependencies are looked after.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
        env_ignore_empty=True,
    )

    data: _Path
    listen: Annotated[str, AfterValidator(_checked_listen)] = DEFAULT_LISTEN
    insecure: bool = False
    tls: TlsSettings = Field(default_factory=TlsSettings)
    record: RecordSettings = Field(default_factory=RecordSettings)
    index: IndexSettings = Field(default_factory=IndexSettings)
    blobs: BlobSettings = Field(default_factory=BlobSettings)
    embedder: EmbedderSettings = Field(default_factory=EmbedderSettings)
    keys: KeySettings = Field(default_factory=KeySettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    quotas: QuotaSettings = Field(default_factory=QuotaSettings)
    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    search: SearchSettings = Field(default_factory=SearchSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)

    @property
    def endpoint(self) -> Endpoint:
        """Where to listen."""
        return parse_listen(self.listen)


def default_data_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Returns `$MEMOS_DATA`, else `memos` in `$XDG_DATA_HOME`, else `~/.local/share/memos`."""
    env = os.environ if environment is None else environment
    if env.get("MEMOS_DATA"):
        return Path(env["MEMOS_DATA"]).expanduser()
    # The XDG Base Directory Specification has relative paths ignored.
    base = env.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path("~/.local/share").expanduser()) / "memos"


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None, *, environment: bool = True) -> Settings:
    """Reads the settings.

    Args:
        flags: What the command line said, nested as the tree is; None values mean that the flag was not given.
        config: The file that `--config` names; None reads `memos.toml` in the data folder, where there is one.
        environment: False leaves out the environment, which is about this machine's server, for settings of another.

    Raises:
        SetupError: The file is absent or no TOML, or a key is unknown, or a value is wrong; every fault is named.
    """
    given = _without_none(flags or {})
    if config is not None and not config.is_file():
        raise SetupError(f"The settings file {config} does not exist.", "Correct --config.")
    file = config
    if file is None:
        given.setdefault("data", default_data_folder())
        inside = Path(given["data"]).expanduser() / "memos.toml"
        file = inside if inside.is_file() else None
    in_file = read_toml(file) if file is not None else {}
    if config is None and "data" in in_file:
        raise SetupError(f"{file} lies in the data folder and cannot name another one.", "Remove `data` from it.")
    if "data" not in in_file:
        given.setdefault("data", default_data_folder())
    if environment:
        _check_environment(os.environ)

    class Loaded(Settings):
        """The settings with their sources: flags before environment before file."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Returns the sources, the first wins."""
            file_settings = InitSettingsSource(settings_cls, in_file)
            return (init_settings, env_settings, file_settings) if environment else (init_settings, file_settings)

    try:
        settings = Loaded(**given)
    except SettingsError as error:
        # Its text names the setting and nothing of the value, which may be a secret.
        raise SetupError(
            f"An environment variable is no JSON: {error}.",
            f"Correct it; write single settings as {ENV_PREFIX}SECTION__KEY.",
        ) from None
    except ValidationError as error:
        raise SetupError(_faults(error), "Correct it; docs/guide/configuration.md lists the settings.") from error
    return settings


def _without_none(flags: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in flags.items():
        if isinstance(value, Mapping):
            value = _without_none(value)
            if not value:
                continue
        if value is not None:
            kept[key] = value
    return kept


def read_toml(file: Path) -> dict[str, Any]:
    """Reads a settings file as it stands.

    Raises:
        SetupError: It cannot be read, is too large, or no TOML.
    """
    try:
        data = read_small(file, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}.", "Make it readable by this user.") from error
    if len(data) > MAX_FILE_BYTES:
        raise SetupError(f"{file} is larger than {MAX_FILE_BYTES} bytes.", "Check that it is the settings file.")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # Besides what is no TOML: a number of thousands of digits, and brackets in brackets in brackets.
        raise SetupError(f"{file} is not TOML: {error}.", "Correct the file.") from error


def _check_environment(environment: Mapping[str, str]) -> None:
    """Refuses variables that look like settings of a section that does not exist; pydantic leaves them unread."""
    for name in sorted(environment):
        section = name.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if name.startswith(ENV_PREFIX) and "__" in name and section not in Settings.model_fields:
            raise SetupError(
                f"The environment variable {name} names no setting.",
                "Correct or unset it; see the configuration guide.",
            )


def _faults(error: ValidationError) -> str:
    """Returns what is wrong, key by key, without the values: they may be secrets."""
    texts = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False)[:10]:
        key = ".".join(str(part) for part in fault["loc"]) or "settings"
        text = "there is no such setting" if fault["type"] == "extra_forbidden" else fault["msg"]
        texts.append(f"{key}: {text.removeprefix('Value error, ')}")
    return f"The settings are wrong: {'; '.join(texts)}."
