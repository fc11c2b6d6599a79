"""Toxiproxy: TCP proxies on the loopback interface that cut, slow and break connections on demand."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from tools.engines.build import program
from tools.engines.process import LOOPBACK, Engine, EngineError


class Toxiproxy(Engine):
    """Proxies; they are gone when it stops."""

    name = "toxiproxy"
    port_names = ("api",)

    def config(self, *, files: bool = False) -> dict[str, Any]:
        """Returns the address of its HTTP interface."""
        return {"api": f"http://{LOOPBACK}:{self.ports['api']}"}

    def proxy(self, name: str, upstream_port: int) -> int:
        """Makes a proxy before a port of this machine.

        Returns:
            The port that it listens on.
        """
        made = self._call(
            "POST", "/proxies", {"name": name, "listen": f"{LOOPBACK}:0", "upstream": f"{LOOPBACK}:{upstream_port}"}
        )
        return int(made["listen"].rsplit(":", 1)[1])

    def cut(self, name: str) -> None:
        """Closes a proxy's connections and refuses new ones."""
        self._call("POST", f"/proxies/{_quoted(name)}", {"enabled": False})

    def mend(self, name: str) -> None:
        """Ends `cut` and every toxic of a proxy; its port is the same."""
        for toxic in self._call("GET", f"/proxies/{_quoted(name)}/toxics"):
            self._call("DELETE", f"/proxies/{_quoted(name)}/toxics/{_quoted(toxic['name'])}")
        self._call("POST", f"/proxies/{_quoted(name)}", {"enabled": True})

    def poison(
        self, name: str, kind: str, attributes: Mapping[str, int], *, stream: str = "downstream", toxicity: float = 1.0
    ) -> None:
        """Adds a toxic.

        Args:
            name: The proxy.
            kind: latency (attributes latency and jitter, ms), bandwidth (rate, KB/s), slow_close (delay, ms), timeout
                (timeout, ms; 0 swallows data forever), reset_peer (timeout, ms), slicer (average_size, size_variation,
                bytes; delay, us), limit_data (bytes).
            attributes: Of the kind.
            stream: downstream is what comes from the engine, upstream what goes to it.
            toxicity: The share of connections that it meets.
        """
        body = {"type": kind, "stream": stream, "toxicity": toxicity, "attributes": dict(attributes)}
        self._call("POST", f"/proxies/{_quoted(name)}/toxics", body)

    def remove(self, name: str) -> None:
        """Ends a proxy and its connections."""
        self._call("DELETE", f"/proxies/{_quoted(name)}")

    def _command(self) -> tuple[list[str], dict[str, str]]:
        return [str(program(self.name)), "-host", LOOPBACK, "-port", str(self.ports["api"])], {"LOG_LEVEL": "warn"}

    def _answers(self) -> bool:
        self._call("GET", "/proxies")
        return True

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.config()['api']}{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise EngineError(f"toxiproxy refused {method} {path}: {error.read().decode(errors='replace')}") from None
        return json.loads(text) if text.strip() else None


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")
