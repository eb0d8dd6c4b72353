"""Rows of the ledger as dictionaries, for what is given rows and reads no ledger: filled from the schema.

A column that is not in the schema is an error, so no test speaks of a row that the ledger could not hold.
"""

from __future__ import annotations

import ast
import json
import sqlite3

from agentctl.ledger import change_records
from agentctl.ledger.database import MIGRATIONS, SCHEMA

EMPTY = {"TEXT": "", "INTEGER": 0, "REAL": 0.0}


def _read_schema() -> dict[str, dict[str, object]]:
    """Return the tables with what each column holds when nothing is said of it."""
    added = "".join(f"{statement};" for statements in MIGRATIONS.values() for statement in statements)
    database = sqlite3.connect(":memory:")
    database.executescript(SCHEMA + added)
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
    tables = {name: {column: _default(*more) for _, column, *more in database.execute(f"PRAGMA table_info({name})")}
              for name in names}  # fmt: skip
    database.close()
    return tables


def _default(kind: str, is_needed: int, default: str | None, is_key: int) -> object:
    if default is not None:
        return ast.literal_eval(default)
    return EMPTY[kind] if is_needed or is_key else None


COLUMNS = _read_schema()


def row(table: str, **known: object) -> dict:
    """Make a row as the ledger would give it back; raise TypeError for a column that it does not have."""
    unknown = known.keys() - COLUMNS[table].keys()
    if unknown:
        raise TypeError(f"{table} has no {', '.join(sorted(unknown))}")
    return {**COLUMNS[table], **known}


def change_row(**known: object) -> dict:
    """Make a row of a change with its records as dictionaries, as `change_records.load` gives it."""
    texts = {name: json.dumps(value) if name in change_records.COLUMNS else value for name, value in known.items()}
    return change_records.load(row("changes", **texts))
