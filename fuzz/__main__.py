"""`python -m fuzz`: see README.md."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from . import engine


def main() -> int:
    """Do what the command line says; 1 if something was found."""
    parser = argparse.ArgumentParser("python -m fuzz", description="Fuzz the parsers.")
    parser.add_argument("target", choices=["all", *engine.names()], metavar="TARGET", help="; ".join(engine.names()))
    parser.add_argument("--seconds", type=int, default=180, help="how long each target runs (180)")
    parser.add_argument("--runs", type=int, default=-1, help="how many inputs at most")
    parser.add_argument("--into", type=Path, default=engine.HOME, help="where grown/ and found/ are (fuzz)")
    parser.add_argument("--replay", type=Path, nargs="*", help="give these inputs to the target, or all that is kept")
    parser.add_argument("--minimise", action="store_true", help="choose anew what is kept in fuzz/corpus")
    options = parser.parse_args()
    logging.disable()
    targets = engine.names() if options.target == "all" else [options.target]
    if options.replay is not None:
        return sum(replay(name, options.replay) for name in targets) and 1
    if options.minimise:
        for name in targets:
            say(f"{name}: {engine.minimise(name)} kept")
        return 0
    if len(targets) == 1:
        engine.run(options.target, options.seconds, runs=options.runs, into=options.into)
        return 0
    return sum(alone(name, options.seconds, options.runs, options.into) for name in targets) and 1


def alone(name: str, seconds: int, runs: int, into: Path) -> bool:
    """Fuzz one target in a process of its own, because libFuzzer ends it. True if something was found."""
    say(f"=== {name}")
    before = engine.found(name, into)
    limits = ["--seconds", str(seconds), "--runs", str(runs), "--into", str(into)]
    done = subprocess.run([sys.executable, "-m", "fuzz", name, *limits])
    for path in engine.found(name, into):
        if path not in before:
            say(f"found; to see it again: python -m fuzz {name} --replay {path}")
    return done.returncode != 0


def replay(name: str, paths: list[Path]) -> int:
    """Give inputs to a target; how many it does not stand."""
    target = engine.load(name)
    bad = 0
    given = [(str(path), path.read_bytes()) for path in paths] or list(engine.inputs(name))
    for title, data in given:
        try:
            target.check(data)
        except Exception as error:  # noqa: BLE001 - whatever comes out is what is looked for
            import traceback

            traceback.print_exception(error)
            say(f"{name}: {title}: {data!r}")
            bad += 1
    say(f"{name}: {len(given)} inputs, {bad} bad")
    return bad


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
