"""The stage of the demo: the example agent in a temporary folder, adopted, with a task.

Whatever it makes it takes away again in `tear_down`, except lines in the machine's journal.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import voices

PACKAGING = pathlib.Path(__file__).resolve().parent.parent
AGENTCTL = str(pathlib.Path(sys.executable).parent / "agentctl")
UNITS = ("", "-rollback", "-rescue")
HARMFUL, LAST = "speed up", "write note I am still here"
TASK = [
    "count words in README.md",
    "write note I can read",
    "improve myself",
    "count lines in skills.py",
    "rest 4",  # long enough for the improved version to be blessed
    HARMFUL,
    "count lines in agent.py",
    LAST,
]
SETTINGS = {
    "heartbeat.timeout": "3s",
    "probation.duration": "1s",
    "probation.heartbeats": "3",
    "probation.tries": "1",
}


class StoryFailed(Exception):
    """What should have happened did not."""


class Stage:
    """The example agent in a temporary folder, adopted, with a task. Leaves nothing behind."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.name = f"demo-{os.getpid()}" if runtime == "systemd" else "demo"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="agentctl-demo."))
        self.agent, self.state = self.folder / "agent", self.folder / "state"
        self.history = self.state / "history.jsonl"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("AGENT_", "AGENTCTL_"))}
        self.env |= {"AGENTCTL_ROOT": str(self.folder / "root"), "AGENTCTL_DEBUG": "1"}
        self.processes = []

    def set_up(self):
        self.folder.chmod(0o755)
        command([PACKAGING / "example_agent/create", self.agent, self.state])
        task = self.state / "current_task.md"
        head, rest = task.read_text().split("## Pending Actions\n")
        actions = "".join(f"- [ ] {action}\n" for action in TASK)
        task.write_text(f"{head}## Pending Actions\n{actions}\n## {rest.split('## ')[1]}")
        if os.geteuid() == 0:  # an agent needs no rights of root's
            command(["chown", "-R", "nobody:", self.agent, self.state])
        self.agentctl("init", "--no-hooks", self.agent, "--state-dir", self.state, "--", sys.executable, "agent.py")
        for key, value in SETTINGS.items():
            self.agentctl("config", "set", key, value)

    def start(self):
        """Start the agent; return the pipes to follow, each with its reader."""
        if self.runtime == "direct":
            pipe = subprocess.PIPE
            argv = [AGENTCTL, "--name", self.name, "supervise"]
            running = self.popen(argv, stdout=pipe, stderr=pipe)
            return [(running.stdout, voices.read_output), (running.stderr, voices.read_supervisor)]
        self.agentctl("install", "--no-enable")
        units = [f"--unit={self.name}{kind}" for kind in UNITS]
        argv = ["journalctl", "--follow", "--lines=0", "--output=json", *units]
        journal = self.popen(argv, stdout=subprocess.PIPE)
        self.agentctl("start")
        return [(journal.stdout, voices.read_journal)]

    def popen(self, argv, **options):
        self.processes.append(
            subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        )
        return self.processes[-1]

    def agentctl(self, *words, check=True):
        return command([AGENTCTL, "--name", self.name, *words], env=self.env, check=check)

    def ask(self, *words):
        return json.loads(self.agentctl(*words, "--json", check=False))

    def tear_down(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.runtime == "systemd":
            self.remove_units()
        shutil.rmtree(self.folder)

    def remove_units(self):
        self.agentctl("uninstall", check=False)
        names = [f"{self.name}{kind}.service" for kind in UNITS]
        command(["systemctl", "stop", *names], check=False)
        command(["systemctl", "reset-failed", *names], check=False)
        with contextlib.suppress(OSError):
            os.rmdir(f"/run/agentctl/{self.name}")
            os.rmdir("/run/agentctl")


def command(argv, check=True, env=None):
    """Run to the end; return what it printed."""
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise StoryFailed(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
