"""The steps of an attempt: on record before they are done, done once, and repeated where nobody saw their end."""

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import writers
from agentctl.recovery.execution import Execution, undo_source


@pytest.fixture
def open_attempt(home):
    """Open the attempt that is under way, as each run of the recovery process does anew."""
    home.generation(1)
    home.incident("I")
    writers.add_attempt(home.ledger, "I", 1, at=5.0, rung="last known good", target=1, reason="it hung", is_open=True)
    return lambda: Execution.unfinished(AgentContext.open("agent"), home.ledger)


@pytest.fixture
def steps(ask):
    """Return what is on record of the steps: name, whether it has an end, detail."""
    return lambda: ask("SELECT name, ended_at IS NOT NULL, detail FROM steps ORDER BY rowid")


def test_an_attempt_knows_its_place_and_its_branch(home, open_attempt):
    attempt = open_attempt()
    assert (attempt.incident, attempt.number, attempt.rung, attempt.reason) == ("I", 1, "last known good", "it hung")
    assert attempt.rescue_branch == "rescue/I" and attempt.quarantine.endswith("/quarantine/I")
    writers.close_attempt(home.ledger, "I", 1)
    assert open_attempt() is None


def test_a_step_is_on_record_before_it_is_done_and_its_end_comes_with_the_next(open_attempt, steps):
    attempt, seen = open_attempt(), []
    assert attempt.step("stop", lambda: seen.append(steps())) == ""
    assert attempt.step("switch", lambda: seen.append(steps()) or "exchanged") == "exchanged"
    assert seen == [[("stop", False, "")], [("stop", True, ""), ("switch", False, "")]]
    attempt.record_ended()
    attempt.record_ended()
    assert steps() == [("stop", True, ""), ("switch", True, "exchanged")]


def test_the_next_run_passes_over_what_has_an_end_and_repeats_what_has_none(home, open_attempt):
    done = []

    def run(attempt):
        for name in ("stop", "evidence", "switch"):
            attempt.step(name, lambda name=name: done.append(name) or name)

    def killed():
        raise KeyboardInterrupt

    first = open_attempt()
    first.step("stop", lambda: done.append("stop") or "stop")
    first.step("evidence", lambda: done.append("evidence"))
    with pytest.raises(KeyboardInterrupt):
        first.step("switch", killed)
    run(open_attempt())
    assert done == ["stop", "evidence", "switch"], "the end of a step that was done is written with the next start"
    run(open_attempt())
    assert done == ["stop", "evidence", "switch", "switch"], "nobody has written down that the last one has ended"


def test_what_belongs_to_the_end_of_a_step_is_written_with_it_or_not_at_all(home, open_attempt):
    attempt = open_attempt()
    attempt.step("brief", lambda: attempt.write_with_end(lambda: home.ledger.set_meta("told", "yes")))
    assert home.ledger.meta("told") is None
    attempt.step("next", lambda: "")
    assert home.ledger.meta("told") == "yes"
    home.ledger.set_meta("told", None)
    attempt.record_ended()
    assert home.ledger.meta("told") is None, "it is written once"


@pytest.mark.parametrize(("detail", "known"), [('{"a": 1}', {"a": 1}), ("", {})])
def test_what_an_earlier_step_wrote_down_is_read_again(home, open_attempt, detail, known):
    attempt = open_attempt()
    attempt.step("evidence", lambda: detail)
    attempt.record_ended()
    assert open_attempt().detail("evidence") == known and open_attempt().detail("none") == {}


def test_without_a_rollback_there_is_nothing_to_undo(home):
    home.incident("I")
    home.attempt("I", 1, rung="restart")
    with pytest.raises(AgentctlError):
        undo_source(home.ledger)
