"""Rules for the text of the project: dangerous calls, long files, and addresses that are nobody's business."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST = 600

FORBIDDEN = {
    "S102": "exec(text)\n",
    "S307": "eval(text)\n",
    "S301": "import pickle\n\npickle.loads(data)\n",
    "S302": "import marshal\n\nmarshal.loads(data)\n",
    "S602": "import subprocess\n\nsubprocess.run(command, shell=True)\n",
    "S605": "import os\n\nos.system(command)\n",
    "S324": "import hashlib\n\nhashlib.md5(data)\n",
    "S311": "import random\n\nrandom.random()\n",
    "S501": "import requests\n\nrequests.get(url, verify=False, timeout=1)\n",
    "S101": "assert data\n",
    "BLE001": "try:\n    run()\nexcept Exception:\n    stop()\n",
}

# In two pieces, so that this file does not name them either.
REGISTRIES = ["pypi" + ".org", "python" + "hosted.org", "npmjs" + ".org", "npmjs" + ".com", "yarnpkg" + ".com"]
REGISTRIES += ["crates" + ".io", "golang" + ".org", "rubygems" + ".org", "anaconda" + ".org", "docker" + ".io"]


def ruff(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, cwd=ROOT)


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_the_linter_refuses(rule: str) -> None:
    done = ruff("--stdin-filename", "src/garrison/server/example.py", "-", stdin=FORBIDDEN[rule])
    assert done.returncode == 1 and rule in done.stdout, done.stdout + done.stderr


def test_the_linter_accepts_a_program_started_without_a_shell() -> None:
    text = '"""Text."""\n\nimport subprocess\n\nsubprocess.run(["/bin/true"], check=True)\n'
    done = ruff("--stdin-filename", "src/garrison/server/example.py", "-", stdin=text)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sources_have_none_of_it() -> None:
    done = ruff("--select", ",".join(FORBIDDEN), "src")
    assert done.returncode == 0, done.stdout


def test_the_calls_that_run_code_are_never_allowed_by_a_comment() -> None:
    allowed = re.compile(r"noqa:[^#]*\b(S102|S307|S30[12]|S60[245])\b|ruff: noqa")
    assert [str(path) for path in SOURCES if allowed.search(path.read_text(encoding="utf-8"))] == []


def test_no_source_file_is_too_long() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert len(lengths) > 5
    assert {str(path): length for path, length in lengths.items() if length > LONGEST} == {}


def committed() -> list[Path]:
    """Files of the repository, and those that would join it with `git add`."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:  # an unpacked source distribution
        return [path for part in ("src", "tests", "docs") for path in (ROOT / part).rglob("*") if path.is_file()]
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_the_host_of_a_package_registry() -> None:
    files = committed()
    assert Path(__file__).resolve() in files
    host = re.compile("|".join(map(re.escape, REGISTRIES)).encode())
    assert [str(path.relative_to(ROOT)) for path in files if host.search(path.read_bytes())] == []
