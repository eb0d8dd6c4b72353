"""Read and write lengths of time: "1h30m" is 5400 seconds. Pure, and exact to the millisecond.

Refuses what does not say one thing only: a number without its unit, a unit twice or out of order.
"""

from __future__ import annotations

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
    milliseconds, finer = divmod(int(whole + fraction) * unit, 10 ** len(fraction))
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
