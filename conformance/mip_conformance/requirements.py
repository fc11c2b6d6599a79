"""The requirements: every sentence of the specification, its level, and why some have no check."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

from mip_conformance.cases import Check, Requirement, SuiteError, all_checks, data_folder, read_yaml
from mip_conformance.contract import levels


@cache
def all_requirements() -> tuple[Requirement, ...]:
    """Returns the lines of conformance/requirements/ with what the specification says, in the order of the files.

    Raises:
        SuiteError: A line names no sentence, or one twice, or an unknown level.
    """
    folder = data_folder() / "requirements"
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
    found: dict[str, Requirement] = {}
    for path in sorted(folder.glob("*.yaml")):
        for line in read_yaml(path, "Requirements").requirements:
            if line.id not in sentences:
                raise SuiteError(f"{path.name}: the specification has no {line.id}")
            if line.id in found:
                raise SuiteError(f"{path.name}: {line.id} has two lines")
            if line.level not in levels():
                raise SuiteError(f"{path.name}: {line.id} has no level of the contract")
            sentence = sentences[line.id]
            found[line.id] = Requirement(
                line.id, line.level, sentence["keyword"], sentence["sentence"], " ".join(line.excluded.split())
            )
    return tuple(found.values())


def gaps(checks: Iterable[Check] | None = None) -> list[str]:
    """Returns what does not fit between specification, requirements and cases; empty when the map is whole.

    Every numbered sentence and every RPC has a line; every line has a check or a reason why not, never both; every
    check names lines alone.
    """
    sentences = json.loads((data_folder() / "requirements" / "sentences.json").read_text(encoding="utf-8"))
    lines = {requirement.id: requirement for requirement in all_requirements()}
    checked: dict[str, str] = {}
    found = [f"{id_} has no line in conformance/requirements/" for id_ in sentences if id_ not in lines]
    for check in all_checks() if checks is None else checks:
        for id_ in check.requirements:
            if id_ not in lines:
                found.append(f"{check.name} names {id_}, which has no line")
            checked.setdefault(id_, check.name)
    for requirement in lines.values():
        if requirement.excluded and requirement.id in checked:
            found.append(f"{requirement.id} is excluded and checked by {checked[requirement.id]}")
        elif not requirement.excluded and requirement.id not in checked and requirement.keyword != "MAY":
            found.append(f"{requirement.id} ({requirement.keyword}) has neither a check nor a reason why not")
    return found
