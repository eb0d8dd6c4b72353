"""Tries belong to the lineage, and what is not launched takes nobody down: real trees, launches, recoveries."""

from __future__ import annotations

import time

import pytest

from agentctl.core.errors import LaunchRefused
from agentctl.ledger import models, writers
from agentctl.runner import launch
from integration.world import World, git, write
from kit import launches

TWO = {"probation": {"tries": 2, "duration": "10m"}, "state": {"restore": ["config/*"]}}


@pytest.fixture
def make(monkeypatch):
    worlds = []

    def build(settings=None):
        worlds.append(World(monkeypatch, settings or TWO))
        return worlds[-1].adopt()

    yield build
    for world in worlds:
        world.end()


def begin(world: World, end=launches.fail) -> tuple[int, int]:
    """Launch what is in place and end it; return its generation, and the tries that were left meanwhile."""
    with world.ledger() as ledger:
        begun = launch.begin(world.context, ledger)
        launches.see_well(ledger, begun.id)
        end(ledger, begun.id)
        return begun.generation.number, ledger.generation(begun.generation.number).tries_left


def ask(ledger, launch_id: str) -> None:
    writers.end_launch(ledger, launch_id, models.ASKED, at=time.time(), trigger="asked", reason="restart me")


def refuse(world: World) -> str:
    with world.ledger() as ledger, pytest.raises(LaunchRefused) as refused:
        launch.begin(world.context, ledger)
    return f"{refused.value.message} ({refused.value.hint})"


def change(world: World, text: str) -> None:
    write(world.code, {"more.py": f"# {text}\n"})


def newest(world: World) -> dict:
    return world.one("SELECT * FROM generations ORDER BY number DESC LIMIT 1")


# --- whose tries they are


def test_after_a_failure_another_tree_goes_on_with_what_is_left(make):
    world = make()
    world.mode("bad")
    assert begin(world) == (2, 1)
    change(world, "what it did to itself while it failed")
    assert begin(world) == (3, 0)
    assert world.one("SELECT tries_left FROM generations WHERE number=2")["tries_left"] == 0
    change(world, "and once more")
    assert "no tries left" in refuse(world)
    assert world.rollback_once() == 0
    assert world.rungs()[-1] == ("last known good", 1)
    assert git(world.code, "rev-parse", "HEAD") == world.first


def test_what_it_wrote_beside_its_code_is_no_other_version(make):
    world = make()
    world.mode("bad")
    write(world.code, {"state.json": "1"})
    assert begin(world) == (2, 1)
    write(world.code, {"state.json": "2", "out.log": "x"})
    assert begin(world) == (2, 0)
    assert newest(world)["number"] == 2


@pytest.mark.parametrize(
    "files", [{"config.toml": "x"}, {"run": "x"}, {".env.json": "x"}, {"behaviour.py": "MODE = 1\n"}]
)
def test_what_may_be_code_or_settings_is_another_version(make, files):
    world = make()
    world.mode("bad")
    begin(world)
    write(world.code, files)
    assert begin(world) == (3, 0)


def test_data_that_is_tracked_is_part_of_the_version(make):
    world = make()
    world.commit({"prompts.json": "1", "behaviour.py": "MODE = 'bad'\n"})
    begin(world)
    write(world.code, {"prompts.json": "2"})
    assert begin(world) == (3, 0)


def test_good_code_that_wrote_and_failed_is_no_candidate(make):
    world = make()
    write(world.code, {"state.json": "1"})
    begin(world, launches.stop)
    assert begin(world)[0] == 2  # of what a person put in, nobody knows what it is
    with world.ledger() as ledger:
        writers.bless(ledger, 2, at=time.time(), reason="", snapshot="")
    write(world.code, {"state.json": "2"})
    assert begin(world)[0] == 2


@pytest.mark.parametrize("end", [launches.stop, ask])
def test_a_restart_that_was_asked_for_begins_anew_with_changed_code(make, end):
    world = make()
    world.mode("one")
    assert begin(world, end) == (2, 1)
    change(world, "better")
    assert begin(world, end) == (3, 1)


