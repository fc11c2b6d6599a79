"""`make bench-engines`: the server over Neo4j and Weaviate beside the same work done with their drivers, in one run.

    python benches/engines/bench.py [--only search,add] [--quick] [--data DIR] [--json FILE] [--plot FILE] [--fresh]

Starts both engines and real servers on this machine, in a folder that stays until all parts are done; clients run in
processes of their own. The sides take turns, so that what else the machine does disturbs both; a ratio is the median of
the turns' ratios. Each part's figures are kept when it ends: a run that was ended goes on with the next part, and
`--fresh` begins again. `--data` names a folder of data sets in the form of benches/retrieval.py.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for place in (ROOT, ROOT / "benches"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
# The folder of this file would offer the package's modules under two names.
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

from harness.figures import Figure, from_row, machine, table  # noqa: E402

from engines import plots, supply  # noqa: E402
from engines.parts import add, search, servers, tenants, units  # noqa: E402
from engines.stage import Stage  # noqa: E402

PARTS: Mapping[str, Callable[[Stage], list[Figure]]] = {
    "search": search.measure,
    "add": add.measure,
    "servers": servers.measure,
    "units": units.measure,
    "tenants": tenants.measure,
}


def main() -> int:
    """Runs the parts that are not done, prints the table, and returns the exit status: 0 unless a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    parser.add_argument("--fresh", action="store_true", help="forget the parts that are done, and their data")
    parser.add_argument("--data", type=Path, help="a folder of data sets; without it texts are made")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench-engines", help="where the data lie")
    parser.add_argument("--memories", type=int, help="in the large cube; 100,000 by default")
    parser.add_argument("--cubes", type=int, help="small cubes of 100; 2,000 by default, 10,000 take half an hour")
    parser.add_argument("--seconds", type=float, help="of one turn of one side; 4 by default")
    parser.add_argument("--rounds", type=int, help="turns of each side; 3 by default")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="draw them here, SVG or PNG")
    parser.add_argument("--keep", action="store_true", help="keep the engines' data when all parts are done")
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    memories = options.memories or (2000 if options.quick else 100_000)
    cubes = options.cubes or (100 if options.quick else 2000)
    folder: Path = options.folder / f"{memories}"
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"parts": {}}
    failed = False
    texts = ""
    if any(name not in results["parts"] for name in chosen):
        with ExitStack() as stack:
            made = supply.make(folder / "supply", options.data, memories)
            texts = made.source
            stage = Stage(
                folder,
                made,
                options.quick,
                memories,
                cubes,
                options.seconds or (1.0 if options.quick else 4.0),
                options.rounds or (2 if options.quick else 3),
                stack,
                facts=results.get("facts", {}),
            )

            def keep() -> None:
                results.update(
                    facts=stage.facts,
                    machine=machine(),
                    quick=options.quick,
                    memories=memories,
                    texts=texts,
                    watch=results.get("watch", []) + stage.watch.samples,
                )
                stage.watch.samples = []
                kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

            stage.keep = keep
            for name, measure in PARTS.items():
                if name not in chosen or name in results["parts"]:
                    continue
                began = time.perf_counter()
                print(f"{name} …", file=sys.stderr, flush=True)
                rows: list[dict[str, Any]] = []
                try:
                    rows = [figure.row() for figure in measure(stage)]
                except Exception as error:
                    # One part that cannot run must not cost the others' figures; it is named, and the status tells.
                    failed = True
                    print(f"{name}: not measured: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                else:
                    results["parts"][name] = {
                        "figures": rows,
                        "seconds": round(time.perf_counter() - began, 1),
                        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    }
                    print(f"{name}: {results['parts'][name]['seconds']} s", file=sys.stderr, flush=True)
                keep()
    figures = [from_row(row) for name in PARTS if name in results["parts"] for row in results["parts"][name]["figures"]]
    if options.json:
        shutil.copyfile(kept, options.json)
    if options.plot and results["parts"]:
        plots.draw(results, options.plot)
    print("\n".join(f"{key}: {value}" for key, value in {**machine(), "texts": results.get("texts", "")}.items()))
    print()
    print(table(figures))
    if not failed and not options.keep and set(PARTS) <= set(results["parts"]):
        for name in ("neo4j", "weaviate", "supply", "keys", *(f"server{number}" for number in range(4))):
            shutil.rmtree(folder / name, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
