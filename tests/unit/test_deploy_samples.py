"""The samples in deploy/ name metrics that the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from memos_server._pb.mip.v1.server_service_pb2 import CallStats, DependencyHealth, GetServerStatsResponse, ReasonCount
from memos_server.telemetry.calls import LATENCY_BOUNDS
from memos_server.telemetry.drift import IndexDrift
from memos_server.telemetry.prometheus import drift_families, families

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def names_of_samples() -> set[str]:
    call = CallStats(
        method="m", failed=[ReasonCount(reason="R", count=1)], latency_counts=[0] * (len(LATENCY_BOUNDS) + 1)
    )
    part = DependencyHealth(name="record", backend="sqlite")
    stats = GetServerStatsResponse(calls=[call], latency_bounds=LATENCY_BOUNDS, dependencies=[part])
    found = [*families(stats), *drift_families(IndexDrift(end_time=1.0))]
    return {sample.name for family in found for sample in family.samples}


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:mip_server|process)_[a-z_0-9]+", text))


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "memos.json").read_text())
    return found


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    asked = names_in(" ".join(target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]))
    assert len(asked) >= 15
    assert asked <= names_of_samples()


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own


def test_the_alerts_ask_for_metrics_that_exist_and_say_what_to_do() -> None:
    text = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    asked = names_in(text)
    assert len(asked) >= 5
    assert asked <= names_of_samples()
    assert text.count("- alert: ") == text.count("summary: ") == text.count("remedy: ") == 9


def test_the_guide_lists_every_metric() -> None:
    guide = (DEPLOY.parent / "docs" / "guide" / "observability.md").read_text()
    for name in names_of_samples():
        assert re.sub(r"_(bucket|count|sum)$", "", name) in guide, name
