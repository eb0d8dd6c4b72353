"""An agent that knows nothing of agentctl: a chat in a terminal that keeps its sessions as JSON lines.

    talking_agent.py STORE [--session ID | --resume ID] [MESSAGE]

Like the real ones: resuming a session that is not there is an error, a message is written down when it comes,
and it says nothing about its life. `work` makes it busy for ever (a turn that gets nowhere),
`think` busy with progress, `stubborn` busy and deaf; `suspend` runs a program that
stops itself (SIGSTOP). `Escape` ends a turn. With HOOK set it runs that command at each step, as they do.
Once its screen is drawn it notes its launch in the state folder's file `drawn`.
"""

import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
import tty


def main():
    store, *words = sys.argv[1:]
    option, session, *words = words if words[:1] in (["--session"], ["--resume"]) else ["", "last", *words]
    path = os.path.join(store, f"{session}.jsonl")
    if option == "--resume" and not os.path.exists(path):
        print(f"no session {session}", file=sys.stderr)
        return 1
    os.makedirs(store, exist_ok=True)
    tty.setcbreak(0, termios.TCSANOW)
    hook("SessionStart", session)
    if os.environ.get("DRAWS_LATE"):  # as terminal programs do: what was typed before is gone
        time.sleep(1.5)
        termios.tcflush(0, termios.TCIFLUSH)
    print("ready", flush=True)
    with open(os.path.join(os.environ["AGENT_STATE_DIR"], "drawn"), "a") as file:
        file.write(os.environ["AGENT_LAUNCH_ID"] + "\n")
    for message in words:
        turn(path, session, message)
    line = ""
    while True:
        text = os.read(0, 1024).decode()
        for char in text:
            if char in "\r\n":
                turn(path, session, line)
                line = ""
            else:
                line += char


def turn(path, session, message):
    hook("UserPromptSubmit", session)
    with open(path, "a") as file:
        file.write(json.dumps({"at": time.time(), "launch": os.environ.get("AGENT_LAUNCH_ID"), "said": message}) + "\n")
    if message == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if message == "suspend":
        subprocess.run(["sh", "-c", "kill -STOP $$"], check=False)
    while message in ("work", "think", "stubborn"):
        if message == "think":
            with open(path, "a") as file:
                file.write(json.dumps({"thought": time.time()}) + "\n")
        readable, _, _ = select.select([0], [], [], 0.1 if message == "think" else None)
        if readable and b"\x1b" in os.read(0, 1024) and message != "stubborn":
            print("interrupted", flush=True)
            break
    hook("Stop", session)


def hook(event, session):
    if os.environ.get("HOOK"):
        told = json.dumps({"hook_event_name": event, "session_id": session})
        subprocess.run(os.environ["HOOK"], shell=True, input=told, text=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
