"""The agent of the benchmark, the same for every contender: ready at once, a heartbeat a second, dies as told.

`python3 -I -S agent.py LOG [STATE_DIR]`. It writes CLOCK_MONOTONIC into LOG where it starts, becomes ready, and
right before it crashes (SIGUSR1) or hangs (SIGUSR2).
"""

import _signal
import _socket
import os
import sys
import time

VERSION = "good"
LOG = sys.argv[1]
STATE = f"{sys.argv[2]}/config/mode" if len(sys.argv) > 2 else ""
WAKE = (_signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGTERM)


def note(word, at, state="-"):
    line = f"{word} {at} {os.getpid()} {VERSION} {state}\n"
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, line.encode())
    os.close(fd)


def notify(text):
    if PATH:
        SOCKET.sendto(text, PATH)


def read_state():
    if not STATE:
        return "-"
    with open(STATE) as file:
        return file.read().strip()


def spoil_state():
    """What a bad version does to the state that a rollback has to bring back."""
    with open(STATE, "w") as file:
        file.write(VERSION + "\n")


started_at = time.monotonic_ns()
_signal.pthread_sigmask(_signal.SIG_BLOCK, WAKE)
PATH = os.environ.get("NOTIFY_SOCKET", "")
PATH = "\0" + PATH[1:] if PATH.startswith("@") else PATH
SOCKET = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
state = read_state()
ready_at = time.monotonic_ns()
notify(b"READY=1\nWATCHDOG=1")
note("start", started_at)
note("ready", ready_at, state)
if STATE and VERSION != "good":
    spoil_state()
    note("spoilt", time.monotonic_ns())
while True:
    told = _signal.sigtimedwait(WAKE, 1.0)
    if told is None:
        notify(b"WATCHDOG=1")
    elif told.si_signo == _signal.SIGUSR1:
        note("crash", time.monotonic_ns())
        os._exit(1)
    elif told.si_signo == _signal.SIGUSR2:
        notify(b"WATCHDOG=1")  # the worst moment to hang: right after a sign of life
        note("hang", time.monotonic_ns())
        time.sleep(86400)
    else:
        os._exit(0)
