"""How a launch's end becomes the unit's exit status, what it costs its candidate, and what is left to look at."""

import json
import signal
from types import SimpleNamespace

import pytest

from agentctl.ledger import models
from agentctl.ledger.models import CurrentLaunch
from agentctl.runner import runner
from agentctl.runner.launch_result import LaunchResult


@pytest.mark.parametrize(
    ("end", "how", "status"),
    [
        (models.STOPPED, {"exit_status": 1}, 0),
        (models.ASKED, {"exit_status": 75}, runner.EXIT_ASKED),
        (models.FAILED, {"exit_status": 78}, 78),
        (models.FAILED, {"exit_status": 0}, 1),
        (models.FAILED, {"exit_signal": signal.SIGKILL}, 137),
        (models.FAILED, {}, 1),
    ],
)
def test_the_exit_status_of_the_unit(end, how, status):
    assert runner.exit_status(LaunchResult(end, "", "", **how)) == status


@pytest.mark.parametrize(
    ("status", "end", "trigger", "by_agent", "tries"),
    [
        ("candidate", models.STOPPED, "stop", False, 3),
        ("candidate", models.STOPPED, "stop", True, 2),
        ("candidate", models.FAILED, "crash", False, 2),
        ("candidate", models.FAILED, models.ENGINE_AWAY, False, 3),
        ("candidate", models.FAILED, models.NO_ROOM, False, 3),
        ("good", models.STOPPED, "stop", False, 2),
    ],
)
def test_what_is_no_failure_of_the_candidate_s_costs_no_try(home, ask, status, end, trigger, by_agent, tries):
    home.generation(1, status)
    home.launch("L1", 1)
    ending = LaunchResult(end, trigger, "it ended")
    ending.by_agent = by_agent
    context = SimpleNamespace(launch_dir=lambda launch: str(home.root / launch))
    begun = CurrentLaunch(id="L1", generation=home.ledger.generation(1), snapshot="", incident="", started_at=5.0)
    runner._record(context, home.ledger, begun, ending, SimpleNamespace(info=lambda text: None))
    assert ask("SELECT tries_left FROM generations") == [(tries,)]
    assert ask("SELECT end, trigger FROM launches") == [(end, trigger)]
    assert (home.root / "L1/evidence.json").exists() == (end == models.FAILED)


def test_what_only_the_runner_knows_is_left_for_the_recovery(home):
    ending = LaunchResult(models.FAILED, "crash", "exit status 1", exit_status=1)
    ending.lines, ending.beats = ["one", "half \ud83d"], 4
    context = SimpleNamespace(launch_dir=lambda launch: str(home.root / "left" / launch))
    runner.keep_evidence(context, SimpleNamespace(id="L1"), ending)
    assert (home.root / "left/L1/pane.txt").read_text() == "one\nhalf ?\n"
    told = json.loads((home.root / "left/L1/evidence.json").read_text())
    assert (told["trigger"], told["beats"], told["exit_status"]) == ("crash", 4, 1) and "lines" not in told
    assert (home.root / "left/L1").stat().st_mode & 0o777 == 0o700
    (home.root / "file").write_text("in the way")
    runner.keep_evidence(
        SimpleNamespace(launch_dir=lambda launch: f"{home.root}/file/x"), SimpleNamespace(id=""), ending
    )


def test_the_mark_of_a_launch_that_is_not_on_record_yet(home):
    for _ in range(2):
        runner.mark(home.paths)
    assert (home.root / "run/agent/launching").exists()
    for _ in range(2):
        runner.unmark(home.paths)
    assert not (home.root / "run/agent/launching").exists()
    runner.mark(SimpleNamespace(launching_path="/nowhere/launching"))


@pytest.mark.parametrize(
    ("at", "text"), [(None, ""), (0.0, "1970-01-01T00:00:00.000Z"), (1.0625, "1970-01-01T00:00:01.062Z")]
)
def test_an_instant_as_it_goes_into_the_journal(at, text):
    assert runner.stamp(at) == text
