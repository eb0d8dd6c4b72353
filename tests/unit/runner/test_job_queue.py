"""When which work begins beside a launch, and what its end leads to; the children themselves are stood in for."""

import time
from types import SimpleNamespace

import pytest

from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import models, writers
from agentctl.ledger.models import CurrentLaunch
from agentctl.runner.heartbeat import ExpectedLife
from agentctl.runner.job_queue import SAVE_TRIES, Jobs


class Session:
    """Stands for the loop of a launch: timers are rung by hand."""

    def __init__(self, home, status, incident):
        home.generation(1, status)
        home.launch("L1", 1)
        self.ledger, self.launch = (
            home.ledger,
            CurrentLaunch(
                id="L1", generation=home.ledger.generation(1), snapshot="", incident=incident, started_at=5.0
            ),
        )
        self.timers, self.said, self.stopped, self.ending, self.phase = {}, [], 0, None, ""
        self.loop = SimpleNamespace(set_timer=lambda name, seconds, call: self.timers.update({name: (seconds, call)}))
        self.lacks = []
        self.life = SimpleNamespace(first_beat_at=None, ready_at=None, looked_at=None, judged_by="beats",
                                    began=time.monotonic(), missing=lambda: self.lacks,
                                    auto=SimpleNamespace(expected=ExpectedLife(number=7)))  # fmt: skip
        self.journal = SimpleNamespace(info=self.said.append, warning=self.said.append)
        self.status = SimpleNamespace(write=self.tell, facts={})
        self.why_not = ""

    def tell(self, **facts):
        self.phase = facts.get("phase", self.phase)
        self.status.facts.update(facts)

    def fail(self, trigger, reason):
        self.ending = (trigger, reason)

    def record(self, write):
        write()

    def vouch(self):
        return self.why_not

    def running_facts(self):
        return {}

    def stop(self):
        self.stopped += 1

    def ring(self, name):
        self.timers.pop(name)[1]()


@pytest.fixture
def make(home, monkeypatch):
    """Make a queue whose jobs are only noted in `queue.started`; `queue.over(job, status)` ends one."""

    def build(status="candidate", incident=""):
        queue = Jobs(AgentContext.open("agent"), Session(home, status, incident))
        queue.started, ends = [], {}

        def start(job, done, *words):
            queue.started.append((job, *words))
            ends[job] = done

        monkeypatch.setattr(queue, "_start", start)
        monkeypatch.setattr(queue, "_look_at_ballast", lambda: None)
        queue.over = lambda job, status=0: ends.pop(job)(status)
        return queue

    return build


def test_a_candidate_that_is_ready_is_on_probation(make):
    candidate = make()
    candidate.after_launch()
    candidate.after_ready()
    assert candidate.started == [] and "probation" in candidate.session.timers


def test_a_good_one_gets_its_standby(make):
    good = make("good")
    good.after_launch()
    good.after_ready()
    assert good.started == [("standby", "1")] and good.session.timers == {}


def test_after_a_rollback_the_work_is_saved_before_the_incident_is_over(make, home, ask):
    home.incident("I")
    queue = make("good", "I")
    queue.after_launch()
    queue.after_ready()
    assert queue.started == [("save-work", "I")]
    queue.session.life.first_beat_at, queue.session.life.ready_at = home.now, home.now
    queue.settle_incident()
    assert ask("SELECT outcome FROM incidents") == [("",)]
    queue.over("save-work")
    assert ask("SELECT outcome, generation_to FROM incidents") == [("recovered", 1)]
    assert queue.started[1:] == [("standby", "1")]


def test_work_that_cannot_be_saved_is_tried_again_and_then_left_in_quarantine(make, home, ask):
    home.incident("I")
    queue = make("good", "I")
    queue.session.life.first_beat_at = home.now
    queue.after_launch()
    for _ in range(SAVE_TRIES - 1):
        queue.over("save-work", 4)
        assert ask("SELECT outcome FROM incidents") == [("",)]
        queue.session.ring("save-work")
    queue.over("save-work", 4)
    assert len(queue.started) == SAVE_TRIES and "it is whole in quarantine" in queue.session.said[0]
    assert ask("SELECT outcome FROM incidents") == [("recovered",)]


