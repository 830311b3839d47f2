"""Event streams: what the HTML standard says, however the bytes are cut, within the limit."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.errors import MessageTooLarge
from garrison.protocol.sse import COMMENT, SseEvent, SseParser, encode_event

BOM = b"\xef\xbb\xbf"


def read(chunks: list[bytes], limit: int = 1000) -> tuple[list[SseEvent], str, int | None, bool]:
    """Events, last id, retry, and whether the limit was passed."""
    parser = SseParser(limit)
    events: list[SseEvent] = []
    try:
        for chunk in [*chunks, b""]:
            events += parser.feed(chunk)
    except MessageTooLarge:
        return events, parser.last_event_id, parser.retry, True
    return events, parser.last_event_id, parser.retry, False


def every_cut(data: bytes, limit: int = 1000) -> list[SseEvent]:
    whole = read([data], limit)
    for offset in range(len(data) + 1):
        assert read([data[:offset], data[offset:]], limit) == whole, offset
    assert read([data[i : i + 1] for i in range(len(data))], limit) == whole
    return whole[0]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", [SseEvent(b"one"), SseEvent(b"two")]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", [SseEvent(b"one"), SseEvent(b"two")]),
        (b"data: one\r\rdata: two\r\r", [SseEvent(b"one"), SseEvent(b"two")]),
        (b"data: one\r\n\ndata: two\r\r\n", [SseEvent(b"one"), SseEvent(b"two")]),
        (BOM + b"data: one\n\n", [SseEvent(b"one")]),
        (BOM + BOM + b"data: one\n\n", []),
        (b"data: a\ndata\ndata:b\ndata:  c\n\n", [SseEvent(b"a\n\nb\n c")]),
        (b"data\n\n", [SseEvent(b"")]),
        (b"data: \xff\n\n", [SseEvent(b"\xff")]),
        (b": comment\n\n:\ndata: x\n: y\n\n", [SseEvent(b"x")]),
        (b"event: e\ndata: x\n\ndata: y\n\n", [SseEvent(b"x", "e"), SseEvent(b"y")]),
        (b"event: e\n\ndata: y\n\n", [SseEvent(b"y")]),
        (b"id: 7\ndata: x\n\ndata: y\n\n", [SseEvent(b"x", id="7"), SseEvent(b"y")]),
        (b"id: prime\ndata: \n\n", [SseEvent(b"", id="prime")]),
        (b"id: prime\nretry: 10\n\n", [SseEvent(b"", id="prime")]),
        (b"unknown: x\nDATA: x\n data: x\n\n", []),
        (b"data: unfinished\n", []),
        (b"data: unfinished", []),
        (b"", []),
    ],
)
def test_events(stream: bytes, events: list[SseEvent]) -> None:
    assert every_cut(stream) == events


def test_the_last_id_stays_until_another_complete_event_carries_one() -> None:
    parser = SseParser(100)
    parser.feed(b"id: 1\ndata: x\n\ndata: y\n\nid: 2\ndata: z\n")
    assert parser.last_event_id == "1"
    parser.feed(b"\nid: has\0nul\n\n")
    assert parser.last_event_id == "2"
    parser.feed(b"id\n\n")
    assert parser.last_event_id == ""


@pytest.mark.parametrize(
    ("value", "retry"),
    [(b"1500", 1500), (b"0", 0), (b"1.5", None), (b"-1", None), (b" 1", None), (b"", None), (b"9" * 5000, None)],
)
def test_retry_is_digits_only(value: bytes, retry: int | None) -> None:
    assert read([b"retry: " + value + b"\n\n"], limit=10_000)[2] == retry


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_the_limit_counts_the_data_of_one_event(ending: bytes) -> None:
    good = b"data: 12345678" + ending * 2
    assert every_cut(good * 3, limit=8) == [SseEvent(b"12345678")] * 3
    assert every_cut(b"data: 1234" + ending + b"data: 567" + ending * 2, limit=8) == [SseEvent(b"1234\n567")]
    for bad in (b"data: 123456789", b"data: 1234" + ending + b"data: 5678", b":" + b"x" * 100):
        stream = good + bad + ending * 2 + good
        assert every_cut(stream, limit=8) == [SseEvent(b"12345678")]
        assert read([stream], limit=8)[3]


def test_the_limit_is_passed_before_the_line_ends() -> None:
    parser = SseParser(100)
    with pytest.raises(MessageTooLarge):
        for _ in range(20):
            parser.feed(b"x" * 10)
    with pytest.raises(MessageTooLarge):
        parser.feed(b"\n\n")


def test_endless_keep_alives_are_no_event_and_no_limit() -> None:
    assert read([COMMENT * 1000, b"retry: 5\r\n" * 1000, encode_event(b"x")], limit=20)[0] == [SseEvent(b"x")]


ids = st.text(st.characters(exclude_characters="\0\r\n", codec="utf-8"), max_size=8)


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=20).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"")),
            st.none() | ids,
            st.none() | ids.filter(bool),
            st.none() | st.integers(0, 10**8),
        ),
        max_size=6,
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_what_is_encoded_is_read_back(
    messages: list[tuple[bytes, str | None, str | None, int | None]], cuts: list[int]
) -> None:
    stream = b"".join(encode_event(data, id=id, event=event, retry=retry) for data, id, event, retry in messages)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    events = read([stream[a:b] for a, b in itertools.pairwise(edges)])[0]
    assert events == [SseEvent(data, event or "message", id) for data, id, event, _ in messages]


@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: ab", b"data", b":", b"id: 1", b"event: x", BOM, b"z"])))
def test_cuts_never_matter(parts: list[bytes]) -> None:
    every_cut(b"".join(parts[:12]), limit=6)


@pytest.mark.parametrize(
    "fields",
    [
        {"data": b"a\nb"},
        {"data": b"a\rb"},
        {"data": b"", "id": "a\nb"},
        {"data": b"", "id": "a\rb"},
        {"data": b"", "id": "a\0b"},
        {"data": b"", "event": "a\nb"},
        {"data": b"", "retry": -1},
    ],
)
def test_nothing_can_be_smuggled_into_a_stream(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"event|retry"):
        encode_event(**fields)  # pyright: ignore[reportArgumentType]  # a table of keyword arguments


def test_a_large_event_in_small_chunks_takes_linear_time() -> None:
    parser = SseParser(1 << 20)
    start = time.process_time()
    parser.feed(b"data: ")
    for _ in range(1 << 17):
        parser.feed(b"12345678")
    assert parser.feed(b"\n\n") == [SseEvent(b"12345678" * (1 << 17))]
    many_lines = SseParser(1 << 20).feed(b"data:\n" * (1 << 18) + b"\n")
    assert many_lines == [SseEvent(b"\n" * ((1 << 18) - 1))]
    assert time.process_time() - start < 2.0  # quadratic: minutes
