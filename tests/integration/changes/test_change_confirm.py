"""Confirm or revert, and what a promotion asked to follow a failure."""

from __future__ import annotations

import json
import time

import pytest

from agentctl.ledger import writers
from integration.changing import CHANGE, Changing
from integration.world import git, merged
from kit import launches


@pytest.fixture
def make(monkeypatch):
    worlds = []

    def build(settings=None):
        worlds.append(Changing(monkeypatch, merged(CHANGE, settings or {})).adopt())
        worlds[-1].start()
        worlds[-1].until_beating(1)
        return worlds[-1]

    yield build
    for world in worlds:
        world.end()


def promoted_and_stopped(make):
    """Return a world whose change waits for its confirmation, ten minutes at most, while nothing runs."""
    world = make()
    world.make_ready()
    world.ctl("change", "promote", "--confirm-within", "10m")
    world.until_beating(2)
    world.stop()
    return world


def test_confirmed_in_time_it_stays_and_is_blessed(make):
    world = make()
    assert "nothing to confirm" in world.refuses("confirm")
    world.make_ready()
    assert "agentctl confirm" in world.ctl("change", "promote", "--confirm-within", "10m").stdout
    world.until_beating(2)
    assert world.change()["state"] == "unconfirmed"
    assert "goes back unless 'agentctl confirm'" in world.ctl("status", status=None).stdout
    assert world.status_of(2) == "candidate"
    assert world.ask("confirm")["generation"] == 2
    world.until(lambda: world.status_of(2) == "good", "the blessing")
    assert "nothing to confirm" in world.refuses("confirm")


def test_not_confirmed_it_goes_back_however_well_it_looks(make):
    world = make()
    world.make_ready()
    world.ctl("change", "promote", "--confirm-within", "3s")
    incident = world.until_outcome("recovered")
    assert incident["trigger"] == "not-confirmed"
    assert git(world.code, "rev-parse", "main") == world.first
    assert world.status_of(2) == "condemned" and world.change()["state"] == "rolled back"
    assert "nobody confirmed it in time" in " ".join(world.ctl("why").stdout.split()).lower()
    assert "nothing to confirm" in world.refuses("confirm")
    world.ctl("rollback", "undo", "--yes", "--force")  # who brings it back wants it to stay
    world.until(lambda: world.status_of(2) == "good", "the blessing")


def test_a_deadline_that_passed_while_the_machine_was_down_counts_at_the_launch(make):
    world = promoted_and_stopped(make)
    with world.ledger() as ledger:
        writers.set_deadline(ledger, 2, time.time() - 1)
        launches.cut_off(ledger, ledger.last_launch().id)
    world.start()
    incident = world.until_outcome("recovered")
    assert incident["trigger"] == "not-confirmed" and world.status_of(2) == "condemned"
    assert git(world.code, "rev-parse", "main") == world.first


def test_a_clock_that_was_set_back_does_not_lift_the_deadline(make):
    """Seen from a clock that is ten years behind, the deadline is ten years away."""
    world = promoted_and_stopped(make)
    with world.ledger() as ledger:
        wish = ledger.change("feature/x").promotion
        # By hand: what is asked for is not changed any more once it is in place.
        ledger.update("changes", {"name": "feature/x"}, promotion=json.dumps({**wish, "confirm_seconds": 2}))
        writers.set_deadline(ledger, 2, time.time() + 10 * 365 * 86400)
    world.start()
    assert world.until_outcome("recovered")["trigger"] == "not-confirmed"


def test_with_a_human_review_the_agent_cannot_confirm_itself(make):
    world = make({"change": {"review": "human"}})
    world.make_ready()
    world.ctl("change", "approve")
    world.ctl("change", "promote", "--confirm-within", "10m")
    world.until_beating(2)
    socket = world.paths.api_socket_path.replace("/", "%2F")
    inside = {"AGENT_NAME": world.name, "AGENT_API_URL": f"http+unix://{socket}"}
    assert "this is the agent itself" in world.ctl("confirm", env=inside, status=1).stderr
    world.ctl("confirm")


def test_freeze_stays_down_with_the_evidence(make):
    world = make({"probation": {"duration": "10m", "tries": 2}})
    world.make_ready(files={"behaviour.py": "MODE = 'crash-later'\n"})
    world.ctl("change", "promote", "--on-failure", "freeze")
    assert world.end_of(world.supervisors[-1]) == 77
    incident = world.incidents()[-1]
    assert incident["outcome"] == "halted" and "--on-failure freeze" in incident["reason"]
    assert any("told to crash later" in line for line in world.evidence(incident)["stack"])
    assert git(world.code, "log", "-1", "--format=%s") == "Merge feature/x" and world.status_of(2) == "candidate"
    assert "told to crash later" in world.ctl("why").stdout
    world.ctl("rollback", "1", "--yes")
    assert git(world.code, "rev-parse", "main") == world.first


def test_page_tells_a_human_and_tries_on(make):
    world = make({"probation": {"duration": "10m"}, "rollback": {"restarts": 2}})
    told = world.folder / "paged"
    world.ctl("config", "set", "rollback.alert", json.dumps(["sh", "-c", f"cat >>{told}"]))
    world.make_ready(files={"behaviour.py": "MODE = 'crash-later'\n"})
    world.ctl("change", "promote", "--on-failure", "page")
    world.until(lambda: told.exists() and "not rolled back, as asked" in told.read_text(), "the page")
    assert world.end_of(world.supervisors[-1]) == 77
    assert world.rungs() == [("promote", 2), ("restart", 2), ("restart", 2)]
    assert git(world.code, "log", "-1", "--format=%s") == "Merge feature/x"


def test_page_and_no_confirmation_runs_on(make):
    world = make()
    told = world.folder / "paged"
    world.ctl("config", "set", "rollback.alert", json.dumps(["sh", "-c", f"cat >>{told}"]))
    world.make_ready()
    world.ctl("change", "promote", "--confirm-within", "2s", "--on-failure", "page")
    world.until(lambda: told.exists() and "unconfirmed" in told.read_text(), "the page")
    world.until(lambda: world.status_of(2) == "good", "the blessing")
    assert world.incidents() == []
