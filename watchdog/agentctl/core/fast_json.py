"""JSON for the recovery path: the interpreter's own C scanner and encoder, without `json`.

`import json` brings in `re` and `enum` for 11 ms, twice on the way from a crash to a running agent.
Same language, same results; for pretty output or options, doors use `json`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which is too much for the recovery path
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

WHITE = " \t\n\r"


class _Plain:
    """What the C scanner asks for: plain JSON, no hooks."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float, parse_int = float, int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> float:
        return float(name.replace("Infinity", "inf"))


def _refuse(value: object) -> str:
    raise TypeError(f"{type(value).__name__} has no JSON form")


quoted: Callable[[str], str]
_scan: Callable[[str, int], tuple[object, int]]
_encode: Callable[[object, bool], Iterable[str]]  # beside the value: the depth of indentation, or one shot
try:
    from _json import encode_basestring_ascii as quoted
    from _json import make_encoder, make_scanner

    _asker: Any = _Plain()  # typeshed asks for a make_scanner, but what counts is that it has the attributes
    _scan = make_scanner(_asker)
    _encode = make_encoder(None, _refuse, quoted, None, ": ", ", ", False, False, True)
except (ImportError, AttributeError, TypeError):  # an interpreter without these C parts, or with others
    import json

    quoted = json.dumps
    _scan = json.JSONDecoder().raw_decode
    _encode = json.JSONEncoder().iterencode


def loads(text: str | bytes) -> object:
    """Parse one JSON document; raise ValueError if it is not one."""
    if isinstance(text, (bytes, bytearray)):
        text = bytes(text).decode("utf-8")
    start = len(text) - len(text.lstrip(WHITE))
    try:
        value, end = _scan(text, start)
    except StopIteration as error:
        raise ValueError(f"no JSON value at character {error.value}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except SystemError as error:  # 3.11 fails to raise its own error where `json` was never imported
        raise ValueError("not JSON") from error
    if text[end:].strip(WHITE):
        raise ValueError(f"more text after the JSON value, at character {end}")
    return value


def dumps(value: object) -> str:
    """Write a value as JSON in ASCII."""
    return "".join(_encode(value, False))
