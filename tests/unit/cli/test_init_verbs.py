"""`agentctl init` and its kin, as far as they need no repository: what contradicts itself, presets, the protocol."""

import json

import pytest
from click.testing import CliRunner

from agentctl.changes import agent_files
from agentctl.cli import init_verbs
from agentctl.cli.invocation import Invocation
from agentctl.core.errors import AgentctlError, UsageError


def run(verb, *words, as_json=False):
    return CliRunner().invoke(verb, words, obj=Invocation("agent", as_json=as_json))


@pytest.mark.parametrize("words", [["--image", "x"], ["--engine", "unix:///x"], ["--compose-file", "x"]])
def test_what_is_for_containers_is_refused_without_one(home, tmp_path, words):
    done = run(init_verbs.init, str(tmp_path), "x", *words)
    assert isinstance(done.exception, UsageError) and "are for --runtime compose" in str(done.exception)


def test_a_preset_that_nobody_knows_is_refused_before_anything_is_done(home, tmp_path):
    done = run(init_verbs.init, str(tmp_path), "--preset", "nobody")
    assert isinstance(done.exception, AgentctlError) and "nobody" in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "data", "etc", "run"]


def test_the_presets_are_listed_and_shown(home):
    listed = json.loads(run(init_verbs.presets, "--json").output)
    names = [one["name"] for one in listed]
    assert "claude" in names and names == sorted(names)
    assert all(f"{name} " in run(init_verbs.presets).output for name in names)
    shown = run(init_verbs.presets, "show", "claude").output
    assert shown == open(listed[names.index("claude")]["path"], encoding="utf-8").read()  # noqa: SIM115
    assert json.loads(run(init_verbs.presets, "show", "claude", "--json").output) == listed[names.index("claude")]


def test_a_preset_of_one_s_own_is_listed_too(home):
    (home.root / "etc/presets").mkdir()
    shown = run(init_verbs.presets, "show", "claude").output
    (home.root / "etc/presets/mine.toml").write_text(shown)
    assert "mine" in [one["name"] for one in json.loads(run(init_verbs.presets, "--json").output)]
    assert init_verbs.config_folder() == str(home.root / "etc")


def test_the_protocol_needs_no_agent(monkeypatch):
    monkeypatch.setenv("AGENTCTL_ROOT", "/nowhere")
    assert run(init_verbs.protocol).output == agent_files.TEXT
    told = json.loads(run(init_verbs.protocol, as_json=True).output)
    assert told == {"file": agent_files.FILE_NAME, "text": agent_files.TEXT}
