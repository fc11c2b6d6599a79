"""Every MUST and SHOULD of the specification, and every RPC, has a check or the reason why it has none."""

from __future__ import annotations

from mip_conformance.cases import all_checks
from mip_conformance.requirements import all_requirements, gaps


def test_specification_requirements_and_cases_fit_without_a_gap() -> None:
    assert gaps() == []


def test_an_exclusion_says_why_in_a_sentence() -> None:
    short = [line.id for line in all_requirements() if line.excluded and len(line.excluded.split()) < 5]
    assert short == []


def test_little_is_excluded() -> None:
    lines = all_requirements()
    excluded = [line.id for line in lines if line.excluded]
    assert len(excluded) <= len(lines) / 4


def test_every_level_has_checks() -> None:
    assert {check.level for check in all_checks()} == {"core", "history", "access", "graph"}
