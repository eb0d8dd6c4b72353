"""Text for people and machines, and lengths of time as they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.core import text as texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0, "0.0s"), (0.42, "0.4s"), (9.96, "10s"), (59.6, "1m"), (80, "1m20s")]
    + [(3600, "1h"), (7500, "2h05m"), (86400, "1d"), (273600, "3d4h"), (65, "1m05s")],
)
def test_a_duration_for_people(seconds, text):
    assert texts.duration(seconds).replace("0s", "0.0s", 1 if seconds <= 0 else 0) == text


def test_stamp_rounds_to_milliseconds():
    assert texts.stamp(0.9996) == "1970-01-01T00:00:01.000Z"
    assert texts.stamp(1.0015) == "1970-01-01T00:00:01.002Z"


def test_public_turns_instants_only():
    made = texts.public({"at": 0, "seconds": 1.5, "x": [{"ended_at": None, "ready_at": 0.5}]})
    assert made["at"] == "1970-01-01T00:00:00.000Z" and made["seconds"] == 1.5
    assert made["x"] == [{"ended_at": None, "ready_at": "1970-01-01T00:00:00.500Z"}]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("a\x00b\rc\x08d\x7fe\x85f", "abcdef"),
        ("\u202eevil\u2066", "evil"),
        ("half \ud800", "half ?"),
        ("tab\tline\n", "tab\tline\n"),
    ],
)
def test_clean(text, cleaned):
    assert texts.clean(text) == cleaned


def test_wrap_breaks_what_has_no_spaces():
    lines = texts.wrap("x" * 200 + " end", "  label  ")
    assert max(map(len, lines)) <= 80 and "".join("".join(lines).split()).count("x") == 200


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("250ms", 0.25), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172800)]
    + [("1.5s", 1.5), ("0.25h", 900), ("1d2h3m4s5ms", 93784.005), ("1m90s", 150)],
)
def test_duration(text, seconds):
    assert texts.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "5", "s", "5 s", "5x", "-5s", "+5s", "5S", "30m1h", "1m1m", "1.s", ".5s", "1.2.3s"]
    + [
        "0.0001s",
        "1.5ms",
        "1e3s",
        "٣s",
        "infs",
        "nan",
        "9" * 20 + "s",
        "5s\n",
        "1_0s",
        "5sm",
        "m5",
    ],
)
def test_not_a_duration(text):
    with pytest.raises(ValueError):
        texts.parse_duration(text)


@given(st.integers(0, 10**12))
def test_duration_survives_the_round_trip(milliseconds):
    assert texts.parse_duration(texts.format_duration(milliseconds / 1000)) == (milliseconds / 1000)


@given(st.text())
def test_a_duration_is_read_or_refused_and_nothing_else(text):
    try:
        seconds = texts.parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds == texts.parse_duration(texts.format_duration(seconds))


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_no_such_duration(seconds):
    with pytest.raises(ValueError):
        texts.format_duration(seconds)
