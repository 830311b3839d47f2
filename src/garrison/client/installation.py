"""Which files a program is made of: what a sandbox must show it, so that it can run at all.

Rules of this file:
- Code is shown, and nothing else: the folders that an installation keeps programs and libraries in, the package that a
  script belongs to. What a server works on is declared by whoever starts it.
- No folder is shown that holds a person's other things: the home folder and what is above it, temporary folders, the
  root. There, the file itself is.
- The same program and arguments give the same list, in the same order.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Final

__all__ = ["belongings"]

_PARTS: Final = ("bin", "lib", "lib64", "libexec", "include")
"""Below the folder of an installation, what is code."""
_SYSTEM: Final = ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/")
_SCRIPTS: Final = (".py", ".pyz", ".js", ".mjs", ".cjs", ".ts", ".mts", ".rb", ".pl", ".php", ".lua", ".sh", ".jar")
"""Endings of files that load others which lie beside them."""
_MODULES: Final = "node_modules"
_MANIFESTS: Final = ("package.json", "pyproject.toml", "Gemfile", "composer.json")
_ABOVE: Final = 6
"""How many folders up a manifest is looked for."""
_SHEBANG: Final = 256


def belongings(program: str, arguments: Sequence[str], cwd: str | None = None, path: str = "") -> tuple[str, ...]:
    """The files and folders of a program's code, beside the system's own.

    Args:
        program: its whole path, as it was found.
        arguments: those after it. The first that is a file is taken for its script.
        cwd: the folder that a relative one is relative to.
        path: PATH, for a script that is started by `env`.
    """
    found: dict[str, None] = {}
    _program(program, path, found)
    script = _script(arguments, cwd)
    if script is not None:
        _code(script, found)
    # A link in a folder that is shown is shown with it; elsewhere, what it leads to is.
    real = dict.fromkeys(each if os.path.islink(each) else os.path.realpath(each) for each in found)
    shown = [each for each in real if not f"{each}/".startswith(_SYSTEM)]
    return tuple(each for each in shown if not any(each.startswith(f"{other}/") for other in shown))


def _program(program: str, path: str, found: dict[str, None]) -> None:
    """The installation of a program; where it is a script, that of its interpreter too."""
    for each in dict.fromkeys((program, os.path.realpath(program))):
        if each in found:
            return
        found[each] = None
        folder = os.path.dirname(each)
        if os.path.basename(folder) in ("bin", "Scripts"):
            _installed(os.path.dirname(folder), path, found)
        elif each.endswith(_SCRIPTS):
            _code(each, found)
    interpreter = _interpreter(program, path)
    if interpreter is not None:
        _program(interpreter, path, found)


def _installed(prefix: str, path: str, found: dict[str, None]) -> None:
    """What stands below the folder of an installation; a virtual environment has another one below it."""
    for part in _PARTS:
        folder = os.path.join(prefix, part)
        if os.path.isdir(folder) and not _is_broad(folder):
            found[folder] = None
    settings = os.path.join(prefix, "pyvenv.cfg")
    try:
        with open(settings, encoding="utf-8", errors="replace") as file:
            pairs = [line.partition("=") for line in file.read(65536).splitlines()]
    except OSError:
        return
    found[settings] = None
    home = next((value.strip() for key, _, value in pairs if key.strip().lower() == "home"), "")
    if os.path.isabs(home) and os.path.isdir(home):
        base = os.path.dirname(os.path.realpath(home))
        if os.path.join(base, "bin") not in found:
            _installed(base, path, found)


def _interpreter(program: str, path: str) -> str | None:
    """What the first line of a script names."""
    try:
        with open(program, "rb") as file:
            head = file.read(_SHEBANG)
    except OSError:
        return None
    if not head.startswith(b"#!"):
        return None
    words = os.fsdecode(head[2:].split(b"\n", 1)[0]).split()
    if words and os.path.basename(words[0]) == "env":
        name = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        folders = [folder for folder in path.split(os.pathsep) if os.path.isabs(folder)]
        return next((at for folder in folders if name and os.path.isfile(at := os.path.join(folder, name))), None)
    return words[0] if words and os.path.isabs(words[0]) else None


def _script(arguments: Sequence[str], cwd: str | None) -> str | None:
    for word in arguments:
        path = word if cwd is None else os.path.join(cwd, word)
        if os.path.isabs(path) and os.path.isfile(path):
            return path
    return None


def _code(script: str, found: dict[str, None]) -> None:
    """A script, and the package that it belongs to."""
    found[script] = None
    real = os.path.realpath(script)
    found[real] = None
    if not real.endswith(_SCRIPTS):
        return
    first, modules, _ = real.partition(f"{os.sep}{_MODULES}{os.sep}")
    if modules:
        found[os.path.join(first, _MODULES)] = None
        return
    folder = os.path.dirname(real)
    package = folder
    for _ in range(_ABOVE):
        if any(os.path.isfile(os.path.join(package, name)) for name in _MANIFESTS):
            break
        package = os.path.dirname(package)
    else:
        package = folder
    for each in (package, folder):
        if not _is_broad(each):
            found[each] = None
            return


def _is_broad(folder: str) -> bool:
    """Whether a person keeps other things there."""
    real = os.path.realpath(folder)
    home = os.path.realpath(os.path.expanduser("~"))
    if real in (os.path.realpath(tempfile.gettempdir()), "/tmp", "/var/tmp", "/srv", "/opt", "/etc"):  # noqa: S108 - to be left out
        return True
    return f"{home}/".startswith(real if real.endswith("/") else f"{real}/")
