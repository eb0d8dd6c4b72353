"""Text for people and machines: instants, durations, tables within 80 columns, clean text, JSON.

Whatever an agent printed may come back here, so nothing leaves that a terminal would obey.
Pure, and cheap to import: no `re`, no `textwrap`, no `datetime`.
"""

from __future__ import annotations

import time

WIDTH = 80

_KEPT = "\n\t"
# C0, DEL, C1, and the marks that turn the direction of text or break a line unseen.
_FORBIDDEN = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_UNSAFE = {code: None for code in [*_FORBIDDEN, 0x2028, 0x2029] if chr(code) not in _KEPT}


def clean(text: str) -> str:
    """Return the text without anything a terminal would obey; escape sequences go as a whole."""
    if "\x1b" in text or "\x9b" in text:
        import re

        text = re.sub(r"\x1b[\]PX^_].*?(\x07|\x1b\\)|(\x1b\[|\x9b)[0-?]*[ -/]*[@-~]", "", text)
    text = text.encode("utf-8", "replace").decode()  # a half character cannot be printed
    return text.translate(_UNSAFE)


def one_line(text: str) -> str:
    """Return the text on one line, clean."""
    return " ".join(clean(text).split())


def cut(text: str, width: int) -> str:
    """Return the text, shortened to `width` with an ellipsis where it is longer."""
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def wrap(text: str, first: str = "", rest: str | None = None, width: int = WIDTH) -> list[str]:
    """Break clean text into lines of at most `width`, behind `first` and then `rest`."""
    rest = " " * len(first) if rest is None else rest
    lines, line, is_empty = [], first, True
    for word in one_line(text).split(" "):
        gap = "" if is_empty else " "
        if not is_empty and len(line) + 1 + len(word) > width:
            lines.append(line)
            line, gap = rest, ""
        line, is_empty = line + gap + word, False
        while len(line) > width:  # a path longer than the line
            lines.append(line[:width])
            line = rest + line[width:]
    return [*lines, line.rstrip()]


def table(headers: list[str], rows: list[list[str]], width: int = WIDTH) -> list[str]:
    """Lay out a table; the last column is cut where the line would be longer than `width`."""
    cells = [headers, *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(headers))]
    lines = []
    for row in cells:
        padded = [cell.ljust(size) for cell, size in zip(row, widths, strict=True)]
        lines.append(cut("  ".join(padded).rstrip(), width))
    return lines


def duration(seconds: float) -> str:
    """Return a duration a person would say: 0.4s, 12s, 1m20s, 2h05m, 3d4h."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m" + (f"{whole % 60:02d}s" if whole % 60 else "")
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}h" + (f"{minutes % 60:02d}m" if minutes % 60 else "")
    hours = minutes // 60
    return f"{hours // 24}d" + (f"{hours % 24}h" if hours % 24 else "")


def ago(at: float, now: float) -> str:
    """Return how long ago an instant was."""
    passed = now - at
    return f"{duration(passed)} ago" if passed >= 0 else f"in {duration(-passed)}"


def local(at: float) -> str:
    """Return an instant in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def stamp(at: float) -> str:
    """Return an instant as RFC 3339 in UTC with milliseconds."""
    whole, milliseconds = divmod(round(at * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


def public(value: object) -> object:
    """Return a document as it goes out: every `at` and `*_at` that is a number becomes a stamp."""
    if isinstance(value, dict):
        return {key: _instant(key, content) for key, content in value.items()}
    return [public(item) for item in value] if isinstance(value, list) else value


def to_json(value: object) -> str:
    """Return JSON in plain ASCII: safe on any terminal, the same text for every parser."""
    import json  # 11 ms that text does not need

    return json.dumps(public(value), indent=2, default=str)


def _instant(key: str, value: object) -> object:
    is_instant = (key == "at" or key.endswith("_at")) and not isinstance(value, bool)
    return stamp(value) if is_instant and isinstance(value, (int, float)) else public(value)


# -- durations -------------------------------------------------------------------------------------
# Read and write lengths of time: "1h30m" is 5400 seconds. Pure, and exact to the millisecond.
# Refuses what does not say one thing only: a number without its unit, a unit twice or out of order.


_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_DIGITS = "0123456789"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def parse_duration(text: str) -> float:
    """Return the seconds in "1h30m", "1.5s" or "250ms"; raise ValueError if it is anything else."""
    total, rest, units = 0, text, list(_UNITS)
    while rest or not text:
        number = _leading(rest, _DIGITS + ".")
        unit = _leading(rest[len(number) :], _LETTERS)
        while units and units[0][0] != unit:  # largest unit first, each at most once
            units.pop(0)
        if not units:
            raise ValueError(f"not a duration: {text!r}")
        total += _milliseconds(number, units.pop(0)[1])
        rest = rest[len(number) + len(unit) :]
    return total / 1000


def _milliseconds(number: str, unit: int) -> int:
    whole, point, fraction = number.partition(".")
    if not whole or bool(point) != bool(fraction) or "." in fraction or len(number) > 15:
        raise ValueError(f"not a number: {number!r}")
    scale: int = 10 ** len(fraction)
    milliseconds, finer = divmod(int(whole + fraction) * unit, scale)
    if finer:
        raise ValueError(f"finer than a millisecond: {number!r}")
    return milliseconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as `seconds`, to the millisecond."""
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"not a duration: {seconds!r}")
    left, text = round(seconds * 1000), ""
    for unit, milliseconds in _UNITS:
        count, left = divmod(left, milliseconds)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _leading(text: str, alphabet: str) -> str:
    return text[: len(text) - len(text.lstrip(alphabet))]
