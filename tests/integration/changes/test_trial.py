"""`agentctl change try`: the candidate runs for real, beside the agent and away from its state."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys

import pytest

from agentctl.host import procfs
from integration.changing import CTL, making
from integration.world import SOURCE, git, write
from kit import deadline, effort
from kit.manifest import manifest


@pytest.fixture
def make(monkeypatch):
    yield from making(monkeypatch)


def begin(world, files, **more):
    folder = world.begin(files=files, **more)
    world.ctl("change", "check")
    return folder


def test_a_good_candidate_holds_while_the_agent_goes_on(make):
    world = make()
    world.start()
    launch = world.until_beating(1)
    begin(world, {"note.txt": "new"})
    told = world.ctl("change", "try", "--for", "1s").stdout
    assert "ready after" in told and re.search(r"it held for [1-9]", told) and "change review feature/x" in told
    assert world.change()["next"] == "review: it was not reviewed"
    assert [row["id"] for row in world.launches()] == [launch["id"]]
    assert len(world.starts()) == 1  # of the trial, nothing is in the real state
    assert os.listdir(world.folder / ".code.agentctl/changes/.trials") == []
    assert "agent: starting" in (world.code / ".git/agentctl/feature/x/try.log").read_text()


def test_commands_that_name_the_state_folder_mean_the_copy(make):
    world = make()
    command = [sys.executable, "agent.py", f"--store={world.state}/store.db", str(world.state)]
    world.ctl("config", "set", "agent.command", json.dumps(command))
    world.ctl("config", "set", "agent.environment", f'{{ STORE = "{world.state}/store" }}')
    spied = str(world.folder / "spied")
    spy = f"import json, os, sys\njson.dump([*sys.argv, os.environ['STORE']], open({spied!r}, 'w'))\nMODE = 'healthy'\n"
    begin(world, {"behaviour.py": spy})
    world.ctl("change", "try")
    seen = json.loads((world.folder / "spied").read_text())
    copy = seen[2]
    assert copy.startswith(str(world.folder / ".code.agentctl/changes/.trials/"))
    assert seen[1:] == [f"--store={copy}/store.db", copy, f"{copy}/store"]


def test_a_session_that_was_not_copied_is_not_resumed(make):
    world = make()
    write(world.folder, {"elsewhere/one.jsonl": "{}", "state/sessions/one.jsonl": "{}"})
    spied = world.folder / "spied"
    stores = {f"{world.folder}/elsewhere/*": False, "sessions/*": True, f"{world.state}/sessions/*": True}
    for store, resumes in stores.items():
        world.ctl("config", "set", "resume.store", json.dumps([store]))
        world.ctl("config", "set", "agent.resume_command", json.dumps([sys.executable, "agent.py", "--resumed"]))
        name = f"feature/{world.name}-{len(world.ask('change', 'list', '--all'))}"
        spy = f"import sys\nopen({str(spied)!r}, 'w').write(' '.join(sys.argv))\nMODE = 'healthy'  # {store}\n"
        world.begin(name, {"behaviour.py": spy})
        world.ctl("change", "check", name)
        world.ctl("change", "try", name)
        assert ("--resumed" in spied.read_text()) is resumes, store


def test_its_world_is_a_copy(make):
    world = make()
    spied = str(world.folder / "spied")
    spy = f"import os, json\njson.dump(dict(os.environ), open({spied!r}, 'w'))\nMODE = 'healthy'\n"
    smoke = [
        "sh",
        "-c",
        f"cat $AGENT_STATE_DIR/config/plan.json >{world.folder}/smoked; echo bad >$AGENT_STATE_DIR/config/plan.json",
    ]
    world.ctl("config", "set", "change.smoke", json.dumps(smoke))
    before = manifest(world.state)
    begin(world, {"behaviour.py": spy})
    world.ctl("change", "try")
    assert manifest(world.state) == before
    assert (world.folder / "smoked").read_text() == "the good plan"
    seen = json.loads((world.folder / "spied").read_text())
    assert seen["AGENT_TRIAL"] == "1" and seen["AGENT_NAME"] == f"{world.name}-trial"
    real = [str(world.state), world.paths.notify_socket_path, world.paths.token_path]
    assert not [name for name, value in seen.items() if any(path in value for path in real)]
    assert seen["AGENTCTL_ROOT"] != world.environment["AGENTCTL_ROOT"]


BAD = {"crash": "exit status 1", "side-thread": "no heartbeat for"}
if effort.NIGHT:
    BAD |= {
        "never-ready": "was not ready within",
        "again-75": "restart me",
        "exit-78": "exit status 78",
        "hang": "no heartbeat for",
    }


@pytest.mark.parametrize(("mode", "why"), BAD.items())
def test_a_bad_candidate_is_told(make, mode, why):
    ready_timeout = "8s" if mode == "never-ready" else "60s"
    world = make({"agent": {"ready_timeout": ready_timeout}, "heartbeat": {"timeout": "4s"}})
    begin(world, {"behaviour.py": f"MODE = {mode!r}\n"})
    told = world.ctl("change", "try", "--for", "1m", status=1)
    assert why in told.stderr and "try.log" in told.stderr
    if mode == "crash":
        assert "told to crash" in told.stdout
    assert world.change()["next"].startswith("try: the try failed: ")
    assert world.incidents() == [] and world.launches() == []


def test_a_smoke_check_that_fails(make):
    world = make({"change": {"smoke": ["sh", "-c", "exit 4"]}})
    begin(world, {"note.txt": "new"})
    assert "the smoke check ended with 4" in world.refuses("change", "try")


def test_a_smoke_check_that_hangs(make):
    world = make({"change": {"smoke": ["sleep", "600"]}, "probation": {"check_timeout": "500ms"}})
    begin(world, {"note.txt": "new"})
    assert "the smoke check took too long" in world.refuses("change", "try")


def test_a_restart_asked_for_inside_does_not_reach_the_real_agent(make):
    world = make()
    world.start()
    launch = world.until_beating(1)
    inside = (
        f"import os, subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {CTL!r}, 'restart', '--no-wait'], "
        f"env={{**os.environ, 'PYTHONPATH': {SOURCE!r}}})\nMODE = 'healthy'\n"
    )
    begin(world, {"behaviour.py": inside})
    assert "it asked to be restarted" in world.refuses("change", "try", "--for", "1m")
    assert world.launches()[-1]["id"] == launch["id"] and not world.launches()[-1]["end"]


def test_what_was_not_checked_is_not_tried(make):
    world = make()
    world.begin(files={"note.txt": "new"})
    assert "it was not checked" in world.refuses("change", "try")


def test_an_interrupted_trial_leaves_nothing_running(make):
    world = make()
    begin(world, {"behaviour.py": "MODE = 'orphan'\n"})
    env = {**os.environ, "PYTHONPATH": SOURCE}
    argv = [sys.executable, "-c", CTL, "--name", world.name, "change", "try", "--for", "10m"]
    running = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "ready" in deadline.read_line(running)
    running.send_signal(signal.SIGINT)
    assert deadline.wait(running, timeout=60) == 130
    world.until(lambda: not procfs.with_variable("AGENT_NAME", f"{world.name}-trial"), "the end of the candidate")


def test_on_a_terminal_it_is_one_line_and_the_first_interrupt_asks(make):
    world = make()
    begin(world, {"note.txt": "new"})
    master, slave = pty.openpty()
    program = [sys.executable, "-c", CTL, "--name", world.name, "change", "try", "--for", "10m"]
    env = {**os.environ, "PYTHONPATH": SOURCE, "COLUMNS": "80"}
    running = subprocess.Popen(["setsid", "--ctty", *program], env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = Said(master)
    said.until("heartbeats", world)
    os.write(master, b"\x03")
    said.until("Ctrl-C again ends the trial", world)
    count = said.text.count("heartbeats")
    world.until(lambda: said.more().count("heartbeats") > count, "the trial to go on")
    assert running.poll() is None and "\n" not in said.text.strip()
    os.write(master, b"\x03\x03\x03")  # more than is wanted: what it ends is ended
    assert deadline.wait(running, timeout=60) == 130
    said.until("Error: interrupted", world)
    os.close(master)
    world.until(lambda: not procfs.with_variable("AGENT_NAME", f"{world.name}-trial"), "the end of the candidate")
    assert os.listdir(world.folder / ".code.agentctl/changes/.trials") == []
    assert world.change()["next"] == "try: it was not tried"


class Said:
    """What a program writes to its terminal."""

    def __init__(self, master):
        self.master, self.text = master, ""

    def more(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.text += os.read(self.master, 4096).decode()
            except OSError:  # nobody has the other end any more
                break
        return self.text

    def until(self, words, world):
        world.until(lambda: words in self.more(), f"'{words}' on the terminal")


def test_the_environment_comes_along(make):
    world = make(
        {
            "change": {"smoke": ["sh", "-c", "test -e .venv/version"]},
            "environment": {"build": ["sh", "-c", "cp new.lock .venv/version"], "lockfiles": ["new.lock"]},
        }
    )
    write(world.code, {".venv/version": "old\n"})
    folder = begin(world, {"note.txt": "new"})
    world.ctl("change", "try")
    assert (folder / ".venv/version").read_text() == "old\n"
    world.commit_in(folder, {"new.lock": "newer\n"})
    world.ctl("change", "check")
    world.ctl("change", "try")
    assert (folder / ".venv/version").read_text() == "newer\n"
    assert (world.code / ".venv/version").read_text() == "old\n"


INTRUDER = """
import json, os, socket
FOUND = {}
def attempt(name, act):
    try:
        FOUND[name] = act() or "done"
    except OSError as error:
        FOUND[name] = type(error).__name__