def test_so_often_only_within_the_window(make):
    world = make({**TWO, "rollback": {"attempts": 2}})
    for number, expected in enumerate([(2, 1), (3, 1), (4, 0)]):
        world.mode(f"version {number}")
        assert begin(world, ask) == expected


def test_a_spent_candidate_that_asks_is_gone_on_with_if_its_code_has_changed(make):
    world = make({**TWO, "probation": {"tries": 1}})
    world.mode("one")
    assert begin(world, ask) == (2, 0)
    change(world, "better")
    assert world.rollback_once() == 0
    assert world.rungs() == [("asked", 2)]
    assert begin(world, ask) == (3, 0)
    assert world.rollback_once() == 0
    assert world.rungs()[-1] == ("last known good", 1)


def test_a_version_that_handed_its_tries_on_has_new_ones_when_somebody_puts_it_in_again(make):
    world = make()
    begin(world, launches.stop)
    bad = world.mode("bad")
    begin(world)
    change(world, "what it did to itself")
    begin(world)
    world.rollback_once()
    begin(world, launches.stop)
    git(world.code, "merge", "-q", "--ff-only", bad)
    assert begin(world) == (2, 1)


# --- the machine goes down


def test_the_first_two_power_cuts_of_a_probation_cost_nothing(make):
    world = make()
    world.mode("fine")
    left = [begin(world, launches.cut_off)[1]]
    for _ in range(4):
        with world.ledger() as ledger:
            try:
                begun = launch.begin(world.context, ledger)
            except LaunchRefused:
                break
            left.append(ledger.generation(begun.generation.number).tries_left)
            launches.cut_off(ledger, begun.id)
    assert left == [1, 1, 1, 0]  # two are free, the third one costs, and so does the launch after it
    assert newest(world)["number"] == 2


# --- what is not launched


def test_what_is_put_in_again_and_again_moves_nothing_but_the_code(make):
    world = make({**TWO, "probation": {"tries": 1}, "rollback": {"attempts": 1}})
    bad = world.mode("bad")
    begin(world)
    assert world.rollback_once() == 0
    for count in range(3):
        begin(world, launches.stop)
        write(world.state, {"config/plan.json": f"learnt {count}"})
        git(world.code, "merge", "-q", "--ff-only", bad)
        said = refuse(world)
        assert "its tree was condemned as generation 2" in said and "agentctl bless 2" in said
        assert world.rollback_once() == 0
        assert world.rungs()[-1] == ("good stays", 1)
        assert git(world.code, "rev-parse", "HEAD", "main").split() == [world.first] * 2
        assert git(world.code, "status", "--porcelain") == ""
        assert (world.state / "config/plan.json").read_text() == f"learnt {count}"
        brief = (world.state / "BRIEF.md").read_text()
        assert brief.startswith("# You were put back\n") and "generation 2 was put in your place" in brief
    assert world.one("SELECT value FROM meta WHERE key='halted'") is None


def test_after_so_many_bad_changes_the_next_is_held_and_a_person_can_have_it_launched(make):
    world = make({**TWO, "probation": {"tries": 1}, "rollback": {"attempts": 2}})
    for number in range(2):
        begin(world, launches.stop)
        world.mode(f"bad {number}")
        begin(world)
        assert world.rollback_once() == 0
    begin(world, launches.stop)
    commit = world.mode("the next one")
    said = refuse(world)
    assert "held: 2 rollbacks within 30m, the limit is 2" in said and "agentctl rollback undo --yes" in said
    assert world.rollback_once() == 0
    assert world.rungs()[-1] == ("good stays", 1)
    assert git(world.code, "rev-parse", "HEAD") == world.first
    begin(world, launches.stop)
    with world.ledger() as ledger:
        writers.add_request(ledger, "undo", "", at=time.time(), author="ann", reason="")
    assert world.rollback_once() == 0
    assert git(world.code, "rev-parse", "HEAD") == commit
    assert begin(world) == (4, 0)
