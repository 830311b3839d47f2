"""XML of others, without the parts of XML that read files, ask networks or grow.

Rules of this file:
- No document type: so no entity of the document's own, no external one, no default attribute. It is refused before the
  parser has seen it. Processing instructions are refused as well; comments are left out.
- The encoding is decided here: UTF-8, UTF-16 with its mark, Latin-1 or ASCII where the document says so.
- Everything that can be many is counted while it is read. A namespace's name is written into every tag, so it is short.

Spec: Extensible Markup Language (XML) 1.0, fifth edition; Namespaces in XML 1.0.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Final

from .documents import DocumentRefused, hold_positive, refused

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element, TreeBuilder

__all__ = ["DocumentRefused", "parse_xml"]

_CHUNK: Final = 64 * 1024
_NAMESPACE: Final = 256
"""Most characters of a namespace's name."""
_PROLOG: Final = re.compile(r"(?:<\?xml[ \t\r\n][^?]{0,200}\?>)?+(?:[ \t\r\n]++|<!--(?:[^-]|-[^-])*+-->)*+(?=<[^!?])")
"""All that may stand before the root element."""
_MARKS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DECLARED: Final = re.compile(
    rb"<\?xml[ \t\r\n][^?]{0,200}?encoding[ \t\r\n]*=[ \t\r\n]*[\"']([A-Za-z0-9._-]{1,40})[\"']"
)
_SAID: Final = re.compile(r"\A<\?xml[ \t\r\n][^?]{0,200}?encoding[ \t\r\n]*=[ \t\r\n]*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_ENCODINGS: Final = {"utf-8": "utf-8", "us-ascii": "ascii", "iso-8859-1": "latin-1"}


def parse_xml(
    data: bytes | str,
    *,
    max_bytes: int = 1024 * 1024,
    max_depth: int = 64,
    max_elements: int = 50_000,
    max_attributes: int = 128,
) -> Element:
    """The root element of a document, as `xml.etree.ElementTree` has it.

    Args:
        data: the document. Of text, an encoding that it declares is not looked at.
        max_bytes: most bytes, of text in UTF-8.
        max_depth: most elements within each other.
        max_elements: most elements.
        max_attributes: most attributes of one element, namespaces that it declares among them.

    Raises:
        DocumentRefused: it is not well-formed, has a document type or processing instruction, or breaks a cap.
        ConfigurationError: a cap is not a positive integer.
    """
    hold_positive(
        "parse_xml",
        max_bytes=max_bytes,
        max_depth=max_depth,
        max_elements=max_elements,
        max_attributes=max_attributes,
    )
    if len(data) > max_bytes:
        raise refused(f"more than {max_bytes} bytes", "max_bytes")
    text = data if isinstance(data, str) else _decoded(bytes(data))
    if "\0" in text:  # the parser would take it for UTF-16
        raise refused("it has a NUL character")
    if _PROLOG.match(text) is None:
        raise refused("it has a document type or an instruction, or does not begin with an element")
    try:
        plain = text.encode()
    except UnicodeEncodeError:
        raise refused("it is not Unicode text") from None
    if isinstance(data, str) and len(plain) > max_bytes:
        raise refused(f"more than {max_bytes} bytes", "max_bytes")
    return _Reader(max_depth, max_elements, max_attributes).read(plain)


def _decoded(data: bytes) -> str:
    """The text of a document by its mark or its declaration, in one encoding."""
    mark, by_mark = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", ""))
    declared = _DECLARED.match(data)
    name = by_mark or ("utf-8" if declared is None else _ENCODINGS.get(declared[1].decode("ascii").lower(), ""))
    if not name:
        raise refused("its encoding is none of UTF-8, UTF-16, ISO-8859-1 and US-ASCII")
    try:
        text = data.decode(name) if name == "utf-16" else data[len(mark) :].decode(name)
    except UnicodeDecodeError:
        raise refused(f"it is not {name.upper()}") from None
    said = _SAID.match(text)
    if by_mark and said is not None and said[1].lower() != by_mark:
        raise refused("it declares another encoding than it has")
    return text


class _Reader:
    """Builds the tree of one document from what expat reports."""

    def __init__(self, max_depth: int, max_elements: int, max_attributes: int) -> None:
        self._max_depth = max_depth
        self._left = self._max_elements = max_elements
        self._max_attributes = max_attributes
        self._depth = 0
        self._namespaces = 0
        """Declared by the element that begins next."""
        self._names: dict[str, str] = {}
        """Expat's name -> ElementTree's, one object for each."""
        self._builder: TreeBuilder

    def read(self, data: bytes) -> Element:
        from xml.etree.ElementTree import TreeBuilder
        from xml.parsers.expat import ExpatError, ParserCreate

        self._builder = TreeBuilder()
        parser = ParserCreate("utf-8", "}")  # the encoding that is given here wins over the declared one
        parser.buffer_text = True
        parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._builder.data
        parser.StartNamespaceDeclHandler = self._namespace
        parser.StartDoctypeDeclHandler = self._no_type
        parser.EntityDeclHandler = self._no_type
        parser.ExternalEntityRefHandler = self._no_type
        parser.ProcessingInstructionHandler = self._no_instruction
        try:
            for at in range(0, len(data), _CHUNK):  # an error stops at the end of its piece
                parser.Parse(data[at : at + _CHUNK])
            parser.Parse(b"", True)
        except ExpatError:
            raise refused("it is not well-formed XML") from None
        return self._builder.close()

    def _start(self, name: str, attributes: list[str]) -> None:
        self._depth += 1
        self._left -= 1
        if self._depth > self._max_depth:
            raise refused(f"more than {self._max_depth} elements within each other", "max_depth")
        if self._left < 0:
            raise refused(f"more than {self._max_elements} elements", "max_elements")
        if len(attributes) // 2 + self._namespaces > self._max_attributes:
            raise refused(f"more than {self._max_attributes} attributes of one element", "max_attributes")
        self._namespaces = 0
        pairs = zip(attributes[::2], attributes[1::2], strict=True)
        self._builder.start(self._name(name), {self._name(key): value for key, value in pairs})

    def _end(self, name: str) -> None:
        self._depth -= 1
        self._builder.end(self._name(name))

    def _namespace(self, prefix: str | None, name: str | None) -> None:
        self._namespaces += 1
        if name is not None and len(name) > _NAMESPACE:
            raise refused(f"a namespace of more than {_NAMESPACE} characters")

    def _name(self, name: str) -> str:
        known = self._names.get(name)
        if known is None:
            known = self._names[name] = "{" + name if "}" in name else name
        return known

    def _no_type(self, *_: object) -> int:
        raise refused("it has a document type or an entity")

    def _no_instruction(self, *_: object) -> None:
        raise refused("it has a processing instruction")
