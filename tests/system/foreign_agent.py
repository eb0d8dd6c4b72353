"""An agent that nobody here wrote, in a box: its wheels, the model API it talks to, a hand on its keyboard.

`foreign/NAME/` is the source that an owner of such an agent would keep: it pins and configures it. It is
installed without network; the model API is a stand-in on the box's own loopback.
"""

import contextlib
import json
import re

import agent_wheels
import boxes
from boxed_world import World

SOURCES = agent_wheels.SOURCES
WHEELS_INSIDE = "/opt/agent-wheels"
API_INSIDE = f"{boxes.SOURCE_INSIDE}/tests"
API_FOLDER, API_PORT = "/var/lib/model-api", 8100
MAKE_REPOSITORY = """
cd "$1"
git init -q -b main
git config user.name Somebody
git config user.email somebody@example.invalid
git add .
git commit -qm 'The chat as it works'
"""
BUILD_SECONDS = 600
TASK = """# Current Task
Keep the code words safe.

## Conversation Context
Nothing yet.

## Pending Actions
- [ ] keep every code word

## State
Fresh.
"""


# -- what has to be there -------------------------------------------------------------------------


def wheels_for(root, name):
    """Return a folder of wheels of what `name` pins, for the Python of that root. Raise Unavailable."""
    try:
        return agent_wheels.fetch(root, name, boxes.machine.cache_folder())
    except agent_wheels.CannotDownload as error:
        raise boxes.Unavailable(str(error)) from error


class ModelApi:
    """The stand-in as a service of the box; what it was asked is read from its folder."""

    def __init__(self, box):
        self.box, self.folder = box, box.path(API_FOLDER)
        serve = ["/usr/bin/python3", "-B", "-m", "model_api", f"--port={API_PORT}", f"--folder={API_FOLDER}"]
        box.run(["systemd-run", "--quiet", "--unit=model-api", f"--working-directory={API_INSIDE}", *serve])
        look = f"import socket; socket.create_connection(('127.0.0.1', {API_PORT}))"
        boxes.wait_until(lambda: not box.run(["python3", "-c", look], check=False).returncode,
                         what="the model API")  # fmt: skip

    def requests(self):
        return [line for line in self._lines() if "path" in line]

    def answered(self):
        """Return the ids of the requests whose answers went out whole."""
        return {line["answered"] for line in self._lines() if "answered" in line}

    def _lines(self):
        with contextlib.suppress(FileNotFoundError):
            whole = (self.folder / "requests.jsonl").read_text().rpartition("\n")[0]  # the last may be half written
            return [json.loads(line) for line in whole.splitlines()]
        return []

    def stall_next(self, pattern=""):
        """Have the next answer, to a message that fits, stop half-way, for ever."""
        self._leave("stall", pattern)

    def script(self, *steps):
        """Have the next answers be these steps (`model_api/orders.py`)."""
        folder = self.folder / "script"
        folder.mkdir(exist_ok=True)
        for step in steps:
            self._leave(f"script/{len(list(folder.iterdir())):04d}.json", json.dumps(step))

    def _leave(self, name, text):
        """Put an order in its place whole: a request may look at any moment."""
        path = self.folder / f"{name}.new"
        path.write_text(text)
        path.rename(self.folder / name)


def said_in(request):
    """Return all that a request says to the model."""
    return json.dumps(request["body"])


def asked_in(request):
    """Return what the user says in a request, message by message."""
    return request["asked"]


# -- the agent ------------------------------------------------------------------------------------


