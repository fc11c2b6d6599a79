"""One check, told to a server: its cubes and principals, its steps, and what came of them."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf import json_format

from mip_conformance.cases import Check, request_of, samples
from mip_conformance.client import Answer, Client, Stream, Trace, shown
from mip_conformance.contract import Rpc, described_rpcs, reasons, rpcs
from mip_conformance.expressions import ExpressionError, evaluate, filled
from mip_conformance.limits import violating
from mip_conformance.matching import difference
from mip_conformance.open_services import callable_rpcs
from mip_conformance.values import message_of, whole
from mip_conformance.verifying import verified

_MOST_PAGES = 10_000
_PRINCIPAL_LEVEL = "SECRET"
_QUOTA_S = 20.0
"""How long a call is repeated that is refused for more calls than a quota permits."""


class CheckFailed(Exception):
    """A step did not come out as the case expects; the text says which and how."""


class Story:
    """One run of one check."""

    def __init__(
        self, check: Check, client: Client, token: str, run: str, capabilities: Mapping[str, Any], number: int
    ) -> None:
        """Prepares it.

        Args:
            check: The check.
            client: The connection.
            token: The token of the principal that the suite was started with.
            run: The id of the run.
            capabilities: What GetCapabilities answered.
            number: The number of the check in this run, which its ids are made of.
        """
        self.traces: list[Trace] = []
        self.cleaning: list[str] = []
        """What could not be cleaned up."""
        self._check = check
        self._client = client
        self._tokens: dict[str, str] = {"": token}
        self._prefix = f"mipconf-{run}-{number}"
        self._cubes: dict[str, None] = {}
        self._principals: list[str] = []
        self._streams: dict[str, Stream] = {}
        self._base: dict[str, Any] = {
            "run": run,
            "capabilities": capabilities,
            "rpcs": described_rpcs(),
            "each": check.each,
        }
        self._functions: dict[str, Callable[..., Any]] = {
            "unique": lambda word: f"{self._prefix}-{word}",
            "sample": self._sample,
            "violating": violating,
        }
        self._steps_done = 0

    def tell(self) -> None:
        """Runs the check.

        Raises:
            CheckFailed: It does not hold, or could not be exercised.
        """
        variables = dict(self._base)
        try:
            for alias in self._check.case.cubes:
                variables[alias] = self._new_cube(alias)
            for principal in self._check.case.principals:
                variables[principal.alias] = self._new_principal(principal, variables)
            self._steps(self._check.case.steps, variables)
        except ExpressionError as error:
            raise CheckFailed(str(error)) from None
        except KeyError as missing:
            raise CheckFailed(f"cannot be exercised: an answer lacks {missing}") from None
        finally:
            for stream in self._streams.values():
                stream.cancel()

    def clean(self) -> None:
        """Erases the cubes and disables the principals of the check."""
        for cube in self._cubes:
            self._cleaned("CubeService.PurgeCube", {"name": cube, "reason": "the conformance suite is done with it"})
        for principal in self._principals:
            self._cleaned("AccessService.DisablePrincipal", {"name": principal})

    def _cleaned(self, name: str, request: dict[str, Any]) -> None:
        answer = self._ask(rpcs()[name], [message_of(rpcs()[name].request, request)], "", note=False)
        if answer.code != "OK" and answer.reason not in ("CUBE_PURGED", "UNIMPLEMENTED"):
            self.cleaning.append(f"{name} {request['name']}: {answer.code} {answer.reason}")

    # What a case has of its own.

    def _new_cube(self, alias: str) -> str:
        response = self._must("CubeService.CreateCube", {"cube_id": f"{self._prefix}-{alias}"})
        return str(response["cube"]["name"])

    def _new_principal(self, principal: Any, variables: dict[str, Any]) -> str:
        made = self._must("AccessService.CreatePrincipal", {"principal_id": f"{self._prefix}-{principal.alias}"})
        name = str(made["principal"]["name"])
        first = next(iter(self._check.case.cubes), "")
        for grant in principal.grants:
            resource = filled(grant.resource, variables, self._functions) if grant.resource else variables[first]
            level = grant.max_sensitivity or _PRINCIPAL_LEVEL
            self._must(
                "AccessService.SetGrant",
                {
                    "grant": {
                        "principal": name,
                        "resource": resource,
                        "role": f"ROLE_{grant.role}",
                        "max_sensitivity": f"SENSITIVITY_{level}",
                    }
                },
            )
        token = self._must("AccessService.IssueToken", {"principal": name, "ttl": "3600s"})
        self._tokens[principal.alias] = token["token"]
        return name

    def _must(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Makes a call that the case stands on."""
        rpc = rpcs()[name]
        answer = _patiently(lambda: self._ask(rpc, [message_of(rpc.request, request)], ""))
        if answer.code != "OK" or answer.response is None:
            raise CheckFailed(f"cannot be exercised: {name} was answered with {_outcome(answer)}")
        return answer.response

    def _sample(self, name: str, cube: str) -> dict[str, Any]:
        """Returns the request of conformance/cases/samples.yaml for an RPC, or `{frames}` for a client's stream."""
        sample = samples()[name]
        request, frames = request_of(sample)
        seen = {**self._base, "cube": cube}
        if frames:
            return {"frames": filled(frames, seen, self._functions)}
        return dict(filled(request, seen, self._functions))

    # Calls.

    def _ask(
        self,
        rpc: Rpc,
        requests: Sequence[Any],
        as_: str,
        *,
        metadata: Mapping[str, str] | None = None,
        deadline: float = 0.0,
        abandoned: bool = False,
        enough: Callable[[list[dict[str, Any]]], bool] | None = None,
        note: bool = True,
    ) -> Answer:
        raw = [request if isinstance(request, bytes) else request.SerializeToString() for request in requests]
        trace = Trace(rpc.rpc, as_ or "the administrator", [_as_text(request) for request in requests])
        if note:
            self.traces.append(trace)
        answer = self._client.call(
            rpc,
            raw,
            self._metadata(as_, metadata or {}),
            trace,
            deadline=deadline,
            abandoned=abandoned,
            enough=enough,
        )
        if answer.undecodable:
            raise CheckFailed(f"{rpc.rpc}: {answer.undecodable} does not parse")
        if answer.response is not None:
            self._remember(rpc, answer.response)
        return answer

    def _metadata(self, as_: str, changed: Mapping[str, str]) -> list[tuple[str, str]]:
        found: dict[str, str] = {}
        if as_ != "nobody":
            if as_ not in self._tokens:
                raise CheckFailed(f"the case has no principal {as_}")
            if self._tokens[as_]:
                found["authorization"] = f"Bearer {self._tokens[as_]}"
        found |= changed
        return [(key, value) for key, value in found.items() if value]

    def _remember(self, rpc: Rpc, response: dict[str, Any]) -> None:
        """Notes what the case made, whoever made it, so that it is cleaned up."""
        if rpc.name in ("CreateCube", "ForkCube") and response.get("cube", {}).get("name"):
            self._cubes[response["cube"]["name"]] = None
        elif rpc.name == "CreatePrincipal" and response.get("principal", {}).get("name"):
            name = response["principal"]["name"]
            if name not in self._principals:
                self._principals.append(name)

    # Steps.

    def _steps(self, steps: Sequence[Any], variables: dict[str, Any]) -> None:
        for step in steps:
            self._steps_done += 1
            action = step.WhichOneof("action")
            try:
                result = getattr(self, f"_do_{action}")(getattr(step, action), variables)
            except (ExpressionError, ValueError, KeyError) as error:
                where = f" {step.id}" if step.id else ""
                raise CheckFailed(f"step {self._steps_done}{where}: {error}") from None
            if step.id:
                variables[step.id] = result

    def _do_call(self, call: Any, variables: dict[str, Any]) -> Any:
        name = self._fill(call.rpc, variables)
        if name not in callable_rpcs():
            raise CheckFailed(f"there is no RPC {name}")
        rpc = callable_rpcs()[name]
        until = time.monotonic() + (call.within or 10.0)
        while True:
            answer = self._once(rpc, call, variables)
            if not call.retry_until:
                break
            seen = {**variables, "response": answer.response, "frames": answer.frames, **answer.described()}
            if self._true(call.retry_until, seen):
                break
            if time.monotonic() >= until:
                raise CheckFailed(f"{name}: after {call.within or 10.0:.0f} s still not: {call.retry_until}")
            time.sleep(0.05)
        self._judge(rpc.rpc, call.expect, answer, variables)
        return _result(rpc, answer)

    def _once(self, rpc: Rpc, call: Any, variables: dict[str, Any]) -> Answer:
        requests = self._requests(rpc, call, variables)
        metadata = {key: str(self._fill(value, variables)) for key, value in call.metadata.items()}
        enough = self._enough(call.until, variables) if call.until else None
        as_ = self._who(getattr(call, "as"), variables)

        def ask(what: Sequence[Any]) -> Answer:
            return self._ask(
                rpc,
                what,
                as_,
                metadata=metadata,
                deadline=call.deadline,
                abandoned=call.abandoned,
                enough=enough,
            )

        answer = ask(requests) if call.expect.reason == "QUOTA_EXCEEDED" else _patiently(lambda: ask(requests))
        if not call.all_pages or answer.response is None:
            return answer
        request = requests[0]
        lists = [field.name for field in rpc.response.DESCRIPTOR.fields if field.is_repeated]
        together, pages = {name: list(answer.response[name]) for name in lists}, 1
        while answer.response is not None and answer.response["next_page_token"]:
            request.page_token = answer.response["next_page_token"]
            answer = ask([request])
            pages += 1
            if answer.response is not None:
                for name in lists:
                    together[name] += answer.response[name]
            if pages > _MOST_PAGES:
                raise CheckFailed(f"{rpc.rpc}: the pages do not end")
        if answer.response is not None:
            answer.response |= {**together, "pages": pages}
        return answer

    def _requests(self, rpc: Rpc, call: Any, variables: dict[str, Any]) -> list[Any]:
        if call.wire:
            return [evaluate(expression, variables, self._functions) for expression in call.wire]
        if rpc.client_streaming:
            if call.frames_from:
                frames = evaluate(call.frames_from, variables, self._functions)
            else:
                frames = [self._fill(_struct(frame), variables) for frame in call.frames]
            return [frame if isinstance(frame, bytes) else message_of(rpc.request, frame) for frame in frames]
        request = self._fill(_struct(call.request), variables)
        if "..." in request:
            # The key `...` holds a message that the other keys are put over.
            request = {**request.pop("..."), **request}
        return [message_of(rpc.request, request)]

    def _who(self, alias: str, variables: dict[str, Any]) -> str:
        who = self._fill(alias, variables) if alias else ""
        return str(who)

    def _enough(
        self, expression: str, variables: dict[str, Any], stream: Stream | None = None
    ) -> Callable[[list[dict[str, Any]]], bool]:
        def enough(frames: list[dict[str, Any]]) -> bool:
            ended = stream is not None and stream.ended is not None
            seen = {**variables, "frames": frames, "ended": ended}
            # Beside all frames, the last one alone: what looks at no others is cheap however many there are.
            return self._true(expression, {**seen, "frame": frames[-1]} if frames else seen)

        return enough

    def _do_open(self, opened: Any, variables: dict[str, Any]) -> Any:
        rpc = rpcs()[self._fill(opened.rpc, variables)]
        message = message_of(rpc.request, self._fill(_struct(opened.request), variables))
        as_ = self._who(getattr(opened, "as"), variables)
        trace = Trace(rpc.rpc, as_ or "the administrator", [shown(message)])
        self.traces.append(trace)
        changed = {key: str(self._fill(value, variables)) for key, value in opened.metadata.items()}
        metadata = self._metadata(as_, changed)
        stream = self._client.open(rpc, message.SerializeToString(), metadata, trace, held=opened.held)
        handle = f"stream-{uuid.uuid4().hex}"
        self._streams[handle] = stream
        return handle

    def _stream(self, alias: str, variables: dict[str, Any]) -> Stream:
        handle = variables.get(alias)
        if handle not in self._streams:
            raise CheckFailed(f"the case has no open stream {alias}")
        return self._streams[handle]

    def _do_receive(self, receive: Any, variables: dict[str, Any]) -> Any:
        stream = self._stream(receive.stream, variables)
        within = receive.within or 10.0
        enough = self._enough(receive.until, variables, stream) if receive.until else None
        came = stream.receive(enough, within)
        answer = stream.ended or Answer()
        answer.frames = stream.frames
        if not came:
            if stream.ended is not None:
                raise CheckFailed(f"{stream.rpc.rpc} ended with {_outcome(answer)} before: {receive.until}")
            what = receive.until or "it ended"
            raise CheckFailed(f"{stream.rpc.rpc}: after {within:.0f} s and {len(stream.frames)} frames not: {what}")
        self._judge(stream.rpc.rpc, receive.expect, answer, variables)
        return list(stream.frames)

    def _do_cancel(self, alias: str, variables: dict[str, Any]) -> None:
        self._stream(alias, variables).cancel()

    def _do_check(self, check: Any, variables: dict[str, Any]) -> None:
        for expression in check.that:
            self._demand(expression, variables)

    def _do_let(self, value: Any, variables: dict[str, Any]) -> Any:
        return self._fill(whole(json_format.MessageToDict(value)), variables)

    def _do_verify(self, verify: Any, variables: dict[str, Any]) -> Any:
        as_ = self._who(getattr(verify, "as"), variables)

        def ask(name: str, request: dict[str, Any]) -> dict[str, Any]:
            rpc = rpcs()[name]
            answer = self._ask(rpc, [message_of(rpc.request, request)], as_)
            if answer.response is None:
                raise CheckFailed(f"verifying: {name} was answered with {_outcome(answer)}")
            return answer.response

        found = verified(self._fill(verify.cube, variables), ask)
        if found["findings"] and not verify.findings_expected:
            raise CheckFailed(f"the log does not verify: {'; '.join(found['findings'][:5])}")
        return found

    def _do_repeat(self, repeat: Any, variables: dict[str, Any]) -> None:
        items = evaluate(repeat.each, variables, self._functions)
        runs = []
        for item in items:
            seen = dict(variables)
            seen[getattr(repeat, "as") or "item"] = item
            self._steps(repeat.steps, seen)
            runs.append(seen)
        _gather(repeat.steps, runs, variables)

    def _do_parallel(self, parallel: Any, variables: dict[str, Any]) -> None:
        works = [(branch, copy) for branch in parallel.branches for copy in range(max(1, branch.copies))]
        seen = [dict(variables) | {"copy": copy} for _, copy in works]
        with ThreadPoolExecutor(len(works)) as pool:
            futures = [
                pool.submit(self._steps, branch.steps, own) for (branch, _), own in zip(works, seen, strict=True)
            ]
        for future in futures:
            future.result()
        at = 0
        for branch in parallel.branches:
            copies = max(1, branch.copies)
            own = seen[at : at + copies]
            at += copies
            if branch.copies:
                _gather(branch.steps, own, variables)
            else:
                variables |= {step.id: own[0][step.id] for step in branch.steps if step.id}

    # What is expected.

    def _judge(self, name: str, expect: Any, answer: Answer, variables: dict[str, Any]) -> None:
        code = expect.code or "OK"
        if code != "ANY" and answer.code != code:
            raise CheckFailed(f"{name} was answered with {_outcome(answer)} instead of {code} {expect.reason}".rstrip())
        # Health and reflection are not of the contract, nor are their errors; and a deadline that the client's own
        # library finds to be over was told by no server.
        own = answer.code == "CANCELLED" or (answer.code == "DEADLINE_EXCEEDED" and not answer.details)
        if name in rpcs() and (not (answer.code == "OK" or own) or answer.reason):
            _judge_error(name, answer)
        if expect.reason and answer.reason != expect.reason:
            raise CheckFailed(f"{name}: the reason is {answer.reason or 'missing'} instead of {expect.reason}")
        for path in expect.violations:
            wanted = self._fill(path, variables)
            if wanted not in answer.violations:
                raise CheckFailed(f"{name}: BadRequest names {answer.violations or 'nothing'} and not {wanted}")
        for key, value in expect.metadata.items():
            wanted = str(self._fill(value, variables))
            if answer.metadata.get(key) != wanted:
                raise CheckFailed(f"{name}: metadata {key} is {answer.metadata.get(key)!r} instead of {wanted!r}")
        seen = {
            **variables,
            "response": answer.response,
            "frames": answer.frames,
            "elapsed": answer.elapsed,
            **answer.described(),
        }
        expected = self._fill(_struct(expect.response), variables)
        if expected and (found := difference(expected, answer.response)):
            raise CheckFailed(f"{name}: {found}")
        for expression in expect.that:
            self._demand(expression, seen, name)

    def _demand(self, expression: str, variables: Mapping[str, Any], name: str = "") -> None:
        value = evaluate(expression, variables, self._functions)
        if value is not True:
            prefix = f"{name}: " if name else ""
            shown_value = "" if value is False else f" (it is {value!r})"
            raise CheckFailed(f"{prefix}not true: {expression}{shown_value}")

    def _true(self, expression: str, variables: Mapping[str, Any]) -> bool:
        """Returns whether an expression is true; one that names what is not there yet is not."""
        with contextlib.suppress(ExpressionError):
            return evaluate(expression, variables, self._functions) is True
        return False

    def _fill(self, template: Any, variables: Mapping[str, Any]) -> Any:
        return filled(template, variables, self._functions)


