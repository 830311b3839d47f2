"""The example agent runs as it stands there, with one approval granted and one denied."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .running import EXAMPLES

pytestmark = pytest.mark.client


def test_one_call_is_approved_and_one_is_not(tmp_path: Path) -> None:
    # Elsewhere, and with a home of its own: nothing that was approved on this machine counts.
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "agent.py")],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(EXAMPLES.parent / "src")},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "? Call notes.read_note? yes" in lines
    assert "? Call notes.delete_note? no" in lines
    assert not any("Call clock.today" in line for line in lines), "a rule allows it"
    assert "Paint the shed on Saturday." in lines
    assert "This call was not approved" in done.stdout
    assert lines[-1] == "The notes are {'plan': 'Paint the shed on Saturday.'}."
    assert list(tmp_path.iterdir()) == []


def test_the_loop_is_twenty_lines() -> None:
    source = (EXAMPLES / "agent.py").read_text(encoding="utf-8")
    body = source.split("async def agent(")[1].split("\n\n\n")[0]
    assert len(body.splitlines()) <= 20
