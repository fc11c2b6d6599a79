"""The report as JUnit XML: a suite for each level, a test case for each check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as Xml

from mip_conformance.reports.texts import shortened, visible

_MESSAGE = 500
"""Characters of a message in the attribute of that name; all of it stands in the element."""
Report = Mapping[str, Any]


def junit_of(report: Report) -> str:
    """Returns the document.

    The first suite has one test case, which fails exactly when the run does: a run fails for more than checks, such as
    a level without a MUST that was exercised. Not applicable and known to fail are skipped, each with its reason; a
    warning passes, with what it warns of as output.

    Args:
        report: The report, as `verdicts.as_report` makes it.
    """
    root = Xml.Element("testsuites", name="mip-conformance")
    _suite(root, report, "verdict", [_verdict(report)], report["seconds"])
    for level in report["levels"]:
        checks = [check for check in report["checks"] if check["level"] == level]
        if checks:
            cases = [_case(check) for check in checks]
            _suite(root, report, f"mip-1.0-{level}", cases, sum(check["seconds"] for check in checks))
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", f"{report['seconds']:.3f}")
    Xml.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(root: Xml.Element, report: Report, name: str, cases: list[Xml.Element], seconds: float) -> None:
    suite = Xml.SubElement(root, "testsuite", name=name, timestamp=report["began"][:19], time=f"{seconds:.3f}")
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", "0")
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    properties = Xml.SubElement(suite, "properties")
    server = report["server"]
    for key, value in (
        ("address", report["address"]),
        ("server", f"{server['name']} {server['version']}".strip()),
        ("protocol_version", server["protocol_version"]),
        ("suite_version", report["suite_version"]),
        ("descriptor_sha256", report["descriptor_sha256"]),
    ):
        Xml.SubElement(properties, "property", name=key, value=visible(str(value)))
    suite.extend(cases)


def _verdict(report: Report) -> Xml.Element:
    case = Xml.Element("testcase", name="the run passes", classname="verdict", time="0.000")
    if report["passed"]:
        return case
    lines = [
        f"mip-1.0-{name}: {why}" for name, level in report["levels"].items() if "why" in level for why in level["why"]
    ]
    lines += report["problems"]
    _child(case, "failure", "\n".join(lines) or "nothing was exercised", message="the run failed")
    return case


def _case(check: Mapping[str, Any]) -> Xml.Element:
    suite = check["name"].partition("/")[0]
    case = Xml.Element("testcase", name=visible(check["name"]), classname=f"mip-1.0-{check['level']}.{suite}")
    case.set("file", visible(check["file"]))
    case.set("time", f"{check['seconds']:.3f}")
    if check["result"] == "failed":
        lines = [check["message"], "", *(f"{id_}: {said}" for id_, said in check["demands"].items())]
        for number, call in enumerate(check.get("calls", ()), 1):
            lines += ["", *_call(number, call)]
        _child(case, "failure", "\n".join(lines), message=check["message"], type="failed")
    elif check["result"] == "not applicable":
        _child(case, "skipped", "", message=check["message"])
    elif check["result"] == "known":
        _child(case, "skipped", "", message=f"known to fail: {check['message']}")
    elif check["result"] == "warned":
        _child(case, "system-out", f"warned: {check['message']}")
    return case


def _call(number: int, call: Mapping[str, Any]) -> list[str]:
    outcome = f"{call['code']} {call['reason']}".strip() or "no answer"
    return [
        f"{number}. {call['rpc']} as {call['as']}: {outcome} ({call['seconds']:.3f} s)",
        *(f"   > {request}" for request in call["requests"]),
        *(f"   < {response}" for response in call["responses"]),
        *([f"   < {call['message']}"] if call["message"] else []),
        f"   $ {call['reproduce']}",
    ]


def _child(case: Xml.Element, name: str, text: str, **attributes: str) -> None:
    # Escaped first and cut off after: escaping makes a text longer.
    shown = {key: shortened(visible(value), _MESSAGE) for key, value in attributes.items()}
    Xml.SubElement(case, name, shown).text = visible(text) or None
