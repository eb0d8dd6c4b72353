"""The watchdog's store: what it acknowledges is there, once, and what breaks is kept."""

from __future__ import annotations

import json
import os
import sqlite3
import threading

import pytest

from agentctl.decisions.periods import Period
from agentctl.store import StoreUnavailable, messages, open_store

MANY = 1_000_000 if os.environ.get("AGENTCTL_NIGHTLY") else 100_000


@pytest.fixture
def store(tmp_path):
    made = open_store(str(tmp_path / "watchdog.db"))
    yield made
    made.close()


def row(number, agent="agent", *, is_in_file=False, **more):
    message = {"id": f"m{number}", "at": "2026-01-01T00:00:00Z", "role": "user", "content": f"number {number}", **more}
    return messages.row_of(agent, message, json.dumps(message).encode() + b"\n", is_in_file=is_in_file)


def ids(lines):
    return [json.loads(line)["id"] for line in lines]


def test_messages_come_back_in_order_and_byte_for_byte(store):
    given = [row(n) for n in range(30)]
    store.append(given).result()
    assert ids(store.last("agent", 3)) == ["m27", "m28", "m29"]
    assert store.last("agent", 1) == [given[-1]["line"]]
    assert ids(store.after("agent", "m27", 10)) == ["m28", "m29"]
    assert store.after("agent", "m29", 10) == []
    assert store.after("agent", "nobody", 10) is None
    assert list(store.export("agent")) == [r["line"] for r in given]
    assert store.last("other", 5) == [] and store.count("other") == 0


def test_the_same_id_is_kept_once_whoever_brings_it(store):
    store.append([row(1), row(1, content="changed")]).result()
    store.append([row(1, is_in_file=True)], from_file=True).result()
    store.append([row(1, agent="other")]).result()
    assert store.count("agent") == 1 and store.count("other") == 1
    assert json.loads(store.last("agent", 1)[0])["content"] == "number 1"
    assert store.count("agent", only_missing=True) == 0


def test_messages_without_an_id_get_one_that_reading_again_gives_too():
    line = b'{"role":"user","content":"hello"}\n'
    one = messages.row_of("a", json.loads(line), line, is_in_file=True, before="x")
    again = messages.row_of("a", json.loads(line), line.rstrip(b"\n"), is_in_file=True, before="x")
    other = messages.row_of("a", json.loads(line), line, is_in_file=True, before="y")
    assert one["id"] == again["id"] != other["id"]


@pytest.mark.parametrize(
    ("words", "found"),
    [("fox", ["a"]), ("FOX brown", ["a"]), ("fo*", ["a", "b"]), ("fox dog", []), ('"; DROP TABLE messages', []),
     ("naive", ["c"]), ("*", []), ("", []), ("AND OR NOT", []), ("deep", ["d"]), ("x" * 5000, [])],
)  # fmt: skip
def test_search_takes_any_words(store, words, found):
    said = {"a": "a quick brown fox", "b": "a forest", "c": "so naïve", "d": [{"type": "text", "text": "deep inside"}]}
    rows = [messages.row_of("agent", {"id": key}, json.dumps({"id": key, "content": text}).encode(), is_in_file=False)
            for key, text in said.items()]  # fmt: skip
    store.append(rows).result()
    assert ids(store.search("agent", words, 10)) == found
    assert store.search("other", words, 10) == []


def test_writes_that_wait_together_are_committed_together(store, monkeypatch):
    monkeypatch.setattr("agentctl.store.writer.GROUP_SECONDS", 60.0)  # to gather 200 takes a busy machine a moment
    commits = []
    store._connection.connection.driver_connection.set_trace_callback(
        lambda sql: commits.append(sql) if sql.startswith("COMMIT") else None)  # fmt: skip
    gate = threading.Event()
    first = store.writer.submit(lambda _: gate.wait(60) and None)
    waiting = [store.append([row(n)]) for n in range(200)]
    gate.set()
    for future in (first, *waiting):
        future.result()
    assert store.count("agent") == 200
    assert len(commits) <= 3
    before = len(commits)
    store.append([row(999)]).result()
    assert len(commits) == before + 1


