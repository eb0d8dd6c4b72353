"""What the watchdog's store promises on every engine; a module of tests takes it over with `import *`.

That module brings two fixtures: `open_one` opens the one store of the test, again and again, and `commits` counts the
commits that wrote messages.
"""

from __future__ import annotations

import json
import threading

import pytest

from agentctl.core.errors import StoreUnavailable
from agentctl.watchdog.periods import Period
from agentctl.watchdog.store import tables
from kit import deadline

PATIENCE_SECONDS = 60.0


@pytest.fixture
def store(open_one):
    made = open_one()
    yield made
    made.close()


def row(number, agent="agent", *, is_in_file=False, **more):
    message = {"id": f"m{number}", "at": "2026-01-01T00:00:00Z", "role": "user", "content": f"number {number}", **more}
    return tables.row_of(agent, message, json.dumps(message).encode() + b"\n", is_in_file=is_in_file)


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
    bytes_of_all_kinds = {**row(40), "line": bytes(range(256))}
    store.append([bytes_of_all_kinds]).result()
    assert store.last("agent", 1) == [bytes_of_all_kinds["line"]]
    assert store.last("other", 5) == [] and store.count("other") == 0


def test_the_same_id_is_kept_once_whoever_brings_it(store):
    store.append([row(1), row(1, content="changed")]).result()
    store.append([row(1, is_in_file=True)], from_file=True).result()
    store.append([row(1, agent="other")]).result()
    assert store.count("agent") == 1 and store.count("other") == 1
    assert json.loads(store.last("agent", 1)[0])["content"] == "number 1"
    assert store.count("agent", only_missing=True) == 0


def test_a_message_may_hold_any_text_and_takes_no_other_along(store):
    odd = ["\ud800", "\ud801", "a\0b", "ab", "\u202e%s'\"\\", "9" * 300]
    lines = [json.dumps({"id": text, "at": text, "role": text, "content": text}).encode() for text in odd]
    rows = [tables.row_of("agent", json.loads(line), line, is_in_file=True) for line in lines]
    futures = [store.append([row(1)]), store.append(rows), store.append(rows), store.append([row(2)])]
    assert [future.result() for future in futures] == [1, len(odd), len(odd), 1]
    assert ids(store.export("agent")) == ["m1", *odd, "m2"]
    assert [ids(store.after("agent", text, 1)) for text in odd] == [[text] for text in (*odd[1:], "m2")]


def test_messages_without_an_id_get_one_that_reading_again_gives_too():
    line = b'{"role":"user","content":"hello"}\n'
    one = tables.row_of("a", json.loads(line), line, is_in_file=True, before="x")
    again = tables.row_of("a", json.loads(line), line.rstrip(b"\n"), is_in_file=True, before="x")
    other = tables.row_of("a", json.loads(line), line, is_in_file=True, before="y")
    assert one["id"] == again["id"] != other["id"]


@pytest.mark.parametrize(
    ("words", "found"),
    [("fox", ["a"]), ("FOX brown", ["a"]), ("fo*", ["a", "b"]), ("fox dog", []), ('"; DROP TABLE messages', []),
     ("naive", ["c"]), ("*", []), ("", []), ("AND OR NOT", []), ("deep", ["d"]), ("x" * 5000, [])],
)  # fmt: skip
def test_search_takes_any_words(store, words, found):
    said = {"a": "a quick brown fox", "b": "a forest", "c": "so naïve", "d": [{"type": "text", "text": "deep inside"}]}
    rows = [tables.row_of("agent", {"id": key}, json.dumps({"id": key, "content": text}).encode(), is_in_file=False)
            for key, text in said.items()]  # fmt: skip
    store.append(rows).result()
    assert ids(store.search("agent", words, 10)) == found
    assert store.search("other", words, 10) == []


