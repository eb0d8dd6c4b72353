"""What the end of the agent's process means: asked for, a crash, or a crash before it was ready."""

import signal

import pytest

from agentctl.ledger import models
from agentctl.runner.launch_result import NAMED, SIGNAL_NAMES, judge_exit


@pytest.mark.parametrize(
    ("status", "number", "is_ready", "end", "trigger", "reason"),
    [
        (0, None, True, models.ASKED, "asked", "exit status 0 unasked: restart me"),
        (75, None, True, models.ASKED, "asked", "exit status 75 unasked: restart me"),
        (0, None, False, models.FAILED, "crash-at-start", "exit status 0 after 3.0s, before it was ready"),
        (75, None, False, models.FAILED, "crash-at-start", "exit status 75 after 3.0s, before it was ready"),
        (1, None, True, models.FAILED, "crash", "exit status 1 after 3.0s"),
        (78, None, True, models.FAILED, "crash", "exit status 78 after 3.0s"),
        (None, 9, True, models.FAILED, "crash", "killed by SIGKILL after 3.0s"),
        (None, 11, False, models.FAILED, "crash-at-start", "killed by SIGSEGV after 3.0s, before it was ready"),
        (None, 40, True, models.FAILED, "crash", "killed by signal 40 after 3.0s"),
        (None, None, True, models.FAILED, "crash", "ended after 3.0s; its status could not be read"),
    ],
)
def test_what_an_exit_means(status, number, is_ready, end, trigger, reason):
    found = judge_exit(status, number, is_ready=is_ready, lived_seconds=3.0)
    assert (found.end, found.trigger, found.reason) == (end, trigger, reason)
    assert (found.exit_status, found.exit_signal) == (status, number)


def test_signals_have_the_names_that_python_gives_them():
    assert {getattr(signal, name).value: name for name in NAMED} == SIGNAL_NAMES


def test_the_evidence_has_everything_but_the_lines():
    found = judge_exit(1, None, is_ready=True, lived_seconds=3.0)
    found.lines, found.notes = ["a line"], ["a note"]
    facts = found.facts()
    assert "lines" not in facts and facts["notes"] == ["a note"] and facts["trigger"] == "crash"
