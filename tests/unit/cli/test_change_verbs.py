"""Words for people about the parts of a gate and a trial, clean whatever a test or an agent has printed."""

import pytest

from agentctl.changes import rules
from agentctl.cli import change_verbs


@pytest.mark.parametrize(
    ("facts", "lines"),
    [
        ({"name": "lint", "ok": True, "seconds": 0.02, "said": "all\ngood"}, ["  ok      lint: good"]),
        ({"name": "tests", "ok": True, "seconds": 65, "said": ""}, ["  ok      tests (1m05s): "]),
        ({"name": "tests", "ok": False, "seconds": 2, "said": "one\n\x1b[31mtwo\x1b[0m"},
         ["  FAILED  tests (2s):", "          one", "          two"]),
        ({"name": "tests", "ok": False, "seconds": 0, "said": ""}, ["  FAILED  tests:", "          "]),
    ],
)  # fmt: skip
def test_how_a_part_of_the_gate_went(facts, lines):
    assert change_verbs.part_lines(facts) == lines


def test_a_part_that_says_much_takes_one_line():
    (line,) = change_verbs.part_lines({"name": "lint", "ok": True, "seconds": 0, "said": "x" * 500})
    assert len(line) == 80 and line.endswith("...")


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"ready": 1.5}, "  ready after 1.5s"),
        ({"ready": None}, "  ready after 0s"),
        ({"seconds": 12, "beats": 3}, "  12s: 3 heartbeats"),
        ({"lacks": "no \x1b[31mnamespace"},
         "  not closed off from the running agent, only led elsewhere: no namespace"),
    ],
)  # fmt: skip
def test_what_a_candidate_does(facts, line):
    assert change_verbs.progress(facts) == line


@pytest.mark.parametrize(("review", "verb"), [("none", "promote"), ("self", "review"), ("human", "review")])
def test_what_follows_a_trial_depends_on_who_reviews(review, verb):
    lines = change_verbs.held({"seconds": 60, "beats": 9, "log": "/log", "name": "feature/x"}, review, rules.Typist())
    assert lines == ["it held for 1m, 9 heartbeats", "all it printed: /log", f"next: agentctl change {verb} feature/x"]
