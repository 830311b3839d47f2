"""What is written of an event: one printable line, nothing secret, nothing long, of the arguments a keyed digest."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.audit.chain import linked
from garrison.audit.record import MAX_LINE, WIDTH, Mark, Record, Recorder, RecordError, encode, read_line, stamp
from garrison.errors import ConfigurationError
from garrison.events import Event
from tests.audit.scene import CALL

RECORDER = Recorder(bytes(32), {"transfer": ["to", "amount"]})
# In two pieces, so that nobody takes them for credentials of somebody.
SECRETS = ("ghp_" + "A1b2C3d4E5f6A1b2C3d4E5f6A1b2C3d4E5f6", "AKIA" + "IOSFODNN7EXAMPLE")


def line_of(event: Event, recorder: Recorder = RECORDER) -> bytes:
    return linked(bytes(32), encode(recorder.record(event, 3)))[0]


def test_a_record_has_its_members_in_order_and_none_that_are_empty() -> None:
    found = json.loads(line_of(CALL))
    assert list(found) == [
        *("seq", "time", "event", "decision", "outcome", "server", "principal", "peer", "method", "target", "request"),
        *("arguments", "duration_ms", "hash"),
    ]
    assert found["time"] == "2026-09-21T14:13:20.250000Z" and found["duration_ms"] == 1.5 and found["seq"] == 3


@pytest.mark.app
@pytest.mark.attack("ATK-280")
@pytest.mark.parametrize("member", ["text", "target", "method", "peer", "principal", "request", "error", "name"])
def test_a_peer_cannot_write_a_line_of_its_own(member: str) -> None:
    evil = 'a\n{"seq":9,"event":"x"}\r\x1b[2K\x85\u2028\u202egnp.exe\x7f\u200b\U000e0041"\\'
    line = line_of(Event("tool.called")._replace(**{member: evil}))
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    shown = line.decode().rstrip("\n")
    assert shown.isprintable()
    assert json.loads(line)["event" if member == "name" else member] == evil
    plain = "Grüße, 世界, שלום, مرحبا, 🙂"
    assert plain.encode() in line_of(Event("tool.called", plain))


@given(st.tuples(*[st.text(max_size=40)] * 11), st.text(max_size=2000))
def test_whatever_the_texts_are_a_line_is_one_printable_line_and_reads_back(texts: tuple[str, ...], error: str) -> None:
    record = RECORDER.record(Event(*texts, error=error), 3)
    line, digest = linked(bytes(32), encode(record))
    assert line[:-1].decode().isprintable() and len(line) < MAX_LINE
    read = read_line(line)
    record.hash = digest.hex()
    assert read.entry == record and read.hash == digest and linked(bytes(32), read.body)[0] == line


@given(st.text(st.characters(), max_size=600))
def test_halves_of_surrogates_and_numbers_do_no_harm(text: str) -> None:
    line = line_of(Event("x", text, request=7))  # type: ignore[arg-type]  # what a caller may get wrong
    assert json.loads(line)["request"] == "7"
    assert len(json.loads(line).get("text", "")) <= WIDTH + 3


def test_a_text_is_bounded() -> None:
    found = json.loads(line_of(Event("x", "a" * 100_000, target="b" * 600, peer="c" * WIDTH)))
    assert len(found["text"]) == WIDTH and found["text"].endswith("a...")
    assert len(found["target"]) == WIDTH and found["peer"] == "c" * WIDTH


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["text", "target", "method", "peer", "principal", "error", "setting", "request"])
def test_what_looks_like_a_credential_is_masked_wherever_it_stands(secret: str, place: str) -> None:
    assert secret.encode() not in line_of(Event("x")._replace(**{place: f"token {secret} end"}))
    assert secret.encode() not in line_of(Event("x")._replace(**{place: "y" * 490 + " " + secret}))
    assert b"a plain text end" in line_of(Event("x")._replace(**{place: "a plain text end"}))


@pytest.mark.parametrize("shown", range(4, 24, 3))
def test_a_credential_that_a_cut_divides_does_not_show_its_half(shown: int) -> None:
    """Long keys that were masked bring the place of the cut into what is written; half a key looks like none."""
    masked = " ".join(["ghp_" + "x" * 300] * 13)
    text = masked + " " * (4096 - shown - len(masked)) + SECRETS[0]
    assert b"ghp_" not in line_of(Event("x", text))


def test_arguments_are_a_keyed_digest() -> None:
    one = RECORDER.record(CALL)
    assert one.arguments.startswith("blake2b:") and len(one.arguments) == 72 and one.fields is None
    assert b"a.txt" not in line_of(CALL)
    same = CALL._replace(arguments={"count": 2, "path": "a.txt"})
    assert RECORDER.record(same).arguments == one.arguments
    assert RECORDER.record(CALL._replace(arguments={"path": "a.txt", "count": 3})).arguments != one.arguments
    assert Recorder(b"x" * 32).record(CALL).arguments != one.arguments
    assert RECORDER.record(CALL._replace(arguments=None)).arguments == ""


@pytest.mark.parametrize("arguments", [{"n": 2**80}, {"s": "\ud800"}, {"f": math.nan}, [], {"a": object()}])
def test_odd_arguments_do_no_harm(arguments: object) -> None:
    line_of(CALL._replace(arguments=arguments))


def test_listed_fields_are_written_and_others_are_not() -> None:
    arguments = {"to": f"bob\n{SECRETS[0]}", "amount": 5, "note": "private", "from": {"to": "x"}}
    found = json.loads(line_of(CALL._replace(target="transfer", arguments=arguments)))
    assert found["fields"] == {"to": found["fields"]["to"], "amount": 5}
    assert found["fields"]["to"].startswith("bob\n") and SECRETS[0] not in found["fields"]["to"]
    assert "fields" not in json.loads(line_of(CALL._replace(target="other", arguments=arguments)))
    nested = {"to": {"deep": "value"}, "amount": [1]}
    assert "fields" not in json.loads(line_of(CALL._replace(target="transfer", arguments=nested)))


@pytest.mark.parametrize("name", ["password", "clientSecret", "api-key", "accessToken", "Authorization", "pin"])
def test_a_field_that_is_named_like_a_credential_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="fields"):
        Recorder(bytes(32), {"login": [name]})
    Recorder(bytes(32), {"login": ["user", "keyboard", "country_code", "spin"]})


def test_fields_are_a_list_of_names() -> None:
    with pytest.raises(ConfigurationError):
        Recorder(bytes(32), {"login": "user"})


@pytest.mark.parametrize("when", [-1.0, math.inf, math.nan, 1e18])
def test_a_time_that_is_none_is_the_present(when: float) -> None:
    assert stamp(when)[:3] == "202" and read_line(line_of(CALL._replace(time=when, duration=when)))


LINE = line_of(CALL)
MARK = linked(bytes(32), encode(Mark(5, stamp(1.0), "checkpoint", records=4, mac="0" * 64)))[0]


def test_marks_read_back() -> None:
    read = read_line(MARK)
    assert isinstance(read.entry, Mark) and read.entry.log == "checkpoint"
    assert b"mac" not in read.signed and read.signed.endswith(b'"records":4}')
    assert isinstance(read_line(LINE).entry, Record)


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"\n", b"{}\n", b"null\n", LINE[:-1], LINE[:-2] + b"\n", LINE + b"\n", b" " + LINE, LINE[:40]),
        LINE.replace(b'"seq":3', b'"seq":03'),
        LINE.replace(b'"seq":3', b'"seq":-3'),
        LINE.replace(b'"seq":3', b'"seq":3.0'),
        LINE.replace(b'"seq":3', b'"seq":"3"'),
        LINE.replace(b"Z", b"+00:00", 1),
        LINE.replace(b'"event":"call.ended"', b'"event":7'),
        LINE.replace(b'"event"', b'"log"'),
        LINE.replace(b'"peer"', b'"pear"'),
        LINE.replace(b'"peer":"127.0.0.1"', b'"peer":"\xff"'),
        LINE.replace(b'"hash":"', b'"hash":"A'),
        MARK.replace(b'"mac":"0', b'"mac":"'),
        MARK.replace(b'"mac":"0', b'"mac":"A'),
        LINE[:-2] + b"x" * MAX_LINE + LINE[-2:],
    ],
)
def test_what_no_log_has_written_is_refused(line: bytes) -> None:
    with pytest.raises(RecordError) as info:
        read_line(line)
    assert len(str(info.value)) < 60
