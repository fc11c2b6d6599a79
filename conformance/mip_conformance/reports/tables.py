"""The parts of the page that list everything: requirements by level, what does not apply, what the server declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mip_conformance.reports.texts import Safe, anchor, safe, shortened, tag
from mip_conformance.reports.words import result, result_word, section, sentence

_NAMES = 40
"""Checks of one requirement that are listed; an RPC-wide one has hundreds."""
_VALUE = 2000
_DEPTH = 4
_ITEMS = 500
"""A server may declare what it likes; what is beyond these stands in the JSON report."""


def requirements_section(report: Mapping[str, Any]) -> Safe:
    """Returns every requirement with its result, by level, and a filter that a script brings to life."""
    lines = report["requirements"]
    results = {check["name"]: check for check in report["checks"]}
    found = []
    for level in report["levels"]:
        of_level = [line for line in lines if line["level"] == level]
        if not of_level:
            continue
        rows = [_row(line, results) for line in of_level]
        head = tag(
            "thead", tag("tr", *(tag("th", title, scope="col") for title in ("id", "what it demands", "result")))
        )
        heading = tag("h3", f"mip-1.0-{level} ", tag("span", str(len(rows)), class_="faint"))
        found.append(tag("section", heading, tag("table", head, tag("tbody", *rows)), class_="requirements-of"))
    return section("Requirements", str(len(lines)), "requirements", _filter(lines), *found)


def _filter(lines: Iterable[Mapping[str, Any]]) -> Safe:
    present = dict.fromkeys(line["result"] for line in lines)
    options = [tag("option", "every result", value="")]
    options += [tag("option", result_word(name), value=name) for name in present]
    return tag(
        "form",
        tag(
            "input", type="search", placeholder="Words or an id, such as etag or MIP-CONV", aria_label="Filter by words"
        ),
        tag("select", *options, aria_label="Filter by result"),
        tag("span", id="shown", class_="faint", role="status"),
        id="filter",
        class_="filter",
        hidden=True,
    )


def _row(line: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> Safe:
    says: list[str] = [sentence(line["sentence"])]
    if line["excluded"]:
        says.append(tag("p", "Not checkable from outside: ", sentence(line["excluded"]), class_="reason"))
    if line["checks"]:
        says.append(_checks_of(line["checks"], results))
    where = anchor("requirement", line["id"])
    # A long id, that of an RPC, breaks where its parts meet.
    front, dot, back = line["id"].partition(".")
    link = tag("a", front + dot, tag("wbr") if dot else "", back, href=f"#{where}")
    id_ = tag("td", link, " ", tag("span", line["keyword"], class_="faint"), class_="id")
    outcome = tag("td", result(line["result"]), class_="outcome")
    return tag("tr", id_, tag("td", *says, class_="says"), outcome, id=where, data_result=line["result"])


def _checks_of(names: list[str], results: Mapping[str, Mapping[str, Any]]) -> Safe:
    items = []
    for name in names[:_NAMES]:
        outcome = results[name]["result"]
        shown: str = tag("span", name, class_="mono")
        if outcome in ("failed", "warned", "known"):
            shown = tag("a", name, href=f"#{anchor('check', name)}", class_="mono")
        lacks = f" – {results[name]['message']}" if outcome == "not applicable" else ""
        items.append(tag("li", result(outcome), " ", shown, lacks))
    if names[_NAMES:]:
        items.append(tag("li", f"and {len(names) - _NAMES} more"))
    title = "1 check" if len(names) == 1 else f"{len(names)} checks"
    return tag("details", tag("summary", title), tag("ul", *items, class_="checks"))


def not_applicable_section(report: Mapping[str, Any]) -> Safe:
    """Returns the checks that do not apply, by what the server does not declare; empty when all do."""
    by_reason: dict[str, list[str]] = {}
    for check in report["checks"]:
        if check["result"] == "not applicable":
            by_reason.setdefault(check["message"], []).append(check["name"])
    groups = []
    for reason, names in by_reason.items():
        title = tag("summary", f"{reason} ", tag("span", str(len(names)), class_="faint"))
        items = [tag("li", name, class_="mono") for name in names]
        groups.append(tag("details", title, tag("ul", *items, class_="checks")))
    if not groups:
        return Safe()
    count = sum(len(names) for names in by_reason.values())
    told = "What is not declared is not held against a server; that it answers UNIMPLEMENTED is checked elsewhere."
    return section("Not applicable", str(count), "not-applicable", tag("p", told, class_="faint"), *groups)


def capabilities_section(report: Mapping[str, Any]) -> Safe:
    """Returns what GetCapabilities answered."""
    return section("Declared capabilities", "", "capabilities", _map(report["capabilities"], _DEPTH))


def _map(values: Mapping[str, Any], depth: int) -> Safe:
    pairs = []
    for key, value in list(values.items())[:_ITEMS]:
        pairs += [tag("dt", key), tag("dd", _value(value, depth))]
    return tag("dl", *pairs)


def _value(value: Any, depth: int) -> Safe:
    if value in ("", [], {}, None):
        return tag("span", "none", class_="faint")
    if isinstance(value, (dict, list)) and depth <= 0:
        return tag("span", "see the JSON report", class_="faint")
    if isinstance(value, dict):
        return _map(value, depth - 1)
    if isinstance(value, list):
        # Sentences are read one below the other, words side by side.
        if all(isinstance(item, (str, int, float)) and " " not in str(item) for item in value[:_ITEMS]):
            return tag("span", *(tag("span", _scalar(item), class_="chip") for item in value[:_ITEMS]))
        return tag("span", *(tag("div", _value(item, depth - 1)) for item in value[:_ITEMS]))
    return safe(_scalar(value))


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    # Groups of three digits are read, twelve digits in a row are counted.
    return f"{value:,}".replace(",", "\u2009") if isinstance(value, int) else shortened(str(value), _VALUE)
