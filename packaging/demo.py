"""The story that packaging/demo tells: run it with the Python that has agentctl.

It starts the example agent with a task, shows what everybody says as it happens, and takes the
timeline from the ledger's answers (`agentctl incidents --json`) and from the journal. It refuses to
guess: what it did not see it does not print, and a story that did not happen is exit status 1.
"""

import argparse
import contextlib
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from datetime import datetime

HERE = pathlib.Path(__file__).resolve().parent
AGENTCTL = str(pathlib.Path(sys.executable).parent / "agentctl")
UNITS = ("", "-rollback", "-rescue")
LIMIT_SECONDS = 55
HOLD_SECONDS = 0.5
HARMFUL, LAST = "speed up", "write note I am still here"
TASK = [
    "count words in README.md",
    "write note I can read",
    "improve myself",
    "count lines in skills.py",
    "rest 3",  # long enough for the improved version to be blessed
    HARMFUL,
    "count lines in agent.py",
    LAST,
]
SETTINGS = {
    "heartbeat.timeout": "3s",
    "probation.duration": "2s",
    "probation.heartbeats": "3",
    "probation.tries": "1",
}
DULL = ("Consumed ", "Deactivated successfully", "Main process exited", "Starting ", "Stopped ")


class StoryFailed(Exception):
    """What should have happened did not."""


# -- the stage ------------------------------------------------------------------------------------


class Stage:
    """The example agent in a temporary folder, adopted, with a task. Leaves nothing behind."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.name = f"demo-{os.getpid()}" if runtime == "systemd" else "demo"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="agentctl-demo."))
        self.agent, self.state = self.folder / "agent", self.folder / "state"
        self.history = self.state / "history.jsonl"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("AGENT_", "AGENTCTL_"))}
        self.env |= {"AGENTCTL_ROOT": str(self.folder / "root")}
        self.processes = []

    def set_up(self):
        self.folder.chmod(0o755)
        command([HERE / "example_agent/create", self.agent, self.state])
        task = self.state / "current_task.md"
        head, rest = task.read_text().split("## Pending Actions\n")
        actions = "".join(f"- [ ] {action}\n" for action in TASK)
        task.write_text(f"{head}## Pending Actions\n{actions}\n## {rest.split('## ')[1]}")
        if os.geteuid() == 0:  # an agent needs no rights of root's
            command(["chown", "-R", "nobody:", self.agent, self.state])
        self.agentctl("init", self.agent, "--state-dir", self.state, "--", sys.executable, "agent.py")
        for key, value in SETTINGS.items():
            self.agentctl("config", "set", key, value)

    def start(self):
        """Start the agent; return the pipes to follow, each with its reader."""
        if self.runtime == "direct":
            pipe = subprocess.PIPE
            argv = [AGENTCTL, "--name", self.name, "supervise"]
            running = self.popen(argv, stdout=pipe, stderr=pipe)
            return [(running.stdout, read_output), (running.stderr, read_supervisor)]
        self.agentctl("install", "--no-enable")
        units = [f"--unit={self.name}{kind}" for kind in UNITS]
        argv = ["journalctl", "--follow", "--lines=0", "--output=json", *units]
        journal = self.popen(argv, stdout=subprocess.PIPE)
        self.agentctl("start")
        return [(journal.stdout, read_journal)]

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
                process.wait(30)
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
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode:
        raise StoryFailed(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


# -- who says what --------------------------------------------------------------------------------


def read_journal(line):
    """Return (at, who, what) of a line of `journalctl -o json`."""
    entry = json.loads(line)
    at, what = int(entry["__REALTIME_TIMESTAMP"]) / 1e6, str(entry.get("MESSAGE"))
    if entry.get("_PID") == "1":
        return at, "systemd", what.split(" - ")[0]
    if entry.get("SYSLOG_IDENTIFIER", "").endswith("-rollback"):
        return at, "rollback", what.removeprefix("agentctl: ")
    return at, *speaker(what)


def read_supervisor(line):
    return time.time(), "watchdog", line.strip().removeprefix("agentctl: ")


def read_output(line):
    """One stream for all: without systemd nobody keeps them apart."""
    at, what = time.time(), line.rstrip()
    is_rollback = what.startswith("agentctl: incident") and "recovered" not in what
    return (at, "rollback", what.removeprefix("agentctl: ")) if is_rollback else (at, *speaker(what))


def speaker(what):
    ours = what.removeprefix("agentctl: ")
    return ("agent", what) if ours == what else ("runner", ours)


class Events:
    """Everything that is said, in one queue: lines of pipes, and what the agent writes down."""

    def __init__(self, pipes, history):
        self.queue = queue.SimpleQueue()
        for pipe, read in pipes:
            threading.Thread(target=self.follow, args=(pipe, read), daemon=True).start()
        self.history, self.messages = history, 0
        self.waiting = []

    def follow(self, pipe, read):
        for line in pipe:
            self.queue.put(read(line.decode("utf-8", "replace")))

    def due(self, hold_seconds=HOLD_SECONDS):
        """Return, in order, what was said longer ago than that; the journal is a little late."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.waiting.append(self.queue.get_nowait())
        self.waiting += self.written()
        self.waiting.sort(key=lambda event: event[0])
        limit = time.time() - hold_seconds
        due = [event for event in self.waiting if event[0] < limit]
        self.waiting = self.waiting[len(due) :]
        return due

    def written(self):
        """Return what the agent has written down since the last call."""
        text = self.history.read_text() if self.history.exists() else ""
        lines = text.split("\n")[:-1]
        new = [json.loads(line) for line in lines[self.messages :]]
        self.messages = len(lines)
        return [(instant(m["at"]), "agent", m["content"].split(" The brief says:")[0]) for m in new]


