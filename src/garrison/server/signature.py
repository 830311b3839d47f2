"""A Python function as it is published and as it is called.

Rules of this file:
- The arguments of a function are a generated msgspec struct that forbids unknown fields. The published schema is made
  from that struct, and arguments are converted to it: strict, so that "1", true and 1.0 are no integer.
- Where conversion alone would accept more than the schema says, the schema is asked first.
- Injected parameters are in neither, so that no argument can reach them.
- What cannot be expressed raises at registration and names function, parameter and remedy.
- The published dictionaries are this object's own; changing what the author passed in changes nothing.

Spec: 2026-07-28 server/tools, server/prompts; basic, "JSON Schema Usage".
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple, cast, get_args, get_origin

import msgspec

from ..errors import InternalError, InvalidArguments, RegistrationError
from ..protocol.schema import Schema, SchemaError
from ..safe.parameter import ParameterError
from . import json_types, outputs, pydantic_types
from .bounds import Bounds, bound, bounded

if typing.TYPE_CHECKING:
    from .text_arguments import TextArguments

__all__ = ["Parameter", "Signature"]

_MISMATCH = re.compile(r"Expected `([a-z| ]{1,40})`, got `([a-z]{1,20})`(?: - at `\$(.*)`)?")
_PLACE = re.compile(r".* - at `\$((?:\.[A-Za-z_]\w{0,63}|\[\d+\]|\[\.\.\.\])*)`")
_FIXED = (type(None), bool, int, float, str, bytes)
_UNFIT = "arguments do not fit the schema"


class Parameter(NamedTuple):
    """One published parameter of a function."""

    name: str
    annotation: object
    """Without the descriptions this SDK reads, with everything else of `Annotated`."""
    description: str | None
    required: bool
    default: object
    """`None` when required."""


class Signature:
    """What is published of a function, and how its arguments and its result are checked. Made by `Signature.of`."""

    __slots__ = (
        "_output",
        "_schema",
        "_texts",
        "bind",
        "description",
        "injected",
        "input_schema",
        "is_async",
        "name",
        "parameters",
    )

    bind: Callable[[dict[str, object] | None], dict[str, object]]
    """Keyword arguments from decoded JSON arguments; absent arguments are none. Raises `InvalidArguments`."""

    def __init__(
        self,
        name: str,
        description: str | None,
        parameters: tuple[Parameter, ...],
        injected: tuple[tuple[str, object], ...],
        input_schema: dict[str, object],
        schema: Schema | None,
        output: outputs.Output | None,
        is_async: bool,
    ) -> None:
        self.name = name
        self.description = description
        """The first paragraph of the docstring."""
        self.parameters = parameters
        """What is published, injected parameters left out. Empty when the schema is written by hand."""
        self.injected = injected
        """Name and annotation of each parameter that the server fills."""
        self.input_schema = input_schema
        self.is_async = is_async
        self._schema = schema
        self._output = output
        self._texts: TextArguments | None = None

    @classmethod
    def of(
        cls,
        fn: Callable[..., object],
        *,
        name: str,
        inject: Callable[[object], bool] = lambda annotation: False,
        strict: bool = True,
        bounds: Bounds | None = None,
        input_schema: Mapping[str, object] | None = None,
        output_schema: Mapping[str, object] | None = None,
        structured_output: bool = True,
    ) -> Signature:
        """Reads a function.

        Args:
            fn: a function, bound method, partial or callable object, synchronous or not.
            name: the name in messages, the tool's or prompt's.
            inject: tells whether the server fills a parameter with this annotation. Optional annotations are asked
                without `None` too.
            strict: `False` converts text to numbers and booleans where the type wants them.
            bounds: on texts and arrays whose author set none; None: there are none. A schema by hand is left as it is.
            input_schema: published as it is, instead of what the annotations say. Arguments go in by name, or as one
                dictionary when the function has a single parameter annotated `dict`.
            output_schema: published as it is, instead of what the return annotation says.
            structured_output: `False` publishes no output schema.

        Mappings, dataclasses, TypedDicts, structs and pydantic models are published as themselves; every other JSON
        type as the member `result`. No annotation, `None`, `Any`, `object`, bytes and content types publish nothing.

        Raises:
            RegistrationError: the function cannot be published as written.
        """
        reader = _Reader(fn, name, inject)
        output = None
        if output_schema is not None:
            output = outputs.of_definition(name, copy.deepcopy(dict(output_schema)))
        elif structured_output:
            output = outputs.of_annotation(name, reader.returned)
        if input_schema is not None:
            schema = reader.compile(copy.deepcopy(dict(input_schema)))
            made = cls(
                name, reader.description, (), reader.injected, schema.definition, schema, output, reader.is_async
            )
            made.bind = _by_hand(made, reader, schema)
            return made
        parameters = reader.parameters()
        shape = _Shape(reader, parameters, bounds)
        schema = None if shape.exact else reader.compile(shape.schema)
        made = cls(name, reader.description, parameters, reader.injected, shape.schema, schema, output, reader.is_async)
        made.bind = _by_struct(made, shape, schema, strict=strict)
        return made

    @property
    def output_schema(self) -> dict[str, object] | None:
        """The published output schema, or `None`."""
        return None if self._output is None else self._output.definition

    @property
    def gives_text(self) -> bool:
        """Whether the output schema is that of a plain text."""
        return self._output is not None and self._output.plain is str

    def to_structured(self, value: object) -> bytes:
        """The structured content of a returned value, as JSON.

        Raises:
            InternalError: the value does not fit the output schema, or none is published.
        """
        if self._output is None:
            raise InternalError(detail=f"tool {self.name!r} publishes no output schema")
        return self._output.encode(value)

    def text_of(self, structured: bytes) -> bytes:
        """The JSON of the returned value alone, of what `to_structured` gave."""
        return structured if self._output is None else self._output.text_of(structured)

    def check_structured(self, structured: object) -> None:
        """Checks structured content that a tool made itself, as JSON builtins.

        Raises:
            InternalError: it does not fit the output schema.
        """
        if self._output is not None:
            self._output.check(structured)

    def text_arguments(self) -> TextArguments:
        """The parameters as arguments that are all text: those of a prompt or a URI template.

        Raises:
            RegistrationError: a parameter that text cannot give.
        """
        if self._texts is None:
            from .text_arguments import TextArguments

            self._texts = TextArguments(self.name, self.parameters)
        return self._texts

    def bind_text(self, arguments: dict[str, object] | None) -> dict[str, object]:
        """Keyword arguments from arguments that are all text. Raises `InvalidArguments`, `RegistrationError`."""
        return self.bind(self.text_arguments().read(arguments or {}))

    def refuse(self, arguments: object, cause: Exception | None = None) -> InvalidArguments:
        """The error for arguments that do not fit: what the schema finds, else what the conversion found."""
        if self._schema is None:
            self._schema = Schema(self.input_schema)
        problems = self._schema.problems(arguments) or (_told_by(cause),)
        return InvalidArguments(self.name, problems)


def _told_by(cause: Exception | None) -> str:
    """What a conversion error says, without anything of the value."""
    if isinstance(cause, ParameterError):
        return str(cause)
    text = str(cause) if isinstance(cause, msgspec.ValidationError) else ""
    place = _PLACE.fullmatch(text)
    rule = None if cause is None else cause.__cause__
    if place is not None and isinstance(rule, ParameterError):
        return f"{place[1].removeprefix('.')}: {rule}"
    if place is None:
        return _UNFIT
    where = place[1].removeprefix(".")
    types_ = _MISMATCH.fullmatch(text)
    return f"{where}: must be {types_[1]}, not {types_[2]}" if types_ else f"{where}: does not fit its type"


class _Reader:
    """Names, annotations and documentation of a function."""

    def __init__(self, fn: Callable[..., object], name: str, inject: Callable[[object], bool]) -> None:
        self.name = name
        self._inject = inject
        target: object = fn
        while isinstance(target, functools.partial):
            target = cast("functools.partial[object]", target).func
        if not inspect.isroutine(target):
            target = type(target).__call__ if not isinstance(target, type) else target.__init__
        plain = cast("Callable[..., object]", inspect.unwrap(cast("Callable[..., object]", target)))
        self.label = f"{getattr(plain, '__qualname__', name)}()"
        if inspect.isasyncgenfunction(plain) or inspect.isgeneratorfunction(plain):
            raise RegistrationError(f"{self.label}: generators are not supported; return the value")
        self.is_async = inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(target)
        text = inspect.getdoc(plain if inspect.isroutine(plain) else fn) or ""
        self.described: dict[str, str] = {}
        if "\n" in text or text.startswith(":"):
            from . import docstrings

            text, self.described = docstrings.parse(text)
        self.description = text.strip() or None
        try:
            self._given = inspect.signature(fn).parameters
        except (TypeError, ValueError) as exc:
            raise RegistrationError(f"{self.label}: its parameters cannot be read; wrap it in a function") from exc
        self._hints = self._read_hints(plain)
        self.returned = self._hints.get("return")
        injected = [(p.name, self._hints[p.name]) for p in self._given.values() if self._is_injected(p)]
        self.injected: tuple[tuple[str, object], ...] = tuple(injected)

    def _read_hints(self, fn: Callable[..., object]) -> dict[str, object]:
        code = cast("types.CodeType | None", getattr(fn, "__code__", None))
        closure = cast("tuple[types.CellType, ...] | None", getattr(fn, "__closure__", None)) or ()
        near: dict[str, object] = {}
        for variable, cell in zip(code.co_freevars if code else (), closure, strict=False):
            try:
                near[variable] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        try:
            return typing.get_type_hints(fn, localns=near or None, include_extras=True)
        except NameError as exc:
            raise RegistrationError(
                f"{self.label}: the annotation {exc.name!r} is not defined where the function is; define it at module "
                "level and import it at run time, not under TYPE_CHECKING"
            ) from exc
        except (TypeError, SyntaxError, AttributeError) as exc:
            raise RegistrationError(f"{self.label}: an annotation cannot be read: {exc}") from exc

    def _is_injected(self, parameter: inspect.Parameter) -> bool:
        if parameter.name not in self._hints:
            return False
        annotation = self._hints[parameter.name]
        inner, optional = json_types.unwrap_optional(annotation)
        return self._inject(annotation) or (optional and self._inject(inner))

    def published(self) -> list[inspect.Parameter]:
        """The parameters that arguments may set."""
        hidden = {name for name, _ in self.injected}
        return [p for p in self._given.values() if p.name not in hidden]

    def annotation(self, name: str) -> object:
        """The annotation of a parameter, or `None`."""
        return self._hints.get(name)

    def error(self, parameter: str, remedy: str) -> RegistrationError:
        """The error for one parameter."""
        return RegistrationError(f"{self.label}: parameter {parameter!r} {remedy}")

    def compile(self, definition: dict[str, object]) -> Schema:
        """The schema of the arguments. Raises `RegistrationError`."""
        if definition.get("type") != "object":
            raise RegistrationError(f'{self.label}: the input schema must have "type": "object"')
        try:
            return Schema(definition)
        except SchemaError as exc:
            raise RegistrationError(f"{self.label}: input schema: {exc}") from exc

    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters, from annotations, defaults and docstring."""
        return tuple(self._parameter(p) for p in self.published())

    def _parameter(self, given: inspect.Parameter) -> Parameter:
        name = given.name
        if given.kind is given.VAR_POSITIONAL or given.kind is given.VAR_KEYWORD:
            raise self.error(name, "takes any arguments; name each parameter, or pass input_schema=")
        if given.kind is given.POSITIONAL_ONLY:
            raise self.error(name, "is positional-only; remove the '/' from the signature")
        if name not in self._hints:
            raise self.error(name, "has no annotation; add a type")
        annotation = self._hints[name]
        required = given.default is given.empty
        default = None if required else cast("object", given.default)
        if not required:
            annotation, has_default, default = pydantic_types.field_default(annotation, default)
            required = not has_default
        annotation, description = _described(annotation)
        if not required and default is None and not _allows_none(annotation):
            annotation = typing.Optional[annotation]  # noqa: UP045 - the type is only known now
        return Parameter(name, annotation, description or self.described.get(name), required, default)


