"""`SecurityPolicy` and how a server listens, from a TOML file.

    profile = "strict"                          # the preset that the other keys change
    allowed_hosts = ["mcp.example.com"]         # top-level keys are the fields of SecurityPolicy
    [limits]                                    # the fields of Limits
    [timeouts]                                  # the fields of Timeouts
    [rates]                                     # the fields of Rates; profile = "public" is what they change
    principal = { per_second = 50, burst = 200 }
    [allow_insecure_http_hosts]                 # host = "reason"
    [serve]                                     # the fields of ServeSettings: how `garrison run` listens

Rules of this file:
- The path is always given; no file is ever looked for.
- Keys, their types and their defaults are those of the dataclasses: there is no second list of settings.
- What is not a setting is an error that names the key, the file and the setting that was probably meant.
- No secret stands in the file. It names the file of the token, which others must not be able to read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, cast

from ..errors import ConfigurationError
from .files import read_guarded
from .rates import Rate, Rates
from .security import SecurityPolicy
from .tls import check_minimum, check_reload
from .transports import check_size, check_subprotocol

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["ServeSettings", "Settings", "nearest", "preset", "read_toml"]

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """How `garrison run` listens: the table `[serve]`. A server that is told nothing serves stdio.

    Raises:
        ConfigurationError: a value is not of its form.
    """

    http: str = ""
    """Streamable HTTP on `HOST:PORT`, or on the Unix socket of `unix:PATH`."""
    ws: bool | str = False
    """WebSocket: on the listener of `http` where there is one; else on `HOST:PORT`, or 127.0.0.1:8000 when true."""
    ws_max_message_size: int | None = None
    """Bytes of one WebSocket message, summed over its fragments and after inflating; else `Limits.message_bytes`."""
    ws_subprotocol: str = "mcp"
    """The subprotocol that WebSocket clients must name (RFC 6455 section 1.9)."""
    ws_compression: bool = False
    """Whether permessage-deflate is agreed to; what is inflated is counted (RFC 7692)."""
    unix: str = ""
    """The framing of stdio on this Unix socket."""
    unix_max_message_size: int | None = None
    """Bytes of one line on the socket of `unix`; else `Limits.message_bytes`."""
    socket_group: str = ""
    """The group, by name or number, that may open the Unix socket; else the server's own user alone."""
    socket_user: str = ""
    """A user, by name or number, who may connect beside the server's own: the proxy's."""
    path: str = "/mcp"
    """The endpoint of HTTP and WebSocket."""
    workers: int = 1
    """Processes that serve HTTP and WebSocket together; they need a `state_key`, and no sessions."""
    token_file: str = ""
    """A file with the bearer token, which only its owner can read."""
    tls_cert: str = ""
    """PEM file of the certificate and its chain."""
    tls_key: str = ""
    """PEM file of the private key, which only its owner can read."""
    tls_client_ca: str = ""
    """PEM file of the roots of client certificates; given, every client must show one."""
    tls_minimum: str = "1.2"
    """The oldest version of TLS: "1.2" or "1.3"."""
    tls_reload: float = 5.0
    """Seconds between looks at the files of TLS; new ones are used for new connections."""

    def __post_init__(self) -> None:
        check_size("ServeSettings.ws_max_message_size", self.ws_max_message_size)
        check_subprotocol("ServeSettings.ws_subprotocol", self.ws_subprotocol)
        check_size("ServeSettings.unix_max_message_size", self.unix_max_message_size)
        check_minimum("ServeSettings.tls_minimum", self.tls_minimum)
        check_reload("ServeSettings.tls_reload", self.tls_reload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a configuration file says."""

    path: str
    policy: SecurityPolicy
    serve: ServeSettings
    named: frozenset[str]
    """The settings that stand in the file, as `limits.connections`."""


_PATHS: Final = ("unix", "token_file", "tls_cert", "tls_key", "tls_client_ca")
_FORMS: Final[Mapping[type, tuple[tuple[type, ...], str]]] = {
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    tuple: ((list,), "a list of texts"),
    MappingProxyType: ((dict,), "a table of texts"),
}
"""Type of a setting's default -> the TOML types that it may have, and their name for people."""
_OWN_FORMS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "serve.ws": ((bool, str), "true, or HOST:PORT"),
    "serve.ws_max_message_size": _FORMS[int],
    "serve.unix_max_message_size": _FORMS[int],
}
"""The same for settings whose default does not tell."""
_RATES_OR_NONE: Final = frozenset({"rates.address", "rates.tenant", "rates.heavy", "rates.output_bytes"})
"""Settings that are a rate where they are anything."""
_PRESETS: Final[Mapping[str, Callable[[], SecurityPolicy]]] = {
    "strict": SecurityPolicy.strict,
    "compat": SecurityPolicy.compat,
    "conformance": SecurityPolicy.conformance,
}
_RATES: Final[Mapping[str, Callable[[], Rates]]] = {"default": Rates.default, "public": Rates.public}