def instant(value):
    return value if isinstance(value, (int, float)) else datetime.fromisoformat(value).timestamp()


# -- the story ------------------------------------------------------------------------------------


class Story:
    """Shows what happens until the task is done, and remembers what the ledger does not know."""

    def __init__(self, stage):
        self.stage, self.began_at = stage, time.time()
        self.fired_at = self.finished_at = None

    def follow(self, events):
        print(f"\n{'second':>7}  {'who':<9} what", flush=True)
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.finished_at is None or not self.incident():
            if time.monotonic() > deadline:
                raise StoryFailed(f"the task was not finished within {LIMIT_SECONDS} s")
            for event in events.due():
                self.take(*event)
            time.sleep(0.05)
        for event in events.due(0):
            self.take(*event)

    def take(self, at, who, what):
        if who in ("systemd", "watchdog") and ("Watchdog timeout" in what or "no sign of life" in what):
            self.fired_at = self.fired_at or at
        if who == "agent" and what.startswith(f"{LAST}: "):
            self.finished_at = at
        if what and not (who == "systemd" and any(dull in what for dull in DULL)):
            indent = " " * 19
            text = textwrap.wrap(what, 80, initial_indent=indent, subsequent_indent=indent) or [""]
            print(f"{at - self.began_at:7.2f}  {who:<9} " + "\n".join(text)[19:], flush=True)

    def incident(self):
        """Return the incident of the hang once it is over."""
        found = [i for i in self.stage.ask("incidents") if i["trigger"] == "watchdog"]
        return found[0] if found and found[0]["outcome"] == "recovered" else None

    def timeline(self):
        """Return (instant, what) of each part; an instant is None where nobody saw it."""
        incident, status = self.incident(), self.stage.ask("status")
        attempt, steps = incident["attempts"][-1], {s["name"]: s for s in incident["steps"]}
        relaunch = status["started_at"] if status["generation"] == incident["to"] else None
        return [
            (incident["evidence"]["last_heartbeat_at"], "the agent hangs (its last heartbeat)"),
            (self.fired_at, "the watchdog fires"),
            (incident["at"], "the stack is taken, the agent has ended"),
            (attempt["at"], f"decided: generation {incident['from']} -> {incident['to']}, {attempt['rung']}"),
            (end(steps["switch"]), "the trees are switched"),
            (max(end(step) for step in steps.values()), "state restored, brief written"),
            (relaunch, f"the agent runs again, generation {incident['to']}"),
            (instant(incident["at"]) + incident["seconds"], "its first heartbeat: recovered"),
            (self.finished_at, "the task is finished"),
        ]