def _described(annotation: object) -> tuple[object, str | None]:
    """Takes plain strings out of `Annotated`: they are the description."""
    if get_origin(annotation) is not Annotated:
        return annotation, None
    inner, *metadata = get_args(annotation)
    texts = [m for m in metadata if isinstance(m, str)]
    rest = tuple(m for m in metadata if not isinstance(m, str))
    meta = [m.description for m in rest if isinstance(m, msgspec.Meta) and m.description]
    return (Annotated[(inner, *rest)] if rest else inner), (texts or meta or [None])[0]


def _allows_none(annotation: object) -> bool:
    if get_origin(annotation) is typing.Literal:
        return None in get_args(annotation)
    return any(leaf in (None, type(None), typing.Any, object) for leaf in json_types.leaves(annotation))


class _Shape:
    """The generated struct of a function's parameters, its schema, and what conversion leaves to do."""

    def __init__(self, reader: _Reader, parameters: tuple[Parameter, ...], bounds: Bounds | None) -> None:
        self.adapters: dict[str, pydantic_types.Adapter] = {}
        fields: list[tuple[str, object, object]] = []
        details: dict[str, dict[str, object]] = {}
        for p in parameters:
            try:
                annotation = self._kind(p, details)
                annotation = annotation if bounds is None else bounded(annotation, bounds)
                default = msgspec.NODEFAULT if p.required else p.default
                fields.append((p.name, annotation, _field(default)))
                json_types.published(annotation)
            except (TypeError, ValueError, AttributeError) as exc:
                reason = (str(exc).splitlines() or [""])[-1]
                remedy = f"cannot be published as JSON Schema ({reason}); use JSON types, or pass input_schema="
                raise reader.error(p.name, remedy) from exc
        try:
            self.struct = msgspec.defstruct(f"{reader.name}Arguments", fields, kw_only=True, forbid_unknown_fields=True)
            self.schema = json_types.published(self.struct)
            self._finish(parameters, details)
            self.schema = self.schema if bounds is None else bound(self.schema, bounds)
        except (TypeError, ValueError) as exc:
            raise RegistrationError(f"{reader.label}: cannot be published as JSON Schema: {exc}") from exc
        self.exact = not self.adapters and all(json_types.is_exact(p.annotation) for p in parameters)

    def _kind(self, p: Parameter, details: dict[str, dict[str, object]]) -> object:
        """The annotation of the struct's field; pydantic's types are anything there, and read afterwards."""
        if not pydantic_types.concerns(p.annotation):
            return p.annotation
        adapter = self.adapters[p.name] = pydantic_types.Adapter(p.annotation)
        details[p.name] = adapter.schema()
        return typing.Any

    def _finish(self, parameters: tuple[Parameter, ...], details: dict[str, dict[str, object]]) -> None:
        """Adds what msgspec does not know: descriptions of the docstring, defaults, pydantic's schemas."""
        self.schema.pop("title", None)
        members = cast("dict[str, dict[str, object]]", self.schema["properties"])
        definitions = cast("dict[str, object]", self.schema.pop("$defs", {}))
        for p in parameters:
            detail = details.get(p.name, members[p.name])
            stored = cast("dict[str, object]", detail.pop("$defs", {}))
            detail.pop("title", None) if p.name in details else None
            for name, definition in stored.items():
                if definitions.setdefault(name, definition) != definition:
                    raise ValueError(f"two types are called {name}")
            if p.description:
                detail = {"description": p.description, **{k: v for k, v in detail.items() if k != "description"}}
            if not p.required and "default" not in detail:
                detail = {**detail, **_published_default(p.default)}
            members[p.name] = detail
        self.schema = json_types.tidy({**self.schema, "$defs": definitions} if definitions else self.schema)