def test_periods_events_tokens_and_facts_by_key(store):
    store.add_period("agent", Period("up", "", 100.0)).result()
    assert [p["kind"] for p in store.open_periods()] == ["up"]
    store.end_period("agent", 150.0, 50.0).result()
    assert store.open_periods() == []
    assert [p["seconds"] for p in store.periods("agent", 120.0)] == [50.0]
    assert store.periods("agent", 151.0) == []
    store.add_event(1.0, "agent", "late", "why").result()
    assert store.events("agent", 5)[0]["text"] == "why"
    store.set_meta("k", "1").result()
    store.set_meta("k", "2").result()
    assert store.meta("k") == "2" and store.meta("none") is None
    token = {"id": "t1", "label": "x", "digest": "d1", "scopes": "read", "agent": "", "created_at": 1.0,
             "revoked_at": None}  # fmt: skip
    assert store.add_token(token, 2).result() is True
    assert store.add_token({**token, "id": "t2", "digest": "d2"}, 2).result() is True
    assert store.add_token({**token, "id": "t3", "digest": "d3"}, 2).result() is False
    assert store.token("d1")["id"] == "t1"
    assert store.revoke_token("t1", 5.0).result() is True
    assert store.revoke_token("t1", 5.0).result() is False
    assert store.token("d1") is None
    assert store.add_token({**token, "id": "t3", "digest": "d3"}, 2).result() is True


def test_what_waits_together_is_written_in_the_order_of_asking(store):
    gate = threading.Event()
    first = store.writer.submit(lambda _: gate.wait(60) and None)
    futures = [store.add_period("agent", Period("up", "", 100.0)), store.end_period("agent", 150.0, 50.0),
               store.add_period("agent", Period("late", "", 150.0)), store.add_period("other", Period("up", "", 1.0))]
    gate.set()
    for future in (first, *futures):
        future.result()
    rows = store.periods("agent", 0.0)
    assert [(row["kind"], row["ended_at"]) for row in rows] == [("up", 150.0), ("late", None)]


# --- when it breaks


def test_a_file_that_is_deleted_while_open_comes_back_with_everything(store):
    store.append([row(1)]).result()
    for name in os.listdir(os.path.dirname(store.path)):
        os.unlink(os.path.join(os.path.dirname(store.path), name))
    store.append([row(2)]).result()
    assert ids(store.last("agent", 9)) == ["m1", "m2"] and store.problem == ""
    assert os.stat(store.path).st_mode & 0o777 == 0o600


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
            again._mend(_corrupt())
        kept = set(ids(again.export("agent")))
        assert len(kept) > 1900 and {"m0", "m1999"} <= kept
    finally:
        again.close()


def _corrupt():
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def test_a_locked_file_refuses_and_recovers(store, monkeypatch):
    monkeypatch.setattr("agentctl.store.sqlite.BUSY_SECONDS", 0.1)
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


def test_one_bad_write_does_not_take_the_others_along(store):
    gate = threading.Event()

    def refuse(_):
        raise StoreUnavailable("not this one")

    blocker = store.writer.submit(lambda _: gate.wait(60) and None)
    good, bad, after = store.append([row(1)]), store.writer.submit(refuse), store.append([row(2)])
    gate.set()
    blocker.result()
    good.result(), after.result()
    with pytest.raises(StoreUnavailable, match="not this one"):
        bad.result()
    assert store.count("agent") == 2


def test_very_many_messages_are_no_problem(store):
    for start in range(0, MANY, 20_000):
        store.append([row(n) for n in range(start, start + 20_000)]).result()
    assert store.count("agent") == MANY
    assert ids(store.last("agent", 2)) == [f"m{MANY - 2}", f"m{MANY - 1}"]
    assert ids(store.after("agent", "m50000", 2)) == ["m50001", "m50002"]
    assert sum(1 for _ in store.export("agent")) == MANY
