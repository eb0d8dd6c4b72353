"""The watchdog's store: messages, periods, tokens, events. What it acknowledges survives a power cut.

`Store` is what the others know; its few open places are what an engine brings. SQLite is the one that ships.
Heartbeats do not come here: they live in memory, so that a broken disk cannot make an agent look dead.
"""

from __future__ import annotations

from ...core.errors import StoreUnavailable

__all__ = ["StoreUnavailable", "open_store"]


def open_store(path: str, *, is_reader: bool = False):
    """Open the store at `path`, made where it is missing; raise StoreUnavailable."""
    from .sqlite_store import SqliteStore  # SQLAlchemy costs a third of a second

    return SqliteStore(path, is_reader=is_reader)