def end(step):
    return instant(step["at"]) + step["seconds"]


def show_timeline(rows):
    print(f"\nThe timeline: seconds since the hang, and what each part took\n\n{'at':>8} {'took':>8}")
    zero = before = instant(rows[0][0])
    for at, what in rows:
        if at is None:
            print(f"{'not seen':>8} {'':>8}  {what}")
            continue
        at = instant(at)
        print(f"{at - zero:8.3f} {at - before:8.3f}  {what}")
        before = at


def show_more(stage, incident, is_held):
    for verb in ("status", "why"):
        print(f"\n$ agentctl {verb}\n{stage.agentctl(verb, check=False).rstrip()}")
    print("\nTo look further:\n")
    prefix = f"AGENTCTL_ROOT={stage.env['AGENTCTL_ROOT']} {AGENTCTL} --name {stage.name}"
    if is_held:
        print(f"  alias agentctl='{prefix}'")
    for words, what in (
        ("incidents", "what went wrong so far"),
        ("generations", "every version, and what became of it"),
        (f"diff {incident['to']} {incident['from']}", "what the harmful change was"),
        ("task show", "the task, with what was undone"),
        ("history tail", "the conversation"),
        ("logs -f", "the journal of all its units (with systemd)"),
        ("attach", "the agent's terminal (C-b d leaves it)"),
        ("rollback --dry-run", "what a rollback would do now"),
    ):
        print(f"  agentctl {words:<20} {what}")
    print("\nThe agent of this demo ends now; --hold keeps it." if not is_held else "\nCtrl-C ends it.")
    sys.stdout.flush()


def tell(runtime, is_held):
    stage = Stage(runtime)
    try:
        stage.set_up()
        story = Story(stage)
        story.follow(Events(stage.start(), stage.history))
        show_timeline(story.timeline())
        show_more(stage, story.incident(), is_held)
        while is_held:
            signal.pause()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # cleaning up is not to be cut short
        stage.tear_down()


def tell_in_box(is_held):
    """Boot a real systemd, and tell the story in there; what it writes ends with the box."""
    sys.path.insert(0, str(HERE))
    import box

    venv = pathlib.Path(sys.executable).parent.parent
    shared = [(path, path) for path in (venv, HERE.parent)]
    with box.Box(name="demo", shared=shared) as machine:
        machine.boot()
        version = machine.run(["systemctl", "--version"]).stdout.splitlines()[0]
        print(f"booted {version} in namespaces, {machine.boot_seconds:.1f} s", flush=True)
        if is_held:
            print(f"to enter it: nsenter -a -t {machine.pid}", flush=True)
        argv = [sys.executable, __file__, "--runtime", "systemd", *(["--hold"] if is_held else [])]
        return machine.popen(argv).wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime", choices=("systemd", "box", "direct"), required=True)
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--remove", default="")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        if options.runtime == "box":
            return tell_in_box(options.hold)
        return tell(options.runtime, options.hold) or 0
    except KeyboardInterrupt:
        return 130
    except StoryFailed as error:
        print(f"Error: {error}\nHint:  the lines above say how far it came", file=sys.stderr)
        return 1
    finally:
        if options.remove:
            shutil.rmtree(options.remove)


if __name__ == "__main__":
    sys.exit(main())
