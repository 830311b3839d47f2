"""Which names of tools a model is shown, and what Unicode's tables make of them."""

from __future__ import annotations

import string
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.errors import ConfigurationError
from garrison.host import confusables
from garrison.host.names import check_aliases, check_names, exposed, model_name, skeleton
from garrison.host.servers import check_alias

pytestmark = pytest.mark.client

TABLES = Path(confusables.__file__).with_name("characters.txt").read_text(encoding="utf-8")
ALIAS = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
TOOL = st.one_of(st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True), st.text(min_size=1, max_size=128))


def refused(*names: str) -> dict[str, str]:
    return {name: why for (_, name), why in check_names({"a": names}).refused.items()}


# One server


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "no name"),
        ("x" * 129, "129 characters"),
        (" read_file", "blank"),
        ("read_file ", "blank"),
        ("read_file\u3000", "blank"),
        ("read\u00a0file", "U+00A0"),
        ("read_\u200bfile", "U+200B"),
        ("read_\u202efile", "U+202E"),
        ("read_\U000e0041file", "U+E0041"),
        ("read_file\ufe0f", "U+FE0F"),
        ("read\u2800file", "U+2800"),
        ("read\u3164file", "U+3164"),
        ("読む\u200d", "U+200D"),
        ("read\x1b[31mfile", "U+001B"),
        ("read\nfile", "U+000A"),
        ("read\x7ffile", "U+007F"),
        ("read\ud800file", "U+D800"),
        ("read\ue000file", "U+E000"),
        ("read\U0003ffffefile", "U+3FFFF"),
        ("ｒｅａｄ_file", "special forms"),
        ("𝐫𝐞𝐚𝐝_file", "special forms"),
        ("re\u0430d_file", "Latin and Cyrillic"),
        ("r\u03b5ad_file", "Latin and Greek"),
        ("получить_url", "Cyrillic and Latin"),
        ("\u13aa\u0412", "Cherokee and Cyrillic"),
    ],
)
def test_a_name_that_no_reader_can_trust_is_refused(name: str, why: str) -> None:
    found = refused(name, "other")
    assert list(found) == [name]
    assert why in found[name]
    assert found[name].replace("\u0430", "").isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "read_file",
        "x" * 128,
        "v1.2-beta",
        "Get Weather",
        "dateien_öffnen",
        "dateien_o\u0308ffnen",
        "прочитать_файл",
        "ανάγνωση",
        "ファイルを読む",
        "読む_file",
        "파일_읽기_v2",
        "查找文件",
        "पढ़ना",
        "قراءة_ملف",
        "קרא",
        "čtení_souboru",
        "đọc_tệp",
        "işlem",
    ],
)
def test_a_name_in_any_one_script_passes(name: str) -> None:
    verdict = check_names({"a": [name, "another"], "b": ["third"]})
    assert not verdict.refused
    assert not verdict.flagged


def test_a_name_that_is_listed_twice_is_refused_whole() -> None:
    assert list(refused("add", "sub", "add")) == ["add"]
    assert "2 times" in refused("add", "add")["add"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("read_file", "Read_File"),
        ("read_file", "read-file"),
        ("read_file", "read.file"),
        ("read_file", "read file"),
        ("read_file", "readFile"),
        ("read_file", "READ-FILE"),
        ("level1", "levell"),
        ("go", "g0"),
        ("modern", "modem"),
        ("copy", "сору"),
        ("o\u0308ffnen", "\u00f6ffnen"),
        ("straße", "strasse"),
    ],
)
def test_names_of_one_server_that_look_alike_are_refused_both(one: str, other: str) -> None:
    found = refused(one, "unrelated", other)
    assert set(found) == {one, other}
    assert "looks the same" in found[one]


@pytest.mark.parametrize(
    "names",
    [
        ("get_issue", "get_issues"),
        ("page_1_1", "page_11"),
        ("v1.1", "v11"),
        ("read", "write"),
        ("a", "b"),
        ("list_directory", "list_directory_with_sizes"),
    ],
)
def test_names_that_can_be_told_apart_stay(names: tuple[str, ...]) -> None:
    assert refused(*names) == {}


