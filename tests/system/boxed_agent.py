"""An agent that keeps the contract with nothing but the standard library, and breaks when told to.

The words in the file `behaviour` of its repository count from the start. A word in the file `do` of
its state folder counts once, when the work loop finds it.
"""

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
import uuid

atexit.register(time.sleep, 0.1)  # a busy tmux hears of an end before it has read the last words, and loses them
with open("behaviour") as file:
    WORDS = file.read().split()
if "crash-at-import" in WORDS:
    raise RuntimeError("broken at import")

STATE = os.environ["AGENT_STATE_DIR"]
TASK, HISTORY = os.environ["AGENT_TASK_FILE"], os.environ["AGENT_HISTORY_FILE"]
LAUNCH = os.environ["AGENT_LAUNCH_ID"]
BEAT_SECONDS = 0.2
NEW_TASK = """# Current Task
Count to a million

## Conversation Context
The user wants a number.

## Pending Actions
- [ ] go on counting
- [x] begin

## State
count 0
"""


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def append(path, **facts):
    with open(path, "a") as file:
        file.write(json.dumps(facts) + "\n")
        file.flush()
        os.fsync(file.fileno())


def remember(role, content):
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    append(HISTORY, id=uuid.uuid4().hex, at=at, role=role, content=content)


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def beat(progress):
    notify(f"WATCHDOG=1\nX_AGENTCTL_PROGRESS={progress}\nX_AGENTCTL_PHASE=working")


def bear_witness():
    """Note what this launch was given, for the test to read."""
    brief = os.environ.get("AGENT_BRIEF_FILE")
    append(
        f"{STATE}/witness.jsonl",
        launch=LAUNCH,
        generation=int(os.environ["AGENT_GENERATION"]),
        commit=os.environ["AGENT_COMMIT"],
        resumed=os.environ.get("AGENT_RESUMED"),
        brief=read(brief) if brief else None,
        task=read(TASK),
        messages=len((read(HISTORY) or "").splitlines()),
        version=read("version"),
        environment=read(".venv/marker"),
        uid=os.getuid(),
        pid=os.getpid(),
        cwd=os.getcwd(),
    )


def save_and_end(*_):
    if "ignore-sigterm" in WORDS:
        return
    write(TASK, NEW_TASK.replace("count 0", f"saved by {LAUNCH}"))
    remember("agent", f"saved by {LAUNCH}")
    os._exit(3 if "exit-3-on-sigterm" in WORDS else 0)


def hang():
    print("hanging now", flush=True)
    while True:
        time.sleep(1000)


def hang_with_thread(progress):
    def side():
        while True:
            beat(progress)
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=side, daemon=True).start()
    hang()


def do(word, progress):
    if word == "crash":
        raise RuntimeError("broken later")
    if word == "hang":
        hang()
    elif word == "hang-with-thread":
        hang_with_thread(progress)
    elif word == "spoil-state":
        write(f"{STATE}/config/settings.txt", "spoiled\n")
        write(f"{STATE}/config/added.txt", "added\n")
        write(f"{STATE}/free.txt", "of no pattern\n")
    elif word == "eat-history":
        os.truncate(HISTORY, 10)
    elif word == "eat-task":
        os.unlink(TASK)
    elif word == "restart":
        done = subprocess.run(["agentctl", "restart"], capture_output=True, text=True, check=False)
        append(f"{STATE}/restart.jsonl", status=done.returncode, err=done.stderr)
    elif word.startswith("run "):
        with open(f"{STATE}/ran", "ab") as log:
            subprocess.Popen(["sh", "-c", f"{word[4:]}; echo status $?"], stdout=log, stderr=log)
    elif word == "talk":
        print("\033[31mred\033[0m and \033[1mbold\033[0m\a: a line to find", flush=True)
    elif word.startswith("exit-") and word[5:].isdigit():
        sys.exit(int(word[5:]))


def main():
    faulthandler.enable()
    signal.signal(signal.SIGTERM, save_and_end)
    bear_witness()
    if read(TASK) is None:
        write(TASK, NEW_TASK)
    if read(f"{STATE}/config/settings.txt") is None:
        write(f"{STATE}/config/settings.txt", "good\n")
    remember("agent", f"launch {LAUNCH}")
    if "never-ready" in WORDS:
        hang()
    print(f"launch {LAUNCH} works", flush=True)
    notify("READY=1")
    count = 0
    while True:
        count += 1
        beat(count)
        if count == 2:
            for word in WORDS:
                do(word, count)
        if (word := read(f"{STATE}/do")) is not None:
            os.unlink(f"{STATE}/do")
            do(word.strip(), count)
        time.sleep(BEAT_SECONDS)


if __name__ == "__main__":
    main()
