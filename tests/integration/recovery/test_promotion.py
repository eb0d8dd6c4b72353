"""Promotions in each other's way, or hindered while they are prepared: somebody is told, and nothing is lost."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from agentctl.changes import promote
from agentctl.config.context import Lock
from agentctl.core.paths import ENTRY_PATH
from agentctl.ledger import incidents
from integration.changing import making
from kit import deadline


@pytest.fixture
def make(monkeypatch):
    yield from making(monkeypatch)


def test_two_at_once_the_second_is_told_and_waits_for_nothing(make):
    world = make()
    for name in ("feature/one", "feature/two"):
        world.make_ready(name, {f"{name[8:]}.txt": "new\n"})
        world.wish_for(name)
    with world.ledger() as ledger:
        assert promote.prepare(world.context, ledger, "feature/one") == ""
        assert promote.prepare(world.context, ledger, "feature/two") == "change 'feature/one' is being promoted"
    assert world.change("feature/two")["state"] == "open"
    assert "change 'feature/one' is being promoted" in world.refuses("change", "promote", "feature/two")
    world.ctl("change", "promote", "feature/one")
    assert world.change("feature/two")["next"].startswith("update: main has 2 commits")


def test_what_is_given_up_while_it_is_prepared_is_not_put_in_place(make):
    world = make()
    world.make_ready()
    world.wish_for()
    said = []

    def prepare():
        with world.ledger() as ledger:
            said.append(promote.prepare(world.context, ledger, "feature/x"))

    preparing = threading.Thread(target=prepare)
    with Lock(f"{world.paths.data_dir}/standby.lock", "a standby").take():
        preparing.start()
        world.until(lambda: world.all("SELECT 1 FROM generations WHERE number=2"), "the candidate")
        world.ctl("change", "abandon", "--reason", "a better idea")
    deadline.join(preparing)
    assert said == ["it was given up, or asked for anew, while it was prepared"]
    assert world.all("SELECT 1 FROM requests") == [] and world.change()["state"] == "abandoned"


def test_what_cannot_be_prepared_is_told_to_who_waits_for_it(make):
    """The agent's command waits for the runner's job; a job that fails must not let it wait in vain."""
    world = make()
    world.make_ready()
    world.wish_for()
    os.mkdir(f"{world.paths.data_dir}/promote.lock")
    done = deadline.run([sys.executable, "-I", "-S", ENTRY_PATH, "job", world.name, "promote", "feature/x"],
                        capture_output=True, text=True, timeout=60)  # fmt: skip
    row = world.change()
    assert done.returncode == 1 and row["state"] == "open" and "promote.lock" in row["reason"], (done, row)


def test_what_fails_while_it_is_prepared_is_seen_to_first(make):
    """The candidate's first heartbeat is not to end an incident that another version has begun."""
    world = make()
    world.make_ready()
    world.wish_for()
    with world.ledger() as ledger:
        incident_id = incidents.open_for(ledger, None, trigger="crash", reason="it fell down")
        assert promote.prepare(world.context, ledger, "feature/x") == f"incident {incident_id} is not over"
    assert world.change()["state"] == "open"
