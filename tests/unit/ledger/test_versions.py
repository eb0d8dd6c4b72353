"""The ledger's tables: a version adds to what was there, and changes nothing of it."""

import sqlite3

from agentctl.ledger import versions


def columns(*statements):
    database = sqlite3.connect(":memory:")
    for statement in statements:
        database.executescript(statement)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name")]
    found = {table: database.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
    database.close()
    return found


def steps(version):
    return [f"{statement};" for statement in versions.MIGRATIONS[version]]


def test_the_versions_follow_each_other_up_to_this_one():
    assert list(versions.MIGRATIONS) == list(range(2, versions.VERSION + 1))


def test_each_version_keeps_what_was_there_and_adds_something():
    before = columns(versions.SCHEMA)
    done = [versions.SCHEMA]
    for version in versions.MIGRATIONS:
        done += steps(version)
        after = columns(*done)
        for table, known in before.items():
            assert after[table][: len(known)] == known, f"version {version} changed {table}"
        assert after != before, f"version {version} adds nothing"
        before = after


def test_what_is_added_to_rows_that_are_there_has_a_value_for_them():
    """SQLite refuses a column without one only where there are rows."""
    database = sqlite3.connect(":memory:")
    database.executescript(versions.SCHEMA)
    for table, known in columns(versions.SCHEMA).items():
        values = ", ".join("1" for _ in known)
        database.execute(f"INSERT INTO {table} VALUES ({values})")
    for version in versions.MIGRATIONS:
        for statement in versions.MIGRATIONS[version]:
            database.execute(statement)
    database.close()
