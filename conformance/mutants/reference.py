"""The reference server in the form that `mip-conformance run --command` starts.

mip-conformance run --command "python -m conformance.mutants.reference"
"""

from __future__ import annotations

import json
import sys

from conformance.mutants.servers import reference_server


def main() -> None:
    """Reads the configuration, serves, and ends with the standard input.

    The server makes the token of its administrator itself, so the answer holds one.
    """
    json.loads(sys.stdin.readline() or "{}")
    with reference_server() as target:
        sys.stdout.write(json.dumps({"address": target.address, "token": target.token}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
