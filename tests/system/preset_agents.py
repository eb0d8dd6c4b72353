"""The agents from PyPI that presets are for: how each is set up in a box, talked to, and told to run a command."""

import json
import re
from dataclasses import dataclass, field

import foreign_agent
from foreign_agent import API_PORT, ForeignAgent

SETTINGS = {
    "agent": {"ready_timeout": "120s"},
    "heartbeat": {"timeout": "15s"},
    "probation": {"duration": "2s", "heartbeats": 1, "tries": 1},
    "rollback": {"restarts": 20, "attempts": 20},
    "environment": {"paths": [".venv"], "lockfiles": ["requirements.txt"], "build": ["./build.sh"]},
}
API = f"http://127.0.0.1:{API_PORT}/v1"
LLM_MODELS = f"""- model_id: stand-in
  model_name: stand-in
  api_base: {API}
  supports_tools: true
"""
LLM_TOOLS = """import subprocess


def shell(command: str) -> str:
    "Run a command."
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout
"""
NANOBOT_CONFIG = f"""{{
  "agents": {{"defaults": {{"provider": "custom", "model": "stand-in"}}}},
  "providers": {{"custom": {{"apiBase": "{API}", "apiKey": "none"}}}}
}}
"""
HERMES_CONFIG = f"""model:
  provider: custom
  default: stand-in
  base_url: {API}
  api_key: none
security:
  tirith_enabled: false
approvals:
  mode: off
"""
HERMES_HOOKS = "hooks:\n" + "".join(
    f"  {event}:\n    - command: agentctl hook\n"
    for event in ("pre_llm_call", "pre_tool_call", "post_tool_call", "post_llm_call", "on_session_end")
)
GATEWAY_PORT, GATEWAY_KEY = 8642, "k" * 40
GATEWAY_CONFIG = "gateway:\n  systemd_watchdog_seconds: 5\n"
GATEWAY_KEYS = f"API_SERVER_KEY={GATEWAY_KEY}\nAPI_SERVER_PORT={GATEWAY_PORT}\n"
ASK_GATEWAY = f"""
import json, sys, urllib.request
body = {{"model": "hermes-agent", "messages": [{{"role": "user", "content": sys.argv[1]}}]}}
request = urllib.request.Request("http://127.0.0.1:{GATEWAY_PORT}/v1/chat/completions", json.dumps(body).encode(), {{
    "Authorization": "Bearer {GATEWAY_KEY}", "Content-Type": "application/json", "X-Hermes-Session-Id": "watched"}})
print(urllib.request.urlopen(request, timeout=170).read().decode())
"""
BREAK_HERMES = """.venv/bin/python -c 'import sqlite3
store = sqlite3.connect("'$HERMES_HOME'/state.db")
store.executescript("DROP TABLE messages; DROP TABLE sessions")'"""
DETACHED = 'subprocess.Popen(["sleep", "4444"], start_new_session=True, stdout=-3, stderr=-3)'  # to DEVNULL
STRAY = f"tmux -L stray new-session -d 'sleep 3333'; python3 -c 'import subprocess; {DETACHED}'"


@dataclass
class Kind:
    """What has to be known of one agent to watch it: data."""

    source: str
    prompt: str  # what its screen shows when it waits for its person
    start: str  # the last line of its start script
    command: list[str]
    files: dict[str, str] = field(default_factory=dict)  # in the state folder
    code: dict[str, str] = field(default_factory=dict)  # in the repository
    break_store: str = ""  # what a bad new version does to its session store
    keeps_unanswered: bool = True
    begins_with_store: bool = False  # it makes its session files when it starts, not when something is said
    has_tools: bool = True


KINDS = {
    "llm": Kind("llm", r"^>\s*\Z", '.venv/bin/llm "$@" -m stand-in --functions tools.py', ["./start.sh", "chat"],
                {"llm/extra-openai-models.yaml": LLM_MODELS}, {"tools.py": LLM_TOOLS}, keeps_unanswered=False,
                begins_with_store=True,
                break_store='for table in turns messages responses; do .venv/bin/sqlite-utils drop-table '
                            '"$LLM_USER_PATH/logs.db" $table --ignore; done'),
    "nanobot": Kind("nanobot", r"^You:\s*\Z", '.venv/bin/nanobot "$@"', ["./start.sh"],
                    {"nanobot/config.json": NANOBOT_CONFIG}),
    "aider": Kind("aider", r"^>\s*\Z",
                  f"export OPENAI_API_BASE={API} OPENAI_API_KEY=none\n"
                  '.venv/bin/aider "$@" --model openai/stand-in --no-show-model-warnings --map-tokens 0',
                  ["./start.sh"], has_tools=False, begins_with_store=True),
    "hermes": Kind("hermes", r"^❯\s*$", '.venv/bin/hermes "$@"', ["./start.sh"],
                   {"hermes/config.yaml": HERMES_CONFIG + HERMES_HOOKS}, break_store=BREAK_HERMES),
    "hermes-gateway": Kind("hermes", "", '.venv/bin/hermes "$@"', ["./start.sh"],
                           {"hermes/config.yaml": HERMES_CONFIG + GATEWAY_CONFIG, "hermes/.env": GATEWAY_KEYS},
                           break_store=BREAK_HERMES),
}  # fmt: skip


