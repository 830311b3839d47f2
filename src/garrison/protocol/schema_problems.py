"""Why a value does not fit a JSON Schema, in plain English.

Rules of this file:
- The engine has decided before; this walk only words it. It may find nothing. It finds no fault with a keyword that
  holds, because each keyword that is not trivial is asked of the same engine, alone.
- The walk takes at most `_STEPS` steps, whatever the definition and the value are. Then it says what it has.
- Texts hold member names that are short and plain, array positions, and numbers of the schema. Nothing of the value.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import cast

__all__ = ["Explainer", "path_text", "resolve"]

_STEPS = 1_000
_DEPTH = 100
"""Levels of the walk, each at most three frames of Python's stack."""
_DEAR = 50
"""Steps that one question to the engine about an array or object costs: it reads all of it."""

_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$-]{0,63}")
_ESCAPE = re.compile(r"~([01])")

_TYPES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "integer": ("an integer", lambda v: type(v) is int or (type(v) is float and v.is_integer())),
    "number": ("a number", lambda v: type(v) is int or type(v) is float),
    "string": ("a string", lambda v: isinstance(v, str)),
    "boolean": ("a boolean", lambda v: type(v) is bool),
    "null": ("null", lambda v: v is None),
    "array": ("an array", lambda v: isinstance(v, (list, tuple))),
    "object": ("an object", lambda v: isinstance(v, dict)),
}

_FORMATS = {
    "date": "a date (YYYY-MM-DD)",
    "date-time": "a date and time with a zone (RFC 3339)",
    "time": "a time with a zone (RFC 3339)",
    "duration": "a duration (ISO 8601)",
    "email": "an email address",
    "hostname": "a host name",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "uri": "a URI",
    "uri-reference": "a URI reference",
    "uuid": "a UUID",
}

_NUMBER = ("integer", "number")
_RULES: dict[str, tuple[tuple[str, ...], str]] = {
    # keyword: types it speaks of, text with the keyword's number
    "minimum": (_NUMBER, "must be at least {}"),
    "maximum": (_NUMBER, "must be at most {}"),
    "exclusiveMinimum": (_NUMBER, "must be more than {}"),
    "exclusiveMaximum": (_NUMBER, "must be less than {}"),
    "multipleOf": (_NUMBER, "must be a multiple of {}"),
    "minLength": (("string",), "must have at least {} characters"),
    "maxLength": (("string",), "must have at most {} characters"),
    "pattern": (("string",), "must match the pattern of the schema"),
    "format": (("string",), "must have the format of the schema"),
    "minItems": (("array",), "must have at least {} items"),
    "maxItems": (("array",), "must have at most {} items"),
    "uniqueItems": (("array",), "must not repeat an item"),
    "minProperties": (("object",), "must have at least {} members"),
    "maxProperties": (("object",), "must have at most {} members"),
    "dependentRequired": (("object",), "a member is missing that another one needs"),
    "propertyNames": (("object",), "a member name is not allowed"),
}


_Path = tuple[str | int, ...]
_Engine = Callable[[dict[str, object]], Callable[[object], bool]]


class _Stop(Exception):
    """The steps are used up, or enough was found."""


