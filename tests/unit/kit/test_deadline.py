"""The kit's deadlines: they pass, they say for what, and leave no process; and every test uses them."""

import ast
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kit import deadline

TALKS = "import sys, time; print('a last word', flush=True); print('and a curse', file=sys.stderr, flush=True); "
HANGS = [sys.executable, "-c", f"{TALKS}time.sleep(1000)"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
SOON = 2.0


def test_what_is_in_time_is_as_without_a_deadline():
    argv = [sys.executable, "-c", "print(input())"]
    done = deadline.run(argv, input="in", capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("in\n", "")
    process = subprocess.Popen([sys.executable, "-c", "print(1); print(2)"], stdout=subprocess.PIPE)
    assert deadline.read_line(process, "the first") == b"1\n"
    assert deadline.communicate(process)[0] == b"2\n" and deadline.wait(process) == 0
    assert deadline.read_line(subprocess.Popen(["true"], stdout=subprocess.PIPE)) == b""


def test_a_command_that_is_late_is_named_with_its_last_words():
    with pytest.raises(TimeoutError, match=r"waited 2 s in vain for .*sleep\(1000\)(.|\n)*a last word\n(.|\n)*a curse"):
        deadline.run(HANGS, capture_output=True, text=True, timeout=SOON)
    with pytest.raises(TimeoutError, match="in vain for a miracle"):
        deadline.run(HANGS, what="a miracle", timeout=0.1, capture_output=True)


@pytest.mark.parametrize("how", [deadline.wait, deadline.communicate])
@pytest.mark.parametrize("text", [True, False])
def test_a_process_that_is_late_is_killed(how, text):
    process = subprocess.Popen(HANGS, text=text, **PIPES)
    assert deadline.read_line(process)  # it is up
    with pytest.raises(TimeoutError, match=r"in vain for the end of a sleeper(.|\n)*a curse"):
        how(process, "a sleeper", timeout=SOON)
    assert process.wait(60) < 0
    process.stdout.close()
    process.stderr.close()


def test_a_forked_child_that_is_late_is_named_and_killed():
    for act, status in ((lambda: os._exit(3), 3), (lambda: os.kill(os.getpid(), 9), -9)):
        if (pid := os.fork()) == 0:
            act()
        assert deadline.wait_pid(pid, "a child") == status
    if (pid := os.fork()) == 0:
        time.sleep(1000)
        os._exit(0)
    with pytest.raises(TimeoutError, match="the end of a sleeping child"):
        deadline.wait_pid(pid, "a sleeping child", 0.1)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_condition_that_never_comes_true_is_named():
    assert deadline.until(iter([0, "", "found"]).__next__, "it") == "found"
    with pytest.raises(TimeoutError, match=r"waited 0.1 s in vain for a miracle$"):
        deadline.until(lambda: None, "a miracle", 0.1)


def test_a_log_is_shown(tmp_path):
    (tmp_path / "log").write_text("x" * 9999 + "what it said last")
    process = subprocess.Popen(["sleep", "1000"])
    with pytest.raises(TimeoutError, match=r"the end of sleep 1000; (.|\n)*what it said last"):
        deadline.wait(process, timeout=0.1, log=tmp_path / "log")
    assert process.wait(60) < 0


def test_a_line_that_does_not_come_is_named():
    process = subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE)
    with pytest.raises(TimeoutError, match=r"waited 0\.1 s in vain for a line of sleep 1000$"):
        deadline.read_line(process, timeout=0.1)
    process.stdout.close()
    assert process.wait(60) < 0


def test_a_thread_that_does_not_end_is_named():
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()
    try:
        with pytest.raises(TimeoutError, match="the end of the one at the gate"):
            deadline.join(thread, "the one at the gate", 0.1)
    finally:
        gate.set()
    deadline.join(thread)


# --- everybody uses them

TESTS = Path(__file__).resolve().parents[2]
# Programs that stand alone; the keeper of the engine has limits of its own; the deadlines themselves.
PROGRAMS = {"boxed_agent.py", "breakable_agent.py", "talking_agent.py", "engine.py", "deadline.py"}


def waits_without_a_deadline(tree):
    """Yield every call that may wait for another process or thread for ever."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, owner = node.func.attr, ast.unparse(node.func.value)
        has_limit = bool(node.args) or any(word.arg in ("timeout", "timeout_seconds") for word in node.keywords)
        if (
            (owner == "subprocess" and name in ("run", "call", "check_call", "check_output") and not has_timeout(node))
            or (name in ("wait", "communicate") and owner != "deadline" and not has_limit)
            or (name == "join" and not node.args and not node.keywords)
            or (name == "readline" and owner.endswith("stdout"))
        ):
            yield node


def has_timeout(node) -> bool:
    return any(word.arg == "timeout" for word in node.keywords)


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_nobody_waits_without_a_deadline(path):
    if path.name in PROGRAMS:
        return
    found = [
        f"{path}:{node.lineno}: {ast.unparse(node)[:100]}"
        for node in waits_without_a_deadline(ast.parse(path.read_text()))
    ]
    assert not found, "use kit.deadline:\n" + "\n".join(found)