def test_what_is_told_of_a_look_alike_says_which_letters_pass_for_others() -> None:
    assert "U+0441" in refused("copy", "сору")["copy"]


# Servers beside each other


def flagged(mine: str, theirs: str) -> str:
    verdict = check_names({"mine": [mine], "theirs": [theirs]})
    assert not verdict.refused, "no server takes a tool from another"
    return "; ".join(verdict.flagged.get(("mine", mine), ()))


def test_the_same_name_is_told_and_both_stay() -> None:
    assert flagged("send_email", "send_email") == "the server theirs has a tool of the same name"


@pytest.mark.parametrize("like", ["Send_Email", "send-email", "sendEmail", "send_emaiI", "SENDEMAIL"])
def test_a_look_alike_elsewhere_is_told(like: str) -> None:
    assert "looks like" in flagged("send_email", like)
    assert "looks like" in flagged(like, "send_email")


def test_a_look_alike_in_another_script_is_told() -> None:
    assert "U+0441" in flagged("copy", "сору")


@pytest.mark.parametrize("like", ["send_emails", "send_emai", "send_emall", "sned_email", "ssend_email"])
def test_a_name_that_differs_in_one_letter_is_told(like: str) -> None:
    assert "but for one letter" in flagged("send_email", like)
    assert "but for one letter" in flagged(like, "send_email")


@pytest.mark.parametrize("other", ["send_message", "read_email", "email", "list", "sent_emails"])
def test_another_name_is_not(other: str) -> None:
    assert not flagged("send_email", other)


def test_short_names_are_not_compared_by_letters() -> None:
    assert not flagged("add", "and")


def test_of_each_other_server_one_thing_is_told() -> None:
    verdict = check_names({"a": ["read_file"], "b": ["Read_File", "read_files"], "c": ["read_file"]})
    assert len(verdict.flagged["a", "read_file"]) == 2


def test_a_refused_name_is_compared_with_nothing() -> None:
    verdict = check_names({"a": ["read_file"], "b": ["read_file", "read_file"]})
    assert verdict.refused.keys() == {("b", "read_file")}
    assert not verdict.flagged


def test_many_long_names_that_are_nearly_one_cost_little() -> None:
    names = {f"s{server}": [f"{'a' * 55}{tool:03}" for tool in range(512)] for server in range(6)}
    started = time.process_time()
    check_names(names)
    assert time.process_time() - started < 3


# Aliases and exposed names


@pytest.mark.parametrize("aliases", [("my-files", "my_files"), ("web1", "webl"), ("modern", "modem"), ("web0", "webo")])
def test_aliases_that_look_alike_are_refused(aliases: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="look alike"):
        check_aliases(aliases)


def test_aliases_that_differ_are_taken() -> None:
    check_aliases(("files", "files2", "files3", "web"))


@given(ALIAS, TOOL, ALIAS, TOOL)
def test_no_two_tools_have_one_exposed_name(alias: str, tool: str, other: str, theirs: str) -> None:
    check_alias(alias)
    assert (exposed(alias, tool) == exposed(other, theirs)) == ((alias, tool) == (other, theirs))


@given(ALIAS, TOOL)
def test_a_name_for_models_is_one_that_they_take(alias: str, tool: str) -> None:
    name = model_name(exposed(alias, tool))
    assert 1 <= len(name) <= 64
    assert set(name) <= set(string.ascii_letters + string.digits + "_-")


@given(st.lists(st.text(alphabet="a_.-é", min_size=1, max_size=6), unique=True, max_size=40))
def test_names_for_models_are_as_different_as_the_names(tools: list[str]) -> None:
    names = [exposed(alias, tool) for alias in ("a", "a_", "a__a", "a-a") for tool in tools]
    assert len({model_name(name) for name in names}) == len(names)