def _field(default: object) -> object:
    """A struct field's default. One that could change is new for each call; what is hashable is taken not to change."""
    if default is msgspec.NODEFAULT or type(default) in _FIXED:
        return msgspec.field(default=default)
    if type(default) in (list, dict, set) and not default:
        return msgspec.field(default_factory=type(default))
    try:
        hash(default)
    except TypeError:
        return msgspec.field(default_factory=lambda: copy.deepcopy(default))
    return msgspec.field(default_factory=lambda: default)


def _published_default(default: object) -> dict[str, object]:
    try:
        return {"default": msgspec.to_builtins(default, str_keys=True, enc_hook=pydantic_types.dump)}
    except (TypeError, ValueError, NotImplementedError):  # a marker object: published as merely not required
        return {}


def _by_struct(
    signature: Signature, shape: _Shape, schema: Schema | None, *, strict: bool
) -> Callable[[dict[str, object] | None], dict[str, object]]:
    convert, asdict, struct, adapters = msgspec.convert, msgspec.structs.asdict, shape.struct, shape.adapters
    failures = (msgspec.ValidationError, ValueError, OverflowError, RecursionError)

    def plain(arguments: dict[str, object] | None) -> dict[str, object]:
        try:
            return asdict(convert(arguments if arguments is not None else {}, struct))
        except failures as exc:
            raise signature.refuse({} if arguments is None else arguments, exc) from None

    if shape.exact and strict:
        return plain
    gate = schema.is_valid if strict and schema is not None else None

    def checked(arguments: dict[str, object] | None) -> dict[str, object]:
        given = arguments if arguments is not None else {}
        if gate is not None and not gate(given):
            raise signature.refuse(given)
        try:
            found = asdict(convert(given, struct, strict=strict, str_keys=True, dec_hook=json_types.decoded))
            for name, adapter in adapters.items():
                if name in given:
                    found[name] = adapter.load(found[name], strict=strict)
        except failures as exc:
            raise signature.refuse(given, exc) from None
        return found

    return checked


