"""What a restore has to do: a database and its journals are one thing."""

from __future__ import annotations

import os
import sqlite3

from agentctl.state.snapshots import snapshot
from unit.state.snapshots.state_folders import leave, make_database, put


def test_a_stale_journal_beside_an_older_database_is_moved_away(places):
    state, root, replaced = places
    base = make_database(f"{state}/s.db")
    base.execute("INSERT INTO t VALUES (1, 'x')")
    base.close()  # no journal is left
    snapshot.take(state, root, "1")
    live = sqlite3.connect(f"{state}/s.db", isolation_level=None)
    live.execute("PRAGMA wal_autocheckpoint=0")
    live.execute("INSERT INTO t VALUES (2, 'only in the journal')")
    assert os.path.getsize(f"{state}/s.db-wal") > 0
    leave(live, state)
    put(f"{state}/new.db", b"SQLite format 3\0" + bytes(600))
    put(f"{state}/new.db-wal", b"its journal")
    put(f"{state}/text-wal", b"no journal at all")
    report = snapshot.restore(root, "1", state, ["*.db"], replaced)
    assert report.removed == ["new.db", "new.db-wal", "s.db-shm", "s.db-wal"]
    assert sorted(os.listdir(state)) == ["s.db", "text-wal"]
    again = sqlite3.connect(f"{state}/s.db")
    assert again.execute("SELECT count(*) FROM t").fetchone() == (1,)
    again.close()
