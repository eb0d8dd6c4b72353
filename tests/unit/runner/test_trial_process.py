"""A trial leads its candidate to the copy of the state, and tells who asked for it line by line."""

import json
import os

import pytest

from agentctl.config import toml_edit
from agentctl.runner import trial_process

STATE = "/var/lib/agentctl/robin/state"


@pytest.mark.parametrize(
    ("value", "led"),
    [
        (STATE, "/trial/state"),
        (f"--file={STATE}/x.db", "--file=/trial/state/x.db"),
        (f"{STATE}/a:{STATE}/b", "/trial/state/a:/trial/state/b"),
        (f"{STATE}s/a", f"{STATE}s/a"),
        (f"{STATE}-old", f"{STATE}-old"),
        ("/elsewhere", "/elsewhere"),
        (["x", f"{STATE}/y"], ["x", "/trial/state/y"]),
        ({"HOME": STATE, "N": "1"}, {"HOME": "/trial/state", "N": "1"}),
        ([[f"{STATE}/deep"]], [["/trial/state/deep"]]),
        (5, 5),
        (None, None),
    ],
)
def test_what_names_the_state_is_led_to_the_copy(value, led):
    assert trial_process._led_to(value, STATE, "/trial/state") == led


@pytest.mark.parametrize(
    ("patterns", "own"),
    [
        ([], []),
        (["sessions/*"], ["sessions/*"]),
        (["/trial/state/sessions/*"], ["/trial/state/sessions/*"]),
        (["/home/robin/.tool/*"], ["no-session-was-copied"]),
        (["/aside/x", "/home/robin/.tool/*"], ["/aside/x"]),
    ],
)
def test_the_running_agent_s_sessions_are_not_the_candidate_s_to_resume(patterns, own):
    assert trial_process._own_sessions(patterns, ["/trial/state", "/aside"]) == own


def test_the_candidate_s_settings_are_those_of_the_agent_led_to_the_copy(tmp_path, monkeypatch):
    path = tmp_path / "agent.toml"
    toml_edit.write(str(path), {
        "agent": {"name": "robin", "code": "/srv/robin", "command": ["run", f"{STATE}/x"]},
        "state": {"dir": STATE}, "resume": {"store": ["~/.tool/*"], "proof": ["sessions/*"]},
    })  # fmt: skip
    seen = []
    monkeypatch.setattr(trial_process, "_candidate", lambda name, plan, config: seen.append(config) or "context")
    plan = {"config": str(path), "cache": str(tmp_path / "cache"), "folder": str(tmp_path), "state": f"{STATE}/"}
    assert trial_process._open_on_host("robin", plan, []) == "context"
    config = seen[0]
    assert (config.agent.command, config.state.dir) == (["run", f"{tmp_path}/state/x"], f"{tmp_path}/state")
    assert (config.resume.store, config.resume.proof) == (["no-session-was-copied"], ["sessions/*"])


def test_each_fact_is_one_line_of_json_and_no_child_inherits_the_pipe():
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    report = trial_process.TrialReport(write_end)
    assert not os.get_inheritable(write_end)
    report.tell(ready=1.5)
    report.tell(said="two\nlines")
    with open(read_end) as file:
        os.close(write_end)
        assert [json.loads(line) for line in file] == [{"ready": 1.5}, {"said": "two\nlines"}]


def test_once_nobody_listens_it_says_nothing_more():
    read_end, write_end = os.pipe()
    os.close(read_end)
    trial_process.TrialReport(write_end).tell(ready=1.5)
    os.close(write_end)


@pytest.mark.parametrize(("start", "end", "seconds"), [(1.0, 3.456, 2.46), (None, 3.0, None), (1.0, None, None)])
def test_a_time_that_has_no_end_is_none(start, end, seconds):
    assert trial_process._since(start, end) == seconds


def test_the_last_lines_are_told_and_the_stack_where_there_is_one():
    lines = [f"line {number}" + "x" * 400 for number in range(100)]
    told = trial_process._last(lines)
    assert len(told) == trial_process.SHOWN_LINES and told[-1].startswith("line 99") and max(map(len, told)) == 300
    stack = ["Traceback (most recent call last):", '  File "agent.py", line 7', "KeyError: 'x'"]
    assert trial_process._last([*lines, *stack]) == stack
