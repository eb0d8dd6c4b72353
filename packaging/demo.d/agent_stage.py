"""The stage of `packaging/demo --agent`: a real agent behind a wrapper of its own, its model a script on loopback."""

import json
import os
import threading
import time

from mind import WISH, Mind
from stage import AGENTCTL, PACKAGING, Stage, StoryFailed, command

from model_api.server import Server

AGENTS = PACKAGING / "demo.d/agents"
PROMPTS = {"nanobot": "You:", "llm": ">"}
TASK = """# Current Task
Serve my person, and get better at it.

## Conversation Context
Nothing yet.

## Pending Actions

## State
Fresh.
"""
SETTINGS = {
    "agent.ready": "3s",
    "agent.ready_timeout": "120s",
    "heartbeat.timeout": "10s",
    "probation.duration": "2s",
    "probation.heartbeats": "1",
    "probation.tries": "1",
    "change.try_for": "2s",
    "change.lint": "[]",
    "change.tests": '["python3", "-m", "unittest", "--quiet"]',
}
READY_SECONDS = 120


class AgentStage(Stage):
    """The agent `kind` from the environment `venv`, adopted by its preset; the mind behind its model API."""

    def __init__(self, runtime, kind, venv, tell):
        super().__init__(runtime)
        self.kind, self.venv, self.home = kind, venv, self.folder / "home"
        self.mind = Mind(tell)
        self.model = Server(0, self.folder / "model")
        self.model.orders = self.mind
        threading.Thread(target=self.model.serve_forever, daemon=True).start()

    def set_up(self):
        self.folder.chmod(0o755)
        for folder in (self.agent, self.state, self.home):
            folder.mkdir()
        (self.state / "current_task.md").write_text(TASK)
        self.make_repository()
        if os.geteuid() == 0:  # an agent needs no rights of root's
            command(["chown", "-R", "nobody:", self.agent, self.state, self.home])
        self.agentctl("init", self.agent, "--preset", self.kind, "--state-dir", self.state, "--", "./start.py")
        self.settings = SETTINGS | {"agent.environment": self.variables()}
        for key, value in self.settings.items():
            self.agentctl("config", "set", key, value)

    def make_repository(self):
        """The agent's own source: a wrapper that sets it up and starts it."""
        words = {"@API@": f"http://127.0.0.1:{self.model.server_port}", "@TOOLS@": os.path.dirname(AGENTCTL)}
        for source in sorted((AGENTS / "wrapper").iterdir()) + sorted((AGENTS / self.kind).iterdir()):
            if source.is_file():
                text = source.read_text()
                for word, value in words.items():
                    text = text.replace(word, value)
                name = ".gitignore" if source.name == "gitignore" else source.name
                (self.agent / name).write_text(text)
        (self.agent / "start.py").chmod(0o755)
        git = ["git", "-C", self.agent]
        command([*git, "init", "--quiet", "--initial-branch=main"])
        for key, value in (("user.name", self.kind), ("user.email", "agent@localhost")):
            command([*git, "config", key, value])
        command([*git, "add", "--all"])
        command([*git, "commit", "--quiet", "-m", f"{self.kind} as it was set up by hand"])

    def variables(self):
        """What the agent needs, besides what the preset gives: its programs, agentctl, and a home it may write to."""
        known = json.loads(self.agentctl("config", "show", "--json"))["agent"]["environment"]
        path = f"{self.venv}/bin:{os.path.dirname(AGENTCTL)}:/usr/local/bin:/usr/bin:/bin"
        found = {**known, "HOME": str(self.home), "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in found.items()) + " }"

    def wish(self):
        """Type into the agent's terminal, once it waits there, as its person would."""
        deadline = time.monotonic() + READY_SECONDS
        while not (self.ask("status").get("phase") == "steady" and self.is_at_prompt()):
            if time.monotonic() > deadline:
                raise StoryFailed(f"{self.kind} was not at its prompt within {READY_SECONDS} s:\n{self.screen()}")
            time.sleep(0.1)
        text = WISH.format(code=self.agent)
        self.tmux("send-keys", "-t", "agent", "-l", text)
        self.tmux("send-keys", "-t", "agent", "Enter")
        return text

    def is_at_prompt(self):
        return self.screen().rstrip().split("\n")[-1].strip() == PROMPTS[self.kind].strip()

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", "agent")

    def tmux(self, *words):
        socket = f"{self.env['AGENTCTL_ROOT']}/run/{self.name}/tmux/server"
        return command(["tmux", "-u", "-S", socket, *words], check=False)

    def tear_down(self):
        self.model.shutdown()
        super().tear_down()
