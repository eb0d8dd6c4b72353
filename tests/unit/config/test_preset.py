"""The presets: each is whole and valid, a user's own wins, a broken one says what is wrong."""

from pathlib import Path

import pytest

from agentctl.config import preset, schema
from agentctl.core.errors import AgentctlError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "agents"
OURS = preset.names("/nonexistent")


def test_the_agents_people_run_are_there():
    assert {"llm", "nanobot", "aider", "hermes", "hermes-gateway", "codex", "claude", "gemini", "opencode", "openclaw",
            "openhands", "generic"} <= set(OURS)  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_each_is_a_valid_configuration(name):
    found = preset.find(name, "/nonexistent")
    values = found.settings_for("/srv/state", "/home/agent")
    values["agent"] = {"command": ["x"], **values.get("agent", {}), "code": "/srv/agent"}
    assert schema.validate(values)[1] == []
    assert found.about
    assert found.comes_back
    assert found.does_not_come_back
    assert found.verified or found.level == "documented"


@pytest.mark.parametrize("name", OURS)
def test_each_resumes_with_a_command_that_takes_its_message(name):
    found = preset.find(name, "/nonexistent").settings
    resume, agent = found.get("resume", {}), found.get("agent", {})
    words = " ".join(agent.get("resume_command", []))
    assert ("{message}" in words) == (resume.get("message") == "argument")
    if "{session}" in " ".join(agent.get("command", [])):
        assert "{session}" in words


@pytest.mark.parametrize("name", OURS)
def test_each_has_its_page(name):
    page = (DOCS / f"{name}.md").read_text()
    assert f"--preset {name}" in page
    found = preset.find(name, "/nonexistent")
    assert found.comes_back in page
    assert found.does_not_come_back in page
    assert not found.verified or found.verified in page


def test_a_users_own_wins(tmp_path):
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets/llm.toml").write_text('about = "mine"\n[settings.agent]\ncommand = ["{home}/llm"]\n')
    found = preset.find("llm", str(tmp_path))
    assert found.about == "mine"
    assert found.settings_for("/s", "/home/x")["agent"]["command"] == ["/home/x/llm"]


LLM, LLM_RESUME = ["llm", "chat"], ["llm", "chat", "-c"]


@pytest.mark.parametrize(
    ("argv", "command", "resume", "wanted"),
    [
        ([], LLM, LLM_RESUME, (LLM, LLM_RESUME)),
        (["/opt/llm"], LLM, LLM_RESUME, (["/opt/llm", "chat"], ["/opt/llm", "chat", "-c"])),
        (["x", "chat", "-m", "m"], LLM, LLM_RESUME, (["x", "chat", "-m", "m"], ["x", "chat", "-m", "m", "-c"])),
        (["c", "--fast"], ["claude", "-i", "s"], ["claude", "-r", "s"], (["c", "--fast"], [])),
        (["/opt/x"], ["x"], [], (["/opt/x"], [])),
        (["x", "y"], ["x"], [], (["x", "y"], [])),
        (["x", "y"], [], [], (["x", "y"], [])),
    ],
)
def test_a_command_of_ones_own(argv, command, resume, wanted):
    assert preset.put_command(argv, command, resume) == wanted


def test_an_unknown_name_names_the_known():
    with pytest.raises(AgentctlError) as error:
        preset.find("../../etc/passwd", "/nonexistent")
    assert "llm" in error.value.hint


def test_everything_wrong_is_said_at_once(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('abuot = "x"\nlevel = "sure"\n[settings.agent]\nready = 5\n[settings.heartbeat]\nfrom = "magic"\n')
    with pytest.raises(AgentctlError) as error:
        preset.read("x", str(path))
    for word in ("abuot", "level", "agent.ready", "heartbeat.from"):
        assert word in error.value.message
