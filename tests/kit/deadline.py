"""Whatever a test waits for in another process or thread has a deadline; once it is over, the test says for what.

`run` is subprocess.run, `wait`, `communicate`, `read_line` and `join` are the methods of that name, `until` polls. All
raise a TimeoutError that says what was waited for, and what had been said last; a process that is late is killed.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

SECONDS = 300.0  # hardly anything takes a hundredth of it, but the machine may have much else to do
END_SECONDS = 30.0
POLL_SECONDS = 0.01
SHOWN_OF_OUTPUT, SHOWN_OF_COMMAND = 3000, 300


def run(argv, *, what: str = "", timeout: float = SECONDS, check: bool = False, **more) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    try:
        return subprocess.run(argv, timeout=timeout, check=check, **more)
    except subprocess.TimeoutExpired as error:
        raise _late(what or in_short(argv), timeout, error.stdout, error.stderr) from None


def wait(process: subprocess.Popen, what: str = "", timeout: float = SECONDS, log=None) -> int:
    """Wait for the end of a process, whose output is in the file `log` if it is in no pipe; return its exit status."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise _late(_end_of(process, what), timeout, *_left_in(process, log)) from None


def wait_pid(pid: int, what: str, timeout: float = SECONDS) -> int:
    """Wait for the end of a forked child; return its exit status, or minus its signal."""
    fd = os.pidfd_open(pid)
    try:
        is_over = bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)
    if not is_over:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not is_over:
        raise _late(f"the end of {what}", timeout)
    return status


def communicate(process: subprocess.Popen, what: str = "", *, input=None, timeout: float = SECONDS) -> tuple:
    """Wait for the end of a process; return what it said."""
    try:
        return process.communicate(input, timeout)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        raise _late(_end_of(process, what), timeout, error.stdout, error.stderr) from None


def read_line(process: subprocess.Popen, what: str = "", timeout: float = SECONDS):
    """Return the next line that a process says; it is empty at its end."""
    fd, line, over = process.stdout.fileno(), b"", time.monotonic() + timeout
    while not line.endswith(b"\n"):
        if not select.select([fd], [], [], max(0.0, over - time.monotonic()))[0]:
            _kill(process)
            raise _late(what or f"a line of {in_short(process.args)}", timeout, line, *_left_in(process))
        if not (byte := os.read(fd, 1)):  # one by one: `communicate` would not find what a buffer holds back
            break
        line += byte
    return line.decode() if isinstance(process.stdout, io.TextIOBase) else line


def join(thread: threading.Thread, what: str = "", timeout: float = SECONDS) -> None:
    """Wait for the end of a thread."""
    thread.join(timeout)
    if thread.is_alive():
        raise _late(f"the end of {what or thread.name}", timeout)


def until(ask, what: str, timeout: float = SECONDS):
    """Poll until `ask()` is true; return it."""
    is_so, answer = poll(ask, timeout)
    if not is_so:
        raise _late(what, timeout)
    return answer


def poll(ask, timeout: float) -> tuple[bool, object]:
    """Ask until the answer is true or the time is over; return whether it was in time, and the last answer.

    It pauses as long as an answer takes: a question that starts a program costs half a core at most.
    """
    over = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        answer = ask()
        now = time.monotonic()
        if answer or now > over:
            return bool(answer), answer
        time.sleep(max(POLL_SECONDS, now - asked))


def in_short(argv) -> str:
    """Write a command on one line, not longer than can be taken in."""
    words = [argv] if isinstance(argv, str | bytes | os.PathLike) else argv
    text = " ".join(os.fsdecode(word) if isinstance(word, bytes | os.PathLike) else str(word) for word in words)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_OF_COMMAND else f"{text[: SHOWN_OF_COMMAND - 100]} ... {text[-90:]}"


def _kill(process: subprocess.Popen) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel may be at work for it
        process.wait(END_SECONDS)


def _end_of(process: subprocess.Popen, what: str) -> str:
    return f"the end of {what or in_short(process.args)}"


def _left_in(process: subprocess.Popen, log=None) -> list[bytes]:
    """Return what is in the pipes of a process, without waiting for more, and in its log."""
    said = []
    for pipe in filter(None, (process.stdout, process.stderr)):
        os.set_blocking(pipe.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            said.append(os.read(pipe.fileno(), 1 << 20))
    with contextlib.suppress(OSError, TypeError):
        said.append(Path(log).read_bytes())
    return said


def _late(what: str, seconds: float, *said) -> TimeoutError:
    texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in said if text]
    words = "".join(f"\n{text[-SHOWN_OF_OUTPUT:]}" for text in texts)
    return TimeoutError(f"waited {seconds:g} s in vain for {what}" + (f"; last it said:{words}" if words else ""))
