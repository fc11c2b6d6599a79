"""The report as one page for people: nothing outside of it is loaded, and nothing that a server says can act in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from mip_conformance.reports.findings import findings_sections
from mip_conformance.reports.tables import capabilities_section, not_applicable_section, requirements_section
from mip_conformance.reports.texts import Safe, shortened, tag
from mip_conformance.reports.words import result, result_word, section

_COUNTS = ("passed", "failed", "warned", "known", "not applicable")
_NAME = 120
"""Characters of a name that the server gives itself."""


def page_of(report: Mapping[str, Any]) -> str:
    """Returns the page.

    Args:
        report: The report, as `verdicts.as_report` makes it.
    """
    server = report["server"]
    name = shortened(f"{server['name']} {server['version']}".strip(), _NAME) or "A server without a name"
    sections = [
        *_run_section(report),
        *findings_sections(report),
        requirements_section(report),
        not_applicable_section(report),
        capabilities_section(report),
    ]
    body = tag("body", _header(report, name), *sections, _footer(report), _inline("script", "page.js"))
    # A page that is made again for an equal report is the same, byte for byte.
    return "<!doctype html>\n" + tag("html", _head(f"{name}: MIP conformance"), body, lang="en") + "\n"


@cache
def _asset(name: str) -> str:
    return files("mip_conformance.reports").joinpath(name).read_text(encoding="utf-8")


def _inline(kind: str, name: str) -> Safe:
    # These files are the suite's own, and hold no end tag.
    return Safe(f"<{kind}>{_asset(name)}</{kind}>")


def _hash(name: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode() + "'"


def _head(title: str) -> Safe:
    # Should an escape ever be missing: no script and no style but these two work, and nothing is loaded.
    policy = (
        f"default-src 'none'; script-src {_hash('page.js')}; style-src {_hash('page.css')}; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        _inline("style", "page.css"),
    )


def _header(report: Mapping[str, Any], name: str) -> Safe:
    version = shortened(report["server"]["protocol_version"], _NAME) or "not told"
    checks = len(report["checks"])
    facts = {
        "Address": report["address"],
        "Protocol": version,
        "Began": report["began"].replace("T", " ").replace("+00:00", " UTC"),
        "Took": f"{report['seconds']:.1f} s",
        "Checks": f"{checks}",
    }
    if not report["whole"]:
        kind, verdict = "partial", "Partial run, " + ("without a failure" if report["passed"] else "failed")
    else:
        kind = "passed" if report["passed"] else "failed"
        verdict = {"passed": "✓ Passed", "failed": "✗ Failed"}[kind]
    return tag(
        "header",
        tag("p", "MIP conformance report", class_="eyebrow"),
        tag("h1", tag("bdi", name)),
        tag("p", tag("span", verdict, class_=f"verdict {kind}")),
        tag("ul", *(tag("li", tag("b", f"{key} "), tag("bdi", value)) for key, value in facts.items()), class_="facts"),
        tag("div", *(_level(name, level) for name, level in report["levels"].items()), class_="levels"),
        _contents(report),
    )


def _level(name: str, level: Mapping[str, Any]) -> Safe:
    counts = {count: number for count, number in level.get("checks", {}).items() if number}
    title = tag("span", f"mip-1.0-{name}", class_="name")
    parts: list[str] = [title, result(level["verdict"])]
    if counts:
        told = [f"{number} {result_word(count)}" for count, number in counts.items()]
        parts.append(
            tag(
                "div",
                _bar(counts, f"mip-1.0-{name}: {', '.join(told)}"),
                tag("div", *(tag("span", text) for text in told), class_="counts"),
                class_="tally",
            )
        )
    failures = counts.get("failed", 0) + counts.get("known", 0)
    # How many failed stands in the counts already.
    parts += [tag("div", why, class_="why") for why in level.get("why", ()) if why != f"{failures} checks failed"]
    return tag("div", *parts, class_="level")


def _bar(counts: Mapping[str, int], told: str) -> Safe:
    """Returns how the checks of a level ended, as a line of coloured parts; a part is never too thin to be seen."""
    total = sum(counts.values())
    widths = {count: max(1.0, 100 * counts[count] / total) for count in _COUNTS if count in counts}
    scale = 100 / sum(widths.values())
    left = 0.0
    parts = []
    for count, width in widths.items():
        kind = "none" if count == "not applicable" else count
        parts.append(tag("rect", x=f"{left:.2f}", width=f"{width * scale:.2f}", height="1", class_=kind))
        left += width * scale
    return tag(
        "svg", *parts, viewBox="0 0 100 1", preserveAspectRatio="none", class_="bar", role="img", aria_label=told
    )


def _contents(report: Mapping[str, Any]) -> Safe:
    counts: dict[str, int] = {}
    for check in report["checks"]:
        counts[check["result"]] = counts.get(check["result"], 0) + 1
    links: list[tuple[str, str, int | None]] = []
    if report["problems"] or report["cleaning"]:
        links.append(("run", "The run itself", None))
    for outcome, place, title in (
        ("failed", "failures", "Failures"),
        ("warned", "warnings", "Warnings"),
        ("known", "known-failures", "Known failures"),
    ):
        if outcome in counts:
            links.append((place, title, counts[outcome]))
    links.append(("requirements", "Requirements", len(report["requirements"])))
    if "not applicable" in counts:
        links.append(("not-applicable", "Not applicable", counts["not applicable"]))
    links.append(("capabilities", "Capabilities", None))
    shown = [
        tag("a", f"{title} ({count})" if count is not None else title, href=f"#{place}")
        for place, title, count in links
    ]
    return tag("nav", *shown, aria_label="Contents")


def _run_section(report: Mapping[str, Any]) -> list[Safe]:
    """Returns what is wrong with the run itself, and what it left behind."""
    lines = [*report["problems"], *(f"not cleaned up: {line}" for line in report["cleaning"])]
    if not lines:
        return []
    items = [tag("li", shortened(line, _NAME * 10)) for line in lines]
    return [section("The run itself", str(len(lines)), "run", tag("ul", *items))]


def _footer(report: Mapping[str, Any]) -> Safe:
    return tag(
        "footer",
        tag("p", f"mip-conformance {report['suite_version']}, contract ", tag("code", report["descriptor_sha256"])),
        tag(
            "p",
            "The commands of grpcurl ask the server for its reflection; without one they need ",
            tag("code", "-protoset mip.protoset"),
            " of this suite. ",
            tag("code", "$TOKEN"),
            " is the token of the principal that the call was made as.",
        ),
    )
