"""SIGKILL of the store under load and in the middle of being made: what was acknowledged is there, once."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time

from agentctl.store import messages, open_store, tables
from kit.line_killer import killed_at
from kit.survival import survived

ROUNDS = 200 if os.environ.get("AGENTCTL_NIGHTLY") else 6
WRITERS = 6
LIMIT_SECONDS = 600.0


def write_for_ever(path: str, told: int, number: int) -> None:
    """In a child: add messages from several threads, and tell each id only when it is acknowledged."""
    store = open_store(path)

    def work(writer: int) -> None:
        count = 0
        while True:
            count += 1
            message = {"id": f"r{number}-w{writer}-{count}", "role": "user", "content": "x" * 200}
            row = messages.row_of("agent", message, json.dumps(message).encode() + b"\n", is_in_file=False)
            store.append([row]).result()
            os.write(told, f"{message['id']}\n".encode())

    for writer in range(WRITERS):
        threading.Thread(target=work, args=(writer,), daemon=True).start()
    time.sleep(LIMIT_SECONDS)


def kill_once(path: str, number: int, after_seconds: float) -> list[str]:
    """Run a writer, kill it `after_seconds` after its first word; return what it had told."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            write_for_ever(path, writer, number)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as told:
        first = told.readline() + told.readline()
        time.sleep(after_seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return (first + told.read()).decode().splitlines()


def test_what_was_acknowledged_survives_sigkill(tmp_path):
    path, dice = str(tmp_path / "watchdog.db"), random.Random(5)
    acknowledged: set[str] = set()
    for number in range(ROUNDS):
        acknowledged |= set(kill_once(path, number, dice.uniform(0.0, 0.1)))
    store = open_store(path)
    try:
        found = [json.loads(line)["id"] for line in store.export("agent")]
    finally:
        store.close()
    assert store.kept_as == []
    assert len(found) == len(set(found))
    assert acknowledged <= set(found)
    assert len(acknowledged) > ROUNDS
    survived("SIGKILL under load", "conversation store", ROUNDS)


def test_a_store_that_is_killed_while_it_is_made_is_made_by_the_next(tmp_path):
    def is_ours(path: str) -> bool:
        return path.endswith(("store/store.py", "store/sqlite.py", "store/index.py", "store/fts5.py"))

    line = 0
    while True:
        line += 1
        path = str(tmp_path / f"{line}.db")
        was_killed = killed_at(line, lambda path=path: open_store(path).close(), is_ours)
        store = open_store(path)
        try:
            assert store.kept_as == [] and store.meta("version") == str(tables.VERSION)
            store.append([messages.row_of("a", {"id": "1"}, b"{}\n", is_in_file=False)]).result()
            assert store.count("a") == 1
        finally:
            store.close()
        if not was_killed:
            break
    assert line > 20
    survived("SIGKILL at a line", "making the conversation store", line - 1)