def test_a_plain_name_for_models_can_be_read() -> None:
    assert model_name("files.read_file") == "files__read_file"
    assert model_name("files.read-file") == "files__read-file"
    assert model_name("files.a__b") == "files__a__b"
    assert model_name("files." + "x" * 57) == "files__" + "x" * 57
    for digested in ("a.b.c", "a_.b", "a__b.c", "files.lesen_ä", "files." + "x" * 58):
        assert "__" not in model_name(digested)


def test_a_tool_cannot_be_named_to_meet_the_digest_of_another() -> None:
    digested = model_name("files.a.b")
    assert model_name(f"files.{digested.removeprefix('files_')}") != digested


# Unicode's tables


def test_the_tables_say_of_ascii_what_the_short_way_says() -> None:
    tables = confusables._read()
    for code in range(128):
        like = unicodedata.normalize("NFD", tables.prototypes.get(code, chr(code)))
        assert skeleton(chr(code)) == like, chr(code)


@pytest.mark.parametrize(
    ("text", "like"),
    [
        ("раураl", "paypal"),
        ("\u2015", "\u30fc"),
        ("\U0001d5ff\U0001d5f2ad", "read"),
        ("\ufb01le", "file"),
        ("\u05d5", "\u006c"),
        ("a\u200db", "ab"),
        ("rn", "m"),
        ("ⅷ", "viii"),
    ],
)
def test_texts_that_look_alike_have_one_skeleton(text: str, like: str) -> None:
    assert skeleton(text) == skeleton(like)


@given(st.text(max_size=20))
def test_a_skeleton_looks_like_its_text(text: str) -> None:
    assert skeleton(skeleton(text)) == skeleton(text)


@given(st.text(max_size=20))
def test_no_text_is_too_odd_to_be_judged(text: str) -> None:
    check_names({"a": [text], "b": [text, "read_file"]})
    confusables.scripts_mixed(text)


def test_the_version_of_the_tables_is_named_and_so_is_their_license() -> None:
    assert TABLES.startswith(f"# Unicode {confusables.UNICODE}, ")
    assert "# UNICODE LICENSE V3\n" in TABLES
    assert "PERMISSION NOTICE" in TABLES
    lines = [line for line in TABLES.splitlines() if not line.startswith(("#", "["))]
    assert len(lines) > 3000 and all(line.isascii() for line in lines)


def test_names_in_ascii_read_no_tables() -> None:
    code = (
        "import sys; from garrison.host.names import check_names; from garrison.host import confusables\n"
        "check_names({'a': ['read_file', 'Read'], 'b': ['read_file']})\n"
        "assert confusables._tables is None and 'unicodedata' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_the_tables_are_made_from_unicodes_files(tmp_path: Path) -> None:
    from tests.support.unicode_tables import made

    files = {
        "confusables.txt": "# Version: 1.2.3\n0430 ;\t0061 ;\tMA\t# x\n0441 ;\t0063 ;\tMA\n1D68 ;\t03C1 0031 ;\tMA\n",
        "Scripts.txt": "# Scripts-1.2.3.txt\n0041..0043 ; Latin # A\n0044 ; Latin\n0020 ; Common\n0300 ; Inherited\n",
        "ScriptExtensions.txt": "0300 ; Latn Cyrl # x\n",
        "PropertyValueAliases.txt": "sc ; Latn ; Latin\nsc ; Cyrl ; Cyrillic\nage; 1.1 ; V1_1\n",
        "DerivedCoreProperties.txt": "00AD ; Default_Ignorable_Code_Point # x\n0041 ; Alphabetic\n",
        "LICENSE": "MAY BE USED\n\n-----\nmore",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    text = made(tmp_path)
    assert "# MAY BE USED\n[looks like]\n0061: 0430\n0063: 0441\n03C1+0031: 1D68\n[script]\n" in text
    assert "[script]\nCommon: 0020\nCyrillic+Latin: 0300\nLatin: 0041-0044\n[ignored]\n: 00AD\n" in text
    (tmp_path / "Scripts.txt").write_text("# Scripts-1.2.4.txt\n")
    with pytest.raises(ValueError, match="one version"):
        made(tmp_path)