def test_what_does_not_run_as_it_should_has_not_recovered(make, home, ask):
    home.incident("I")
    queue = make("good", "I")
    queue.session.why_not, queue.session.life.first_beat_at = "another image runs", home.now
    queue.after_launch()
    queue.over("save-work")
    assert (queue.session.stopped, queue.session.ending.trigger) == (1, "not-as-wanted")
    assert ask("SELECT outcome FROM incidents") == [("",)]


@pytest.mark.parametrize(
    ("beats", "since", "starts"),
    [(99, 900.0, True), (0, 900.0, False), (99, 0.0, False)],
    ids=["proven", "few", "young"],
)
def test_a_candidate_is_blessed_when_it_has_proven_itself(make, beats, since, starts):
    queue = make()
    queue.session.life.judge = SimpleNamespace(last_counted_at=1000.0, ready_at=1000.0 - since, counted=beats,
                                               progressed=True, phase="working", progress=None)  # fmt: skip
    queue._check_probation()
    assert queue.started == ([("bless", "1", "L1")] if starts else [])
    assert ("probation" in queue.session.timers) is not starts


@pytest.mark.parametrize(("since", "starts"), [(900.0, True), (0.0, False)], ids=["lasted", "young"])
def test_a_candidate_that_sends_no_heartbeats_has_to_live_for_its_duration(make, since, starts):
    queue = make()
    queue.session.life.judged_by, queue.session.life.looked_at = "process", 1000.0
    queue.session.life.judge = SimpleNamespace(last_counted_at=None, ready_at=1000.0 - since, counted=0,
                                               progressed=False, phase="working", progress=None)  # fmt: skip
    queue._check_probation()
    assert queue.started == ([("bless", "1", "L1")] if starts else [])


def test_a_candidate_that_lacks_the_life_of_good_code_has_its_time_to_show_it(make):
    queue = make()
    queue.session.life.judge, queue.session.lacks = None, ["output", "state"]
    queue._check_probation()
    assert "probation" in queue.session.timers and queue.session.ending is None
    assert queue.session.status.facts == {"lacks": "output or a write to its files"}
    queue.session.life.began -= 3600.0
    queue.session.ring("probation")
    trigger, reason = queue.session.ending
    assert trigger == "less-life" and "unlike generation 7" in reason and "agentctl bless 1" in reason


def test_one_that_has_to_be_confirmed_waits_however_well_it_looks(make, home):
    queue = make()
    writers.set_deadline(home.ledger, 1, home.now + 60)
    queue.session.life.judge = SimpleNamespace(last_counted_at=1000.0, ready_at=0.0, counted=99, progressed=True,
                                               phase="working", progress=None)  # fmt: skip
    queue._check_probation()
    assert queue.started == [] and "probation" in queue.session.timers


@pytest.mark.parametrize(("status", "trigger"), [(0, None), (3, "check-failed"), (1, None)])
def test_what_follows_a_blessing(make, home, status, trigger):
    queue = make()
    home.ledger.set_meta("check L1", "check failed: make test")
    queue._blessed(status)
    ending = queue.session.ending
    assert (ending and ending.trigger) == trigger and queue.session.stopped == (status == 3)
    assert queue.session.phase == ("steady" if status == 0 else "")
    assert ("probation" in queue.session.timers) == (status == 1)
    if ending:
        assert ending.reason == "check failed: make test"


@pytest.mark.parametrize(
    ("on_failure", "trigger", "started"), [("rollback", "not-confirmed", []), ("page", None, ["page"])]
)
def test_what_nobody_confirms_goes_back_or_somebody_is_paged(make, home, on_failure, trigger, started):
    queue = make()
    writers.set_promotion(home.ledger, 1, change="feature/x", on_failure=on_failure)
    queue._look_at_confirmation()
    assert queue.session.ending is None and queue.started == [], "it was confirmed"
    writers.set_deadline(home.ledger, 1, home.now - 1)
    queue._look_at_confirmation()
    ending = queue.session.ending
    assert (ending and ending.trigger) == trigger and [job for job, *_ in queue.started] == started
    assert ending is None or ending.end == models.FAILED


def test_jobs_of_one_kind_for_changes_follow_each_other(make):
    queue = make()
    queue.running["promote"] = None
    for name in ("feature/a", "feature/b", "feature/a"):
        queue.start_for_change("promote", name)
    queue.start_for_change("change-snapshot", "feature/c")
    assert queue.waiting == [("promote", "feature/a"), ("promote", "feature/b")]
    assert queue.started == [("change-snapshot", "feature/c")]
