"""The agents from the npm registry that presets are for: fetched once, pinned, and how each is set up in a box.

A package is installed with npm into the cache, together with the node it wants (itself an npm package), and shown to
the box read-only: nothing is downloaded in there, where loopback is the only network.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import replace

import boxes
from foreign_agent import API_PORT
from preset_agents import Kind, PresetAgent

from kit import deadline

NODE = "node@24.21.0"
PINS = {
    "codex": "@openai/codex@0.169.0",
    "claude": "@anthropic-ai/claude-code@2.1.197",
    "gemini": "@google/gemini-cli@0.61.0",
    "opencode": "opencode-ai@1.18.33",
    "openclaw": "openclaw@2026.9.6",
}
INSTALL_SECONDS = 600
PATIENCE_SECONDS = 180  # node programs on a busy machine
LOOKS_PER_ENTER = 50
NODE_INSIDE, AGENT_INSIDE = "/opt/npm-node", "/opt/npm-agent"


def packages_for(name):
    """Return what to show the box: [(folder with the agent, its place), (folder with node, its place)]."""
    if shutil.which("npm") is None:
        raise boxes.Unavailable("there is no npm here; Debian has it as the package npm")
    node = _installed(NODE, os.environ["PATH"])
    agent = _installed(PINS[name], f"{node}/node_modules/.bin:{os.environ['PATH']}")
    return [(agent, AGENT_INSIDE), (node, NODE_INSIDE)]


def _installed(pin, path):
    """Return the folder in the cache that holds a package and all it needs."""
    key = hashlib.sha256(f"{NODE} {pin}".encode()).hexdigest()[:12]
    folder = boxes.machine.cache_folder() / f"npm-{key}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".npm-", dir=folder.parent) as place:
            made = f"{place}/made"
            os.makedirs(made)
            command = ["npm", "install", "--prefix", made, "--no-audit", "--no-fund", "--loglevel=error", pin]
            done = deadline.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS,
                                env={**os.environ, "PATH": path})  # fmt: skip
            if done.returncode:
                raise boxes.Unavailable(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            with contextlib.suppress(OSError):  # somebody else was faster
                os.rename(made, folder)
    return folder


# -- how each is set up ---------------------------------------------------------------------------

API = f"http://127.0.0.1:{API_PORT}"
KEY = "stand-in-key-of-no-use-anywhere"
EVENTS = ("SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd")
GEMINI_EVENTS = ("SessionStart", "BeforeAgent", "AfterTool", "AfterAgent", "SessionEnd")


def hooks(events):
    """The hooks section that Codex, Claude and Gemini all read."""
    return {event: [{"hooks": [{"type": "command", "command": "agentctl hook"}]}] for event in events}


CODEX_CONFIG = f"""model = "stand-in"
model_provider = "stand-in"
check_for_update_on_startup = false
approval_policy = "never"
sandbox_mode = "danger-full-access"

[model_providers.stand-in]
name = "stand-in"
base_url = "{API}/v1"
env_key = "STAND_IN_KEY"
wire_api = "responses"

[analytics]
enabled = false

[otel]
exporter = "none"