def test_search_gives_the_newest_of_many_and_takes_odd_text(store):
    odd = [
        json.dumps({"id": f"m{n}", "content": text}).encode()
        for n, text in (
            (1, "before \0 behind"),
            (2, "half \ud800 a character"),
            (3, "snake_case, 10%; c:\\d"),
            (4, "x " * 70_000),
        )
    ]
    store.append([row(n, "other") for n in range(10, 20)] + [row(n) for n in range(1000, 3500)]).result()
    store.append([tables.row_of("agent", json.loads(line), line, is_in_file=False) for line in odd]).result()
    assert ids(store.search("agent", "number", 3)) == ["m3497", "m3498", "m3499"]
    assert ids(store.search("agent", "number 1000", 3)) == ["m1000"]
    for words in ("before", "behind", "half", "case", "snake_case", "c:\\d"):
        assert len(store.search("agent", words, 3)) == 1, words
    assert ids(store.search("agent", "x", 3)) == ["m4"] and store.search("agent", "case_snake", 3) == []


def test_writes_of_several_threads_that_wait_together_are_committed_together(store, commits, monkeypatch):
    monkeypatch.setattr(
        "agentctl.watchdog.store.write_queue.GROUP_SECONDS", PATIENCE_SECONDS
    )  # to gather 200 takes a moment
    gate, waiting, before = threading.Event(), [], commits()
    first = store.writer.submit(lambda _: gate.wait(PATIENCE_SECONDS) and None)
    threads = [threading.Thread(target=lambda start=start: waiting.extend(
        [store.append([row(n)]) for n in range(start, start + 25)])) for start in range(0, 200, 25)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        deadline.join(thread)
    gate.set()
    for future in (first, *waiting):
        assert future.result() in (None, 1)
    assert store.count("agent") == 200
    assert commits() - before <= 3
    before = commits()
    store.append([row(999)]).result()
    assert commits() == before + 1


def test_the_agents_file_and_how_far_it_is_read_are_kept_together(store):
    assert store.cursor("agent") is None
    place = {"agent": "agent", "inode": 2**40, "offset": 100, "seam": b"\0\xff\n", "last_id": "m2"}
    store.append([row(1), row(3)]).result()
    store.append_from_file([row(1, is_in_file=True), row(2, is_in_file=True)], place).result()
    assert store.cursor("agent") == place and store.count("agent") == 3
    assert store.count("agent", only_missing=True) == 1
    further = {**place, "offset": 2**33, "seam": b"", "last_id": "m3"}
    store.append_from_file([row(3, is_in_file=True)], further).result()
    assert store.cursor("agent") == further and store.count("agent", only_missing=True) == 0
    store.append_from_file([row(1, is_in_file=True)], place, is_anew=True).result()
    assert store.count("agent", only_missing=True) == 2
    store.append_from_file([], {**place, "offset": 0}, is_anew=True).result()
    assert store.count("agent", only_missing=True) == 3 and store.cursor("agent")["offset"] == 0
    assert ids(store.last("agent", 5)) == ["m1", "m3", "m2"]


def test_all_of_it_is_there_when_it_is_opened_again(open_one):
    first = open_one()
    first.append([row(1)]).result()
    first.set_meta("k", "1").result()
    first.close()
    again = open_one()
    assert ids(again.search("agent", "number", 5)) == ["m1"] and again.meta("k") == "1"
    again.set_meta("version", "99").result()
    again.close()
    with pytest.raises(StoreUnavailable, match="version 99"):
        open_one()


def test_writers_of_two_processes_come_one_after_the_other(store, open_one):
    """Or a reader that goes on after the newest message misses one with a smaller number that is committed later."""
    other, is_in, gate = open_one(), threading.Event(), threading.Event()

    def write_slowly(connection) -> None:
        connection.execute(store._add_message, [row(1)])
        is_in.set()
        gate.wait(PATIENCE_SECONDS)

    slow = store.writer.submit(write_slowly)
    try:
        assert is_in.wait(PATIENCE_SECONDS)
        quick = other.append([row(2)])
        with pytest.raises(TimeoutError):
            quick.result(0.3)
    finally:
        gate.set()
        slow.result()
        quick.result()
        other.close()
    assert ids(store.export("agent")) == ["m1", "m2"]


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
    futures = [
        store.add_period("agent", Period("up", "", 100.0)),
        store.end_period("agent", 150.0, 50.0),
        store.add_period("agent", Period("late", "", 150.0)),
        store.add_period("other", Period("up", "", 1.0)),
    ]
    gate.set()
    for future in (first, *futures):
        future.result()
    rows = store.periods("agent", 0.0)
    assert [(row["kind"], row["ended_at"]) for row in rows] == [("up", 150.0), ("late", None)]


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
