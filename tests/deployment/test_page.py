"""docs/deployment.md shows the files of examples/deploy, which the other tests here use."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^ *```(?P<kind>\w+)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("kind", "name"), [("nginx", "nginx.conf"), ("toml", "garrison.toml"), ("ini", "garrison.service")]
)
def test_the_page_shows_the_file(kind: str, name: str) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (shown,) = [match["text"] for match in FENCE.finditer(page) if match["kind"] == kind]
    assert dedent(shown) == (ROOT / "examples" / "deploy" / name).read_text(encoding="utf-8")