def path_text(path: Iterable[str | int]) -> str:
    """A JSON path as text, `tags[3].name`; a name that is long or not plain becomes `*`. Empty for the value itself."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if _NAME.fullmatch(step) else "*"
            text += f".{name}" if text else name
    return text


def resolve(root: Mapping[str, object], reference: str) -> Mapping[str, object] | None:
    """The object that a `#/...` reference points at, or `None`. RFC 6901."""
    if not reference.startswith("#"):
        return None
    pointer = reference[1:]
    if "%" in pointer:
        from urllib.parse import unquote

        pointer = unquote(pointer)
    if pointer and not pointer.startswith("/"):
        return None
    node: object = root
    for part in pointer.split("/")[1:]:
        step = _ESCAPE.sub(lambda found: "~/"[int(found[1])], part)
        if isinstance(node, dict):
            node = cast("Mapping[str, object]", cast("object", node)).get(step)
        elif isinstance(node, list) and step.isdecimal() and len(step) < 6:
            items = cast("list[object]", node)
            node = items[int(step)] if int(step) < len(items) else None
        else:
            return None
    return cast("Mapping[str, object] | None", node if isinstance(node, dict) else None)


class Explainer:
    """Words the problems of values with one schema.

    Args:
        root: the definition.
        engine: compiles a schema of one keyword, with the options of the engine that decides.
    """

    def __init__(self, root: Mapping[str, object], engine: _Engine) -> None:
        self._root = root
        self._engine = engine
        self._rules: dict[tuple[str, int], Callable[[object], bool]] = {}
        """By keyword and identity of its setting, which lives as long as the definition."""

    def problems(self, value: object, limit: int) -> tuple[str, ...]:
        """At most `limit` texts; none when the walk finds nothing to name."""
        walk = _Walk(self._root, self._holds, limit)
        with contextlib.suppress(_Stop):
            walk.schema(self._root, value, (), walk.found)
        return tuple(dict.fromkeys(walk.found))[:limit]

    def _holds(self, keyword: str, setting: object, value: object) -> bool:
        key = keyword, id(setting)
        try:
            rule = self._rules.get(key)
            if rule is None:
                rule = self._rules[key] = self._engine({keyword: setting})
            return rule(value)
        except (ValueError, TypeError, OverflowError, RecursionError):  # not JSON; the type says so better
            return True


class _Walk:
    def __init__(self, root: Mapping[str, object], holds: Callable[[str, object, object], bool], limit: int) -> None:
        self._root = root
        self._holds = holds
        self._limit = limit
        self._steps = _STEPS
        self._level = 0
        self.found: list[str] = []

    def schema(self, node: object, value: object, path: _Path, out: list[str]) -> None:
        """Adds to `out` what `value` breaks in `node`."""
        self._spend(1)
        if node is False:
            _add(out, path, "not allowed")
        if not isinstance(node, dict):
            return
        if self._level >= _DEPTH:
            raise _Stop
        self._level += 1
        rules = cast("dict[str, object]", node)
        reference = rules.get("$ref")
        target = resolve(self._root, reference) if isinstance(reference, str) else None
        if target is not None:
            self.schema(target, value, path, out)
        if self._own(rules, value, path, out):
            if isinstance(value, dict):
                self._object(rules, cast("dict[str, object]", value), path, out)
            elif isinstance(value, (list, tuple)):
                self._array(rules, cast("list[object]", value), path, out)
            self._composed(rules, cast("object", value), path, out)
        self._level -= 1

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0 or len(self.found) >= self._limit:
            raise _Stop

    def _asks(self, keyword: str, setting: object, value: object) -> bool:
        """Whether the engine finds that the value fits this keyword."""
        container = isinstance(value, (dict, list, tuple))
        self._spend(_DEAR if container else 5)
        return self._holds(keyword, setting, value)

    def _own(self, rules: Mapping[str, object], value: object, path: _Path, out: list[str]) -> bool:
        """Keywords about the value itself. Whether it has the right type, so that the rest is worth asking."""
        names = _type_names(rules)
        if names and not any(_TYPES[name][1](value) for name in names):
            _add(out, path, "must be " + _either([_TYPES[name][0] for name in names]))
            return False
        choices = rules.get("enum")
        if isinstance(choices, list) and not self._asks("enum", cast("object", choices), value):
            _add(out, path, f"must be one of the {len(cast('list[object]', choices))} allowed values")
        if "const" in rules and not self._asks("const", rules["const"], value):
            _add(out, path, "must be the one allowed value")
        for keyword in rules.keys() & _RULES.keys():
            kinds, text = _RULES[keyword]
            if any(_TYPES[kind][1](value) for kind in kinds) and not self._asks(keyword, rules[keyword], value):
                _add(out, path, _rule_text(keyword, rules[keyword], text))
        return True

    def _object(self, rules: Mapping[str, object], value: dict[str, object], path: _Path, out: list[str]) -> None:
        required = rules.get("required")
        for name in cast("list[object]", required) if isinstance(required, list) else ():
            self._spend(1)
            if isinstance(name, str) and name not in value:
                _add(out, (*path, name), "required")
        properties = rules.get("properties")
        known = cast("dict[str, object]", properties) if isinstance(properties, dict) else {}
        rest = rules.get("additionalProperties", True)
        patterned = rules.get("patternProperties")
        patterns = cast("dict[str, object]", patterned) if isinstance(patterned, dict) else {}
        for name, member in value.items():
            if name in known:
                self.schema(known[name], member, (*path, name), out)
            matched = name in known
            for pattern, schema in patterns.items():
                if self._asks("pattern", pattern, name):
                    matched = True
                    self.schema(schema, member, (*path, name), out)
            if matched or rest is True:
                continue
            if rest is False:
                self._spend(1)
                _add(out, path, _unknown(name, top=not path))
            else:
                self.schema(rest, member, (*path, name), out)

    def _array(self, rules: Mapping[str, object], value: list[object], path: _Path, out: list[str]) -> None:
        first = rules.get("prefixItems")
        rest = rules.get("items", True)
        if isinstance(rest, list):  # before 2020-12
            first, rest = cast("object", rest), rules.get("additionalItems", True)
        heads = cast("list[object]", first) if isinstance(first, list) else []
        for index, item in enumerate(value):
            schema = heads[index] if index < len(heads) else rest
            if schema is True and index >= len(heads):
                break
            self.schema(schema, item, (*path, index), out)

    def _composed(self, rules: Mapping[str, object], value: object, path: _Path, out: list[str]) -> None:
        every = rules.get("allOf")
        for branch in cast("list[object]", every) if isinstance(every, list) else ():
            self.schema(branch, value, path, out)
        for keyword in ("anyOf", "oneOf"):
            branches = rules.get(keyword)
            if isinstance(branches, list):
                self._alternatives(cast("list[object]", branches), value, path, out)
        if "if" in rules:
            chosen = "else" if self._tries(rules["if"], value, path) else "then"
            self.schema(rules.get(chosen, True), value, path, out)

    def _tries(self, branch: object, value: object, path: _Path) -> list[str]:
        found: list[str] = []
        self.schema(branch, value, path, found)
        return found

    def _alternatives(self, branches: list[object], value: object, path: _Path, out: list[str]) -> None:
        """When no branch fits: the problems of the one branch that has the value's type, or what the types may be."""
        results: list[list[str]] = []
        typed: list[list[str]] = []
        names: list[str] = []
        for branch in branches:
            found = self._tries(branch, value, path)
            if not found:
                return
            results.append(found)
            kinds = self._kinds(branch)
            names += [name for name in kinds if name not in names]
            if not kinds or any(_TYPES[name][1](value) for name in kinds):
                typed.append(found)
        if len(typed) == 1:
            out += typed[0]
        elif not typed and names:
            _add(out, path, "must be " + _either([_TYPES[name][0] for name in names]))
        else:
            _add(out, path, f"must match one of the {len(results)} alternatives")

    def _kinds(self, branch: object) -> list[str]:
        node = cast("Mapping[str, object]", branch if isinstance(branch, dict) else {})
        for _ in range(8):
            reference = node.get("$ref")
            target = resolve(self._root, reference) if isinstance(reference, str) else None
            if target is None:
                break
            node = target
        return _type_names(node)


def _type_names(rules: Mapping[str, object]) -> list[str]:
    given = rules.get("type")
    names = cast("list[object]", given) if isinstance(given, list) else [given]
    return [name for name in names if isinstance(name, str) and name in _TYPES]


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def _rule_text(keyword: str, setting: object, text: str) -> str:
    if keyword == "format":
        known = _FORMATS.get(setting) if isinstance(setting, str) else None
        return f"must be {known}" if known else text
    number = repr(setting)
    if number == "1":
        text = text.removesuffix("s")
    return text.format(number if len(number) <= 40 else "the bound of the schema")


def _unknown(name: str, *, top: bool) -> str:
    noun = "argument" if top else "member"
    return f"unknown {noun} '{name}'" if _NAME.fullmatch(name) else f"an unknown {noun}"


def _add(out: list[str], path: _Path, text: str) -> None:
    where = path_text(path)
    out.append(f"{where}: {text}" if where else text)
