"""`SafePath`: a relative path that stays one, whoever reads it: judged by its text alone, before any file is asked for.

    docs = SafeRoot("docs")

    class Doc(SafePath, root=docs):
        "A file below docs."

    @server.tool()
    def read(path: Doc) -> str:
        return path.read_text()

Rules of this file:
- A path is names with `/` between them. What some system reads as more than a name is refused on every system: `..`,
  drives, streams, devices, home directories, trailing dots and spaces, and characters that turn into such.
- Nothing is repaired: no name is decoded, trimmed or folded. What passes is used as it stands, byte by byte.
- It is no `str` and has no `__fspath__`, so that it opens nothing but by a `SafeRoot`.
- Every rule takes time that grows with the length and no faster.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from unicodedata import normalize

from ..errors import ConfigurationError
from .parameter import Parameter, ParameterError

if TYPE_CHECKING:
    from typing import ClassVar, Self

    from ..gate.untrusted import Untrusted
    from .files import FileInfo, SafeFile
    from .root import SafeRoot

    _Listing = list[FileInfo]

__all__ = ["TEMPORARY", "SafePath", "broken_rule"]

TEMPORARY: Final = ".garrison-"
"""How the names of files begin that are being written."""

_LONGEST: Final = 4096
_LONGEST_NAME: Final = 255
_NOT_BELOW: Final = "is not a path below the root"

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?:/[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)*")
"""Paths that can break only two rules: length, and names of devices. Most are of this form."""
_DEVICE: Final = re.compile(
    r"(?:\A|/)(?:con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$|clock\$) *(?:[./]|\Z)", re.IGNORECASE
)
_CHARACTERS: Final = (
    ("a control character", re.compile(r"[\x00-\x1f\x7f-\x9f]")),
    ("half of a surrogate pair", re.compile(r"[\ud800-\udfff]")),
    (
        # Unicode's Default_Ignorable_Code_Point, the marks of direction and line ends, and noncharacters
        "an invisible character",
        re.compile(
            "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
            "\ufdd0-\ufdef\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
            "\U000e0000-\U000e0fff]"
        ),
    ),
    (
        # Persian, Indic scripts and emoji need joiners and the two common variation selectors; ASCII does not
        "an invisible character",
        re.compile(r"(?:\A|[\x00-\x7f])[\u200c\u200d\ufe0e\ufe0f]|[\u200c\u200d](?:[\x00-\x7f]|\Z)"),
    ),
)
"""Searched for in the text as it is."""
_NAMES: Final = (
    ("an empty path", re.compile(r"\A\Z")),
    ("an absolute path", re.compile(r"\A/")),
    ("a backslash", re.compile(r"\\")),
    ("a colon", re.compile(r":")),
    ("a home directory", re.compile(r"\A~")),
    ("`.` or `..`", re.compile(r"(?:\A|/)\.\.?(?:/|\Z)")),
    ("an empty name", re.compile(r"//|/\Z")),
    ("a dot or space at the end of a name", re.compile(r"[. ](?:/|\Z)")),
    ("the name of a device", _DEVICE),
    ("a name that is kept for files being written", re.compile(rf"(?:\A|/){re.escape(TEMPORARY)}", re.IGNORECASE)),
)
"""Searched for in the text as compatibility normalisation leaves it."""
_MEANT: Final = ".:/\\~"


def broken_rule(text: str) -> str:
    """What is in a text that no path below a root has, in words; empty when it is a path.

    Rules: relative, names with `/` between them, none of them empty, `.` or `..`; no backslash, colon, control or
    invisible character or lone surrogate; no leading `~`; no name that ends with a dot or a space, or is a device's on
    Windows; at most 255 bytes of UTF-8 a name and 4096 in all. What Unicode's NFKC turns into one of these is one.
    """
    if len(text) <= _LONGEST_NAME and _PLAIN.fullmatch(text) is not None:
        return "the name of a device" if _DEVICE.search(text) is not None else ""
    if len(text) > _LONGEST:
        return "more than 4096 bytes"
    for rule, pattern in _CHARACTERS:
        if pattern.search(text) is not None:
            return rule
    raw = text.encode()
    if len(raw) > _LONGEST:
        return "more than 4096 bytes"
    if any(len(name) > _LONGEST_NAME for name in raw.split(b"/")):
        return "a name of more than 255 bytes"
    plain = text if text.isascii() else normalize("NFKC", text)
    if plain is not text and any(plain.count(each) != text.count(each) for each in _MEANT):
        return "a character that stands for a dot, colon, tilde or slash"
    return next((rule for rule, pattern in _NAMES if pattern.search(plain) is not None), "")


class SafePath(Parameter):
    """A path below a root: `notes/2024/plan.md`. It names; a `SafeRoot` opens.

    Args:
        text: names with `/` between them; see `broken_rule` for what is refused.

    Raises:
        ParameterError: it is no path below a root.

    A subclass made with `root=` is bound: its paths read and write below that root.
    """

    _root: ClassVar[SafeRoot | None] = None
    __slots__ = ("_text",)

    def __init_subclass__(cls, *, root: SafeRoot | None = None, **more: object) -> None:
        super().__init_subclass__(**more)
        if root is not None:
            cls._root = root

    def __init__(self, text: str) -> None:
        if broken_rule(text):
            raise ParameterError(_NOT_BELOW)
        self._text = text

    @classmethod
    def json_schema(cls) -> dict[str, object]:
        """A string of 1 to 4096 characters."""
        return {"type": "string", "minLength": 1, "maxLength": _LONGEST}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The path that a string names. Raises `ParameterError`."""
        if not isinstance(value, str):
            raise ParameterError(_NOT_BELOW)
        return cls(value)

    # The text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text!r})"

    def __eq__(self, other: object) -> bool:
        """Whether both are the same names, byte by byte, whatever root they are bound to."""
        return self._text == other._text if isinstance(other, SafePath) else NotImplemented

    def __hash__(self) -> int:
        return hash((SafePath, self._text))

    def __truediv__(self, other: str | SafePath) -> Self:
        """The path of something below this one. Raises `ParameterError`."""
        return type(self)(f"{self._text}/{other}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self._text.split("/"))

    @property
    def name(self) -> str:
        """The last name."""
        return self._text.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """From the last dot of the name on; empty where there is none, or nothing before it."""
        stem, dot, rest = self.name.rpartition(".")
        return dot + rest if stem else ""

    @property
    def parent(self) -> Self | None:
        """The path without its last name; None directly below the root."""
        head = self._text.rpartition("/")[0]
        return type(self)(head) if head else None

    # What it names, below the root it is bound to

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """See `SafeRoot.read_text`."""
        return self._bound().read_text(self, encoding, errors)

    def read_bytes(self) -> bytes:
        """See `SafeRoot.read_bytes`."""
        return self._bound().read_bytes(self)

    def read_untrusted(self, encoding: str = "utf-8", errors: str = "strict") -> Untrusted[str]:
        """See `SafeRoot.read_untrusted`."""
        return self._bound().read_untrusted(self, encoding, errors)

    def open(self) -> SafeFile:
        """See `SafeRoot.open`."""
        return self._bound().open(self)

    def info(self) -> FileInfo:
        """See `SafeRoot.info`."""
        return self._bound().info(self)

    def exists(self) -> bool:
        """See `SafeRoot.exists`."""
        return self._bound().exists(self)

    def list(self) -> _Listing:
        """See `SafeRoot.list`."""
        return self._bound().list(self)

    def write_text(self, text: str, encoding: str = "utf-8", errors: str = "strict") -> None:
        """See `SafeRoot.write_text`."""
        self._bound().write_text(self, text, encoding, errors)

    def write_bytes(self, data: bytes) -> None:
        """See `SafeRoot.write_bytes`."""
        self._bound().write_bytes(self, data)

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """See `SafeRoot.mkdir`."""
        self._bound().mkdir(self, parents=parents, exist_ok=exist_ok)

    def remove(self) -> None:
        """See `SafeRoot.remove`."""
        self._bound().remove(self)

    @classmethod
    def _bound(cls) -> SafeRoot:
        if cls._root is None:
            raise ConfigurationError(
                f"{cls.__name__} is bound to no root: class Doc(SafePath, root=docs), or docs.read_text(path)"
            )
        return cls._root
