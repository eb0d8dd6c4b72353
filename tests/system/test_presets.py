"""Agents from PyPI under the preset of their name: killed and rolled back, they are resumed and told why, once."""

import boxes
import foreign_agent
import pytest
from boxes import give_up
from foreign_agent import API_PORT, ForeignAgent, ModelApi, asked_in

SETTINGS = {
    "agent": {"ready_timeout": "60s"},
    "heartbeat": {"timeout": "10s"},
    "probation": {"duration": "2s", "heartbeats": 1, "tries": 1},
    "rollback": {"restarts": 20, "attempts": 20},
    "environment": {
        "paths": [".venv"],
        "lockfiles": ["requirements.txt"],
        "build": ["./build.sh"],
    },
}
NANOBOT_CONFIG = f"""{{
  "agents": {{"defaults": {{"provider": "custom", "model": "stand-in"}}}},
  "providers": {{"custom": {{"apiBase": "http://127.0.0.1:{API_PORT}/v1", "apiKey": "none"}}}}
}}
"""
LLM_MODELS = f"""- model_id: stand-in
  model_name: stand-in
  api_base: http://127.0.0.1:{API_PORT}/v1
"""
KINDS = {
    "llm": {"prompt": ">", "start": 'exec .venv/bin/llm "$@" -m stand-in', "command": ["./start.sh", "chat"],
            "file": "llm/extra-openai-models.yaml", "content": LLM_MODELS},
    "nanobot": {"prompt": "You:", "start": 'exec .venv/bin/nanobot "$@"', "command": ["./start.sh"],
                "file": "nanobot/config.json", "content": NANOBOT_CONFIG},
}  # fmt: skip


class PresetAgent(ForeignAgent):
    """A chat started by its preset; its source is a script of one line and the pins of its environment."""

    def __init__(self, box, api, source, kind):
        super().__init__(box, api, source, kind["prompt"], **SETTINGS)
        self.kind = kind

    def make_repository(self):
        super().make_repository()
        self.write(f"{self.code}/start.sh", f"#!/bin/sh\n{self.kind['start']}\n")
        self.shell('cd "$1"; chmod 755 start.sh; git add .; git commit -qm "Start it by a script of ours"')
        self.good = self.head
        return self

    def adopt(self, *options):
        self.ctl("init", "--no-hooks", self.code, "--user", self.owner, "--preset", self.source.name, *options,
                 "--", *self.kind["command"])  # fmt: skip
        self.write_settings()
        path = f"{self.state}/{self.kind['file']}"
        self.box.run(["sh", "-c", 'mkdir -p "${1%/*}"', "sh", path], user=self.owner)
        self.write(path, self.kind["content"])
        self.write(f"{self.state}/current_task.md", foreign_agent.TASK)
        return self


@pytest.fixture(scope="module", params=KINDS)
def agent(request):
    """An agent of that kind, adopted by its preset, running, its model API beside it; on one systemd."""
    try:
        root = boxes.find_root(boxes.wanted_roots()[0])
        wheels = foreign_agent.wheels_for(root, request.param)
        box = boxes.agentctl_box(root, shared=[(wheels, foreign_agent.WHEELS_INSIDE)])
    except boxes.Unavailable as error:
        return give_up(str(error))
    with box:
        box.boot()
        yield PresetAgent(box, ModelApi(box), request.param, KINDS[request.param]).make().start()


def messages(request):
    """Return what agentctl said in a request's conversation."""
    return [text for text in asked_in(request) if "[agentctl] You were restarted" in text]


def wait_told(agent, count):
    """Wait until the message has reached the model; return that request."""
    return agent.wait_until(lambda: next((r for r in agent.api.requests()[count:] if messages(r)), None), "the message")


def test_killed_it_is_resumed_and_told_why(agent):
    agent.wait_prompt()
    agent.converse("My code word is ALBATROSS")
    count = len(agent.api.requests())
    agent.wait_back(agent.kill())
    request = wait_told(agent, count)
    assert any("ALBATROSS" in text for text in asked_in(request))
    (message,) = messages(request)
    assert "killed by SIGKILL" in message
    assert "keep every code word" in message


def test_a_bad_commit_is_undone_and_it_is_told_what(agent):
    agent.wait_prompt()
    count, launch = len(agent.api.requests()), agent.status()["launch_id"]
    agent.shell("cd \"$1\"\nprintf '#!/bin/sh\\nexit 3\\n' >start.sh\ngit commit -qam 'Make it better'")
    agent.ctl("restart", check=False)
    agent.wait_back(launch, commit=agent.good)
    request = wait_told(agent, count)
    assert any("ALBATROSS" in text for text in asked_in(request))
    message = messages(request)[-1]
    assert "Your code went back from generation" in message
    assert f"{agent.state}/BRIEF.md" in message
    assert agent.head == agent.good


def test_it_is_told_once_a_launch(agent):
    agent.wait_prompt()
    agent.converse("My code word is BITTERN")
    said = messages(agent.converse("What is it?"))
    launches = agent.ask("incidents")
    assert len(said) == len({text for text in said})
    assert len(said) <= len(launches) + 1


def test_nothing_is_left_after_a_stop(agent):
    agent.systemctl("stop", agent.name)
    assert agent.processes() == []
