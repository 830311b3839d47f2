"""JSON Schema: a definition is compiled once and then only asked.

Rules of this file:
- Dialects: 2020-12 when nothing is said; `$schema` may name 2019-09, draft-07, -06 or -04. Another is an error.
- Nothing is ever fetched, from the network or a file. A reference that leads out of the definition is an error.
- A definition is bounded before it is compiled: nesting, subschemas, patterns, and the work it can cause (below).
- Patterns run on a linear-time engine, so look-around and backreferences are errors. Formats are enforced.
- A problem names a path and a rule. It never repeats a value, a pattern, an address or the words of the engine.

The work of a definition is the number of subschemas that can be tried along one path into a value, with every
reference written out. It is counted before compiling, in time linear in the definition. A reference back to a schema
that is being counted is counted as one, because the engine remembers what it tried for recursive references.

Explaining is separate from deciding. The engine decides; the walk that words the problems stops after a fixed number of
steps, so a refused value costs little more than an accepted one.

Spec: 2026-07-28 basic, "JSON Schema Usage".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

from .schema_problems import Explainer, path_text, resolve

if TYPE_CHECKING:
    import jsonschema_rs

__all__ = ["DIALECTS", "MAX_DEPTH", "MAX_PATTERNS", "MAX_SUBSCHEMAS", "MAX_WORK", "Schema", "SchemaError"]

DIALECTS: tuple[str, ...] = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-04/schema",
)
"""What `$schema` may say, with or without an empty fragment."""

MAX_DEPTH = 64
"""Nesting of a definition, arrays and objects."""
MAX_SUBSCHEMAS = 10_000
"""Objects in a definition."""
MAX_PATTERNS = 256
"""`pattern` keywords and `patternProperties` members in a definition."""
MAX_WORK = 2_000
"""Subschemas tried along one path into a value."""

_PATTERN_BYTES = 1024 * 1024
"""Memory of one compiled pattern."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ONE = (
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
_LIST = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAP = ("properties", "patternProperties", "dependentSchemas", "dependencies")
_STORED = ("$defs", "definitions")
_ANCHORS = ("$anchor", "$dynamicAnchor")
_EITHER = ("properties", *_REFERENCES)
"""A value has one member of a name and a reference has one target, so of these only the dearest counts."""


class SchemaError(ValueError):
    """The definition is not a schema this program will use. The text names the rule, never more than names of it."""


class Schema:
    """A compiled JSON Schema.

    Args:
        definition: the schema as decoded JSON. It is kept as it is; do not change it afterwards.

    Raises:
        SchemaError: not an object, not valid in its dialect, an unknown dialect, a reference that leads out of it or
            nowhere, a pattern the linear-time engine does not know, or more than the bounds of this module.
    """

    __slots__ = ("_explainer", "_valid", "definition")

    def __init__(self, definition: Mapping[str, object]) -> None:
        if not isinstance(cast("object", definition), dict):
            raise SchemaError("a schema must be a JSON object")
        _bound(definition)
        self.definition = cast("dict[str, object]", definition)
        self._valid = _compile(self.definition)
        self._explainer: Explainer | None = None

    def is_valid(self, value: object) -> bool:
        """Whether a value of decoded JSON fits. A value that is not JSON does not."""
        try:
            return self._valid(value)
        except (ValueError, TypeError, OverflowError, RecursionError):  # something that JSON does not have
            return False

    def problems(self, value: object, limit: int = 5) -> tuple[str, ...]:
        """What is wrong with a value, at most `limit` entries; empty when it fits.

        Each entry is a path and a rule, for instance `tags[3]: must be an integer`. Values are not repeated, and names
        only when they are short and plain.
        """
        if self.is_valid(value):
            return ()
        if self._explainer is None:
            self._explainer = Explainer(self.definition, _compile)
        return self._explainer.problems(value, limit) or ("does not fit the schema",)


def _compile(definition: dict[str, object]) -> Callable[[object], bool]:
    # Here and not above: a server whose schemas are all simple never loads the engine.
    import jsonschema_rs

    try:
        validator = jsonschema_rs.validator_for(
            definition,
            offline=True,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES),
        )
    except jsonschema_rs.ValidationError as exc:
        raise SchemaError(_reason(exc)) from None
    except (ValueError, jsonschema_rs.ReferencingError):
        raise SchemaError("the schema is not usable JSON Schema") from None
    return validator.is_valid


def _reason(exc: jsonschema_rs.ValidationError) -> str:
    kind = exc.kind.name
    if kind == "$ref":
        return "a reference leads out of the schema or nowhere; references are never fetched"
    where = path_text(exc.instance_path)
    if kind == "format" and any(step in ("pattern", "patternProperties") for step in exc.instance_path[-2:]):
        return f"{where}: not a pattern of the linear-time engine (no look-around, no backreferences, bounded size)"
    return f"{where or 'the schema'}: not valid JSON Schema"


