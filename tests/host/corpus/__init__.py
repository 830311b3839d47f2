"""Definitions of tools, poisoned and benign, by which the definition scanner is measured.

Written for this project, in the style of published attacks and of servers that people use. One JSON object a line:
`id`, `alias`, `definition`, and where they matter `instructions`, `others`; poisoned ones also `category`, and `place`,
the part of a benign definition into which the poison was put.

Rules of this folder:
- Files named `held-out` were written with the others, chosen by a hash of their id, and read once: after the rules were
  done. No rule may be changed for their sake. Whoever tunes the rules adds to the other files.
- Benign definitions say what also attackers say: "important", "always", "before", passwords of a login, `~/.ssh` in a
  tool for SSH. Poisoned ones have paraphrases in which no suspect word stands. Both are meant to be hard.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from garrison.host.scanner import Finding, scan

__all__ = ["Case", "Measured", "load", "measured"]

HERE = Path(__file__).parent
OTHERS = {  # other servers beside a benign one
    "elsewhere": [
        "read_file",
        "send_email",
        "post_message",
        "create_issue",
        "get_forecast",
        "run_query",
        "list_tables",
    ],
    "chat": ["post_message", "list_channels", "get_channel_history", "add_reaction", "upload_file", "search", "add"],
    "post": ["send_email", "search_mail", "create_draft", "delete_message", "forward_message", "fetch"],
}


@dataclass(frozen=True, slots=True)
class Case:
    """One definition, and what stands around it."""

    id: str
    alias: str
    definition: dict[str, Any]
    others: Mapping[str, Collection[str]]
    instructions: str | None
    category: str
    place: str

    def findings(self) -> tuple[Finding, ...]:
        return scan(self.definition, alias=self.alias, others=self.others, instructions=self.instructions)


class Measured(NamedTuple):
    """How a set of definitions fares. "Blocked" is a high finding, "warned" a high or medium one."""

    poisoned: int
    benign: int
    blocked: int
    """Poisoned ones with a high finding."""
    warned: int
    wrongly_blocked: int
    wrongly_warned: int
    rules: Counter[str]
    """How many poisoned ones each rule finds, at medium or high."""
    wrong_rules: Counter[str]
    missed: list[str]
    """Poisoned ones without even a warning."""
    wrong: list[str]
    """Benign ones that are blocked."""

    def recall(self, *, warned: bool = False) -> float:
        return (self.warned if warned else self.blocked) / self.poisoned

    def precision(self, *, warned: bool = False) -> float:
        good, bad = (self.warned, self.wrongly_warned) if warned else (self.blocked, self.wrongly_blocked)
        return good / (good + bad)

    def false_positives(self, *, warned: bool = False) -> float:
        return (self.wrongly_warned if warned else self.wrongly_blocked) / self.benign


def load(kind: str, *, held_out: bool) -> list[Case]:
    """The cases of a kind, "poisoned" or "benign"."""
    path = HERE / f"{kind}{'-held-out' if held_out else ''}.jsonl"
    return [_case(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def measured(*, held_out: bool) -> Measured:
    """Scans everything once."""
    poisoned = [(case, _levels(case)) for case in load("poisoned", held_out=held_out)]
    benign = [(case, _levels(case)) for case in load("benign", held_out=held_out)]
    return Measured(
        poisoned=len(poisoned),
        benign=len(benign),
        blocked=sum("high" in levels for _, levels in poisoned),
        warned=sum(bool(levels.keys() & {"high", "medium"}) for _, levels in poisoned),
        wrongly_blocked=sum("high" in levels for _, levels in benign),
        wrongly_warned=sum(bool(levels.keys() & {"high", "medium"}) for _, levels in benign),
        rules=_rules(levels for _, levels in poisoned),
        wrong_rules=_rules(levels for _, levels in benign),
        missed=[case.id for case, levels in poisoned if not levels.keys() & {"high", "medium"}],
        wrong=[case.id for case, levels in benign if "high" in levels],
    )


def _levels(case: Case) -> dict[str, set[str]]:
    levels: dict[str, set[str]] = {}
    for finding in case.findings():
        levels.setdefault(finding.level, set()).add(finding.rule)
    return levels


def _rules(found: Any) -> Counter[str]:
    return Counter(rule for levels in found for rule in levels.get("high", set()) | levels.get("medium", set()))


def _case(row: dict[str, Any]) -> Case:
    own = row["definition"]["name"]
    siblings = _siblings().get(row["alias"], [own])
    others = row.get("others") or OTHERS
    return Case(
        id=row["id"],
        alias=row["alias"],
        definition=row["definition"],
        others={**others, row["alias"]: siblings},
        instructions=row.get("instructions"),
        category=row.get("category", "benign"),
        place=row.get("place", ""),
    )


def _siblings() -> dict[str, list[str]]:
    """The tools of each benign server, held out or not."""
    if not _known:
        for path in sorted(HERE.glob("benign*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                _known.setdefault(row["alias"], []).append(row["definition"]["name"])
    return _known


_known: dict[str, list[str]] = {}
