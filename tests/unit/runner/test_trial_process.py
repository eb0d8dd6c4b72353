"""What a trial's process leads its candidate to: the copy of the state, in whatever setting names it."""

import pytest

from agentctl.config import toml_file
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
    toml_file.write(str(path), {
        "agent": {"name": "robin", "code": "/srv/robin", "command": ["run", f"{STATE}/x"]},
        "state": {"dir": STATE}, "resume": {"store": ["~/.tool/*"], "proof": ["sessions/*"]},
    })  # fmt: skip
    seen = []
    monkeypatch.setattr(trial_process, "candidate", lambda name, plan, config: seen.append(config) or "context")
    plan = {"config": str(path), "cache": str(tmp_path / "cache"), "folder": str(tmp_path), "state": f"{STATE}/"}
    assert trial_process.open_context("robin", plan, []) == "context"
    config = seen[0]
    assert (config.agent.command, config.state.dir) == (["run", f"{tmp_path}/state/x"], f"{tmp_path}/state")
    assert (config.resume.store, config.resume.proof) == (["no-session-was-copied"], ["sessions/*"])
