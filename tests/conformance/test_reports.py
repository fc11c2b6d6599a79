"""Reports for programs and people: every form says what the JSON says, and nothing that a server says acts in one."""

from __future__ import annotations

import copy
import html.parser
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from mip_conformance.reports import json_of, write_reports
from mip_conformance.reports.badge import badge_of
from mip_conformance.reports.junit import junit_of
from mip_conformance.reports.page import page_of
from mip_conformance.reports.texts import anchor, tag, visible
from mip_conformance.verdicts import Run

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "]]><failure/>",
    "</pre></details><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "&lt;script&gt; &amp; &#x3c;",
    "\x00\x07\x1b[31mred\x7f\x85",
    "\ud800 half \udfff",
    "\u202etxet\u2066 \u2028 \ufffe",
    "<!-- --> <![CDATA[ x",
    "javascript:alert(1)",
    "x" * 100_000,
    "line\r\nline\n\ttab",
    '{"a": "</script>"}',
    "[" * 5000,
    "",
]
CALL = {
    "rpc": "CubeService.GetCube",
    "as": "guest",
    "requests": ['{"name": "cubes/a"}'],
    "code": "NOT_FOUND",
    "reason": "CUBE_NOT_FOUND",
    "message": "there is no such cube",
    "responses": [],
    "seconds": 0.012,
    "reproduce": 'grpcurl -plaintext -d \'{"name": "cubes/a"}\' 127.0.0.1:1 mip.v1.CubeService/GetCube',
}


def check(name: str, result: str, message: str = "", level: str = "core", **more: Any) -> dict[str, Any]:
    """Returns a line of the report."""
    demands = {"MIP-TEST-001": "A server MUST keep `etag` **exactly**."}
    calls = {"calls": [CALL], "demands": demands} if result in ("failed", "warned", "known") else {}
    return {
        "name": name,
        "level": level,
        "requirements": ["MIP-TEST-001"],
        "file": f"{level}/cubes.yaml",
        "result": result,
        "message": message,
        "seconds": 0.25,
        **calls,
        **more,
    }


def level(verdict: str, why: list[str] | None = None, **counts: int) -> dict[str, Any]:
    """Returns the verdict on a level."""
    every = dict.fromkeys(("passed", "failed", "warned", "known", "not applicable"), 0)
    return {"verdict": verdict, "why": why or [], "checks": every | counts, "must_passed": 1}


def report(**more: Any) -> dict[str, Any]:
    """Returns a report with one check of each result."""
    return {
        "suite_version": "0.1.0",
        "descriptor_sha256": "ab" * 32,
        "began": "2026-01-02T03:04:05+00:00",
        "seconds": 12.5,
        "address": "127.0.0.1:1",
        "server": {"name": "fake", "version": "1", "protocol_version": "1.0-alpha"},
        "capabilities": {"services": ["mip.v1.CubeService"], "limits": {"max_request_bytes": 3_145_728}, "notices": []},
        "passed": False,
        "whole": True,
        "levels": {
            "core": level(
                "failed", ["2 checks failed"], passed=1, failed=1, warned=1, known=1, **{"not applicable": 1}
            ),
            "history": {"verdict": "not declared"},
        },
        "requirements": [
            {
                "id": "MIP-TEST-001",
                "level": "core",
                "keyword": "MUST",
                "sentence": "A server MUST keep `etag` **exactly**.",
                "result": "failed",
                "excluded": "",
                "checks": ["cubes/good", "cubes/bad", "cubes/soft", "cubes/old", "cubes/other"],
            },
            {
                "id": "MIP-TEST-002",
                "level": "core",
                "keyword": "MUST",
                "sentence": "A client MUST wait.",
                "result": "excluded",
                "excluded": "It binds clients.",
                "checks": [],
            },
        ],
        "checks": [
            check("cubes/good", "passed"),
            check("cubes/bad", "failed", "the cube is red"),
            check("cubes/soft", "warned", "the cube is pale"),
            check("cubes/old", "known", "the cube is late [known: since May]"),
            check("cubes/other", "not applicable", "the server does not declare search.vector"),
        ],
        "problems": [],
        "cleaning": [],
        **more,
    }


def poisoned(text: str) -> dict[str, Any]:
    """Returns a report in which everything that a server can say is a text."""
    found = report(address=text, problems=[text], cleaning=[text])
    found["server"] = dict.fromkeys(("name", "version", "protocol_version"), text)
    found["capabilities"] = {
        "notices": [text],
        "features": [text.replace(" ", "")],
        text: {text: text},
        "number": 2**60,
    }
    for one in found["checks"]:
        one["message"] = text
        one["name"] = f"{one['name']}/{text}"
        for call in one.get("calls", ()):
            call = call | {"requests": [text], "responses": [text], "message": text, "reason": text, "as": text}
            one["calls"] = [call | {"reproduce": text, "code": text}]
    found["requirements"][0]["checks"] = [one["name"] for one in found["checks"]]
    return copy.deepcopy(found)