def asker(client: Client, token: str) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """Returns what makes a call by its name and returns its response, outside of any case.

    Args:
        client: The connection.
        token: The caller's.
    """

    def ask(name: str, request: dict[str, Any]) -> dict[str, Any]:
        rpc = rpcs()[name]
        message = message_of(rpc.request, request)
        trace = Trace(name, "", [shown(message)])
        metadata = [("authorization", f"Bearer {token}")] if token else []
        answer = client.call(rpc, [message.SerializeToString()], metadata, trace)
        if answer.response is None:
            raise CheckFailed(f"{name} was answered with {_outcome(answer)}")
        return answer.response

    return ask


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Makes a call, again where a quota refuses it: it had no effect then, and the checks share one machine and mostly
    one principal."""
    until = time.monotonic() + _QUOTA_S
    while True:
        answer = ask()
        over = answer.reason == "QUOTA_EXCEEDED" and answer.retry_seconds is not None
        if not over or time.monotonic() >= until:
            return answer
        time.sleep(min(answer.retry_seconds or 0.0, 2.0))


def _judge_error(name: str, answer: Answer) -> None:
    """Checks what holds for every error: MIP-ERRS-001 and 002."""
    if not answer.reason or answer.domain != "mip":
        raise CheckFailed(
            f"{name}: {answer.code} ({answer.message}) carries no ErrorInfo of the domain mip (MIP-ERRS-001)"
        )
    rule = reasons().get(answer.reason)
    if rule is None:
        raise CheckFailed(f"{name}: the reason {answer.reason} is not in the table (MIP-ERRS-001)")
    if rule.code != answer.code:
        raise CheckFailed(f"{name}: {answer.reason} came with {answer.code} instead of {rule.code} (MIP-ERRS-002)")


def _gather(steps: Sequence[Any], runs: Sequence[dict[str, Any]], variables: dict[str, Any]) -> None:
    for step in steps:
        if step.id:
            variables[step.id] = [run[step.id] for run in runs]


def _result(rpc: Rpc, answer: Answer) -> Any:
    if rpc.server_streaming:
        return answer.frames
    if answer.response is not None:
        return answer.response
    return answer.described()


def _outcome(answer: Answer) -> str:
    if answer.code == "OK":
        return "OK"
    return f"{answer.code} {answer.reason or '(no reason)'} ({answer.message})"


def _struct(struct: Any) -> dict[str, Any]:
    return dict(whole(json_format.MessageToDict(struct)))


def _as_text(request: Any) -> str:
    return f"hex:{request.hex()[:4000]}" if isinstance(request, bytes) else shown(request)
