"""The reference server in the form that `mip-conformance run --command` starts.

mip-conformance run --command "python -m conformance.mutants.reference [--settings FILE]"

FILE is TOML with sections of the server's settings, such as the `[record]`, `[index]` and `[blobs]` of engines.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

from conformance.mutants.servers import reference_server


def main() -> None:
    """Reads the configuration, serves, and ends with the standard input.

    The server makes the token of its administrator itself, so the answer holds one.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path)
    file = parser.parse_args().settings
    settings = tomllib.loads(file.read_text(encoding="utf-8")) if file is not None else {}
    json.loads(sys.stdin.readline() or "{}")
    with reference_server(**settings) as target:
        sys.stdout.write(json.dumps({"address": target.address, "token": target.token}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
