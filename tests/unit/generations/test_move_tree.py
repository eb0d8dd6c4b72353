"""The record of a switch entry by entry: what it says, and that a switch is gone on with by what it says."""

import json
import os

import pytest

from agentctl.core.errors import AgentctlError, TooNew
from agentctl.generations.move_tree import DONE, IN, OUT, Move


@pytest.fixture
def move(tmp_path):
    return Move(str(tmp_path / "moving.json"))


@pytest.mark.parametrize("text", [None, "", "{torn", "[]", '"text"'])
def test_what_cannot_be_read_is_no_record(move, text):
    if text is not None:
        with open(move.path, "w") as file:
            file.write(text)
    assert move.read() == {} and not move.is_open and not move.has_put_in(5) and move.go_on() == []


@pytest.mark.parametrize(("phase", "is_open"), [(OUT, True), (IN, True), (DONE, False), ("", False)])
def test_a_move_is_open_until_it_is_done(move, phase, is_open):
    with open(move.path, "w") as file:
        json.dump({"phase": phase, "inode": 5}, file)
    assert move.is_open is is_open
    assert move.has_put_in(5) is (phase == DONE) and not move.has_put_in(6)


def test_one_that_a_newer_version_began_is_left_to_it(move):
    with open(move.path, "w") as file:
        json.dump({"version": 2, "phase": OUT}, file)
    for ask in (move.read, lambda: move.is_open, move.go_on):
        with pytest.raises(TooNew, match="is of version 2; this agentctl knows 1"):
            ask()


@pytest.fixture
def places(tmp_path):
    """A live tree, a fresh one, and the quarantine of an incident; `volume` is mounted there, as it were."""
    made = {name: str(tmp_path / name) for name in ("live", "slots/standby", "slots/quarantine")}
    for path in made.values():
        os.makedirs(path)
    for name, texts in (("live", {"old": "1", "both": "live", "volume": "stays"}),
                        ("slots/standby", {"new": "2", "both": "fresh"})):  # fmt: skip
        for file, text in texts.items():
            with open(f"{made[name]}/{file}", "w") as opened:
                opened.write(text)
    return {"live": made["live"], "below": str(tmp_path / "slots"), "fresh": made["slots/standby"],
            "quarantine": made["slots/quarantine"], "stay": ["volume"]}  # fmt: skip


def told(folder):
    found = {}
    for name in os.listdir(folder):
        with open(f"{folder}/{name}") as file:
            found[name] = file.read()
    return found


def test_what_was_written_down_is_done_and_then_done_with(move, places):
    inode = os.stat(places["fresh"]).st_ino
    move.begin(**places)
    assert move.is_open and told(places["live"]) == {"old": "1", "both": "live", "volume": "stays"}
    assert Move(move.path).go_on() == []
    assert told(places["live"]) == {"new": "2", "both": "fresh", "volume": "stays"}
    assert told(f"{places['quarantine']}/tree") == {"old": "1", "both": "live"}
    assert not os.path.exists(places["fresh"])
    assert not move.is_open and move.has_put_in(inode)
    assert Move(move.path).go_on() == [] and told(places["live"])["both"] == "fresh"


def test_a_second_tree_does_not_go_over_the_first(move, places):
    os.mkdir(f"{places['quarantine']}/tree")
    with pytest.raises(AgentctlError, match="a tree is there already"):
        move.begin(**places)
    assert not os.path.exists(move.path)


def test_another_tree_in_the_fresh_one_s_place_does_not_go_in(move, places):
    move.begin(**places)
    os.rename(places["fresh"], f"{places['fresh']}.gone")
    os.mkdir(places["fresh"])
    with open(f"{places['fresh']}/evil", "w"):
        pass
    move.go_on()
    assert told(places["live"]) == {"volume": "stays"} and os.listdir(places["fresh"]) == ["evil"]