class Elements(html.parser.HTMLParser):
    """Collects the elements of a page, and what is wrong with their nesting."""

    def __init__(self, page: str) -> None:
        """Reads a page."""
        super().__init__()
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.wrong += [f"{name} does not end" for name in self._open]

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        self.starts.append((name, dict(attributes)))
        if name not in ("meta", "input", "wbr"):
            self._open.append(name)

    def handle_endtag(self, name: str) -> None:
        """Notes its end."""
        if not self._open or self._open.pop() != name:
            self.wrong.append(f"{name} ends and was not open")

    def handle_data(self, data: str) -> None:
        """Notes a text."""
        self.texts.append(data)


def skeleton(page: str) -> list[str]:
    """Returns the elements of a page in their order, by name."""
    return [name for name, _ in Elements(page).starts]


# The page.


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_server_says_acts_in_the_page(text: str) -> None:
    page = page_of(poisoned(text))
    elements = Elements(page)
    assert elements.wrong == []
    # Two elements of the suite's own, and no attribute that acts, whatever the texts say.
    assert [name for name, _ in elements.starts if name in ("script", "style", "img", "iframe", "link", "object")] == [
        "style",
        "script",
    ]
    assert not any(key.startswith("on") or key == "style" for _, found in elements.starts for key in found)
    links = [found["href"] for name, found in elements.starts if name == "a"]
    assert all(link is not None and link.startswith("#") for link in links)
    page.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e\u2066]", page)


def test_the_page_is_built_alike_whatever_a_server_says() -> None:
    assert skeleton(page_of(poisoned("<b>"))) == skeleton(page_of(poisoned("tea")))


def test_the_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    page = page_of(report())
    assert not re.search(r"\b(src|srcset|action|background)=|url\(|@import|https?://", page)
    policy = next(found["content"] for name, found in Elements(page).starts if found.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    script = page.split("<script>")[1].split("</script>")[0]
    assert "innerHTML" not in script
    assert "eval" not in script


def test_the_page_says_what_the_report_says() -> None:
    page = page_of(report())
    text = " ".join(" ".join(Elements(page).texts).split())
    for told in (
        "fake 1",
        "1.0-alpha",
        "127.0.0.1:1",
        "2026-01-02 03:04:05 UTC",
        "✗ Failed",
        "mip-1.0-core",
        "the cube is red",
        "the cube is pale",
        "since May",
        "the server does not declare search.vector",
        "It binds clients.",
        "there is no such cube",
        "NOT_FOUND / CUBE_NOT_FOUND",
        "grpcurl -plaintext",
        "mip-conformance run --target 127.0.0.1:1 --only cubes/bad",
        "3 145 728",
        "ab" * 32,
    ):
        assert told in text, told
    assert text.index("the cube is red") < text.index("the cube is pale") < text.index("A client MUST wait.")
    assert "<code>etag</code> <strong>exactly</strong>" in page


def test_links_of_the_page_lead_somewhere_and_ids_are_there_once() -> None:
    starts = Elements(page_of(report())).starts
    ids = [found["id"] for _, found in starts if "id" in found]
    assert len(ids) == len(set(ids))
    assert {found["href"] for name, found in starts if name == "a"} <= {f"#{id_}" for id_ in ids}


def test_the_page_of_a_server_that_fails_everything_can_still_be_opened() -> None:
    big = CALL | {"responses": ['{"a": "' + "x" * 3900 + '"}'] * 20}
    checks = [check(f"cubes/c-{number}", "failed", "no", calls=[big] * 10) for number in range(300)]
    page = page_of(report(checks=checks, requirements=[]))
    assert len(page) < 8_000_000
    assert "Its calls are in the JSON report; this page is full." in page
    assert page.count('class="finding failed"') == 300


def test_a_run_that_passes_and_a_partial_one_say_so() -> None:
    green = report(passed=True, levels={"core": level("passed", passed=5)}, checks=[check("cubes/good", "passed")])
    green["requirements"][0] |= {"checks": ["cubes/good"], "result": "passed"}
    assert "✓ Passed" in page_of(green)
    assert "Failures" not in page_of(green)
    assert "Partial run, without a failure" in page_of(green | {"whole": False})
    assert "Partial run, failed" in page_of(green | {"whole": False, "passed": False})


# JUnit.


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_junit_is_xml_whatever_a_server_says(text: str) -> None:
    root = Xml.fromstring(junit_of(poisoned(text)).encode("utf-8"))
    assert [child.tag for child in root.iter() if child.tag == "failure"] == ["failure", "failure"]
    cases = root.findall("testsuite[@name='mip-1.0-core']/testcase")
    assert [case.get("name") for case in cases] == [
        visible(f"cubes/{name}/{text}") for name in ("good", "bad", "soft", "old", "other")
    ]


def test_junit_counts_and_tells_what_the_report_tells() -> None:
    root = Xml.fromstring(junit_of(report()))
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "6",
        "failures": "2",
        "errors": "0",
        "skipped": "2",
        "time": "12.500",
    }
    verdict, good, bad, soft, old, other = root.iter("testcase")
    assert verdict.findtext("failure") == "mip-1.0-core: 2 checks failed"
    assert (good.get("classname"), list(good)) == ("mip-1.0-core.cubes", [])
    failure = bad.find("failure")
    assert failure is not None
    assert failure.get("message") == "the cube is red"
    assert failure.text is not None
    assert "MIP-TEST-001: A server MUST keep" in failure.text
    assert "1. CubeService.GetCube as guest: NOT_FOUND CUBE_NOT_FOUND (0.012 s)" in failure.text
    assert soft.findtext("system-out") == "warned: the cube is pale"
    assert [child.get("message") for child in (*old, *other)] == [
        "known to fail: the cube is late [known: since May]",
        "the server does not declare search.vector",
    ]


