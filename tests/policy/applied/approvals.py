"""`ApprovalPolicy`, `Rule`, `Always` and `SamplingBudget`: what is sent, and how often somebody is asked."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

from garrison import Context, Server
from garrison.host import Always, ApprovalPolicy, RemoteServer, Rule, SamplingBudget, Verdict
from garrison.types import SamplingMessage, TextContent
from tests.support.hosted import Approver

from .case import case
from .hosting import hosting, remote
from .hosts import SLOW, model, one, said

YEARS = date(2099, 1, 1)
LONG_AGO = date(2020, 1, 1)


async def asked(policy: ApprovalPolicy, times: int = 1, **fields: Any) -> object:
    """What the last call gets, and how often somebody was asked about calls."""
    found: object = None
    async with one(RemoteServer, fields, policy=policy) as (host, person):
        for _ in range(times):
            found = await said(host, what="wait")
        return found, len(person.of("call"))


def rule(**fields: Any) -> Rule:
    return Rule(**{"action": "allow", "server": "x", "tool": "do", **fields})


@case(ApprovalPolicy, "rules", default=("had", 1), changed=([rule()], ("had", 0)))
async def rules(value: Any) -> object:
    return await asked(ApprovalPolicy(value))


@case(ApprovalPolicy, "default", default=("had", 1), changed=("deny", ("NotApproved", 0)))
async def default(value: Any) -> object:
    return await asked(ApprovalPolicy(default=value))


def rule_case(name: str, first: tuple[Any, object] | None = None, **expected: Any) -> None:
    """What becomes of a call of `x.do` where there is one rule."""

    @case(Rule, name, first=first, **expected)
    async def observe(value: Any) -> object:
        return await asked(ApprovalPolicy([rule(**{name: value})]))


rule_case("action", first=("allow", ("had", 0)), changed=("deny", ("NotApproved", 0)))
rule_case("action", first=("deny", ("NotApproved", 0)), changed=("ask", ("had", 1)))
rule_case("server", first=("*", ("had", 0)), changed=("y", ("had", 1)))
rule_case("tool", first=("d*", ("had", 0)), changed=("other", ("had", 1)))
rule_case("arguments", default=("had", 0), changed=({"what": "other"}, ("had", 1)))
rule_case("until", first=(YEARS, ("had", 0)), changed=(LONG_AGO, ("had", 1)))


@case(Rule, "dangerously_ignore_flow", default=("had", 1), changed=("a test", ("had", 0)))
async def ignore_flow(value: str) -> object:
    return await asked(ApprovalPolicy([rule(dangerously_ignore_flow=value)]), times=2)


async def asked_again(always: Always, wait: float = 0, **second: Any) -> int:
    """How often somebody is asked who says yes to the first of two calls like this."""
    person = Approver(verdict=Verdict(True, always=always))
    async with one(RemoteServer, {"labels": []}, approve=person) as (host, _):
        for arguments in ({}, second):
            assert await said(host, **{"what": "wait", "seconds": 0.01, **arguments}) == "had"
            await asyncio.sleep(wait)
        return len(person.of("call"))


@case(Always, "arguments", default=2, changed=({"what": "*", "seconds": 0.01}, 1))
async def always_arguments(value: Any) -> object:
    return await asked_again(Always(arguments=value), what="other")


@case(Always, "seconds", default=1, changed=(0.1, 2))
async def always_seconds(value: float) -> object:
    return await asked_again(Always(seconds=value), wait=0.2)


# SamplingBudget


async def granted(wait: float = 0, size: int = 1, answers: int = 0, **fields: Any) -> list[int]:
    """The tokens that each of two prompts is granted, as far as they are answered.

    Args:
        wait: seconds between the two.
        size: of each prompt, in bytes.
        answers: of the model, in each prompt.
        fields: of the budget.
    """
    given: list[int] = []
    server = Server("asking", policy=SLOW)

    @server.tool()
    async def ask(ctx: Context) -> str:
        said = [SamplingMessage(role="assistant", content=TextContent("x")) for _ in range(answers)]
        await ctx.sample([*said, SamplingMessage(role="user", content=TextContent("x" * size))], max_tokens=1000)
        return "asked"

    def answer(params: Any) -> Any:
        given.append(params.max_tokens)
        return model(params)

    options: dict[str, Any] = {"security": SLOW, "sample": answer, "sampling": SamplingBudget(**fields)}
    async with remote(server) as reached, hosting({"x": reached}, **options) as (host, _):
        for _ in range(2):
            await said(host, "x.ask")
            await asyncio.sleep(wait)
    return given


def budget_case(name: str, value: Any, seen: list[int], by_default: list[int], **asking: Any) -> None:
    """A bound, and the tokens that are granted with it and by default."""

    @case(SamplingBudget, name, default=by_default, changed=(value, seen))
    async def observe(value: Any) -> object:
        return await granted(**{**asking, name: value})


budget_case("requests", 1, [1000], [1000, 1000])
budget_case("tokens", 1500, [1000, 500], [1000, 1000])
budget_case("max_tokens", 50, [50, 50], [1000, 1000])
budget_case("seconds", 0.1, [1000, 1000], [1000], requests=1, wait=0.2)
budget_case("loops", 1, [], [1000, 1000], answers=2)
budget_case("prompt_bytes", 500, [], [1000, 1000], size=1000)

__all__ = ["asked", "granted"]
