"""Every Python example of the README and of docs/ runs.

The examples of a page run in order and share their names, as a reader would type them, in an empty folder.
`Server.run` returns at once. An example that cannot run here has `<!-- not run: reason -->` on the line above its
fence; it must still compile.

Every limit and time-out stands in docs/transports.md with its default.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pytest

from garrison import Limits, Timeouts

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: *(?P<reason>.*?) *-->\s*\Z")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
ROW = re.compile(r"^\| `(?P<field>[a-z_]+)` \| (?P<default>[^|]+) \|", re.MULTILINE)


class Example(NamedTuple):
    line: int
    code: str
    reason: str | None
    """Why it is not run; None when it is."""


def examples(text: str) -> list[Example]:
    found: list[Example] = []
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        code = "".join(line[indent:] if line.strip() else "\n" for line in match["code"].splitlines(keepends=True))
        mark = NOT_RUN.search(text, 0, match.start())
        found.append(Example(text.count("\n", 0, match.start()) + 1, code, mark["reason"] if mark else None))
    return found


def run_examples(text: str, name: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "__main__"}
    for example in examples(text):
        code = compile("\n" * example.line + example.code, name, "exec", dont_inherit=True)
        if example.reason is None:
            exec(code, names)
        else:
            assert len(example.reason) >= 10, f"{name}:{example.line}: say why it is not run"
    return names


@pytest.fixture
def no_blocking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from garrison import Server

    monkeypatch.setattr(Server, "run", lambda self, *args, **kwargs: None)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("no_blocking")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path) -> None:
    run_examples(page.read_text(encoding="utf-8"), str(page))


@pytest.mark.usefixtures("no_blocking")
async def test_the_first_example_is_ten_lines_and_answers() -> None:
    from garrison import Client, Server

    first = examples((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert first.reason is None and len(first.code.splitlines()) == 10
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(first.code, "README.md", "exec", dont_inherit=True), names)
    server = names["server"]
    assert isinstance(server, Server)
    async with Client(server) as client:
        result = await client.call_tool("add", {"a": 19, "b": 23})
    assert result.structured_content == {"result": 42}


def shown(name: str, value: float) -> str:
    """A default as the tables write it."""
    if not name.endswith("_bytes"):
        return f"{value:,}" if isinstance(value, int) else f"{value:g} s"
    mebibytes, rest = divmod(value, 1024 * 1024)
    return f"{value / 1024:g} KiB" if rest else f"{mebibytes:g} MiB"


@pytest.mark.parametrize(("heading", "kind"), [("## Limits", Limits), ("## Time-outs", Timeouts)])
def test_every_limit_and_time_out_is_documented_with_its_default(heading: str, kind: type[Limits | Timeouts]) -> None:
    page = (ROOT / "docs" / "transports.md").read_text(encoding="utf-8")
    section = page.split(f"\n{heading}\n")[1].split("\n## ")[0]
    values = kind()
    expected = [(field.name, shown(field.name, getattr(values, field.name))) for field in fields(kind)]
    assert ROW.findall(section) == expected


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_another_page_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other.read_text(encoding="utf-8")), target


def test_an_example_that_fails_is_reported_with_its_line() -> None:
    page = "text\n\n```python\nx = 1\n```\n\n```python\nassert x == 1\nraise KeyError\n```\n"
    with pytest.raises(KeyError) as caught:
        run_examples(page, "page.md")
    assert caught.traceback[-1].lineno == 8  # counted from 0


def test_an_example_may_be_left_out_with_a_reason_only() -> None:
    page = "<!-- not run: needs a listener on port 8000 -->\n```python\nraise KeyError\n```\n"
    assert "x" not in run_examples(page, "page.md")
    with pytest.raises(AssertionError, match="say why"):
        run_examples(page.replace("needs a listener on port 8000", ""), "page.md")
    with pytest.raises(SyntaxError):
        run_examples(page.replace("raise", "raise raise"), "page.md")
