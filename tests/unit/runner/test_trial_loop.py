"""What a trial tells who asked for it, line by line, and how it shortens what is long."""

import json
import os

import pytest

from agentctl.runner import trial_loop


def test_each_fact_is_one_line_of_json_and_no_child_inherits_the_pipe():
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    report = trial_loop.TrialReport(write_end)
    assert not os.get_inheritable(write_end)
    report.tell(ready=1.5)
    report.tell(said="two\nlines")
    with open(read_end) as file:
        os.close(write_end)
        assert [json.loads(line) for line in file] == [{"ready": 1.5}, {"said": "two\nlines"}]


def test_once_nobody_listens_it_says_nothing_more():
    read_end, write_end = os.pipe()
    os.close(read_end)
    trial_loop.TrialReport(write_end).tell(ready=1.5)
    os.close(write_end)


@pytest.mark.parametrize(("start", "end", "seconds"), [(1.0, 3.456, 2.46), (None, 3.0, None), (1.0, None, None)])
def test_a_time_that_has_no_end_is_none(start, end, seconds):
    assert trial_loop._since(start, end) == seconds


def test_the_last_lines_are_told_and_the_stack_where_there_is_one():
    lines = [f"line {number}" + "x" * 400 for number in range(100)]
    told = trial_loop._last(lines)
    assert len(told) == trial_loop.SHOWN_LINES and told[-1].startswith("line 99") and max(map(len, told)) == 300
    stack = ["Traceback (most recent call last):", '  File "agent.py", line 7', "KeyError: 'x'"]
    assert trial_loop._last([*lines, *stack]) == stack
