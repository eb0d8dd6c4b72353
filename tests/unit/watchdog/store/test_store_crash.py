"""SIGKILL of the store under load and in the middle of being made: what was acknowledged is there, once."""

from __future__ import annotations

import pytest

from agentctl.state.history_repair import STORE_VERSION
from agentctl.watchdog.store import open_store, tables
from kit import effort
from kit.line_killer import killed_at
from kit.store_killer import check_that_acknowledged_stays
from kit.survival import survived

ROUNDS = effort.points(4, 200)


@pytest.mark.every_night
def test_what_was_acknowledged_survives_sigkill(tmp_path):
    path = str(tmp_path / "watchdog.db")
    check_that_acknowledged_stays(lambda: open_store(path), ROUNDS)
    survived("SIGKILL under load", "conversation store", ROUNDS)


def test_a_store_that_is_killed_while_it_is_made_is_made_by_the_next(tmp_path):
    def is_ours(path: str) -> bool:
        return path.endswith(
            (
                "watchdog/store/store.py",
                "watchdog/store/sqlite_store.py",
                "watchdog/store/search.py",
            )
        )

    line = 0
    while True:
        line += 1
        path = str(tmp_path / f"{line}.db")
        was_killed = killed_at(line, lambda path=path: open_store(path).close(), is_ours)
        store = open_store(path)
        try:
            assert store.kept_as == [] and store.meta("version") == str(STORE_VERSION)
            store.append([tables.row_of("a", {"id": "1"}, b"{}\n", is_in_file=False)]).result()
            assert store.count("a") == 1
        finally:
            store.close()
        if not was_killed:
            break
    assert line > 20
    survived("SIGKILL at a line", "making the conversation store", line - 1)
