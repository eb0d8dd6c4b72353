"""An agent without dependencies that breaks the way `behaviour.MODE` or the state's file `mode` says."""

import atexit
import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

faulthandler.enable()
STATE = os.environ["AGENT_STATE_DIR"]


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def append(path, text):
    with open(path, "a") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def notify(*lines):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.connect(os.environ["NOTIFY_SOCKET"])
        door.send("\n".join(lines).encode())


def save_and_go(*_):
    append(f"{STATE}/saved", f"{os.environ['AGENT_LAUNCH_ID']}\n")
    os._exit(0)


def stuck_in_the_work_loop():
    while True:
        time.sleep(60)


def beat_from_the_side():
    while True:
        notify("WATCHDOG=1", "X_AGENTCTL_PROGRESS=7", "X_AGENTCTL_PHASE=working")
        time.sleep(0.1)


signal.signal(signal.SIGTERM, save_and_go)
atexit.register(time.sleep, 0.1)  # a busy tmux hears of an end before it has read the last words, and loses them
append(
    f"{STATE}/starts",
    json.dumps(
        {
            "generation": os.environ["AGENT_GENERATION"],
            "commit": os.environ["AGENT_COMMIT"],
            "launch": os.environ["AGENT_LAUNCH_ID"],
            "pid": os.getpid(),
            "resumed": os.environ.get("AGENT_RESUMED", ""),
            "brief": os.environ.get("AGENT_BRIEF_FILE", ""),
            "task": read(os.environ["AGENT_TASK_FILE"]),
            "venv": read(".venv/version"),
        }
    )
    + "\n",
)
print("agent: starting", flush=True)

import behaviour  # noqa: E402

MODE = read(f"{STATE}/mode").strip() or behaviour.MODE
if MODE == "exit-78":
    sys.exit(78)
if MODE == "crash":
    raise RuntimeError("told to crash")
if MODE == "never-ready":
    stuck_in_the_work_loop()
if MODE == "orphan":
    subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=subprocess.DEVNULL)
notify("READY=1", "STATUS=working")
for number in range(1, 10**9):
    notify("WATCHDOG=1", f"X_AGENTCTL_PROGRESS={number}", "X_AGENTCTL_PHASE=working")
    append(
        os.environ["AGENT_HISTORY_FILE"],
        json.dumps(
            {
                "id": f"{os.environ['AGENT_LAUNCH_ID']}-{number}",
                "at": "2026-01-01T00:00:00Z",
                "role": "assistant",
                "content": f"step {number}",
            }
        )
        + "\n",
    )
    MODE = read(f"{STATE}/mode").strip() or behaviour.MODE
    if number == 4:
        if MODE == "run":
            exec(read(f"{STATE}/run.py"))
        if MODE == "crash-later":
            raise RuntimeError("told to crash later")
        if MODE == "hang":
            stuck_in_the_work_loop()
        if MODE == "side-thread":
            threading.Thread(target=beat_from_the_side, daemon=True).start()
            stuck_in_the_work_loop()
        if MODE.startswith("restart-") and not os.path.exists(f"{STATE}/restarted"):
            append(f"{STATE}/restarted", "once")
            sys.exit(int(MODE[8:]))
        if MODE.startswith("again-"):
            sys.exit(int(MODE[6:]))
    time.sleep(0.1)