def make(name, box, api):
    """Return the agent of that name, not made yet."""
    return (GatewayAgent if name == "hermes-gateway" else PresetAgent)(box, api, name, KINDS[name])


class PresetAgent(ForeignAgent):
    """A chat started by its preset; its source is a start script and the pins of its environment."""

    def __init__(self, box, api, preset, kind):
        super().__init__(box, api, kind.source, kind.prompt, **SETTINGS)
        del self.settings["heartbeat"]["from"]  # its preset has a word of its own
        self.preset, self.kind = preset, kind
        self.told = []  # the messages it was to get, one for each launch

    def make_repository(self):
        super().make_repository()
        for path, text in {"start.sh": f"#!/bin/sh\n{self.kind.start}\n", **self.kind.code}.items():
            self.write(f"{self.code}/{path}", text)
        self.shell('cd "$1"; chmod 755 start.sh; git add .; git commit -qm "Start it by a script of ours"')
        self.good = self.head
        return self

    def adopt(self, *options):
        self.ctl("init", "--no-hooks", self.code, "--user", self.owner, "--preset", self.preset, *options,
                 "--", *self.kind.command)  # fmt: skip
        self.write_settings()
        for name, text in self.kind.files.items():
            path = f"{self.state}/{name}"
            self.box.run(["sh", "-c", 'mkdir -p "${1%/*}"', "sh", path], user=self.owner)
            self.write(path, text)
        self.write(f"{self.state}/current_task.md", foreign_agent.TASK)
        return self

    @property
    def is_told(self):
        """Tell whether it gets the message that says why it was restarted."""
        return self.preset != "hermes-gateway"

    def table(self):
        """Return what runs as its user or in its unit: command lines by process id."""
        rows = self.box.run(["ps", "-eo", "pid:9,user:32,cgroup:512,args"]).stdout.splitlines()[1:]
        cells = [row.split(None, 3) for row in rows]
        unit = f"/{self.name}.service"
        return {int(pid): args for pid, user, cgroup, args in cells if user == self.owner or unit in cgroup}

    def kill(self, signal="KILL"):
        """Signal the agent and what runs in front with it, behind everybody's back; return the launch it was.

        Its start script waits for it and is killed along, but not stopped: tmux would wake up what it started itself.
        """
        status = self.status()
        leader = status["agent"]["pid"]
        rows = self.box.run(["ps", "-eo", "pid,pgid"]).stdout.split()[2:]
        group = [int(pid) for pid, group in zip(rows[::2], rows[1::2], strict=True) if int(group) == leader]
        pids = [str(pid) for pid in group if signal != "STOP" or pid != leader]
        some_may_be_gone = 'for pid; do kill "$0" "$pid" || [ ! -e "/proc/$pid" ]; done'
        self.box.run(["sh", "-ec", some_may_be_gone, f"-{signal}", *pids])
        return status["launch_id"]

    # -- at its keyboard --------------------------------------------------------------------------

    def visible(self):
        """Return what its terminal shows now, without what is below the last line."""
        return self.tmux("capture-pane", "-p", "-J", "-t", "agent").rstrip()

    def wait_prompt(self):
        self.wait_until(lambda: re.search(self.prompt, self.visible(), re.MULTILINE), "the prompt")

    def ask_model(self, text):
        """Type a line; return the request that carries it as the newest that was said."""
        count = len(self.api.requests())
        self.type(text)
        return self.wait_request(text, count)

    def wait_request(self, text, count):
        """Wait for a request, after the first `count`, whose newest message has a line that begins with the text."""

        def seen():
            fits = (r for r in self.api.requests()[count:] if f"\n{text}" in f"\n{r.get('newest', '')}")
            return next(fits, None)

        return self.wait_until(seen, f"a request with {text!r}")

    def converse(self, text):
        """Type a line and wait for the whole answer; return the request."""
        self.wait_prompt()
        request = self.ask_model(text)
        self.wait_until(lambda: request["id"] in self.api.answered(), "the whole answer")
        self.wait_prompt()
        return request

    def begin_answer(self, text):
        """Type a line and wait until the model has stopped in the middle of its answer."""
        self.wait_prompt()
        self.api.stall_next(f"(?m)^{re.escape(text)}")
        assert self.ask_model(text)["stalls"]

    def run_by_tool(self, command):
        """Have it run a shell command: by its own tool where it has one, else by its person's `/run`."""
        if not self.kind.has_tools:
            self.wait_prompt()
            self.type(f"/run {command}")
            return
        self.api.script({"when": "^Start it", "shell": command, "say": "So I do."})
        self.converse("Start it")


class GatewayAgent(PresetAgent):
    """An agent that is talked to by HTTP, in one conversation."""

    def wait_prompt(self):
        """It is ready when it says so by sd_notify, which `start` and `wait_back` wait for."""

    def converse(self, text):
        count = len(self.api.requests())
        answer = json.loads(self.box.run(["python3", "-c", ASK_GATEWAY, text], timeout=180).stdout)
        request = self.wait_request(text, count)
        assert "messages and know" in answer["choices"][0]["message"]["content"]
        return request

    def begin_answer(self, text):
        count = len(self.api.requests())
        self.api.stall_next(f"(?m)^{re.escape(text)}")
        self.box.run(["systemd-run", "--quiet", "--collect", "python3", "-c", ASK_GATEWAY, text])
        assert self.wait_request(text, count)["stalls"]
