"""Makes `src/garrison/host/characters.txt`, the tables of `garrison.host.confusables`, from Unicode's own files.

    python -m tests.support.unicode_tables FOLDER > src/garrison/host/characters.txt

FOLDER holds `confusables.txt` (UTS 39), `Scripts.txt`, `ScriptExtensions.txt`, `PropertyValueAliases.txt`,
`DerivedCoreProperties.txt`, all of one version, and `LICENSE`, Unicode's. Debian has them in the source package `icu`
(`source/data/unidata/confusables.txt`, `LICENSE`) and in `unicode-data`.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["made"]

_WIDTH = 120
_COMMON = frozenset({"Common", "Inherited"})


def made(folder: Path) -> str:
    """The text of the tables."""
    confusables = (folder / "confusables.txt").read_text(encoding="utf-8-sig")
    version = re.search(r"^# Version: ([\d.]+)$", confusables, re.MULTILINE)
    scripts = (folder / "Scripts.txt").read_text(encoding="utf-8")
    if version is None or f"Scripts-{version[1]}.txt" not in scripts:
        raise ValueError("the files are not of one version")
    lines = [
        f"Unicode {version[1]}, cut down to what garrison.host.confusables needs: a modified form of Unicode's data.",
        "Made by tests/support/unicode_tables.py; not written by hand.",
        "",
        *_license(folder / "LICENSE"),
    ]
    head = "\n".join(f"# {line}".rstrip() for line in lines)
    parts = [head, "[looks like]", *_prototypes(confusables), "[script]", *_scripts(folder, scripts), "[ignored]"]
    derived = (folder / "DerivedCoreProperties.txt").read_text(encoding="utf-8")
    ignored = [code for codes, name in _rows(derived) if name == "Default_Ignorable_Code_Point" for code in codes]
    return "\n".join([*parts, *_wrapped("", _ranges(ignored))]) + "\n"


def _license(path: Path) -> Iterable[str]:
    text = path.read_text(encoding="utf-8")
    return text[: text.index("\n-----")].strip().splitlines()


def _rows(text: str) -> Iterator[tuple[range, str]]:
    """Code points and value of each line `XXXX..YYYY ; value # comment`."""
    for line in text.splitlines():
        codes, separator, value = line.partition("#")[0].partition(";")
        if separator:
            first, _, last = codes.strip().partition("..")
            yield range(int(first, 16), int(last or first, 16) + 1), value.strip()


def _prototypes(text: str) -> list[str]:
    sources: dict[str, list[int]] = defaultdict(list)
    for codes, value in _rows(text):
        target = value.partition(";")[0].split()
        sources["+".join(f"{int(code, 16):04X}" for code in target)].extend(codes)
    return [line for target in sorted(sources, key=_order) for line in _wrapped(target, _ranges(sources[target]))]


def _order(target: str) -> list[int]:
    return [int(code, 16) for code in target.split("+")]


def _scripts(folder: Path, text: str) -> list[str]:
    long: dict[str, str] = {}
    for line in (folder / "PropertyValueAliases.txt").read_text(encoding="utf-8").splitlines():
        fields = [field.strip() for field in line.partition("#")[0].split(";")]
        if fields[0] == "sc":
            long[fields[1]] = fields[2]
    of = {code: value for codes, value in _rows(text) for code in codes}
    for codes, value in _rows((folder / "ScriptExtensions.txt").read_text(encoding="utf-8")):
        of.update(dict.fromkeys(codes, "+".join(sorted(long[name] for name in value.split()))))
    found: dict[str, list[int]] = defaultdict(list)
    for code, value in of.items():
        found["Common" if value in _COMMON else value].append(code)
    return [line for name in sorted(found) for line in _wrapped(name, _ranges(found[name]))]


def _ranges(codes: Iterable[int]) -> list[str]:
    made: list[list[int]] = []
    for code in sorted(codes):
        if made and made[-1][1] == code - 1:
            made[-1][1] = code
        else:
            made.append([code, code])
    return [f"{first:04X}" if first == last else f"{first:04X}-{last:04X}" for first, last in made]


def _wrapped(name: str, words: list[str]) -> Iterator[str]:
    line = f"{name}:"
    for word in words:
        if len(line) + 1 + len(word) > _WIDTH:
            yield line
            line = f"{name}:"
        line += f" {word}"
    yield line


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(made(Path(sys.argv[1])))
