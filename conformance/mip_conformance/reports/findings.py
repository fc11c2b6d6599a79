"""The part of the page for checks that did not pass: what was demanded, what happened, and how to see it again."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mip_conformance.reports.texts import Safe, anchor, joined, shortened, tag
from mip_conformance.reports.words import copyable, pretty, section, sentence

_TRACED = 4_000_000
"""Characters of calls that a page holds: a browser must open it, however many checks a server fails."""
_MESSAGE = 4000
_UNFOLDED = 8
"""Findings up to which the last call of each is unfolded."""
_LAST_CALLS = 8
"""Calls of a finding that are listed; those before them are one line that unfolds."""
_GLANCE = 10
"""Findings from which on a list of them stands first."""

_SECTIONS = (
    ("failed", "failures", "Failures", "What a MUST demands and the server does not do."),
    ("warned", "warnings", "Warnings", "What a SHOULD asks for and the server does not do; it fails no level."),
    (
        "known",
        "known-failures",
        "Known failures",
        "Listed as known, each with a reason; a level with one does not pass.",
    ),
)


def findings_sections(report: Mapping[str, Any]) -> list[Safe]:
    """Returns a section for failures, one for warnings and one for known failures, as far as there are any.

    Args:
        report: The report, as `verdicts.as_report` makes it.
    """
    listed = {line["id"] for line in report["requirements"]}
    left = _TRACED
    found = []
    for outcome, place, title, told in _SECTIONS:
        checks = [check for check in report["checks"] if check["result"] == outcome]
        articles = []
        for check in checks:
            calls = _calls(check.get("calls", ()), unfolded=len(checks) <= _UNFOLDED) if left > 0 else Safe()
            left -= len(calls)
            articles.append(_finding(check, calls, listed, report["address"]))
        if checks:
            glance = _glance(checks) if len(checks) >= _GLANCE else ""
            found.append(section(title, str(len(checks)), place, tag("p", told, class_="faint"), glance, *articles))
    return found


def _glance(checks: Sequence[Mapping[str, Any]]) -> Safe:
    links = [
        tag("li", tag("a", check["name"], href=f"#{anchor('check', check['name'])}", class_="mono")) for check in checks
    ]
    return tag("details", tag("summary", "All of them by name"), tag("ul", *links, class_="checks"), class_="glance")


def _finding(check: Mapping[str, Any], calls: Safe, listed: Collection[str], address: str) -> Safe:
    where = f"mip-1.0-{check['level']} · cases/{check['file']} · {check['seconds']:.2f} s"
    again = f"mip-conformance run --target {shlex.quote(address)} --only {shlex.quote(check['name'])}"
    return tag(
        "article",
        tag("h3", check["name"], class_="mono"),
        tag("p", where, class_="where"),
        *(_demand(id_, check["demands"].get(id_, ""), listed) for id_ in check["requirements"]),
        tag("div", shortened(check["message"], _MESSAGE), class_="message", dir="auto"),
        calls or tag("p", "Its calls are in the JSON report; this page is full.", class_="faint"),
        tag("details", tag("summary", "This check alone, again"), copyable(again), class_="calls"),
        class_=f"finding {check['result']}",
        id=anchor("check", check["name"]),
    )


def _demand(id_: str, said: str, listed: Collection[str]) -> Safe:
    shown = tag("a", id_, href=f"#{anchor('requirement', id_)}") if id_ in listed else id_
    return tag("p", tag("span", shown, class_="id"), " ", sentence(said), class_="demand")


def _calls(calls: Sequence[Mapping[str, Any]], *, unfolded: bool) -> Safe:
    if not calls:
        return tag("p", "It made no call.", class_="faint")
    made = [_call(number, call, unfolded=unfolded and number == len(calls)) for number, call in enumerate(calls, 1)]
    earlier = len(made) - _LAST_CALLS
    if earlier > 1:
        before = tag("details", tag("summary", f"{earlier} earlier calls"), *made[:earlier])
        made = [before, *made[earlier:]]
    title = "The call" if len(calls) == 1 else f"The {len(calls)} calls, in their order"
    return tag("div", tag("p", title, class_="of"), *made, class_="calls")


def _call(number: int, call: Mapping[str, Any], *, unfolded: bool) -> Safe:
    outcome = " / ".join(filter(None, (call["code"], call["reason"]))) or "no answer"
    summary = tag(
        "summary",
        f"{number}. ",
        tag("code", call["rpc"]),
        f" → {outcome} ",
        tag("span", f"as {call['as']}, {call['seconds'] * 1000:.0f} ms", class_="faint"),
    )
    parts: list[str] = [summary]
    parts += _texts("Request", call["requests"])
    parts += _texts("Answer", [*call["responses"], *filter(None, [call["message"]])])
    parts += [tag("p", "The same with grpcurl", class_="of"), copyable(call["reproduce"])]
    return tag("details", *parts, open=unfolded)


def _texts(title: str, texts: Sequence[str]) -> list[Safe]:
    if not texts:
        return []
    many = f", {len(texts)} frames" if len(texts) > 1 else ""
    return [
        tag("p", title + many, class_="of"),
        joined([tag("pre", pretty(text), dir="auto", tabindex="0") for text in texts]),
    ]