attempt("state", lambda: open(%(state)r + "/config/plan.json", "w").write("spoilt") and "done")
attempt("remove", lambda: os.rename(%(state)r + "/history.jsonl", %(state)r + "/gone"))
attempt("code", lambda: open(%(code)r + "/planted.py", "w").close())
attempt("door", lambda: socket.socket(socket.AF_UNIX).connect(%(door)r))
attempt("token", lambda: open(%(token)r).read())
attempt("outside", lambda: open(%(outside)r + "/session.db").read())
attempt("write outside", lambda: open(%(outside)r + "/session.db", "a").write("!") and "done")
attempt("worktree", lambda: open("mine", "w").write("x") and "done")
attempt("git", lambda: os.system("git update-ref refs/heads/mine HEAD") or "done")
json.dump(FOUND, open(%(spied)r, "w"))
MODE = "healthy"
"""


@pytest.mark.parametrize("slots", ["beside", "inside"])
def test_the_running_agent_is_out_of_its_reach(make, slots):
    world = make({"agent": {"slots": slots}} if slots == "inside" else {})
    write(world.folder, {"elsewhere/session.db": "a session", "elsewhere/other": "another's"})
    world.ctl("config", "set", "state.extra", json.dumps([f"{world.folder}/elsewhere/*.db"]))
    world.start()
    world.until_beating(1)
    spied = str(world.folder / "spied")
    world.until(world.history, "a history to copy")
    paths = {
        "state": str(world.state),
        "code": str(world.code),
        "door": world.paths.api_socket_path,
        "token": world.paths.token_path,
        "outside": f"{world.folder}/elsewhere",
        "spied": spied,
    }
    begin(world, {"behaviour.py": INTRUDER % paths})
    told = world.ctl("change", "try", "--for", "1s").stdout
    assert "not closed off" not in told
    found = json.loads((world.folder / "spied").read_text())
    assert found == {
        "state": "done",
        "remove": "done",
        "code": "OSError",
        "door": "FileNotFoundError",
        "token": "FileNotFoundError",
        "outside": "a session",
        "write outside": "done",
        "worktree": "done",
        "git": "done",
    }
    assert (world.state / "config/plan.json").read_text() == "the good plan"
    assert world.history() and not (world.state / "gone").exists()
    assert not (world.code / "planted.py").exists()
    assert (world.folder / "elsewhere/session.db").read_text() == "a session"
    assert git(world.code, "branch", "--list", "mine") == "  mine"