[projects."/srv/npm-agent"]
trust_level = "trusted"
"""
CLAUDE_STATE = {
    "hasCompletedOnboarding": True,
    "theme": "dark",
    "projects": {"/srv/npm-agent": {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
}
CLAUDE_SETTINGS = {"hooks": hooks(EVENTS), "permissions": {"allow": ["Bash"]}}
GEMINI_SETTINGS = {
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "general": {"disableAutoUpdate": True, "enableAutoUpdate": False},
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "tools": {"allowed": ["run_shell_command"]},
    "hooks": hooks(GEMINI_EVENTS),
}
OPENCODE_CONFIG = {
    "autoupdate": False,
    "share": "disabled",
    "model": "stand-in/stand-in",
    "small_model": "stand-in/stand-in",
    "provider": {"stand-in": {"npm": "@ai-sdk/openai-compatible", "name": "stand-in",
                              "options": {"baseURL": f"{API}/v1", "apiKey": KEY},
                              "models": {"stand-in": {"name": "stand-in"}}}},
}  # fmt: skip
OPENCLAW_CONFIG = {
    "gateway": {"mode": "local", "bind": "loopback", "auth": {"mode": "token", "token": KEY},
                "http": {"endpoints": {"chatCompletions": {"enabled": True}}}},
    "models": {"providers": {"stand-in": {"api": "openai-completions", "baseUrl": f"{API}/v1", "apiKey": KEY,
                                          "models": [{"id": "stand-in", "name": "stand-in"}]}}},
    "agents": {"defaults": {"model": {"primary": "stand-in/stand-in"}}},
    "update": {"checkOnStart": False},
}  # fmt: skip
ASK_OPENCLAW = f"""
import json, sys, urllib.request
body = {{"model": "openclaw", "messages": [{{"role": "user", "content": sys.argv[1]}}]}}
request = urllib.request.Request("http://127.0.0.1:18789/v1/chat/completions", json.dumps(body).encode(), {{
    "Authorization": "Bearer {KEY}", "Content-Type": "application/json",
    "x-openclaw-session-key": "agent:main:watched"}})
try:
    print(urllib.request.urlopen(request, timeout=150).read().decode())
except urllib.error.HTTPError as error:
    sys.exit(f"{{error}}: {{error.read().decode()}}")
