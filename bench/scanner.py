#!/usr/bin/env python3
"""How much the definition scanner finds, how often it is wrong, and how long it takes.

    uv run python bench/scanner.py [--list] [--json FILE]

Over the corpus in tests/host/corpus: first what the rules were tuned on, then what was held out. "Blocked" is a high
finding, "warned" a high or medium one. Times are of one definition with its other servers, in microseconds of CPU.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from tests.host.corpus import load, measured


def rates(part: str, found) -> dict[str, object]:
    return {
        "part": part,
        "poisoned": found.poisoned,
        "benign": found.benign,
        "blocked": {
            "recall": found.recall(),
            "precision": found.precision(),
            "false positives": found.false_positives(),
        },
        "warned": {
            "recall": found.recall(warned=True),
            "precision": found.precision(warned=True),
            "false positives": found.false_positives(warned=True),
        },
    }


def times() -> dict[str, float]:
    cases = [
        case for held_out in (False, True) for kind in ("benign", "poisoned") for case in load(kind, held_out=held_out)
    ]
    for case in cases[:20]:
        case.findings()
    taken = []
    for case in cases:
        begin = time.process_time_ns()
        for _ in range(5):
            case.findings()
        taken.append((time.process_time_ns() - begin) / 5_000)
    taken.sort()
    return {"median": statistics.median(taken), "p95": taken[int(len(taken) * 0.95)], "most": taken[-1]}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--list", action="store_true", help="name what is missed and what is wrongly blocked")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    rows = []
    for part, held_out in (("tuned", False), ("held out", True)):
        found = measured(held_out=held_out)
        rows.append(rates(part, found))
        print(f"{part}: {found.poisoned} poisoned, {found.benign} benign")
        for verdict in ("blocked", "warned"):
            words = ", ".join(f"{name} {rate:.1%}" for name, rate in rows[-1][verdict].items())
            print(f"  {verdict:8} {words}")
        print(f"  {'rule':16} poisoned  benign")
        for rule in sorted(found.rules | found.wrong_rules):
            print(f"  {rule:16} {found.rules[rule]:8} {found.wrong_rules[rule]:7}")
        by_category: dict[str, list[int]] = {}
        for case in load("poisoned", held_out=held_out):
            levels = {finding.level for finding in case.findings()}
            row = by_category.setdefault(case.category, [0, 0, 0])
            row[0] += "high" in levels
            row[1] += bool(levels & {"high", "medium"})
            row[2] += 1
        print(f"  {'category':16} blocked  warned  of")
        for category, (blocked, warned, count) in sorted(by_category.items()):
            print(f"  {category:16} {blocked:7} {warned:7} {count:3}")
        if chosen.list:
            print("  missed:", *found.missed)
            print("  wrongly blocked:", *found.wrong)
    taken = times()
    print("microseconds of CPU a definition:", ", ".join(f"{name} {value:.0f}" for name, value in taken.items()))
    if chosen.json:
        chosen.json.write_text(json.dumps({"parts": rows, "microseconds": taken}, indent=1))


if __name__ == "__main__":
    main()
