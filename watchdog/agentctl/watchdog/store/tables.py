"""The tables of the watchdog's store, as SQLite and PostgreSQL both understand them, and messages as their rows."""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from ...state import history

WHOLE = BigInteger().with_variant(Integer, "sqlite")  # only an INTEGER key counts up by itself there

metadata = MetaData()

meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", Text, nullable=False))

# `line` is the message as its writer wrote it, byte for byte; `is_in_file` says that the agent's own file has it.
messages = Table(
    "messages", metadata,
    Column("seq", WHOLE, primary_key=True, autoincrement=True),
    Column("agent", String, nullable=False),
    Column("id", String, nullable=False),
    Column("at", String, nullable=False),
    Column("role", String, nullable=False),
    Column("line", LargeBinary, nullable=False),
    Column("is_in_file", Integer, nullable=False),
    UniqueConstraint("agent", "id"),
    Index("messages_by_agent", "agent", "seq"),
    Index("messages_not_in_file", "agent", "seq", sqlite_where=text("is_in_file = 0"),
          postgresql_where=text("is_in_file = 0")),
    sqlite_autoincrement=True,
)  # fmt: skip

# How far the agent's file was read: `seam` is the bytes before `offset`, to know the place again.
cursors = Table(
    "cursors", metadata,
    Column("agent", String, primary_key=True),
    Column("inode", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("seam", LargeBinary, nullable=False),
    Column("last_id", String, nullable=False),
)  # fmt: skip

periods = Table(
    "periods", metadata,
    Column("number", WHOLE, primary_key=True, autoincrement=True),
    Column("agent", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("seconds", Float),
    Index("periods_by_agent", "agent", "began_at"),
)  # fmt: skip

tokens = Table(
    "tokens", metadata,
    Column("id", String, primary_key=True),
    Column("label", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("scopes", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)  # fmt: skip

events = Table(
    "events", metadata,
    Column("number", WHOLE, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("agent", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("text", Text, nullable=False),
    Index("events_by_agent", "agent", "number"),
)  # fmt: skip


# -- messages --------------------------------------------------------------------------------------
# Messages as rows: what is kept of one, under which id, and how the text that search looks at is made. Pure.


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
