"""What the tests of single modules share."""

import sqlite3

import pytest

from ledger_builder import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of one agent, empty but for its settings."""
    made = Home(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def ask(home):
    """Ask the ledger's file past the product: `ask(sql, ...)` returns the rows as tuples."""

    def of_file(sql, *values, path=home.paths.ledger_path):
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return database.execute(sql, values).fetchall()
        finally:
            database.close()

    return of_file