class ForeignAgent(World):
    """A chat called `name`, its source adopted at /srv/NAME, and its terminal."""

    def __init__(self, box, api, source, prompt, **settings):
        super().__init__(box, f"{source}-agent", owner="keeper", **settings)
        self.api, self.source, self.prompt = api, SOURCES / source, prompt

    def make_repository(self):
        if self.box.run(["id", self.owner], check=False).returncode:
            self.box.run(["useradd", "-m", self.owner])
        inside = f"{boxes.SOURCE_INSIDE}/{self.source.relative_to(boxes.CHECKOUT)}"
        self.box.run(["cp", "-r", inside, self.code])
        self.box.run(["chown", "-R", f"{self.owner}:", self.code])
        wheels = self.box.run(["ls", WHEELS_INSIDE]).stdout.splitlines()
        self.write(f"{self.code}/requirements.txt", agent_wheels.pins_of(wheels, self.source.name))
        self.shell(MAKE_REPOSITORY)
        self.box.run(["./build.sh"], user=self.owner, cwd=self.code, timeout=BUILD_SECONDS)
        self.good = self.head
        return self

    def adopt(self, *options):
        self.ctl("init", "--no-hooks", self.code, "--user", self.owner, *options, "--", "./run.sh")
        self.write_settings()
        self.write(f"{self.state}/current_task.md", TASK)
        return self

    def write(self, path, text):
        """Write a file as the owner."""
        self.box.run(["sh", "-c", 'cat >"$1"', "sh", path], user=self.owner, input=text)

    # -- at its keyboard --------------------------------------------------------------------------

    def tmux(self, *words):
        socket = f"/run/agentctl/{self.name}/tmux/server"
        return self.box.run(["tmux", "-u", "-S", socket, *words]).stdout

    def type(self, text):
        """Type a line, as somebody attached to the session would."""
        self.tmux("send-keys", "-t", "agent", "-l", text)
        self.tmux("send-keys", "-t", "agent", "Enter")

    def screen(self):
        return self.tmux("capture-pane", "-p", "-J", "-S", "-", "-t", "agent")

    def wait_prompt(self):
        self.wait_until(lambda: re.search(rf"^{self.prompt}\s*$", self.screen(), re.MULTILINE), "the prompt")

    def ask_model(self, text):
        """Type a line; return the request it made."""
        count = len(self.api.requests())
        self.type(text)
        return self.wait_until(lambda: self.api.requests()[count:], "a request to the model")[0]

    def converse(self, text):
        """Type a line and wait for the whole answer on the screen; return the request."""
        answers = self.screen().count("code words:")
        request = self.ask_model(text)
        self.wait_until(lambda: self._has_answered(answers), "the answer")
        return request

    def begin_answer(self, text):
        """Type a line and wait for the first half of an answer that stalls."""
        self.api.stall_next()
        assert self.ask_model(text)["stalls"]
        self.wait_until(lambda: self.screen().rstrip().endswith("of your"), "half an answer")

    def _has_answered(self, answers_before):
        _, *answers = self.screen().split("code words:")
        return len(answers) > answers_before and re.search(rf"\s\.\s+{self.prompt}\s*$", answers[-1])

    def command_line(self):
        """Return the command line of the agent's own process."""
        pid = self.status()["agent"]["pid"]
        return self.box.run(["cat", f"/proc/{pid}/cmdline"]).stdout.replace("\0", " ")

    # -- what is done to it -----------------------------------------------------------------------

    def kill(self, signal="KILL"):
        """Signal the agent's own process, behind everybody's back; return the launch it was."""
        status = self.status()
        self.box.run(["kill", f"-{signal}", str(status["agent"]["pid"])])
        return status["launch_id"]

    def processes(self):
        """List what runs as the agent's user or in its unit."""
        listed = self.box.run(["ps", "-eo", "user:32,cgroup,args"]).stdout.splitlines()
        return [row for row in listed if row.startswith(self.owner) or f"{self.name}.service" in row]

    def wait_back(self, launch, **facts):
        """Wait for a later launch that is well and at its prompt; return the status."""
        status = self.wait_until(lambda: self._is_back(launch, facts), "the next launch")
        self.wait_prompt()
        return status

    def _is_back(self, launch, facts):
        status = self.status()
        wanted = {"phase": "steady", **facts}
        is_new = status["launch_id"] not in ("", launch) and status["last_heartbeat_at"]
        is_so = all(status[key] == value for key, value in wanted.items())
        return status if is_new and is_so else None