"""
START = f"""PATH={AGENT_INSIDE}/node_modules/.bin:{NODE_INSIDE}/node_modules/.bin:$PATH
export PATH STAND_IN_KEY={KEY} ANTHROPIC_API_KEY={KEY} ANTHROPIC_BASE_URL={API}
export GEMINI_API_KEY={KEY} GOOGLE_GEMINI_BASE_URL={API}
"""
KINDS = {
    "codex": Kind("npm", r"^›", START + 'codex "$@"', ["./start.sh"],
                  {"~/.codex/config.toml": CODEX_CONFIG, "~/.codex/hooks.json": json.dumps({"hooks": hooks(EVENTS)})}),
    "claude": Kind("npm", r"^❯", START + 'claude "$@"', ["./start.sh"],
                   {"~/.claude.json": json.dumps(CLAUDE_STATE),
                    "~/.claude/settings.json": json.dumps(CLAUDE_SETTINGS)}),
    "gemini": Kind("npm", r"Type your message", START + 'gemini "$@" -m gemini-2.5-flash', ["./start.sh"],
                   {"~/.gemini/settings.json": json.dumps(GEMINI_SETTINGS)}),
    "opencode": Kind("npm", r"ctrl\+p", START + 'opencode "$@"', ["./start.sh"],
                     {"~/.config/opencode/opencode.json": json.dumps(OPENCODE_CONFIG)}, begins_with_store=True),
    "openclaw": Kind("npm", "", START + 'openclaw "$@"', ["./start.sh"],
                     {"openclaw/openclaw.json": json.dumps(OPENCLAW_CONFIG)}),
}  # fmt: skip


def make(name, box, api):
    """Return the agent of that name, not made yet."""
    return (OpenClaw if name == "openclaw" else NpmAgent)(box, api, name, KINDS[name])


class NpmAgent(PresetAgent):
    """An agent that has its settings, and mostly its sessions, in its user's home."""

    def __init__(self, box, api, preset, kind):
        super().__init__(box, api, preset, kind)
        self.settings["agent"]["ready_timeout"] = "2m"

    def adopt(self, *options):
        in_home = {name[2:]: text for name, text in self.kind.files.items() if name.startswith("~/")}
        self.kind = replace(self.kind, files={n: t for n, t in self.kind.files.items() if n[2:] not in in_home})
        super().adopt(*options)
        for name, text in in_home.items():
            path = f"/home/{self.owner}/{name}"
            self.box.run(["sh", "-c", 'mkdir -p "${1%/*}"', "sh", path], user=self.owner)
            self.write(path, text)
        return self

    def start(self):
        """Start the unit; what its program asks at the first start, its person answers."""
        super().start()
        if self.preset == "codex":
            self.wait_until(lambda: "Trust all and continue" in self.visible(), "the question about its hooks")
            self.tmux("send-keys", "-t", "agent", "2")
            self.wait_until(lambda: "› 2." in self.visible(), "the choice")
            self.tmux("send-keys", "-t", "agent", "Enter")
        return self

    def wait_until(self, is_true, what, timeout_seconds=PATIENCE_SECONDS):
        return super().wait_until(is_true, what, timeout_seconds)

    def wait_prompt(self):
        """Wait until it waits: these show their prompt while they work, too."""
        self.wait_until(lambda: self._is_at_prompt(self.visible()), "the prompt")

    def _is_at_prompt(self, shown):
        return re.search(self.prompt, shown, re.MULTILINE) and not re.search(
            r"esc (to )?(interrupt|cancel)", shown, re.IGNORECASE
        )

    def ask_model(self, text):
        """Type a line, and Enter once it is on the screen: both at once are taken for a paste that goes on."""
        count = len(self.api.requests())
        self.tmux("send-keys", "-t", "agent", "-l", text)
        self.wait_until(lambda: text in self.visible(), "the text on the screen")
        presses = iter(range(1_000_000))

        def is_asked():
            if next(presses) % LOOKS_PER_ENTER == 0:  # it may take the first for a new line
                self.tmux("send-keys", "-t", "agent", "Enter")
            return self.find_request(text, count)

        return self.wait_until(is_asked, f"a request with {text!r}")

    def find_request(self, text, count):
        """Return the first request, after so many, in which this was said last; one without tools is for a title."""
        requests = [r for r in self.api.requests()[count:] if r.get("tools")]
        return next((r for r in requests if r["asked"][-1].rstrip().endswith(text)), None)

    def wait_request(self, text, count):
        """Wait for the request, after the first `count`, that carries the text last: not one for a title."""
        return self.wait_until(lambda: self.find_request(text, count), f"a request with {text!r}")

    def begin_answer(self, text):
        self.wait_prompt()
        self.api.stall_next(f"{re.escape(text)}\\s*$")
        assert self.ask_model(text)["stalls"]

    def run_by_tool(self, command):
        """Have it run a command; not waited for: one waits itself until nobody holds the command's output."""
        self.api.script({"when": "Start it\\s*$", "shell": command, "say": "So I do."})
        self.wait_prompt()
        self.ask_model("Start it")


class OpenClaw(NpmAgent):
    """A gateway: talked to by HTTP, in one conversation; it goes on with an interrupted turn by itself."""

    is_told = False

    def wait_prompt(self):
        """It is ready when its unit is."""

    def find_request(self, text, count):
        """It puts notes of its own around what was said, and behind it."""
        return next((r for r in self.api.requests()[count:] if any(text in said for said in r["asked"])), None)

    def converse(self, text):
        """Ask until it answers: while it goes on with what was interrupted it may refuse (500)."""
        count = len(self.api.requests())
        answer = self.wait_until(lambda: self._ask(text), "an answer")
        assert "messages and know" in answer["choices"][0]["message"]["content"]
        return self.find_request(text, count)

    def _ask(self, text):
        done = self.box.run(["python3", "-c", ASK_OPENCLAW, text], check=False, timeout=PATIENCE_SECONDS)
        print(done.stderr[-300:])
        return json.loads(done.stdout) if done.returncode == 0 else None

    def begin_answer(self, text):
        count = len(self.api.requests())
        self.api.stall_next()
        self.box.run(["systemd-run", "--quiet", "--collect", "python3", "-c", ASK_OPENCLAW, text])
        assert self.wait_request(text, count)["stalls"]

    def run_by_tool(self, command):
        self.api.script({"shell": command, "say": "So I do."})
        self.converse("Start it")
