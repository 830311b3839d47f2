"""What authors of tools call instead of the dangerous thing; each works on its own, without a server.

    docs = SafeRoot("docs")                                  # files below one folder
    shop = SafeSQL("shop.sqlite", tables={"items": None})    # bound values, listed tables, read-only
    git = SafeCommand("/usr/bin/git", {"status": ["status"]})
    page = await SafeFetch(hosts=["api.example.com"]).get("https://api.example.com/v1/weather")

Rules of this room:
- A refusal is an error of its own with constant words, and one security event that says why.
- Each has a type of parameters (`SafePath`, `SqlQuery`, `SafeArgument`, `FetchUrl`), so that a signature declares it.
- `import garrison.safe` loads none of it; a name's module is loaded when the name is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; importing `typing` would cost more than this file
if TYPE_CHECKING:
    from .archives import ArchiveMember, ArchiveRefused, SafeArchive, decompress
    from .command import (
        CommandFailed,
        CommandLimits,
        CommandRefused,
        CommandResult,
        CommandTimeout,
        SafeArgument,
        SafeCommand,
        Sandbox,
        Slot,
    )
    from .documents import DocumentRefused
    from .fetch import Fetched, FetchRefused, FetchStream, SafeFetch
    from .fetch_url import FetchUrl
    from .files import FileInfo, PathRefused, SafeFile
    from .parameter import Parameter, ParameterError
    from .paths import SafePath
    from .root import SafeRoot
    from .sql import Rows, SafeSQL, SqlFailed, SqlQuery, SqlRefused, SyncSQL
    from .templates import SafeTemplate, TemplateRefused
    from .urls import SafeUrl, UrlRefused, url
    from .xml_documents import parse_xml
    from .yaml_documents import parse_yaml

__all__ = [
    "ArchiveMember",
    "ArchiveRefused",
    "CommandFailed",
    "CommandLimits",
    "CommandRefused",
    "CommandResult",
    "CommandTimeout",
    "DocumentRefused",
    "FetchRefused",
    "FetchStream",
    "FetchUrl",
    "Fetched",
    "FileInfo",
    "Parameter",
    "ParameterError",
    "PathRefused",
    "Rows",
    "SafeArchive",
    "SafeArgument",
    "SafeCommand",
    "SafeFetch",
    "SafeFile",
    "SafePath",
    "SafeRoot",
    "SafeSQL",
    "SafeTemplate",
    "SafeUrl",
    "Sandbox",
    "Slot",
    "SqlFailed",
    "SqlQuery",
    "SqlRefused",
    "SyncSQL",
    "TemplateRefused",
    "UrlRefused",
    "decompress",
    "parse_xml",
    "parse_yaml",
    "url",
]

_NAMES: dict[str, tuple[str, ...]] = {
    "archives": ("ArchiveMember", "ArchiveRefused", "SafeArchive", "decompress"),
    "command": (
        "CommandFailed",
        "CommandLimits",
        "CommandRefused",
        "CommandResult",
        "CommandTimeout",
        "SafeArgument",
        "SafeCommand",
        "Sandbox",
        "Slot",
    ),
    "documents": ("DocumentRefused",),
    "fetch": ("FetchRefused", "FetchStream", "Fetched", "SafeFetch"),
    "fetch_url": ("FetchUrl",),
    "files": ("FileInfo", "PathRefused", "SafeFile"),
    "parameter": ("Parameter", "ParameterError"),
    "paths": ("SafePath",),
    "root": ("SafeRoot",),
    "sql": ("Rows", "SafeSQL", "SqlFailed", "SqlQuery", "SqlRefused", "SyncSQL"),
    "templates": ("SafeTemplate", "TemplateRefused"),
    "urls": ("SafeUrl", "UrlRefused", "url"),
    "xml_documents": ("parse_xml",),
    "yaml_documents": ("parse_yaml",),
}
"""The names that each module gives."""

_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would otherwise take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
