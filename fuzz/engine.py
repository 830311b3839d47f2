"""Runs targets: under atheris, once over the kept corpus, or to choose what is kept.

Rules of this file:
- A target is imported inside `atheris.instrument_imports`, and nothing of garrison before it. The target counts as
  covered too: new ways through a reference are as good a guide as new ways through the parser.
- What a run grows lies in `fuzz/grown`, what it finds in `fuzz/found`; git ignores both. `fuzz/corpus` is kept.
- Replaying needs no atheris.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

__all__ = ["HOME", "Target", "corpus", "found", "inputs", "load", "minimise", "names", "run"]

HOME = Path(__file__).resolve().parent
LONGEST = 4096
KEPT = 40


class Target(Protocol):
    """A module of `fuzz.targets`."""

    SEEDS: tuple[bytes, ...]
    WORDS: tuple[bytes, ...]

    def check(self, data: bytes) -> None:
        """Raises what is wrong."""
        ...


def names() -> list[str]:
    """All targets."""
    return sorted(path.stem for path in (HOME / "targets").glob("[a-z]*.py"))


def load(name: str) -> Target:
    """The target of this name."""
    return cast("Target", importlib.import_module(f"fuzz.targets.{name}"))


def corpus(name: str) -> list[Path]:
    """The kept inputs of a target."""
    return sorted(path for path in (HOME / "corpus" / name).glob("*") if path.is_file())


def found(name: str, into: Path = HOME) -> list[Path]:
    """What runs have found."""
    return sorted((into / "found").glob(f"{name}-*"))


def run(name: str, seconds: int, *, runs: int = -1, into: Path = HOME) -> None:
    """Fuzz one target. Ends the process: with status 0 if nothing was found.

    Args:
        seconds, runs: when to stop, whichever comes first.
        into: where `grown` and `found` are.
    """
    import atheris  # lazy: everything else here works without

    instrument: Any = atheris.instrument_imports  # pyright: ignore[reportAttributeAccessIssue] - made at run time

    with instrument(include=["garrison", "fuzz.targets"], enable_loader_override=False):
        target = load(name)
    grown = into / "grown" / name
    grown.mkdir(parents=True, exist_ok=True)
    (into / "found").mkdir(exist_ok=True)
    kept = HOME / "corpus" / name
    kept.mkdir(parents=True, exist_ok=True)
    seeds = into / "grown" / f"{name}-seeds"
    seeds.mkdir(exist_ok=True)
    for number, seed in enumerate(target.SEEDS):
        (seeds / f"seed-{number}").write_bytes(seed)
    words = into / "grown" / f"{name}-words"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.WORDS))
    options = [
        f"-max_total_time={seconds}",
        f"-runs={runs}",
        f"-max_len={LONGEST}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={into / 'found' / name}-",
        f"-dict={words}",
    ]
    atheris.Setup([sys.argv[0], *options, str(grown), str(kept), str(seeds)], target.check)
    atheris.Fuzz()


def _quoted(word: bytes) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


def minimise(name: str, most: int = KEPT) -> int:
    """Choose the inputs to keep out of all there are: the fewest and smallest that together reach all that is reached.

    Returns:
        How many are kept, at most `most`; those that reach most come first.
    """
    target = load(name)
    paths = [*corpus(name), *(HOME / "grown" / name).glob("*")]
    inputs = sorted({path.read_bytes() for path in paths} - set(target.SEEDS), key=lambda data: (len(data), data))
    _reached(target.check, target.SEEDS)  # what is done only once is done here
    reached = _reached(target.check, target.SEEDS)
    covers = [(data, _reached(target.check, (data,))) for data in inputs]
    kept: list[bytes] = []
    while len(kept) < most:
        gain, _, data, cover = max(
            ((len(cover - reached), -len(data), data, cover) for data, cover in covers), default=(0, 0, b"", set())
        )
        if not gain:
            break
        kept.append(data)
        reached |= cover
    folder = HOME / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in corpus(name):
        path.unlink()
    for data in kept:
        (folder / f"{zlib.crc32(data):08x}").write_bytes(data)
    return len(kept)


def _reached(check: Callable[[bytes], None], inputs: tuple[bytes, ...]) -> set[tuple[object, ...]]:
    """The pairs of lines that run after each other, in garrison and in the target, and how often by powers of two."""
    import garrison

    roots = (str(Path(garrison.__file__).parent), str(HOME / "targets"))
    reached: set[tuple[object, ...]] = set()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        return line if frame.f_code.co_filename.startswith(roots) else None

    def line(frame: FrameType, event: str, argument: object) -> Any:
        pair = (frame.f_code, last.get(frame), frame.f_lineno, event)
        counts[pair] = counts.get(pair, 0) + 1
        last[frame] = frame.f_lineno
        return line

    for data in inputs:
        counts: dict[tuple[object, ...], int] = {}
        last: dict[FrameType, int] = {}
        sys.settrace(trace)
        try:
            check(data)
        finally:
            sys.settrace(None)
        reached |= {(*pair, count.bit_length()) for pair, count in counts.items()}
    return reached


def inputs(name: str) -> Iterator[tuple[str, bytes]]:
    """Everything that is kept for a target, by name."""
    for number, seed in enumerate(load(name).SEEDS):
        yield f"seed {number}", seed
    for path in corpus(name):
        yield path.name, path.read_bytes()