def _bound(definition: Mapping[str, object]) -> None:
    """Refuses what is too deep, too large or too dear, without recursion on the input."""
    objects = 0
    level: list[object] = [definition]
    for _ in range(MAX_DEPTH):
        deeper: list[object] = []
        for node in level:
            if isinstance(node, dict):
                objects += 1
                deeper += [v for v in cast("dict[str, object]", node).values() if isinstance(v, (dict, list))]
            else:
                deeper += [v for v in cast("list[object]", node) if isinstance(v, (dict, list))]
        if objects > MAX_SUBSCHEMAS:
            raise SchemaError(f"more than {MAX_SUBSCHEMAS} subschemas")
        if not deeper:
            break
        level = deeper
    else:
        raise SchemaError(f"nested deeper than {MAX_DEPTH}")
    _Survey(definition).run()


class _Survey:
    """One walk over the subschemas of a definition: dialects, patterns, and the work they can cause."""

    def __init__(self, root: Mapping[str, object]) -> None:
        self._root = root
        self._patterns = 0
        self._resources = [root]
        self._anchors: dict[str, list[Mapping[str, object]]] = {}
        self._work: dict[int, int] = {}

    def run(self) -> None:
        pending: list[Mapping[str, object]] = [self._root]
        while pending:
            node = pending.pop()
            self._look_at(node)
            for _, child in _children(node):
                pending.append(child)
            for key in _STORED:
                stored = node.get(key)
                if isinstance(stored, dict):
                    pending += [c for c in cast("dict[str, Mapping[str, object]]", stored).values() if _is_schema(c)]
        if self._count(self._root) > MAX_WORK:
            raise SchemaError(f"more than {MAX_WORK} subschemas may be tried for one value")

    def _look_at(self, node: Mapping[str, object]) -> None:
        dialect = node.get("$schema")
        if isinstance(dialect, str) and dialect.removesuffix("#") not in DIALECTS:
            raise SchemaError("the dialect that $schema names is not supported (2020-12 is)")
        properties = node.get("patternProperties")
        self._patterns += isinstance(node.get("pattern"), str)
        self._patterns += len(cast("dict[str, object]", properties)) if isinstance(properties, dict) else 0
        if self._patterns > MAX_PATTERNS:
            raise SchemaError(f"more than {MAX_PATTERNS} patterns")
        for key in _ANCHORS:
            anchor = node.get(key)
            if isinstance(anchor, str):
                self._anchors.setdefault(anchor, []).append(node)
        if node is not self._root and (isinstance(node.get("$id"), str) or isinstance(node.get("id"), str)):
            self._resources.append(node)
        for key in _REFERENCES[1:]:
            reference = node.get(key)
            if isinstance(reference, str) and not reference.startswith("#"):
                raise SchemaError(f"a reference ({key}) leads out of the schema; references are never fetched")

    def _count(self, root: Mapping[str, object]) -> int:
        """The work of a schema. Depth first with a stack of its own; a schema in progress counts as one."""
        work = self._work
        stack: list[tuple[Mapping[str, object], list[tuple[str, Mapping[str, object]]] | None]] = [(root, None)]
        while stack:
            node, children = stack.pop()
            if children is None:
                if id(node) in work:
                    continue
                work[id(node)] = 1
                children = [*_children(node), *self._targets(node)]
                stack.append((node, children))
                stack += [(child, None) for _, child in children]
                continue
            total = 1
            dearest: dict[str, int] = {}
            for place, child in children:
                cost = work.get(id(child), 1)
                if place in _EITHER:
                    dearest[place] = max(dearest.get(place, 0), cost)
                else:
                    total += cost
            work[id(node)] = min(total + sum(dearest.values()), MAX_WORK + 1)
        return work[id(root)]

    def _targets(self, node: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
        """What the references of a schema may point at. Each embedded resource is a candidate."""
        for key in _REFERENCES:
            reference = node.get(key)
            if isinstance(reference, str):
                fragment = reference.partition("#")[2]
                yield from ((key, anchored) for anchored in self._anchors.get(fragment, ()))
                for resource in self._resources:
                    target = resolve(resource, "#" + fragment)
                    if target is not None:
                        yield key, target


def _is_schema(node: object) -> bool:
    return isinstance(node, dict)


def _children(node: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The subschemas that one schema applies, each with its keyword. Stored definitions are not applied."""
    for key in _ONE:
        child = node.get(key)
        if isinstance(child, dict):
            yield key, cast("Mapping[str, object]", child)
    for key in _LIST:
        children = node.get(key)
        if isinstance(children, list):
            yield from ((key, c) for c in cast("list[Mapping[str, object]]", children) if _is_schema(c))
    for key in _MAP:
        named = node.get(key)
        if isinstance(named, dict):
            yield from ((key, c) for c in cast("dict[str, Mapping[str, object]]", named).values() if _is_schema(c))
