"""Who beats, and with which launch: what counts, what is foreign, and what a new launch forgets."""

import pytest

from agentctl.watchdog import presence
from agentctl.watchdog.presence import AgentPresence, Presences

NOT_OURS = "the heartbeat is not of the launch that runs"


@pytest.fixture
def own():
    heard = Presences("robin", 0.0)
    heard.own.begin("L1")
    return heard


def test_a_heartbeat_of_the_launch_that_runs_counts(own):
    assert own.hear("robin", "L1", 5.0, 1005.0, {"phase": "working", "status": "at it", "progress": 3}) == ""
    found = own.own
    assert (found.beat_at, found.beat_wall, found.heartbeats, own.total) == (5.0, 1005.0, 1, 1)
    assert (found.phase, found.status, found.progress, found.progressed_at) == ("working", "at it", 3, 5.0)


def test_one_of_another_launch_of_ours_does_not(own):
    assert own.hear("robin", "L2", 5.0, 1005.0, {}) == NOT_OURS
    assert (own.own.beat_at, own.own.foreign, own.total) == (None, 1, 0)


def test_an_agent_of_elsewhere_begins_its_launches_itself_and_goes_back_to_none(own):
    for launch, said in (("A", ""), ("A", ""), ("B", ""), ("A", NOT_OURS), ("B", "")):
        assert own.hear("wren", launch, 5.0, 1005.0, {}) == said
    found = own.by_name["wren"]
    assert (found.launch_id, found.heartbeats, found.foreign, own.total) == ("B", 2, 1, 4)


def test_only_so_many_former_launches_are_remembered():
    found = AgentPresence("wren", 0.0)
    for number in range(presence.REMEMBERED_LAUNCHES + 5):
        found.begin(str(number))
    assert "4" in found.former and "3" not in found.former and found.launch_id not in found.former


def test_there_are_not_endlessly_many(monkeypatch, own):
    monkeypatch.setattr(presence, "MOST_AGENTS", 2)
    assert own.hear("wren", "A", 5.0, 1005.0, {}) == ""
    assert own.hear("crow", "A", 5.0, 1005.0, {}) == "there are too many agents"
    assert sorted(own.by_name) == ["robin", "wren"]
    assert own.hear("wren", "A", 6.0, 1006.0, {}) == ""


def test_a_new_launch_is_not_alive_by_what_the_last_one_did(own):
    own.hear("robin", "L1", 5.0, 1005.0, {"phase": "working", "status": "at it", "progress": 3})
    own.own.silent_until_at = 99.0
    own.own.begin("L2")
    found = own.own
    assert (found.beat_at, found.heartbeats, found.silent_until_at) == (None, 0, 0.0)
    assert (found.phase, found.status, found.progress) == ("", "", None)
    assert own.hear("robin", "L1", 6.0, 1006.0, {}) == NOT_OURS


def test_a_counter_counts_when_it_moves(own):
    for now, progress in ((1.0, 3), (2.0, 3), (3.0, None), (4.0, 2), (5.0, 2)):
        own.hear("robin", "L1", now, 1000.0 + now, {"progress": progress})
    assert (own.own.progress, own.own.progressed_at) == (2, 4.0)


def test_what_is_not_said_again_stays(own):
    own.hear("robin", "L1", 1.0, 1001.0, {"phase": "working", "status": "at it", "heartbeats": 7})
    own.hear("robin", "L1", 2.0, 1002.0, {})
    assert (own.own.phase, own.own.status, own.own.heartbeats) == ("working", "at it", 8)
    own.hear("robin", "L1", 3.0, 1003.0, {"status": ""})
    assert (own.own.phase, own.own.status) == ("working", "")
