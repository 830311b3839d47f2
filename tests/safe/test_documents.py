"""XML and YAML against documents that grow, reach out or build objects; the same decoders behind tools, over HTTP."""

from __future__ import annotations

import base64
import io
import json
import math
import sys
import tarfile
import time
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from garrison import Client, ConfigurationError, Server
from garrison.safe.archives import SafeArchive
from garrison.safe.documents import DocumentRefused
from garrison.safe.root import SafeRoot
from garrison.safe.templates import SafeTemplate
from garrison.safe.xml_documents import parse_xml
from garrison.safe.yaml_documents import parse_yaml

LAUGHS = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
LAUGHS = f'<!DOCTYPE a [<!ENTITY e0 "ha">{LAUGHS}]><a>&e9;</a>'
YAML_LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 9}]\n" for n in range(9))


def refusal(parse: Callable[..., object], data: object, **caps: int) -> str:
    """Why a document is refused."""
    with pytest.raises(DocumentRefused) as caught:
        parse(data, **caps)
    return str(caught.value)


def held(run: Callable[[], object]) -> int:
    """How many bytes were held at most while it ran."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# XML


@pytest.mark.parametrize(
    "text",
    [
        "<a/>",
        '<?xml version="1.0" encoding="UTF-8"?>\n<!-- it -- is -->\n<a b="1">x<c/>y<d>z</d></a>'.replace(" -- ", " "),
        '<a xmlns="urn:one" xmlns:two="urn:two" two:b="&lt;&amp;&#233;"><two:c/>é日本</a>',
        "<a><![CDATA[<!DOCTYPE x [<!ENTITY y 'z'>]>]]><!-- <!DOCTYPE x> --></a>\n<!-- end -->",
    ],
)
def test_xml_is_read_as_elementtree_reads_it(text: str) -> None:
    expected = ET.tostring(ET.fromstring(text))
    for data in (text, text.encode(), text.encode("utf-8-sig")):
        assert ET.tostring(parse_xml(data)) == expected
    if "encoding" not in text:
        assert ET.tostring(parse_xml(text.encode("utf-16"))) == expected


def test_encodings_that_a_document_may_have() -> None:
    assert parse_xml('<?xml version="1.0" encoding="iso-8859-1"?><a>é</a>'.encode("latin-1")).text == "é"
    assert parse_xml('<?xml version="1.0" encoding="utf-16"?><a>é</a>'.encode("utf-16")).text == "é"
    assert parse_xml('<?xml version="1.0" encoding="iso-8859-1"?><a>é日</a>').text == "é日"
    for data in (
        b'<?xml version="1.0" encoding="utf-7"?><a>+ADw-</a>',
        b'<?xml version="1.0" encoding="utf-16"?><a/>',
        '<?xml version="1.0" encoding="utf-8"?><a/>'.encode("utf-16"),
        "<a/>".encode("utf-32"),
        "<a/>".encode("utf-16-le"),
        b"<a>\xff</a>",
    ):
        refusal(parse_xml, data)
    assert "Unicode" in refusal(parse_xml, "<a>\ud800</a>")


@pytest.mark.app
@pytest.mark.attack("ATK-156")
@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/"> %x;]><a/>',
        '<!DOCTYPE a [<!ATTLIST a b CDATA "c">]><a/>',
        "<!DOCTYPE a><a/>",
        "<!-- x --><!DOCTYPE a><a/>",
        LAUGHS.encode("utf-16-le").decode(),
        LAUGHS.encode("utf-16-be").decode(),
        '<?xml version="1.0"?>\n<!-- x -->\n<!DOCTYPE a><a/>',
        "<a/><!DOCTYPE a>",
        "<a><!DOCTYPE a></a>",
        '<?xml-stylesheet href="http://127.0.0.1/"?><a/>',
        "<a><?php x ?></a>",
        "<a>&x;</a>",
        "<a>&nbsp;</a>",
    ],
)
def test_no_document_type_no_entity_no_instruction(text: str, caplog: pytest.LogCaptureFixture) -> None:
    for data in (text, text.encode(), text.encode("utf-16")):
        caplog.clear()
        assert refusal(parse_xml, data).startswith("The document was refused: ")
        assert [cast("Any", record).event for record in caplog.records] == ["document.refused"]


@pytest.mark.app
@pytest.mark.attack("ATK-156")
def test_what_the_standard_library_does_with_entities() -> None:
    """The twin: entities grow in `xml.etree`; a tenth of the text below would do for a machine."""
    small = LAUGHS.replace("&e9;", "&e4;")
    assert len(cast("str", ET.fromstring(small).text)) == 20_000 > 10 * len(small)
    peak = held(lambda: refusal(parse_xml, LAUGHS))
    assert peak < 1024 * 1024


def test_the_document_type_never_reaches_the_parser() -> None:
    with patch("xml.parsers.expat.ParserCreate") as parser:
        refusal(parse_xml, LAUGHS)
    parser.assert_not_called()


@pytest.mark.parametrize(
    "text", ["", "  ", "x", "<a>", "<a></b>", "<a/><b/>", "<a b=c/>", "<a b='' b=''/>", "<x:a/>", "<a/>x"]
)
def test_what_is_no_xml(text: str) -> None:
    refusal(parse_xml, text)


def test_caps_of_xml() -> None:
    for name, text, most in (
        ("max_depth", "<a>" * 10 + "</a>" * 10, 10),
        ("max_elements", "<a>" + "<b/>" * 9 + "</a>", 10),
        ("max_attributes", "<a " + " ".join(f"b{n}=''" for n in range(10)) + "/>", 10),
        ("max_attributes", "<a " + " ".join(f"xmlns:b{n}='u'" for n in range(10)) + "/>", 10),
        ("max_bytes", "<a>é</a>", 9),
    ):
        parse_xml(text, **{name: most})
        assert name in refusal(parse_xml, text, **{name: most - 1})
        with pytest.raises(ConfigurationError, match=name):
            parse_xml(text, **{name: 0})
    assert "namespace" in refusal(parse_xml, f"<a xmlns='{'x' * 257}'/>")
    assert parse_xml(f"<a xmlns='{'x' * 256}'/>").tag == "{" + "x" * 256 + "}a"


def test_a_large_honest_document() -> None:
    text = "<rows>" + "<row n='1'>value</row>" * 40_000 + "</rows>"
    begin = time.perf_counter()
    assert len(parse_xml(text)) == 40_000
    assert time.perf_counter() - begin < 5
    assert "not well-formed" in refusal(parse_xml, "<a " + "b" * 900_000)
    assert "begin with an element" in refusal(parse_xml, "<!--" + " - " * 300_000)
    assert time.perf_counter() - begin < 10


# YAML


def test_yaml_says_what_json_can() -> None:
    text = """\
        name: garrison
        list: [1, -2, 0x1F, 0o17, 1.5, .5, 1e3, true, False, null, ~, ]
        words: [no, on, yes, 12:30, 2024-01-01, 1_000, 0b1, "true", '1', +.5x]
        nested: {a: {b: [{c: d}]}}
        tags: [!!str 1, !!int "3", !!float 2, !!seq [], !!map {}]
        text: |
          two
          lines
        "é": 010
        empty:
        """
    assert parse_yaml(text) == {
        "name": "garrison",
        "list": [1, -2, 31, 15, 1.5, 0.5, 1000.0, True, False, None, None],
        "words": ["no", "on", "yes", "12:30", "2024-01-01", "1_000", "0b1", "true", "1", "+.5x"],
        "nested": {"a": {"b": [{"c": "d"}]}},
        "tags": ["1", 3, 2.0, [], {}],
        "text": "two\nlines\n",
        "é": 10,
        "empty": None,
    }
    assert parse_yaml(text.encode()) == parse_yaml(text)
    assert [parse_yaml(each) for each in ("", "# nothing", "--- x", "3")] == [None, None, "x", 3]


@pytest.mark.app
@pytest.mark.attack("ATK-156")
@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("!!python/object/apply:os.mkdir [owned]", "tag"),
        ("x: !!python/name:os.system ''", "tag"),
        ("!!python/object/new:type {args: [x, !!python/tuple [], {}]}", "tag"),
        ("! {a: !<tag:yaml.org,2002:python/object:os.x> {}}", "tag"),
        ("%TAG ! tag:yaml.org,2002:python/\n---\n!name:os.system x", "declares tags"),
        ("%TAG !! tag:x,2000:\n---\n!!int 1", "declares tags"),
        ("!local x", "tag"),
        ("!!binary aGk=", "tag"),
        ("!!set {a}", "tag"),
        ("!!timestamp 2001-01-01", "tag"),
        ("!!int x", "tag"),
        (YAML_LAUGHS, "alias"),
        ("&a [*a]", "alias"),
        ("a: &x 1\nb: *x", "alias"),
        ("<<: {a: 1}", "merge key"),
        ("a: 1\n'a': 2", "stands twice"),
        ("1: a", "not text"),
        ("null: a", "not text"),
        ("[a]: b", "not text"),
        ("? {a: b}\n: c", "not text"),
        ("--- a\n--- b", "more than one document"),
        ("a\n...\n---\n", "more than one document"),
        (".inf", "infinity"),
        ("-.INF", "infinity"),
        (".nan", "infinity"),
        ("1e999", "too large"),
        ("9" * 5000, "too large"),
        ("0x" + "f" * 17, "too large"),
        ("[a", "not YAML"),
        ("a: b: c", "not YAML"),
        ("\0", "not YAML"),
        ("\ud800", "not UTF-8"),
    ],
)
def test_yaml_beyond_json(text: str, rule: str, tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for loader in ("CSafeLoader", "SafeLoader"):
        caplog.clear()
        if loader == "SafeLoader":
            monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
        assert rule in refusal(parse_yaml, text)
        assert [record.event for record in caplog.records] == ["document.refused"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.app
@pytest.mark.attack("ATK-156")
def test_what_unsafe_load_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: a tag runs a function; aliases grow."""
    monkeypatch.chdir(tmp_path)
    yaml.unsafe_load("!!python/object/apply:os.mkdir [owned]")
    assert (tmp_path / "owned").is_dir()
    grown = yaml.safe_load(YAML_LAUGHS.partition("a4: ")[0])
    assert len(json.dumps(grown)) > 20 * len(YAML_LAUGHS.partition("a4: ")[0])
    assert held(lambda: refusal(parse_yaml, YAML_LAUGHS)) < 1024 * 1024


