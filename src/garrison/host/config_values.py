"""How the settings of a host are written in a file: a form for each field, and dataclasses made of tables.

Rules of this file:
- Which settings there are, and their defaults, the dataclasses say; here stands only how a value is written. A field
  without a form is for code alone.
- What is no setting is an error that names the key and the one that was probably meant.
- A secret is a reference: `{ from = "env:NAME" }`. One that stands there in plain is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

from ..errors import ConfigurationError
from ..gate.redaction import redact_value
from ..policy.secret import Secret
from ..policy.toml import nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ..auth.client.settings import AuthSettings
    from ..policy.tls import TlsClientConfig

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")

__all__ = ["Where", "as_table", "check_keys", "keys_of", "made"]


class Where(NamedTuple):
    """Where a value stands."""

    at: str
    """The setting, for errors."""
    folder: str
    """Where relative paths begin."""
    lookup: Callable[[object, str], Secret]
    """The secret of a reference, for the setting that is named second. Raises `ConfigurationError`."""

    def below(self, name: str) -> Where:
        """The place of a member."""
        return self._replace(at=f"{self.at}.{name}")


def made(kind: type[T], table: Mapping[str, object], where: Where) -> T:
    """The dataclass with the values of a table.

    Raises:
        ConfigurationError: a key is no setting of it, a value is not of its form, or one is missing.
    """
    check_keys(table, keys_of(kind), f"{where.at}.")
    for each in fields(kind):
        if each.default is MISSING and each.default_factory is MISSING and each.name not in table:
            raise ConfigurationError(f"{where.at}.{each.name}: must be given")
    values = {key: _form(kind, key)(value, where.below(key)) for key, value in table.items()}
    try:
        return kind(**values)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{where.at}: {exc}") from None


def keys_of(kind: type[DataclassInstance]) -> set[str]:
    """The settings of a dataclass that a file can give."""
    return {each.name for each in fields(kind) if each.name in _FORMS}


def check_keys(table: Mapping[str, object], known: Iterable[str], at: str) -> None:
    """Refuse a key that is none of these.

    Raises:
        ConfigurationError: there is one. The message has the nearest one that is.
    """
    names = set(known)
    for key in table:
        if key not in names:
            raise ConfigurationError(f"{at}{key}: there is no such setting; {nearest(key, names)}")


def as_table(value: object, at: str) -> dict[str, object]:
    """The value, which is a table. Raises `ConfigurationError` where it is none."""
    if not isinstance(value, dict):
        raise ConfigurationError(f"{at}: must be a table, [{at}]")
    return cast("dict[str, object]", value)


def _text(value: object, where: Where) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{where.at}: must be a text")
    return value


def _texts(value: object, where: Where) -> tuple[str, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(each, str) for each in items):
        raise ConfigurationError(f"{where.at}: must be a list of texts")
    return tuple(cast("list[str]", items))


def _path(value: object, where: Where) -> str:
    path = _text(value, where)
    if "\0" in path:
        raise ConfigurationError(f"{where.at}: must be a path, and no path holds a zero byte")
    return os.path.normpath(os.path.join(where.folder, os.path.expanduser(path)))


def _paths(value: object, where: Where) -> tuple[str, ...]:
    return tuple(_path(each, where) for each in _texts(value, where))


def _command(value: object, where: Where) -> tuple[str, ...]:
    words = _texts(value, where)
    if not words:
        raise ConfigurationError(f"{where.at}: must be a list: the program and its arguments")
    named = words[0]
    if named.startswith("~") or os.sep in named or (os.altsep is not None and os.altsep in named):
        return (_path(named, where), *words[1:])
    return words


def _flag(value: object, where: Where) -> bool:
    if type(value) is not bool:
        raise ConfigurationError(f"{where.at}: must be true or false")
    return value


def _number(value: object, where: Where) -> float:
    if type(value) not in (int, float):
        raise ConfigurationError(f"{where.at}: must be a number")
    return cast("float", value)


def _most(value: object, where: Where) -> int | None:
    if value is False:
        return None
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{where.at}: must be a whole number above 0, or false for no limit")
    return value


def _variables(value: object, where: Where) -> dict[str, str | Secret]:
    return {name: _variable(name, each, where.below(name)) for name, each in as_table(value, where.at).items()}


def _variable(name: str, value: object, where: Where) -> str | Secret:
    if isinstance(value, (dict, Secret)):
        return _secret(cast("object", value), where)
    text = _text(value, where)
    if redact_value({name: text}) != {name: text}:
        raise _plain(where)
    return text


def _secret(value: object, where: Where) -> Secret:
    if isinstance(value, Secret):  # of the JSON of other clients, which was read before
        return value
    if not isinstance(value, dict):
        raise _plain(where)
    table = cast("dict[str, object]", value)
    check_keys(table, ("from",), f"{where.at}.")
    return where.lookup(table.get("from"), f"{where.at}.from")


def _plain(where: Where) -> ConfigurationError:
    return ConfigurationError(
        f'{where.at}: no secret stands in this file; write {{ from = "env:NAME" }}, "credential:NAME" or "file:PATH"'
    )


def _named_texts(value: object, where: Where) -> dict[str, str]:
    return {name: _text(each, where.below(name)) for name, each in as_table(value, where.at).items()}


def _named_lists(value: object, where: Where) -> dict[str, tuple[str, ...]]:
    return {name: _texts(each, where.below(name)) for name, each in as_table(value, where.at).items()}


def _auth(value: object, where: Where) -> AuthSettings:
    from ..auth.client.settings import ClientCredentials, OAuth  # lazy: most servers have no sign-in

    kinds: dict[str, type[OAuth | ClientCredentials]] = {"oauth": OAuth, "client-credentials": ClientCredentials}
    table = {"type": value} if isinstance(value, str) else dict(as_table(value, where.at))
    named = table.pop("type", None)
    kind = kinds.get(named) if isinstance(named, str) else None
    if kind is None:
        raise ConfigurationError(f'{where.at}.type: must be "oauth" or "client-credentials"')
    return made(kind, table, where)


def _tls(value: object, where: Where) -> TlsClientConfig:
    from ..policy.tls import TlsClientConfig

    return made(TlsClientConfig, as_table(value, where.at), where)


_Form = Callable[[object, Where], object]
_BY_FORM: Final[tuple[tuple[_Form, str], ...]] = (
    (_text, "sandbox url dangerously_allow_unpinned dangerously_allow_roots scan minimum issuer account dpop"),
    (_text, "client_id client_metadata_url client_name redirect_uri method algorithm key_id"),
    (_texts, "labels pins scopes private_hosts"),
    (_path, "cwd ca certificate TlsClientConfig.key"),
    (_paths, "read write execute roots"),
    (_command, "command"),
    (_flag, "network use_instructions elicit strict allow_dynamic_registration legacy_discovery"),
    (_number, "timeout patience fresh step_up_attempts"),
    (_most, "memory processes open_files"),
    (_variables, "env headers"),
    (_secret, "token client_secret secret key"),
    (_named_texts, "dangerously_allow_env"),
    (_named_lists, "tools"),
    (_auth, "auth"),
    (_tls, "tls"),
)
"""How a value is written, and the fields that are: by their names, and with the class where two share a name."""
_FORMS: Final[Mapping[str, _Form]] = {name: form for form, names in _BY_FORM for name in names.split()}


def _form(kind: type[object], key: str) -> _Form:
    return _FORMS.get(f"{kind.__name__}.{key}") or _FORMS[key]
