"""The start of a shim: `python -m PACKAGE --stdin`.

One line of JSON on standard input, `{"listen": "127.0.0.1:0", "token": "..."}`; one on standard output,
`{"address": "127.0.0.1:PORT"}`. It ends when standard input closes, and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from conformance.peers.shim.library import Library


def run(make: Callable[[Path], Library]) -> int:
    """Runs a shim until standard input closes.

    Args:
        make: Makes the library in an empty folder. The library is imported in there, not before: what it prints while
            it is imported goes to standard error.

    Returns:
        The exit code.
    """
    if sys.argv[1:] != ["--stdin"]:
        print("usage: python -m PACKAGE --stdin < configuration", file=sys.stderr)
        return 2
    # One text at a time is embedded: more threads only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Both libraries log to standard output, which is kept for the address.
    address_out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory(prefix="mip-shim-") as folder:
        library = make(Path(folder))
        from conformance.peers.shim import front

        server, port = front.serve(library, config["listen"], config["token"])
        host = config["listen"].rpartition(":")[0]
        print(json.dumps({"address": f"{host}:{port}"}), file=address_out, flush=True)
        sys.stdin.read()
        server.stop(grace=1).wait()
    return 0
