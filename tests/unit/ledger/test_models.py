"""What a decision is made of: names of changes, bounds, and how a decision reads."""

from types import SimpleNamespace

import pytest

from agentctl.core.errors import UsageError
from agentctl.ledger import models

PREFIXES = ["feature/", "hotfix/"]


@pytest.mark.parametrize("name", ["feature/x", "hotfix/a-b.c_d", "feature/deep/er", "feature/X9"])
def test_names_that_are_allowed(name):
    assert models.check_name(name, PREFIXES) == name


@pytest.mark.parametrize("name", [
    "x", "main", "feature/", "feature/../x", "feature/a b", "feature/.x", "feature/x.lock", "feature/x/", "feature//x",
    "feature/-x", "feature/" + "x" * 100, "feature/\u00e9", "feature/$(id)", "rescue/x", "feature/x.",
])  # fmt: skip
def test_names_that_are_refused(name):
    with pytest.raises(UsageError) as told:
        models.check_name(name, PREFIXES)
    assert told.value.hint


def test_where_no_prefix_is_allowed_no_name_is():
    with pytest.raises(UsageError, match=r"nothing: change\.prefixes is empty"):
        models.check_name("feature/x", [])


def test_the_bounds_are_those_of_the_settings():
    bounds = models.RollbackLimits.of_settings(SimpleNamespace(restarts=1, window=2.5, attempts=3, per_day=4))
    assert (bounds.restarts, bounds.window_seconds, bounds.attempts, bounds.per_day) == (1, 2.5, 3, 4)


def test_a_decision_reads_as_what_is_done_and_why():
    decision = models.Decision(
        action=models.ROLLBACK, reason="no tries left", rung="last known good", target=3, condemn=4
    )
    told = repr(decision)
    assert told.startswith("Decision(action='rollback', reason='no tries left', rung='last known good', target=3")


def test_the_words_for_how_a_launch_ends_are_different_and_only_one_that_runs_has_none():
    ends = [models.RUNNING, models.STOPPED, models.FAILED, models.ASKED, models.REFUSED, models.LOST, models.REBOOTED]
    assert len(set(ends)) == len(ends) and [end for end in ends if not end] == [models.RUNNING]
