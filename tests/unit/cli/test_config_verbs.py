"""The verbs of `agentctl config`."""

import json
import tomllib
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from agentctl.cli.config_verbs import group
from agentctl.config import reference, schema, toml_edit, toml_file
from unit.toml_samples import COMMENTED, MINIMAL


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "agent.toml"
    target.write_text(MINIMAL)
    return target


def run(path, *args, as_json=False):
    obj = SimpleNamespace(config_path=str(path), name="agent", as_json=as_json)
    return CliRunner().invoke(group, args, obj=obj)


def test_cli_show(path):
    toml_edit.set_value(str(path), "heartbeat.timeout", "5s")
    out = run(path, "show").output
    assert 'timeout = "5s"\n' in out
    assert 'longest_wait = "15m"  # default\n' in out
    assert toml_file.check(tomllib.loads(out)).values == toml_file.load(str(path)).values
    for result in (run(path, "show", "--json"), run(path, "show", as_json=True)):
        shown = json.loads(result.output)
        assert shown["heartbeat"]["timeout"] == "5s"
        assert "heartbeat.from" in shown["defaults"]
        assert "heartbeat.timeout" not in shown["defaults"]


def test_cli_check(path):
    assert (run(path, "check").exit_code, run(path, "check", "--json").exit_code) == (0, 0)
    path.write_text("[agent]\n")
    assert isinstance(run(path, "check").exception, toml_file.ConfigError)
    result = run(path, "check", "--json")
    assert result.exit_code == 1
    assert [m["key"] for m in json.loads(result.output)["mistakes"]] == [
        "agent.code",
        "agent.command",
    ]


def test_cli_sample(path):
    assert run(path, "sample").output == reference.sample()
    assert len(json.loads(run(path, "sample", "--json").output)) == len(schema.TABLE)


def test_cli_set(path):
    assert "agentctl install" in run(path, "set", "heartbeat.timeout", "5s").output
    changed = json.loads(run(path, "set", "heartbeat.timeout", "6s", "--json").output)
    assert (changed["old"], changed["new"], changed["applies"]) == ("5s", "6s", "install")
    assert isinstance(run(path, "set", "probation.tries", "-1").exception, toml_file.ConfigError)
    path.write_text(COMMENTED)
    assert f"{path}.before" in run(path, "set", "agent.command", "python3 other.py").output
