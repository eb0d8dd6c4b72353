"""What a terminal's bytes become, and that no chunking changes it."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentctl.host.terminal_output import FARTHEST_JUMP, LONGEST_LINE, LineStream

ESC = "\x1b"


def lines_of(data: bytes | str, sizes: list[int] | None = None) -> list[str]:
    data = data.encode() if isinstance(data, str) else data
    stream, lines, at = LineStream(), [], 0
    for size in [*(sizes or []), len(data)]:
        lines += stream.feed(data[at : at + size])
        at += size
    return lines + stream.flush()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("one\r\ntwo\n", ["one", "two"]),
        ("one\r\r\n\r\ntwo", ["one", "", "two"]),
        ("50%\r60%\r100%\r\n", ["100%"]),
        ("long text\rab\n", ["abng text"]),
        (f"long text\rab{ESC}[K\n", ["ab"]),
        (f"{ESC}[2K\rnew\n", ["new"]),
        ("abc\b\bX\n", ["aXc"]),
        ("\b\b\bx\n", ["x"]),
        ("a\tb\n", ["a\tb"]),
        ("a\a\0\x7f\x05b\n", ["ab"]),
        ("a\x85\x9bb\n", ["ab"]),
        (f"{ESC}[1;31mred{ESC}[0m plain\n", ["red plain"]),
        (f"{ESC}[38;2;1;2;3mx{ESC}[m\n", ["x"]),
        (f"{ESC}[38:2::1:2:3mx\n", ["x"]),
        (f"{ESC}]0;title\aafter\n", ["after"]),
        (f"{ESC}]8;;http://x{ESC}\\link{ESC}]8;;{ESC}\\\n", ["link"]),
        (f"{ESC}P1$r0m{ESC}\\after{ESC}_G;AAAA{ESC}\\!\n", ["after!"]),
        (f"{ESC}ktitle{ESC}\\after\n", ["after"]),
        (f"{ESC}(B{ESC})0{ESC}=a{ESC}>b{ESC}#8c{ESC}7d{ESC}8\n", ["abcd"]),
        (f"{ESC}[?25l{ESC}[?2004h{ESC}[>4;1mx{ESC}[!p\n", ["x"]),
        (f"a{ESC}[5Cb\n", ["a     b"]),
        (f"abc{ESC}[2Dx\n", ["axc"]),
        (f"{ESC}[3Gx\n", ["  x"]),
        (f"x{ESC}[999999999C!\n", ["x" + " " * (FARTHEST_JUMP - 1) + "!"]),
        (f"{ESC}[31\nnext\n", ["", "next"]),  # a broken sequence does not swallow what follows
        (f"{ESC}]0;no end\nnext\n", ["", "next"]),
        (f"{ESC}[3é\n", ["é"]),
        (f"{ESC}[1{ESC}[2mx\n", ["x"]),
        (f"{ESC}[1\x18x\n", ["x"]),
        (f"{ESC}[{'1' * 100}\n", ["1" * 36]),
        ("é✓ 日本 \N{NO-BREAK SPACE}x\n", ["é✓ 日本 \N{NO-BREAK SPACE}x"]),
        (b"a\xff\xfeb\xc3\n", ["a\ufffd\ufffdb\ufffd"]),
        ("a\u2028b\n", ["a\u2028b"]),
        ("trailing   \r\n", ["trailing"]),
        ("password: ", ["password:"]),
        ("", []),
    ],
)
def test_bytes_become_lines(data, lines):
    assert lines_of(data) == lines


def test_a_progress_bar_is_one_line():
    bar = "".join(f"\r{n:3}% [{'#' * n:100}]" for n in range(101))
    assert lines_of(bar + "\r\n") == [f"100% [{'#' * 100}]"]


def test_a_long_line_comes_in_pieces_and_is_whole():
    text = "".join(chr(97 + n % 26) for n in range(3 * LONGEST_LINE + 5))
    lines = lines_of(text + "\n")
    assert [len(line) for line in lines] == [LONGEST_LINE] * 3 + [5]
    assert "".join(lines) == text


def test_a_prompt_is_flushed_once_and_its_newline_adds_nothing():
    stream = LineStream()
    assert stream.feed(b"name: ") == []
    assert stream.has_partial
    assert stream.flush() == ["name:"]
    assert stream.flush() == []
    assert stream.feed(b"\r\n\r\n") == [""]
    assert stream.feed(b"x") + stream.flush() + stream.feed(b"yz\n") == ["x", "yz"]


def test_a_screen_of_positions_is_readable():
    data = f"{ESC}[2J{ESC}[1;1HTitle{ESC}[3;5HName{ESC}[4;5HValue{ESC}[24;1H:q"
    assert lines_of(data) == ["Title", "    Name", "    Value", ":q"]


def test_a_redrawn_frame_says_only_what_is_new():
    """As terminal interfaces do many times a second: up, clear, the same lines but for one."""
    frames = [f"{ESC}[2K{ESC}[1A{ESC}[2K{ESC}[1A{ESC}[G> task\r\n{n}s\r\n" for n in (1, 2, 2, 3)]
    assert lines_of("> task\r\n0s\r\n" + "".join(frames)) == ["> task", "0s", "1s", "2s", "3s"]


def test_repeated_lines_of_a_plain_program_all_count():
    assert lines_of(f"{ESC}[H{ESC}[2J" + "beat\r\n" * 3) == ["beat"] * 3


PIECES = st.sampled_from(
    [
        "a",
        "word ",
        "é",
        "日",
        "\r",
        "\n",
        "\r\n",
        "\b",
        "\t",
        "\0",
        ESC,
        "[",
        "]",
        "\\",
        "31m",
        "\a",
    ]
    + [ESC + s for s in ("[K", "[1A", "[2J", "[H", "[5;9H", "[3C", "[2D", "]0;t\a", "P", "(B", "k")]
    + ["\x18", "\x85", "\xa0", "x" * 300, "y" * LONGEST_LINE]
)
STREAMS = st.one_of(
    st.lists(PIECES, max_size=60).map(lambda parts: "".join(parts).encode()),
    st.binary(max_size=300),
)


@settings(max_examples=400, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 40), max_size=60))
@example(b"\xe6\x97\xa5\r\n", [1, 1, 1, 1])
@example(b"\x1b[31mred\x1b[0m\n", [1] * 20)
def test_no_chunking_changes_the_lines(data, sizes):
    whole = lines_of(data)
    assert lines_of(data, sizes) == whole
    for line in whole:
        assert len(line) <= LONGEST_LINE
        assert all(c == "\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in line)


@pytest.mark.parametrize(
    "nasty",
    [
        b"\r",
        b"\b",
        b"\x1b",
        b"\x1b[",
        b"\x1b[D",
        b"x\x1b[D",
        b"\x1b[400Gx",
        b"\xc2\xa0\r",
        b"\x1b]",
        b"\0",
    ],
)
def test_nasty_input_costs_no_more_than_seconds(nasty):
    data = nasty * (256 * 1024 // len(nasty))
    began = time.process_time()
    lines_of(data)
    assert time.process_time() - began < 20  # one on a fair machine; if each byte looked at all before it, an hour
