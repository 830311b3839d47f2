"""Newline framing: whole lines come out whatever the chunks, and a long line costs neither memory nor the next line."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.protocol.lines import TOO_LONG, LineReader, TooLong


def read(chunks: list[bytes], limit: int = 8) -> list[bytes | TooLong]:
    reader = LineReader(limit)
    lines = [line for chunk in chunks for line in reader.feed(chunk)]
    last = reader.close()
    return lines if last is None else [*lines, last]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\r\ntwo\r\n", [b"one", b"two"]),
        (b"\n\r\n\none\n\n", [b"one"]),
        (b"one\ntail", [b"one", b"tail"]),
        (b"tail\r", [b"tail"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"12345678\n", [b"12345678"]),
        (b"12345678\r\n", [b"12345678"]),
        (b"123456789\nnext\n", [TOO_LONG, b"next"]),
        (b"123456789\r\nnext\n", [TOO_LONG, b"next"]),
        (b"12345678\r\r\nnext", [TOO_LONG, b"next"]),
        (b"x" * 100 + b"\nok\n" + b"y" * 100, [TOO_LONG, b"ok", TOO_LONG]),
    ],
)
def test_lines_are_the_same_whole_and_split_at_every_offset(data: bytes, lines: list[bytes | TooLong]) -> None:
    assert read([data]) == lines
    for offset in range(len(data) + 1):
        assert read([data[:offset], data[offset:]]) == lines
    assert read([data[i : i + 1] for i in range(len(data))]) == lines


@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bcd", b"12345678", b"{}"]), max_size=30),
    st.lists(st.integers(0, 120), max_size=6),
)
def test_cuts_never_matter(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert read([data[a:b] for a, b in itertools.pairwise(edges)]) == read([data])


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_every_line_within_the_limit_arrives_unchanged(lines: list[bytes]) -> None:
    clean = [line.replace(b"\n", b"").rstrip(b"\r") for line in lines]
    assert read([line + b"\n" for line in clean], limit=20) == [line for line in clean if line]


def test_a_long_line_is_told_at_once_and_not_kept() -> None:
    reader = LineReader(1000)
    chunk = b"x" * 500
    assert reader.feed(chunk) == []
    assert reader.feed(chunk) == []
    assert reader.feed(chunk) == [TOO_LONG]
    tracemalloc.start()
    for _ in range(2000):
        assert reader.feed(chunk) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000
    assert reader.feed(b"\nnext\n") == [b"next"]


def test_closing_during_a_long_line_gives_nothing_more() -> None:
    reader = LineReader(3)
    assert reader.feed(b"12345") == [TOO_LONG]
    assert reader.close() is None


def test_a_line_in_many_small_chunks_takes_linear_time() -> None:
    reader = LineReader(1 << 20)
    start = time.process_time()
    for _ in range(1 << 17):
        reader.feed(b"12345678")
    assert reader.feed(b"\n") == [b"12345678" * (1 << 17)]
    assert time.process_time() - start < 2.0  # quadratic: minutes
