"""`make bench`: speed, each figure beside its limit or rival in the same run.

    python benches/bench.py [--only get,search] [--quick] [--data DIR] [--json FILE]

Starts real servers in processes of their own, in a temporary folder on the disk that is to be measured (--folder), with
clients in other processes. What is compared takes turns, so that what else the machine does disturbs both; a ratio is
the median of the turns' ratios. `--data` names a folder of data sets in the form of benches/retrieval.py, for natural
texts and questions; without it they are made. Ends within 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from harness.figures import Figure, machine, table, write_json
from harness.texts import Texts
from harness.world import World
from parts import add, busy, embed, get, rollback, sdk_part, search, size

PARTS: Mapping[str, Callable[[World], list[Figure]]] = {
    "size": size.measure,
    "get": get.measure,
    "add": add.measure,
    "embed": embed.measure,
    "search": search.measure,
    "rollback": rollback.measure,
    "busy": busy.measure,
    "sdk": sdk_part.measure,
}
"""In this order: the space of the large cube is measured before anything else has used the server."""


def main() -> int:
    """Runs the parts, prints the table, and returns the exit status: 0 unless a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    parser.add_argument("--data", type=Path, help="a folder of data sets; without it texts are made")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder; default: the system's")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    figures: list[Figure] = []
    seconds: dict[str, float] = {}
    failed = False
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="memos-bench-", dir=options.folder))
        texts = Texts(options.data)
        world = World(Path(folder), texts, options.quick, stack)
        for name, measure in PARTS.items():
            if name not in chosen:
                continue
            began = time.perf_counter()
            try:
                figures += measure(world)
            except Exception as error:
                # One part that cannot run must not cost the others' figures; it is named, and the exit status tells.
                failed = True
                print(f"{name}: not measured: {type(error).__name__}: {error}", file=sys.stderr)
            seconds[name] = round(time.perf_counter() - began, 1)
            print(f"{name}: {seconds[name]} s", file=sys.stderr)
            if options.json:
                # After each part, so that a run that is ended leaves what it measured.
                about = {
                    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "quick": options.quick,
                    "texts": texts.source,
                    "seconds": seconds,
                }
                write_json(options.json, figures, about)
    print("\n".join(f"{key}: {value}" for key, value in {**machine(), "texts": texts.source}.items()))
    print()
    print(table(figures))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
