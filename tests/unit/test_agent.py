"""agentctl.agent: real datagrams to a real socket, real signals, real exits."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

import agentctl
from agentctl.agent import Agent
from agentctl.state.task import Task
from kit import deadline

SOURCE = os.path.dirname(os.path.dirname(agentctl.__file__))
CONTRACT = ("AGENT_", "NOTIFY_SOCKET", "WATCHDOG_")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(CONTRACT):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Runner:
    """The other end of the agent's NOTIFY_SOCKET."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.setblocking(False)

    def heard(self):
        """Return every message that is there, each as a dict."""
        messages = []
        while True:
            try:
                data = self.socket.recv(4096).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in data.split("\n")))


@pytest.fixture
def runner(tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    made = Runner(path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    yield made
    made.socket.close()


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    return Clock


def beat(phase="working", **more):
    return {"WATCHDOG": "1", **more, "X_AGENTCTL_PHASE": phase}


def test_outside_agentctl_everything_works_and_nothing_is_sent(tmp_path):
    agent = Agent()
    agent.ready()
    agent.beat(progress=1)
    with agent.working(timeout=1):
        pass
    assert (agent.name, agent.generation, agent.launch_id) == ("agent", 0, "")
    assert agent.code_dir == str(tmp_path)
    assert agent.state_dir == str(tmp_path / "state")
    assert not agent.is_resumed and agent.brief is None
    agent.understood()
    assert agent.task.load() is None
    agent.task.save(Task("goal"))
    assert agent.task.load().objective == "goal"
    assert agent.history.last(3) == []
    first = agent.history.append("user", "hi", tokens=3)
    assert agent.history.last(3)[0] | {"at": ""} == {
        "id": first, "at": "", "tokens": 3, "role": "user", "content": "hi"
    }  # fmt: skip
    assert Agent().is_resumed


def test_reads_who_it_is(tmp_path, monkeypatch):
    for name, value in {
        "NAME": "bob",
        "GENERATION": "7",
        "LAUNCH_ID": "l-1",
        "CODE_DIR": "/srv/bob",
        "STATE_DIR": str(tmp_path / "s"),
        "TASK_FILE": str(tmp_path / "t.md"),
        "HISTORY_FILE": str(tmp_path / "h.jsonl"),
        "RESUMED": "1",
    }.items():
        monkeypatch.setenv(f"AGENT_{name}", value)
    agent = Agent()
    assert (agent.name, agent.generation, agent.launch_id) == ("bob", 7, "l-1")
    assert (agent.code_dir, agent.state_dir) == ("/srv/bob", str(tmp_path / "s"))
    assert (agent.task.path, agent.history.path) == (
        str(tmp_path / "t.md"),
        str(tmp_path / "h.jsonl"),
    )
    assert agent.is_resumed


def test_ready_and_first_beat_are_heard(runner):
    agent = Agent()
    agent.ready()
    agent.beat()
    assert runner.heard() == [{"READY": "1"}, beat()]


def test_beats_are_rate_limited_and_carry_the_newest_counter(runner, clock):
    agent = Agent()
    for count in range(1000):
        agent.beat(progress=count)
    assert runner.heard() == [beat(X_AGENTCTL_PROGRESS="0")]
    clock.now += 0.99  # WATCHDOG_USEC / 4 is one second
    agent.beat(progress=1000)
    assert runner.heard() == []
    clock.now += 0.02
    agent.beat()
    assert runner.heard() == [beat(X_AGENTCTL_PROGRESS="1000")]


def test_a_new_phase_is_said_at_once_and_an_unknown_one_refused(runner, clock):
    agent = Agent()
    agent.beat()
    agent.beat(phase="idle")
    agent.beat(phase="idle")
    assert runner.heard() == [beat(), beat("idle")]
    with pytest.raises(ValueError, match="dreaming"):
        agent.beat(phase="dreaming")


def test_a_long_step_asks_for_time_and_beats_on_leaving(runner, clock):
    agent = Agent()
    agent.beat(progress=5)
    with agent.working(timeout=600):
        assert runner.heard()[1:] == [beat("waiting", EXTEND_TIMEOUT_USEC="600000000", X_AGENTCTL_PROGRESS="5")]
        clock.now += 500
    assert runner.heard() == [beat("waiting", X_AGENTCTL_PROGRESS="5")]
    agent.beat(progress=6)
    assert runner.heard() == [beat(X_AGENTCTL_PROGRESS="6")]


def test_a_long_step_that_fails_is_left_with_a_beat_too(runner):
    agent = Agent()
    with pytest.raises(OSError), agent.working(timeout=1):
        raise OSError
    assert len(runner.heard()) == 2


def fill_queue(path):
    """Fill a socket's queue, whatever length the kernel gives it, until a sender that had not said a word is refused.

    One sender alone may be refused for its own memory, long before the queue is full: /proc/sys/net/unix/max_dgram_qlen
    is 10 on a bare kernel and 512 where systemd is PID 1.
    """
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            other.connect(path)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.send(b"x=1")
                    sent += 1
        if not sent:
            return


def test_a_runner_that_is_stuck_or_gone_does_not_stop_the_agent(runner, clock, tmp_path):
    agent = Agent()
    fill_queue(str(tmp_path / "notify"))
    began = time.perf_counter()
    agent.beat()
    assert 0.5 < time.perf_counter() - began < 60  # SEND_PATIENCE_SECONDS is one; a busy machine adds what it likes
    assert beat() not in runner.heard()
    runner.socket.close()
    agent.beat(phase="idle")


def test_the_brief_is_read_until_it_is_understood(tmp_path, monkeypatch):
    path = tmp_path / "brief.md"
    path.write_text("Undone: your last idea.")
    monkeypatch.setenv("AGENT_BRIEF_FILE", str(path))
    agent = Agent()
    assert agent.brief == "Undone: your last idea."
    agent.understood()
    agent.understood()
    assert agent.brief is None and not path.exists()


def test_sleep_beats(runner, clock, monkeypatch):
    def wait(_read, _write, _except, seconds):
        clock.now += seconds
        return [], [], []

    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setattr(select, "select", wait)
    agent = Agent()
    agent.sleep(1.5)
    assert runner.heard() == [beat("idle")] * 7  # one before it, one after it, and each 0.25 s in between


def test_sleep_wakes_up_to_stop(runner):
    agent = Agent()
    os.kill(os.getpid(), signal.SIGTERM)
    began = time.monotonic()
    agent.sleep(60)
    assert agent.should_stop and time.monotonic() - began < 50


@pytest.mark.parametrize(("leave", "status"), [("stop", 0), ("restart", 75)])
def test_leaving_saves_first(leave, status):
    agent, saved = Agent(), []
    agent.on_save(lambda: saved.append("task"))
    agent.on_save(lambda: saved.append("memory"))
    with pytest.raises(SystemExit) as caught:
        getattr(agent, leave)()
    assert caught.value.code == status
    assert saved == ["task", "memory"]


def script(text, tmp_path, **env):
    return subprocess.Popen(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": SOURCE, **env},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


LOOP = """
from agentctl.agent import Agent, Task
agent = Agent()
task = Task("goal")
agent.on_save(lambda: agent.task.save(task))
print("up", flush=True)
while not agent.should_stop:
    agent.sleep(60)
task.state = "saved on the way out"
agent.stop()
"""


def test_sigterm_to_a_real_process_saves_and_exits_0(tmp_path):
    process = script(LOOP, tmp_path, WATCHDOG_USEC="400000000")  # it sleeps long between beats
    assert deadline.read_line(process) == "up\n"
    process.send_signal(signal.SIGTERM)
    assert deadline.communicate(process, timeout=60)[1] == ""
    assert process.returncode == 0
    assert "saved on the way out" in (tmp_path / "state" / "current_task.md").read_text()


ELSEWHERE = """
import signal, threading
from agentctl.agent import Agent
agent = Agent()
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("up", flush=True)
while not agent.should_stop:
    agent.sleep(600)
agent.stop()
"""


def test_a_signal_that_interrupts_no_select_of_ours_ends_a_sleep_too(tmp_path):
    process = script(ELSEWHERE, tmp_path, WATCHDOG_USEC="4000000000")
    assert deadline.read_line(process) == "up\n"
    process.send_signal(signal.SIGTERM)
    assert deadline.communicate(process, timeout=60)[1] == ""
    assert process.returncode == 0


OTHER_SIGNAL = """
import os, signal, time
from agentctl.agent import Agent
agent = Agent()
signal.signal(signal.SIGUSR1, lambda *_: None)
os.kill(os.getpid(), signal.SIGUSR1)
agent.sleep(1.0)
print("spent", time.process_time())
"""


def test_another_signal_neither_ends_a_sleep_nor_makes_it_spin(tmp_path):
    process = script(OTHER_SIGNAL, tmp_path, WATCHDOG_USEC="400000000")
    began = time.monotonic()
    said, wrong = deadline.communicate(process, timeout=60)
    assert wrong == "" and time.monotonic() - began >= 1.0
    assert float(said.split()[1]) < 0.9, "a sleep of a second took a second of the processor"


HANG = """
from agentctl.agent import Agent
Agent()
def clever_idea():
    print("up", flush=True)
    while True:
        pass
clever_idea()
"""


def test_sigabrt_shows_where_a_hung_agent_is(tmp_path):
    process = script(HANG, tmp_path)
    assert deadline.read_line(process) == "up\n"
    process.send_signal(signal.SIGABRT)
    assert "in clever_idea" in deadline.communicate(process, timeout=60)[1]
    assert process.returncode == -signal.SIGABRT


def test_without_a_socket_sdnotify_is_not_needed(tmp_path):
    text = "import sys; sys.modules['sdnotify'] = None\nfrom agentctl.agent import Agent\n"
    process = script(text + "Agent().beat()", tmp_path)
    assert deadline.communicate(process, timeout=60)[1] == ""


def test_imports_nothing_heavy(tmp_path):
    heavy = "{'subprocess', 'asyncio', 'dataclasses', 'pathlib', 'logging', 'typing', 'socket'}"
    text = f"import sys, agentctl.agent\nprint(*sorted({heavy} & set(sys.modules)))"
    plain = deadline.communicate(script(text.replace("agentctl.agent", "os"), tmp_path), timeout=60)[0]
    assert deadline.communicate(script(text, tmp_path), timeout=60)[0] == plain
