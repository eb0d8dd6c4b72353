"""The agent's history file in the store, whatever happens to the file, and the way back into the file."""

from __future__ import annotations

import json
import os

import pytest

from agentctl.state import history, history_repair
from agentctl.state.history_repair import HistoryCopy
from agentctl.watchdog.history_ingest import Shipper
from agentctl.watchdog.store import open_store


@pytest.fixture
def place(tmp_path):
    class Place:
        path = str(tmp_path / "history.jsonl")
        db = str(tmp_path / "watchdog.db")

        def __init__(self):
            self.store = open_store(self.db)
            self.shipper = Shipper("agent", self.path, self.store)

        def say(self, *numbers, end="\n"):
            with open(self.path, "a") as file:
                file.writelines(
                    json.dumps({"id": f"m{number}", "role": "user", "content": str(number)}) + end for number in numbers
                )

        def ship(self):
            while self.shipper.step():
                continue
            return self.ids()

        def ids(self):
            return [json.loads(line).get("id") for line in self.store.export("agent")]

        def judge(self):
            copy = HistoryCopy(self.db, "agent")
            try:
                return copy.judge(self.path)
            finally:
                copy.close()

        def restart(self):
            self.store.close()
            self.__init__()

    made = Place()
    yield made
    made.store.close()


def test_what_is_appended_is_carried_over_once(place):
    assert place.ship() == []
    place.say(1, 2)
    assert place.ship() == ["m1", "m2"]
    place.say(3)
    assert place.ship() == ["m1", "m2", "m3"]
    place.restart()
    assert place.ship() == ["m1", "m2", "m3"]
    place.say(4)
    assert place.ship() == ["m1", "m2", "m3", "m4"]
    assert place.judge() == history_repair.WHOLE


def test_a_line_is_taken_when_it_is_whole(place):
    place.say(1)
    place.say(2, end="")
    assert place.ship() == ["m1"]
    with open(place.path, "a") as file:
        file.write("\n")
    assert place.ship() == ["m1", "m2"]


def test_damaged_lines_are_passed_over_and_counted(place):
    place.say(1)
    with open(place.path, "ab") as file:
        file.write(b"\0\0\0\nnot json\n[1]\n\n\xff\n")
    place.say(2)
    assert place.ship() == ["m1", "m2"]
    assert place.shipper.damaged == 4


def test_lines_with_other_line_ends_inside_stay_whole(place):
    with open(place.path, "wb") as file:
        file.write('{"id":"a","content":"x\u2028y\x85z"}\r\n{"id":"b"}\n'.encode())
    assert place.ship() == ["a", "b"]


@pytest.mark.parametrize("how", ["rotated", "deleted", "cut", "rewritten", "replaced"])
def test_a_file_that_is_not_the_same_any_more_loses_nothing_stored(place, how):
    place.say(*range(1, 6))
    place.ship()
    place.say(6)
    if how == "rotated":
        os.rename(place.path, place.path + ".1")
        place.say(7)
    elif how == "deleted":
        place.ship()
        os.unlink(place.path)
    elif how == "cut":
        place.ship()
        os.truncate(place.path, 30)
    elif how == "rewritten":
        place.ship()
        size = os.path.getsize(place.path)
        with open(place.path, "r+b") as file:
            file.write(b"\0" * size)
    else:
        place.ship()
        with open(place.path + ".new", "w") as file:
            file.write('{"id":"n1"}\n')
        os.rename(place.path + ".new", place.path)
    found = place.ship()
    assert found[:6] == ["m1", "m2", "m3", "m4", "m5", "m6"]
    assert found[6:] == {"rotated": ["m7"], "replaced": ["n1"]}.get(how, [])
    assert place.judge() == history_repair.BROKEN


@pytest.mark.parametrize("key", ["id", "at", "role", "content"])
def test_half_a_character_holds_nothing_up(place, key):
    place.say(1)
    with open(place.path, "a") as file:
        file.write(json.dumps({"id": "half", key: "\ud83d"}) + "\n" + json.dumps({"role": "user"}) + "\n")
    place.say(2)
    assert place.ship() == ["m1", "\ud83d" if key == "id" else "half", None, "m2"]
    assert place.judge() == history_repair.WHOLE


def test_a_file_that_is_moved_away_is_read_to_its_end_first(place, tmp_path):
    place.say(1)
    place.ship()
    place.say(2)
    os.rename(place.path, tmp_path / "history.jsonl.1")  # and nothing takes its place for a while
    assert place.ship() == ["m1", "m2"]
    assert place.judge() == history_repair.BROKEN
    place.say(3)
    assert place.ship() == ["m1", "m2", "m3"]


@pytest.mark.parametrize("how", ["folder", "link", "fifo"])
def test_what_is_no_plain_file_is_no_history(place, how, tmp_path):
    place.say(1)
    place.ship()
    os.rename(place.path, tmp_path / "elsewhere")
    {"folder": os.mkdir, "fifo": os.mkfifo, "link": lambda p: os.symlink(tmp_path / "elsewhere", p)}[how](place.path)
    assert place.ship() == ["m1"]
    assert place.judge() == history_repair.BROKEN