def test_caps_of_yaml() -> None:
    for name, text, most in (
        ("max_depth", "[" * 10 + "]" * 10, 10),
        ("max_nodes", "[a, b, {c: d}]", 6),
        ("max_bytes", "é", 2),
    ):
        parse_yaml(text, **{name: most})
        assert name in refusal(parse_yaml, text, **{name: most - 1})
        with pytest.raises(ConfigurationError, match=name):
            parse_yaml(text, **{name: 0})
    begin = time.perf_counter()
    assert "max_depth" in refusal(parse_yaml, "[" * 250_000)
    assert "max_depth" in refusal(parse_yaml, "- " * 100_000)
    refusal(parse_yaml, "{" * 250_000)
    refusal(parse_yaml, "? " * 100_000)
    assert len(cast("list[object]", parse_yaml("- value\n" * 19_000))) == 19_000
    assert time.perf_counter() - begin < 5


def test_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigurationError, match=r"garrison\[yaml\]"):
        parse_yaml("a")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_is_yaml(value: object) -> None:
    text = json.dumps(value)
    if "\\ud" in text or "<<" in text:  # escapes of JSON beyond the first plane; and a key that is none
        return
    again = parse_yaml(text)
    assert again == value or (isinstance(value, float) and math.isclose(cast("float", again), value))