def _by_hand(
    signature: Signature, reader: _Reader, schema: Schema
) -> Callable[[dict[str, object] | None], dict[str, object]]:
    parameters = reader.published()
    whole = _takes_whole(reader, parameters)
    known = frozenset(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    hidden = frozenset(name for name, _ in reader.injected)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if whole is None:
        _check_by_hand(reader, parameters, schema.definition, open_ended=open_ended)

    def bind(arguments: dict[str, object] | None) -> dict[str, object]:
        given = {} if arguments is None else arguments
        if not schema.is_valid(given):
            raise signature.refuse(given)
        if whole is not None:
            return {whole: dict(given)}
        for name in given:
            if name not in known and (not open_ended or name in hidden):
                raise InvalidArguments(signature.name, ("an unknown argument",))
        return dict(given)

    return bind


def _takes_whole(reader: _Reader, parameters: list[inspect.Parameter]) -> str | None:
    """The name of the one parameter that takes all arguments as a dictionary."""
    if len(parameters) != 1:
        return None
    annotation = reader.annotation(parameters[0].name)
    return parameters[0].name if dict in (annotation, get_origin(annotation)) else None


def _check_by_hand(
    reader: _Reader, parameters: list[inspect.Parameter], definition: dict[str, object], *, open_ended: bool
) -> None:
    """Refuses a schema that could not be called: a member without parameter, or a parameter that may be missing."""
    members = cast("dict[str, object]", definition.get("properties") or {})
    required = cast("list[object]", definition.get("required") or [])
    names = {p.name for p in parameters}
    hidden = {name for name, _ in reader.injected}
    for name in members:
        if name in hidden or (name not in names and not open_ended):
            raise reader.error(name, "is in the input schema, but arguments cannot set it")
    for p in parameters:
        if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL):
            raise reader.error(p.name, "is positional; arguments go in by name")
        if p.kind is not p.VAR_KEYWORD and p.default is p.empty and p.name not in required:
            raise reader.error(p.name, "has no default, so the input schema must require it")