def read_toml(path: str | os.PathLike[str]) -> Settings:
    """The settings of one file.

    Args:
        path: the file. Relative paths in it start at its folder.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, or has a key or a value that is not a setting.
        InsecureConfigurationError: others can change it.
    """
    name = os.fspath(path)
    table = _parsed(read_guarded(name), name)
    for place in (table, table.get("serve")):
        if isinstance(place, dict) and "token" in place:
            raise ConfigurationError(
                f"{name}: token: no secret stands in this file; set GARRISON_TOKEN, or serve.token_file to the path of "
                "a file that only you can read"
            )
    named = frozenset(
        f"{key}.{inner}" if key in ("limits", "timeouts", "rates", "serve") else key
        for key, value in table.items()
        for inner in (cast("dict[str, object]", value) if isinstance(value, dict) else ("",))
    )
    try:
        serve = _changed(ServeSettings(), _as_table(table.pop("serve", {}), "serve"), "serve.")
        policy = preset(table.pop("profile", "strict"))
        if "rates" in table:
            policy = replace(policy, rates=_rates(_as_table(table.pop("rates"), "rates")))
        policy = _changed(policy, table, "")
    except ConfigurationError as exc:
        raise ConfigurationError(f"{name}: {exc}") from None
    return Settings(path=name, policy=policy, serve=_from_folder(serve, os.path.dirname(name)), named=named)


def preset(profile: object) -> SecurityPolicy:
    """The policy of a preset, by its name.

    Raises:
        ConfigurationError: there is none of this name.
    """
    make = _PRESETS.get(profile) if isinstance(profile, str) else None
    if make is None:
        raise ConfigurationError(f"profile: must be one of {', '.join(_PRESETS)}")
    return make()


def nearest(name: str, known: Iterable[str]) -> str:
    """For the end of an error: which name was probably meant, or all that there are."""
    from difflib import get_close_matches

    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def _parsed(data: bytes, name: str) -> dict[str, object]:
    from tomllib import TOMLDecodeError, loads

    try:
        return loads(data.decode())
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ConfigurationError(f"{name}: not TOML: not UTF-8 (at line {line})") from None
    except TOMLDecodeError as exc:
        raise ConfigurationError(f"{name}: not TOML: {exc}") from None
    except ValueError:  # a number of thousands of digits
        raise ConfigurationError(f"{name}: not TOML: a number too long") from None
    except RecursionError:
        raise ConfigurationError(f"{name}: not TOML: nested too deeply") from None


def _changed(settings: T, table: Mapping[str, object], at: str) -> T:
    """The dataclass with the values of a table, each checked against the type of the value that it replaces.

    Raises:
        ConfigurationError: a key is no field, or a value is of another type or out of its range.
    """
    known = {field.name for field in fields(settings)}
    changes: dict[str, object] = {}
    for key, value in table.items():
        name = at + key
        if key not in known:
            raise ConfigurationError(f"{name}: there is no such setting; {nearest(key, known)}")
        now: object = getattr(settings, key)
        if isinstance(now, Rate) or name in _RATES_OR_NONE:
            changes[key] = _rate(now, _as_table(value, name), name)
        elif is_dataclass(now) and not isinstance(now, type):
            changes[key] = _changed(now, _as_table(value, name), name + ".")
        else:
            changes[key] = _value(value, type(now), name)
    return replace(settings, **changes)


def _rates(table: dict[str, object]) -> Rates:
    profile = table.pop("profile", "default")
    make = _RATES.get(profile) if isinstance(profile, str) else None
    if make is None:
        raise ConfigurationError(f"rates.profile: must be one of {', '.join(_RATES)}")
    return _changed(make(), table, "rates.")


def _rate(now: object, table: Mapping[str, object], name: str) -> Rate:
    """A rate, of which one half may stay as it is where there is one."""
    missing = {"per_second", "burst"} - table.keys() if now is None else ()
    if missing:
        raise ConfigurationError(f"{name}.{min(missing)}: must be given")
    try:
        return _changed(now if isinstance(now, Rate) else Rate(1, 1), table, name + ".")
    except ConfigurationError as exc:
        said = str(exc)
        raise ConfigurationError(said if said.startswith(name) else f"{name}: {said}") from None


def _value(value: object, kind: type, name: str) -> object:
    types, form = _OWN_FORMS.get(name) or _FORMS[kind]
    good = type(value) in types
    if good and kind is MappingProxyType:
        good = all(type(item) is str for item in cast("dict[str, object]", value).values())
    if good and kind is tuple:
        value = tuple(cast("list[object]", value))
        good = all(type(item) is str for item in value)
    if not good:
        raise ConfigurationError(f"{name}: must be {form}")
    return value


def _as_table(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name}: must be a table, [{name}]")
    return cast("dict[str, object]", value)


def _from_folder(serve: ServeSettings, folder: str) -> ServeSettings:
    """The same, with every relative path beginning at the folder."""
    changes = {name: _path(folder, cast("str", getattr(serve, name))) for name in _PATHS}
    if serve.http.startswith("unix:"):
        changes["http"] = "unix:" + _path(folder, serve.http.removeprefix("unix:"))
    return replace(serve, **changes)


def _path(folder: str, path: str) -> str:
    # Nothing, and the `@` of a socket without a file, is left for others to refuse.
    return path if path[:1] in ("", "@") else os.path.join(folder, path)
