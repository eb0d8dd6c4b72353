"""What the tests of the ledger's writers share."""

import sqlite3

import pytest


@pytest.fixture
def ask(home):
    """Ask the ledger's file past the product: `ask(sql, ...)` returns the rows as tuples."""

    def of_file(sql, *values):
        database = sqlite3.connect(f"file:{home.paths.ledger_path}?mode=ro", uri=True)
        try:
            return database.execute(sql, values).fetchall()
        finally:
            database.close()

    return of_file
