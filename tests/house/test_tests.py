"""The tests themselves: rows come from the product's writers, and dictionaries of rows from the schema."""

import ast
import re
from pathlib import Path

import pytest

from agentctl.ledger import writers
from agentctl.ledger.database import Ledger
from kit import rows

TESTS = Path(__file__).resolve().parents[1]
TABLES = "|".join(rows.COLUMNS)
WRITES = re.compile(rf"\b(INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM|DROP TABLE) ({TABLES}|{{\w+}})(?!\w)")
# What is written by hand, and why no writer of the product's makes it. A new one needs a reason as good as these.
BY_HAND = {
    "integration/crash_world.py": (1, "a world that was copied has other inodes than its notes say"),
    "integration/past.py": (1, "generations that were made long ago"),
    "integration/changes/test_adopt_again.py": (1, "a line that a power cut took away"),
    "integration/generations/test_repair_staging.py": (1, "a line that a power cut took away"),
    "integration/changes/test_change_confirm.py": (1, "a deadline, as a clock that was set back shows it"),
    "integration/ledger/test_damaged_ledger.py": (1, "a ledger of a version that there is not yet"),
    "integration/retention/test_prune.py": (1, "a tree with odd files, as it is without them"),
    "integration/recovery/test_review.py": (1, "damage: a table is gone"),
    "integration/packaging/test_upgrade.py": (3, "a ledger of a version that there is not yet, and back from it"),
    "kit/old_version/__init__.py": (1, "paths of where an old agent lies now, in whatever row they stand"),
    "kit/launches.py": (3, "a launch of another boot, one that the power ended, and a clock that was set"),
    "unit/ledger/test_versions.py": (1, "a row in every table of the first version: any values will do"),
    "unit/ledger/test_database.py": (11, "`insert` and `update` themselves, and ledgers of older versions"),
}


def parts(node):
    """Yield every node of a tree, and a string with fields in it as one."""
    yield node
    if not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from parts(child)


def by_hand(text):
    """Yield the line of each write to the ledger past its writers: a call of `insert` or `update`, or SQL."""
    for node in parts(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            first = node.args[0] if node.args else None
            if node.func.attr in ("insert", "update") and getattr(first, "value", None) in tuple(rows.COLUMNS):
                yield node.lineno
        elif isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str):
            yield from [node.lineno] * len(WRITES.findall(ast.unparse(node)))


def test_rows_are_made_by_the_product_s_writers():
    files = {path.relative_to(TESTS).as_posix(): path for path in TESTS.rglob("*.py") if path.name != "test_tests.py"}
    found = {name: lines for name, path in files.items() if (lines := list(by_hand(path.read_text())))}
    assert {name: len(lines) for name, lines in found.items()} == {n: count for n, (count, _) in BY_HAND.items()}, found


@pytest.mark.parametrize("text", [
    'ledger.insert("launches", id="L")', 'self.ledger.update("meta", {}, a=1)', 'x("UPDATE steps SET a=1")',
    'x(f"UPDATE {table} SET a={b}")', 'x(f"DELETE FROM launches WHERE id={b}")', 'x("DROP TABLE " "events")',
])  # fmt: skip
def test_what_is_by_hand(text):
    assert list(by_hand(text)) == [1]


def test_what_is_not_by_hand():
    assert list(by_hand('names.insert(0, "launches"); seen.update({"launches": 1}); x("UPDATE messages SET a")')) == []


def test_a_row_has_the_columns_of_the_schema_and_no_other(tmp_path):
    with Ledger.create(str(tmp_path / "ledger.db")) as ledger:
        writers.begin_launch(ledger, "L", 1, at=2.0, boot_id="b")
        assert ledger.last_launch() == rows.row("launches", id="L", generation=1, started_at=2.0, boot_id="b")
        for table, columns in rows.COLUMNS.items():
            assert [info["name"] for info in rows.select(ledger, f"PRAGMA table_info({table})")] == list(columns)
    with pytest.raises(TypeError, match="launches has no nonsense"):
        rows.row("launches", nonsense=1)
