"""Rows of the ledger as models, for what is given rows and reads no ledger: filled from the schema.

A column that is not in the schema is an error, so no test speaks of a row that the ledger could not hold.
"""

from __future__ import annotations

import ast
import json
import sqlite3

from agentctl.core.record import Record
from agentctl.ledger import models
from agentctl.ledger.database import CHANGE_RECORDS, Ledger
from agentctl.ledger.versions import MIGRATIONS, SCHEMA

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


MODELS: dict[str, type[Record]] = {
    "generations": models.Generation,
    "launches": models.Launch,
    "incidents": models.Incident,
    "attempts": models.Attempt,
    "steps": models.StepRecord,
    "requests": models.Request,
    "changes": models.ChangeRecord,
}


def row(table: str, **known: object) -> Record:
    """Make a row as the ledger would give it back; raise TypeError for a column that it does not have."""
    unknown = known.keys() - COLUMNS[table].keys()
    if unknown:
        raise TypeError(f"{table} has no {', '.join(sorted(unknown))}")
    decoded = {name: json.loads(COLUMNS[table][name]) for name in CHANGE_RECORDS} if table == "changes" else {}
    return MODELS[table](**{**COLUMNS[table], **decoded, **known})


def select(ledger: Ledger, sql: str, *values: object) -> list[dict]:
    """Return what a query of ours finds in an open ledger: what the product has no question for."""
    return ledger.db.execute(sql, values).fetchall()


def change_row(**known: object) -> models.ChangeRecord:
    """Make a row of a change."""
    return row("changes", **known)
