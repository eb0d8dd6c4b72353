"""The live status of a launch: rewritten whole, seldom enough, and never a reason to fail."""

import json
import os

import pytest

from agentctl.runtime import status_file


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "live.json")


def test_facts_are_merged_and_what_is_read_is_whole(path):
    live = status_file.StatusFile(path, "L", 3, 5.0)
    live.write(phase="starting", pid=7)
    live.write(phase="steady")
    found = status_file.read(path)
    assert found == {
        "launch_id": "L",
        "generation": 3,
        "runner_pid": os.getpid(),
        "started_at": 5.0,
        "last_heartbeat_at": None,
        "phase": "steady",
        "pid": 7,
    }
    assert os.listdir(os.path.dirname(path)) == ["live.json"]


def test_beats_are_written_twice_a_second_at_most_and_none_is_lost(path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(status_file.time, "monotonic", lambda: now[0])
    live = status_file.StatusFile(path, "L", 3, 5.0)
    said = []
    for number in range(1, 11):
        said.append(live.beat(float(number), heartbeats=number, phase="working", progress=None))
        now[0] += 0.125
    assert said == [True, False, False, False, True, False, False, False, True, False]
    assert status_file.read(path)["heartbeats"] == 9
    live.write()
    assert status_file.read(path)["heartbeats"] == 10


def test_a_beat_ends_an_announced_silence(path):
    live = status_file.StatusFile(path, "L", 3, 5.0)
    live.write(silent_until_at=99.0)
    live.beat(6.0, heartbeats=1, phase="", progress=4)
    live.write()
    found = status_file.read(path)
    assert "silent_until_at" not in found and (found["last_heartbeat_at"], found["progress"]) == (6.0, 4)


def test_a_status_that_cannot_be_written_is_left_out(path):
    os.mkdir(f"{path}.new")
    status_file.StatusFile(path, "launch", 1, 0.0).write(phase="steady")
    assert status_file.read(path) == {}


@pytest.mark.parametrize("text", [None, "", "{torn", "\xff"])
def test_what_cannot_be_read_is_no_status(path, text):
    if text is not None:
        with open(path, "w", encoding="latin-1") as file:
            file.write(text)
    assert status_file.read(path) == {}


def test_it_is_plain_json(path):
    status_file.StatusFile(path, "L\n", 1, 0.0).write(status='at "work" ü')
    with open(path, encoding="ascii") as file:
        assert json.load(file)["status"] == 'at "work" ü'
