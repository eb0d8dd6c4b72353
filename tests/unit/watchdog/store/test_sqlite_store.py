"""The store on SQLite: the contract of every engine, and what breaks is kept."""

from __future__ import annotations

import os
import sqlite3

import pytest

from agentctl.core.errors import StoreUnavailable
from agentctl.watchdog.store import open_store
from kit import effort
from kit.store_contract import *  # noqa: F403
from kit.store_contract import ids, row

MANY = effort.pick(100_000, 1_000_000)


@pytest.fixture
def open_one(tmp_path, monkeypatch):
    monkeypatch.setattr("agentctl.watchdog.store.sqlite_store.BUSY_SECONDS", 60.0)
    return lambda: open_store(str(tmp_path / "watchdog.db"))


@pytest.fixture
def commits(store):
    seen = []
    store._connection.connection.driver_connection.set_trace_callback(
        lambda sql: seen.append(sql) if sql.startswith("COMMIT") else None)  # fmt: skip
    return lambda: len(seen)


# --- when it breaks


def test_a_file_that_is_deleted_while_open_comes_back_with_everything(store):
    store.append([row(1)]).result()
    for name in os.listdir(os.path.dirname(store.path)):
        os.unlink(os.path.join(os.path.dirname(store.path), name))
    store.append([row(2)]).result()
    assert ids(store.last("agent", 9)) == ["m1", "m2"] and store.problem == ""
    assert os.stat(store.path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_folder_that_is_away_for_a_while_takes_nothing_along(tmp_path, how):
    """A disk that was unmounted: what is given meanwhile is refused, and nobody waits for ever."""
    folder = tmp_path / "disk"
    folder.mkdir()
    one = open_store(str(folder / "watchdog.db"))
    one.append([row(1)]).result(60)
    folder.rename(tmp_path / "away")
    for number in (2, 3):
        with pytest.raises(StoreUnavailable):
            one.append([row(number)]).result(60)
    (tmp_path / "away").rename(folder) if how == "moved" else folder.mkdir()
    one.append([row(4)]).result(60)
    assert ids(one.last("agent", 9)) == ["m1", "m4"] and one.problem == ""
    one.close()


def test_a_backup_put_in_its_place_is_taken(store, tmp_path):
    store.append([row(1)]).result()
    other = open_store(str(tmp_path / "backup.db"))
    other.append([row(7)]).result()
    other.close()
    for ending in ("-wal", "-shm"):
        if os.path.exists(store.path + ending):
            os.unlink(store.path + ending)
    os.rename(tmp_path / "backup.db", store.path)
    store.append([row(8)]).result()
    assert ids(store.last("agent", 9)) == ["m7", "m8"]


@pytest.mark.parametrize("how", ["garbage", "empty-header", "text"])
def test_a_damaged_file_is_kept_and_a_new_one_begun(tmp_path, how):
    path = tmp_path / "watchdog.db"
    made = open_store(str(path))
    made.append([row(n) for n in range(50)]).result()
    made.close()
    data = path.read_bytes()
    broken = {"garbage": os.urandom(len(data)), "empty-header": b"\0" * 100 + data[100:], "text": b"no database"}[how]
    path.write_bytes(broken)
    again = open_store(str(path))
    try:
        assert [os.path.basename(p).startswith("watchdog.db.broken-") for p in again.kept_as] == [True]
        with open(again.kept_as[0], "rb") as file:
            assert file.read() == broken
        again.append([row(1)]).result()
        assert again.renewals == 1 and "m1" in ids(again.last("agent", 100))
    finally:
        again.close()


def test_what_can_still_be_read_of_a_damaged_file_is_saved(tmp_path):
    path = tmp_path / "watchdog.db"
    made = open_store(str(path))
    made.append([row(n, content="x" * 500) for n in range(2000)]).result()

    made.close()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = os.urandom(8192)
    path.write_bytes(data)
    again = open_store(str(path))
    try:
        try:
            list(again.export("agent"))
        except StoreUnavailable:
            again._repair(_corrupt())
        kept = set(ids(again.export("agent")))
        assert len(kept) > 1900 and {"m0", "m1999"} <= kept
    finally:
        again.close()


def _corrupt():
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def test_a_locked_file_refuses_and_recovers(store, monkeypatch):
    monkeypatch.setattr("agentctl.watchdog.store.sqlite_store.BUSY_SECONDS", 0.1)
    store._connection.exec_driver_sql("PRAGMA busy_timeout=100")
    store._connection.rollback()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.append([row(1)]).result(30)
    assert "locked" in store.problem
    other.execute("COMMIT")
    other.close()
    store.append([row(2)]).result()
    assert store.problem == "" and ids(store.last("agent", 5)) == ["m2"]


def test_a_full_disk_refuses_with_a_hint_and_recovers(store):
    size = store._connection.exec_driver_sql("PRAGMA page_count").scalar()
    store._connection.exec_driver_sql(f"PRAGMA max_page_count={size}")
    store._connection.rollback()
    with pytest.raises(StoreUnavailable, match="full") as refused:
        store.append([row(n, content="x" * 1000) for n in range(2000)]).result()
    assert "df -h" in refused.value.hint and "full" in store.problem
    store._connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    store._connection.rollback()
    store.append([row(1)]).result()
    assert store.problem == "" and store.count("agent") == 1


def test_a_file_system_that_takes_nothing_refuses_and_reading_goes_on(store):
    store.append([row(1)]).result()
    store._connection.exec_driver_sql("PRAGMA query_only=ON")  # the same error as of a read-only file system
    store._connection.rollback()
    with pytest.raises(StoreUnavailable, match="readonly"):
        store.append([row(2)]).result()
    assert "readonly" in store.problem and ids(store.last("agent", 5)) == ["m1"]
    store._connection.exec_driver_sql("PRAGMA query_only=OFF")
    store._connection.rollback()
    store.append([row(2)]).result()
    assert store.problem == ""


def test_a_store_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "watchdog.db"
    made = open_store(str(path))
    made.set_meta("version", "99").result()
    made.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="version 99"):
        open_store(str(path))
    assert path.read_bytes() == before


def test_very_many_messages_are_no_problem(store):
    for start in range(0, MANY, 20_000):
        store.append([row(n) for n in range(start, start + 20_000)]).result()
    assert store.count("agent") == MANY
    assert ids(store.last("agent", 2)) == [f"m{MANY - 2}", f"m{MANY - 1}"]
    assert ids(store.after("agent", "m50000", 2)) == ["m50001", "m50002"]
    assert sum(1 for _ in store.export("agent")) == MANY
