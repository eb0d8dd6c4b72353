"""Messages as rows: what is kept of one, under which id, and how the text that search looks at is made. Pure."""

from __future__ import annotations

import hashlib
import json

from ..conversation import history

DERIVED = "line-"  # how an id begins that was made of the line
MOST_TEXT = 100_000  # of one message that search sees


def row_of(agent: str, message: dict, line: bytes, *, is_in_file: bool, before: str = "") -> dict:
    """Return the row of a message; one without an id gets one of its bytes and the message `before` it."""
    at, role = message.get("at", ""), message.get("role", "")
    return {
        "agent": agent, "id": storable(history.id_of(message) or derived_id(line, before)),
        "at": storable(str(at)), "role": storable(str(role)),
        "line": line, "is_in_file": int(is_in_file),
    }  # fmt: skip


def storable(text: str) -> str:
    """Return a text that every engine takes: half a character has no UTF-8, and PostgreSQL takes no NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def derived_id(line: bytes, before: str) -> str:
    """Make an id for a message without one: the same file read twice gives the same ids."""
    return DERIVED + hashlib.sha256(before.encode() + b"\0" + line.rstrip(b"\n")).hexdigest()[:32]


def text_of(line: bytes) -> str:
    """Return what search looks at: the role and all text of the content."""
    try:
        message = json.loads(line)
        content = message.get("content", "") if isinstance(message, dict) else ""
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""
    return text[:MOST_TEXT].encode("utf-8", "replace").decode()  # half a character has no UTF-8