def test_messages_that_came_by_the_api_are_short_of_the_file_until_they_are_in_it(place):
    from agentctl.watchdog.store import tables

    place.say(1)
    place.ship()
    line = b'{"id":"api1","role":"user","content":"hi"}\n'
    place.store.append([tables.row_of("agent", json.loads(line), line, is_in_file=False)]).result()
    assert place.judge() == history_repair.SHORT
    copy = HistoryCopy(place.db, "agent")
    history.append_lines(place.path, copy.missing(place.path))
    copy.close()
    assert place.ship() == ["m1", "api1"]
    assert place.judge() == history_repair.WHOLE
    place.store.append([tables.row_of("agent", {"id": "api2"}, b'{"id":"api2"}\n', is_in_file=False)]).result()
    place.say(2)
    place.ship()
    assert place.judge() == history_repair.BROKEN  # its place is before one that is in the file


def test_what_the_watchdog_has_not_read_again_yet_is_not_missing(place):
    """It is dead, or a second behind: then every launch would bring the same messages once more."""
    from agentctl.watchdog.store import tables

    place.say(1)
    place.ship()
    given = [b'{"id":"api1","role":"user","content":"hi"}\n', b'{"role":"user","content":"go on"}\n',
             b'{"role":"user","content":"go on"}\n']  # fmt: skip
    before = ""
    for line in given:
        row = tables.row_of("agent", json.loads(line), line, is_in_file=False, before=before)
        place.store.append([row]).result()
        before = row["id"]
    for lacks in (given, [], []):  # three launches
        copy = HistoryCopy(place.db, "agent")
        assert copy.judge(place.path) == history_repair.SHORT
        assert copy.missing(place.path) == lacks
        history.append_lines(place.path, lacks)
        copy.close()


def test_the_copy_exports_every_message_byte_for_byte(place, tmp_path):
    place.say(*range(50))
    place.ship()
    copy = HistoryCopy(place.db, "agent")
    assert copy.export(str(tmp_path / "out"))
    copy.close()
    with open(place.path, "rb") as one, open(tmp_path / "out", "rb") as other:
        assert one.read() == other.read()


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 100, b"\0" * 8192])
def test_a_copy_that_cannot_be_read_is_none(tmp_path, content):
    path = tmp_path / "watchdog.db"
    if content is not None:
        path.write_bytes(content)
    copy = HistoryCopy(str(path), "agent")
    assert copy.judge(str(tmp_path / "history.jsonl")) == history_repair.WHOLE
    copy.close()


def test_to_find_that_nothing_is_missing_takes_an_index_of_what_is_missing(place):
    place.say(*range(50))
    place.ship()
    copy = HistoryCopy(place.db, "agent")
    plan = copy._ask(f"EXPLAIN QUERY PLAN SELECT min(seq) FROM messages {history_repair.MISSING}")
    copy.close()
    assert "messages_not_in_file" in plan[0][3]


def test_messages_without_ids_are_carried_over_once_each(place):
    with open(place.path, "w") as file:
        file.write('{"role":"user","content":"go on"}\n' * 3)
    assert len(place.ship()) == 3
    place.restart()
    place.say(9)
    assert len(place.ship()) == 4


def cut(place, lines):
    with open(place.path, "wb") as file:
        file.writelines(lines)


def rotate(place, lines):
    os.rename(place.path, f"{place.path}.1")
    cut(place, lines)


@pytest.mark.parametrize("how", [cut, rotate])
@pytest.mark.parametrize("with_id", [(), (0,), (1,), (2, 3)])
def test_messages_without_ids_that_were_lost_come_back_once(place, tmp_path, how, with_id):
    """Their ids are made of the line before, and mending puts lines between: each launch would bring them again."""

    def line(number):
        known = {"id": f"m{number}"} if number in with_id else {}
        return json.dumps({**known, "role": "user", "content": f"go on {number % 3}"}).encode() + b"\n"

    cut(place, map(line, (0, 1, 2)))
    place.ship()
    how(place, [line(0)] if how is cut else [])
    place.ship()
    with open(place.path, "ab") as file:
        file.writelines(map(line, (3, 4)))
    everything = len(place.ship())
    for _ in range(3):  # launches
        copy = HistoryCopy(place.db, "agent")
        assert copy.export(str(tmp_path / "stored.jsonl"))
        copy.close()
        history_repair.repair(place.path, [str(tmp_path / "stored.jsonl")], keep_damaged_as=str(tmp_path / "kept"))
        assert len(place.ship()) == everything
        assert place.judge() == history_repair.WHOLE
    with open(place.path, "rb") as file:
        assert len(file.readlines()) == everything


def test_a_store_that_was_renewed_is_filled_again(place):
    place.say(1, 2)
    place.ship()
    place.store._renew()
    place.say(3)
    assert sorted(place.ship()) == ["m1", "m2", "m3"]