@given(st.text(st.characters(codec="utf-8"), max_size=60) | st.text("[]{}:,-&*!|>'\"%@`?#~ \nab1", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_yaml, parse_xml):
        try:
            found = parse(text)
        except DocumentRefused:
            continue
        json.dumps(found, allow_nan=False) if parse is parse_yaml else ET.tostring(cast("ET.Element", found))


# Behind tools


@pytest.mark.app
@pytest.mark.attack("ATK-156", transports=("http",))
async def test_decoders_behind_tools(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inbox = SafeRoot(tmp_path / "in", write=True)
    greeting = SafeTemplate("<p>Hello {name}</p>", kind="html")
    server = Server("decoders")

    @server.tool()
    def unpack(data: str) -> list[str]:
        return list(SafeArchive(base64.b64decode(data)).extract(inbox))

    @server.tool()
    def xml_text(document: str) -> str:
        return parse_xml(document).text or ""

    @server.tool()
    def yaml_keys(document: str) -> list[str]:
        return list(cast("dict[str, object]", parse_yaml(document)))

    @server.tool()
    def greet(name: str) -> str:
        return greeting.render(name=name)

    def packed(name: str) -> str:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        return base64.b64encode(made.getvalue()).decode()

    async with server.http(port=0) as serving, Client(serving.url, token=serving.token) as client:

        async def ask(tool: str, **arguments: object) -> tuple[bool, str]:
            answer = await client.call_tool(tool, arguments)
            return bool(answer.is_error), cast("Any", answer.content[0]).text

        attacks = {
            ("unpack", "data", packed("../x")): "archive was refused",
            (
                "xml_text",
                "document",
                '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
            ): "document was",
            ("xml_text", "document", LAUGHS): "document was refused",
            ("yaml_keys", "document", "!!python/object/apply:os.mkdir [owned]"): "document was refused",
            ("yaml_keys", "document", YAML_LAUGHS): "document was refused",
        }
        for (tool, name, value), said in attacks.items():
            failed, text = await ask(tool, **{name: value})
            assert failed and said in text and "passwd" not in text
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["in"]
        assert await ask("greet", name="{x.__class__}<b>") == (False, "<p>Hello {x.__class__}&lt;b&gt;</p>")

        assert await ask("unpack", data=packed("x/y")) == (False, '["x/y"]')
        assert (tmp_path / "in/x/y").is_file()
        assert await ask("xml_text", document="<a>text</a>") == (False, "text")
        assert await ask("yaml_keys", document="a: 1\nb: [no]") == (False, '["a","b"]')