def test_junit_fails_exactly_when_the_run_does() -> None:
    good = [check("cubes/good", "passed")]
    for passed in (True, False):
        root = Xml.fromstring(junit_of(report(passed=passed, checks=good, levels={"core": level("passed", passed=1)})))
        assert root.get("failures") == ("0" if passed else "1")


# The badge.


@pytest.mark.parametrize(
    ("more", "told", "colour"),
    [
        (
            {"passed": True, "levels": {"core": level("passed"), "history": level("passed")}},
            "MIP 1.0-alpha: core history",
            "#2e7d32",
        ),
        ({}, "MIP 1.0-alpha: core failed", "#c62828"),
        (
            {"passed": True, "levels": {"core": level("failed", known=2), "graph": level("passed")}},
            "MIP 1.0-alpha: 2 known failures in core",
            "#9a6700",
        ),
        ({"levels": {"core": level("passed")}, "problems": ["x"]}, "MIP 1.0-alpha: failed", "#c62828"),
        ({"passed": True, "whole": False}, "MIP 1.0-alpha: partial run", "#5f6368"),
        ({"whole": False}, "MIP 1.0-alpha: partial run failed", "#c62828"),
    ],
)
def test_the_badge_names_the_levels(more: dict[str, Any], told: str, colour: str) -> None:
    root = Xml.fromstring(badge_of(report(**more)))
    assert root.get("aria-label") == told
    assert root.get("role") == "img"
    assert root.findtext("{*}title") == told
    assert [rect.get("fill") for rect in root.findall("{*}rect")] == [colour]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_badge_is_small_and_whole_whatever_a_server_says(text: str) -> None:
    badge = badge_of(poisoned(text))
    assert len(badge) < 4000
    root = Xml.fromstring(badge.encode("utf-8"))
    assert [child.tag.partition("}")[2] for child in root.iter()] == [
        "svg",
        "title",
        "rect",
        "path",
        "g",
        "text",
        "text",
    ]


# JSON, and the files.


def test_every_form_is_written_from_one_run(tmp_path: Path) -> None:
    run = Run(
        address="127.0.0.1:1",
        tls=False,
        capabilities={"server_name": "\ud800", "levels": ["core"], "services": []},
        asked=["core"],
        results=[],
        requirements=[],
        whole=True,
        began="2026-01-02T03:04:05+00:00",
    )
    paths = {form: tmp_path / form for form in ("json_", "junit", "html", "badge")}
    write_reports(run, **paths)
    found = json.loads(paths["json_"].read_text(encoding="utf-8"))
    assert found["server"]["name"] == "\ud800"
    assert found["passed"] is False
    assert paths["html"].read_text(encoding="utf-8") == page_of(found)
    assert paths["junit"].read_text(encoding="utf-8") == junit_of(found)
    assert paths["badge"].read_text(encoding="utf-8") == badge_of(found)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_json_holds_every_text_as_it_is(text: str) -> None:
    found = poisoned(text)
    assert json.loads(json_of(found).encode("utf-8", "backslashreplace")) == found


# What the forms are made with.


def test_an_element_escapes_its_texts_and_attributes_and_keeps_elements() -> None:
    inner = tag("b", "<i>")
    assert tag("p", "a & b", inner, title='"x"', class_="c", hidden=True, open=False, data_result="1") == (
        '<p title="&quot;x&quot;" class="c" hidden data-result="1">a &amp; b<b>&lt;i&gt;</b></p>'
    )
    # An element in an attribute is a text there.
    assert tag("p", title=inner) == '<p title="&lt;b&gt;&amp;lt;i&amp;gt;&lt;/b&gt;"></p>'


def test_what_misleads_a_reader_is_shown_as_its_escape() -> None:
    assert visible("a\x1b[0m\x85\u202eb\n\tc\ud83d") == "a\\x1b[0m\\x85\\u202eb\n\tc\\ud83d"
    assert visible("tea ☕ 茶 👩‍🔬") == "tea ☕ 茶 👩‍🔬"


def test_an_anchor_holds_no_character_of_markup() -> None:
    assert anchor("check", "a/b c<\"'>#[0]") == "check-a/b_c_____0_".replace("_____", "_" * 6)
