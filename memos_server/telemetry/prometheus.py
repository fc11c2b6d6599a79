"""Metrics for Prometheus: the numbers of GetServerStats under Prometheus' names, over plain HTTP. Off unless set.

Nothing is counted here. Labels are RPCs, reasons, dependencies and backends: of each there are few, and none names a
cube, a memory or a person.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from memos_server import __version__
from memos_server._pb.mip.v1.server_service_pb2 import CallStats, GetServerStatsResponse
from memos_server.configs.errors import SetupError
from memos_server.configs.settings import MetricsSettings
from memos_server.configs.tls import is_loopback
from memos_server.telemetry.drift import IndexDrift

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_LOG = logging.getLogger(__name__)
_SLOW_CLIENT_S = 10.0
_AT_ONCE = 16

Read = Callable[[], GetServerStatsResponse]
ReadDrift = Callable[[], IndexDrift]


class Metrics:
    """An HTTP listener that answers scrapes.

    Attributes:
        address: Where it listens, `HOST:PORT`.
    """

    def __init__(self, settings: MetricsSettings, read: Read, drift: ReadDrift = IndexDrift) -> None:
        """Begins to listen.

        Args:
            settings: Where.
            read: Returns the numbers; called from threads, it may block.
            drift: Returns how far indexes are behind; called from threads.

        Raises:
            SetupError: The extra `telemetry` is not installed, the port is taken, or the address is off loopback and
                that is not permitted.
        """
        endpoint = settings.endpoint
        assert endpoint is not None
        if not (settings.insecure or is_loopback(endpoint.host)):
            raise SetupError(
                f"metrics.listen {settings.listen} can be reached from other machines, without TLS and tokens.",
                "Listen on 127.0.0.1, or set metrics.insecure = true where the network is trusted.",
            )
        try:
            import prometheus_client  # noqa: F401
        except ImportError as error:
            raise SetupError(
                "metrics.listen is set, but prometheus-client is not installed.",
                'pip install "memos-mip[telemetry]", or remove metrics.listen.',
            ) from error
        self._read = read
        self._drift = drift
        server_class = _Server6 if ":" in endpoint.host else _Server
        try:
            self._server = make_server(endpoint.host, endpoint.port, self._answer, server_class, _Handler)
        except OSError as error:
            raise SetupError(
                f"The metrics cannot be served on {settings.listen}: {error.strerror or error}.",
                "Choose another metrics.listen.",
            ) from error
        shown = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self.address = f"{shown}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening; blocks for a moment."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        from prometheus_client import CollectorRegistry, make_wsgi_app

        try:
            stats, drift = self._read(), self._drift()
        except Exception as error:
            _LOG.warning("the metrics could not be read", exc_info=error)
            start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"the server could not read its metrics; its log says why\n"]
        registry = CollectorRegistry()
        registry.register(_Once([*families(stats), *drift_families(drift)]))
        answer: Iterable[bytes] = make_wsgi_app(registry)(environ, start_response)
        return answer


class _Server(ThreadingMixIn, WSGIServer):
    """Answers a few scrapes at a time, so that neither a slow reader nor a flood of them costs more than that."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any, **options: Any) -> None:
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(*args, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread; the connection is closed at once when all are taken."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers, and frees the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of readers that went away."""
        _LOG.debug("a reader of the metrics went away")


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _SLOW_CLIENT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no events."""


class _Once:
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Returns the metrics."""
        return self._metrics


def families(stats: GetServerStatsResponse) -> Iterable[Metric]:
    """Yields a server's state as families of metrics."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    handled = CounterMetricFamily(
        "mip_server_handled", "Calls that ended, by reason; OK for success.", labels=["method", "reason"]
    )
    seconds = HistogramMetricFamily("mip_server_handling_seconds", "How long calls took.", labels=["method"])
    running = GaugeMetricFamily("mip_server_running_calls", "Calls that run now.", labels=["method"])
    received = CounterMetricFamily("mip_server_request_bytes", "Bytes of requests.", labels=["method"])
    sent = CounterMetricFamily("mip_server_response_bytes", "Bytes of responses.", labels=["method"])
    for call in stats.calls:
        handled.add_metric([call.method, "OK"], call.succeeded)
        for failed in call.failed:
            handled.add_metric([call.method, failed.reason], failed.count)
        seconds.add_metric([call.method], _buckets(call, stats.latency_bounds), call.latency_sum)
        running.add_metric([call.method], call.running)
        received.add_metric([call.method], call.request_bytes)
        sent.add_metric([call.method], call.response_bytes)
    yield from (handled, seconds, running, received, sent)
    yield GaugeMetricFamily("mip_server_open_streams", "Streams that are open now.", stats.open_streams)
    yield GaugeMetricFamily("mip_server_waiting_writes", "Mutations that wait for the writer.", stats.waiting_writes)
    yield GaugeMetricFamily(
        "mip_server_waiting_embeddings", "Texts that wait for the embedder.", stats.waiting_embeddings
    )
    yield GaugeMetricFamily(
        "mip_server_lagging_indexes", "Cubes whose search index is behind the log.", stats.lagging_indexes
    )
    worst = max((lag.revision - lag.indexed_revision for lag in stats.index_lags), default=0)
    yield GaugeMetricFamily("mip_server_index_lag_commits", "How far the farthest of them is behind, commits.", worst)
    yield GaugeMetricFamily("mip_server_unfinished_jobs", "Jobs that have not ended.", stats.unfinished_jobs)
    up = GaugeMetricFamily(
        "mip_server_dependency_up", "1 when a part that the server depends on works.", labels=["dependency", "backend"]
    )
    for part in stats.dependencies:
        up.add_metric([part.name, part.backend], int(part.serving))
    yield up
    info = GaugeMetricFamily("mip_server_build_info", "The server's version.", labels=["version"])
    info.add_metric([__version__], 1)
    yield info
    yield from _process(stats)


def drift_families(drift: IndexDrift) -> Iterable[Metric]:
    """Yields how far indexes are behind; what a sweep measures only once one has ended."""
    from prometheus_client.core import GaugeMetricFamily

    def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"mip_server_index_{name}", text, value)

    yield gauge("broken_cubes", "Cubes whose index cannot be brought up to the log now.", drift.broken)
    if not drift.end_time:
        return
    yield gauge("drift_cubes", "Cubes that the last sweep found behind, though nobody wrote to them.", drift.behind)
    yield gauge("drift_max_commits", "How far the farthest of them was behind, commits.", drift.worst)
    yield gauge("swept_cubes", "Cubes that the last sweep compared with their logs.", drift.cubes)
    yield gauge("sweep_seconds", "How long the last sweep took.", drift.seconds)
    yield gauge("sweep_end_time_seconds", "When it ended, seconds since the epoch.", drift.end_time)


def _process(stats: GetServerStatsResponse) -> Iterable[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    process = stats.process
    started = stats.start_time.seconds + stats.start_time.nanos / 1e9
    yield GaugeMetricFamily("process_start_time_seconds", "When the server started, seconds since the epoch.", started)
    yield CounterMetricFamily("process_cpu_seconds", "Processor time that the process used.", process.cpu_seconds)
    yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory.", process.resident_bytes)
    yield GaugeMetricFamily("process_open_fds", "Open files.", process.open_files)
    yield GaugeMetricFamily("mip_server_data_bytes", "Bytes of the data folder.", process.data_bytes)
    yield GaugeMetricFamily("mip_server_free_disk_bytes", "Free bytes of its disk.", process.free_disk_bytes)


def _buckets(call: CallStats, bounds: Sequence[float]) -> list[tuple[str, float]]:
    edges = [*map(repr, bounds), "+Inf"]
    return list(zip(edges, accumulate(call.latency_counts), strict=True))
