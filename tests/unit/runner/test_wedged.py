"""The steps against a busy agent without progress, as a table."""

import pytest

from agentctl.runner.wedged import EVIDENCE, INTERRUPT, TERMINATE, next_step


@pytest.mark.parametrize(("taken", "may_interrupt", "step", "share"), [
    ([], True, EVIDENCE, 0.5),
    ([EVIDENCE], True, INTERRUPT, 0.6),
    ([EVIDENCE], False, TERMINATE, 0.9),
    ([EVIDENCE, INTERRUPT], True, TERMINATE, 0.9),
    ([EVIDENCE, INTERRUPT], False, TERMINATE, 0.9),
    ([EVIDENCE, INTERRUPT, TERMINATE], True, "", 1.0),
    ([EVIDENCE, TERMINATE], False, "", 1.0),
])  # fmt: skip
def test_the_mildest_step_that_was_not_taken_is_next(taken, may_interrupt, step, share):
    assert next_step(taken, may_interrupt=may_interrupt) == (step, share)
