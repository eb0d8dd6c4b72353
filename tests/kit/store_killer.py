"""SIGKILL of a process that adds messages to a store from several threads, again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time

from agentctl.watchdog.store import tables

WRITERS = 6
LIMIT_SECONDS = 600.0


def check_that_acknowledged_stays(open_one, rounds: int) -> None:
    """Kill a writer `rounds` times; everything that it had been promised is there, once."""
    dice, acknowledged = random.Random(5), set()
    for number in range(rounds):
        acknowledged |= set(_kill_once(open_one, number, dice.uniform(0.0, 0.1)))
    store = open_one()
    try:
        found = [json.loads(line)["id"] for line in store.export("agent")]
    finally:
        store.close()
    assert store.kept_as == []
    assert len(found) == len(set(found))
    assert acknowledged <= set(found)
    assert len(acknowledged) > rounds


def _write_for_ever(open_one, told: int, number: int) -> None:
    """In a child: add messages from several threads, and tell each id only when it is acknowledged."""
    store = open_one()

    def work(writer: int) -> None:
        count = 0
        while True:
            count += 1
            message = {"id": f"r{number}-w{writer}-{count}", "role": "user", "content": "x" * 200}
            row = tables.row_of("agent", message, json.dumps(message).encode() + b"\n", is_in_file=False)
            store.append([row]).result()
            os.write(told, f"{message['id']}\n".encode())

    for writer in range(WRITERS):
        threading.Thread(target=work, args=(writer,), daemon=True).start()
    time.sleep(LIMIT_SECONDS)


def _kill_once(open_one, number: int, after_seconds: float) -> list[str]:
    """Run a writer, kill it `after_seconds` after its first word; return what it had told."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            _write_for_ever(open_one, writer, number)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as told:
        first = told.readline() + told.readline()
        assert first.endswith(b"\n"), f"a writer was promised nothing within {LIMIT_SECONDS:g} s"
        time.sleep(after_seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return (first + told.read()).decode().splitlines()
