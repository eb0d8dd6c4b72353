"""Somebody deletes or empties the state folder while the agent runs: it comes back, the history never shorter."""

import os
import shutil
import signal

import pytest

from agentctl.host import procfs
from agentctl.state import agent_state
from integration.world import World, write
from kit.survival import survived

HISTORY = "".join(f'{{"id": "{n}", "role": "user", "content": "message {n}"}}\n' for n in range(20))
TASK = """\
# Current Task
save the world

## Conversation Context
it began

## Pending Actions
- [ ] go on

## State
"""


@pytest.fixture
def world(monkeypatch):
    made = World(monkeypatch)
    write(made.state, {"history.jsonl": HISTORY, "current_task.md": TASK, "memory/a*b": "a", "memory/deep/c": "c"})
    yield made.adopt()
    made.end()


def gone(state):
    while state.exists():  # an agent may be writing into it
        shutil.rmtree(state, ignore_errors=True)


def emptied(state):
    for entry in list(state.iterdir()):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def begun_anew(state):
    """The agent goes on writing into what it makes again."""
    gone(state)
    write(state, {"history.jsonl": '{"id": "99", "role": "user", "content": "after"}\n', "memory/new": "new"})


def another_thing(state):
    """A file in the folder's place."""
    gone(state)
    state.write_text("no folder")


def check_back(world) -> None:
    lines = world.history()
    assert lines[:20] == HISTORY.splitlines(keepends=True) or set(HISTORY.splitlines(keepends=True)) <= set(lines)
    assert (world.state / "memory/a*b").read_text() == "a" and (world.state / "memory/deep/c").read_text() == "c"
    assert "save the world" in (world.state / "current_task.md").read_text()
    assert (world.state / "config/plan.json").read_text() == "the good plan"


def lose_and_kill(world, lose) -> None:
    """Lose the state and kill the agent, which stands still meanwhile: it would write, or end of itself and come back.

    So does its terminal: a tmux that runs continues its stopped child at once.
    """
    agent = world.live()["pid"]
    terminal = procfs.parent(agent)
    for pid in (terminal, agent):
        os.kill(pid, signal.SIGSTOP)
        world.until(lambda pid=pid: procfs.state(pid) == "T", "it to stand still")
    lose(world.state)
    os.kill(agent, signal.SIGKILL)
    os.kill(terminal, signal.SIGCONT)


@pytest.mark.parametrize("lose", [gone, emptied, begun_anew, another_thing])
def test_at_a_restart(world, lose):
    world.start()
    first = world.until_beating()
    lose_and_kill(world, lose)
    world.until_beating(after=first["id"])
    check_back(world)
    if lose is begun_anew:
        assert any('"99"' in line for line in world.history()) and (world.state / "memory/new").exists()
    assert "came back from snapshot" in world.log
    assert world.one("SELECT * FROM events WHERE kind='state-restored'")
    assert any("state_lost" in world.evidence(incident) for incident in world.incidents())
    survived("state folder lost", "restart", 1)


@pytest.mark.parametrize("lose", [gone, emptied, begun_anew, another_thing])
def test_at_a_rollback(world, lose):
    world.start()
    first = world.until_beating()
    world.stop()
    world.mode("crash", "a bad change")
    write(world.state, {"config/plan.json": "what the bad version wrote"})
    lose(world.state)
    world.start()
    world.until_outcome("recovered")
    row = world.until_beating(generation=1, after=first["id"])
    assert row["generation"] == 1
    check_back(world)
    survived("state folder lost", "rollback", 1)


def test_a_folder_in_the_place_of_the_brief(world):
    """It is in nobody's way: the routine itself gets to its end, and no rescue has to step in."""
    world.start()
    first = world.until_beating()
    world.stop()
    world.mode("crash", "a bad change")
    write(world.state, {"BRIEF.md/notes": "the agent's own"})
    world.start()
    world.until_outcome("recovered")
    world.until_beating(generation=1, after=first["id"])
    assert "You were rolled back" in (world.state / "BRIEF.md").read_text()
    assert [path.read_text() for path in world.state.glob("BRIEF.md.damaged-*/notes")] == ["the agent's own"]
    assert "rescue" not in world.log


def test_after_a_stop_whose_snapshot_has_nothing_any_more(world):
    world.start()
    first = world.until_beating()
    gone(world.state)
    world.stop()  # takes a snapshot of what is left
    world.start()
    world.until_beating(after=first["id"])
    check_back(world)
    survived("state folder lost", "restart", 1)


def test_what_is_whole_is_left_alone(world):
    write(world.state, {"history.jsonl": HISTORY + '{"id": "21"}\n'})
    os.unlink(world.state / "memory/a*b")  # the agent may delete what it likes
    assert agent_state.bring_back(world.context, str(world.folder / "kept")) == ""
    assert not (world.state / "memory/a*b").exists() and not (world.folder / "kept").exists()


def test_an_agent_without_a_history_may_empty_its_folder_bit_by_bit(monkeypatch):
    world = World(monkeypatch)
    try:
        world.adopt()
        os.unlink(world.state / "config/plan.json")
        assert agent_state.bring_back(world.context, str(world.folder / "kept")) == ""
        os.rmdir(world.state / "config")
        assert "emptied" in agent_state.bring_back(world.context, str(world.folder / "kept"))
        assert (world.state / "config/plan.json").exists()
    finally:
        world.end()
