#!/usr/bin/env python3
"""Measure the watchdog: heartbeats, ten thousand agents, durable history, a million messages, idle cost.

`packaging/benchmark/watchdog.py [--quick]` runs a real watchdog in a temporary folder, loads it from another process
over its unix socket, and prints the table of docs/benchmark.md. It needs what the tests need, and no root.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "watchdog"), str(CHECKOUT / "tests")]

TARGETS = {
    "heartbeats at 32 connections": ">= 5,000/s, p99 <= 25 ms", "10,000 agents, a beat every 10 s": "p99 <= 50 ms",
    "durable appends at 256 connections": ">= 4,000/s", "last 50 of 1,000,000 messages": "<= 5 ms",
    "1,000,000 messages add to a relaunch": "<= 100 ms", "idle PSS": "<= 45 MiB", "idle CPU": "<= 0.1 %",
}  # fmt: skip


class Load:
    """Many connections that ask, each one request after the other."""

    def __init__(self, path: str) -> None:
        self.path, self.took, self.bad = path, [], 0

    async def one(self, make, count: int, every_seconds: float = 0.0, late_seconds: float = 0.0) -> None:
        """Send `count` requests made by `make(n)` over one connection."""
        await asyncio.sleep(late_seconds)
        reader, writer = await asyncio.open_unix_connection(self.path)
        for number in range(count):
            began = time.perf_counter()
            writer.write(make(number))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            self.took.append(time.perf_counter() - began)
            self.bad += not head.startswith(b"HTTP/1.1 200")
            if every_seconds:
                await asyncio.sleep(max(0.0, every_seconds - (time.perf_counter() - began)))
        writer.close()

    def percentile(self, share: float) -> float:
        return sorted(self.took)[min(len(self.took) - 1, int(len(self.took) * share))]


def request(route: str, body: dict) -> bytes:
    data = json.dumps(body).encode()
    return f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def beat(path: str, connections: int, each: int) -> Load:
    load = Load(path)
    bodies = [request("/health", {"agent": f"a{n}", "launch_id": "L", "progress": 1}) for n in range(connections)]
    await asyncio.gather(*(load.one(lambda _, n=n: bodies[n], each) for n in range(connections)))
    return load


async def crowd(path: str, agents: int, seconds: float) -> Load:
    """Let every agent beat once in ten seconds, over 200 connections."""
    load, connections = Load(path), 200
    share = agents // connections

    def make(n: int):
        return lambda number: request("/health", {"agent": f"c{n}-{number % share}", "launch_id": "L"})

    rounds = int(seconds / 10 * share)
    await asyncio.gather(*(load.one(make(n), rounds, 10 / share, n / connections * 10 / share)
                           for n in range(connections)))  # fmt: skip
    return load


async def append(path: str, connections: int, each: int) -> Load:
    load = Load(path)

    def make(n: int):
        return lambda number: request("/history?agent=load", {
            "id": f"{n}-{number}", "role": "user", "content": "x" * 200})  # fmt: skip

    await asyncio.gather(*(load.one(make(n), each) for n in range(connections)))
    return load


def timed(work) -> tuple[float, object]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def under_load(path: str, what: str, *numbers: float) -> dict:
    """Run a load in a process of its own; return what it measured."""
    argv = [sys.executable, __file__, "--load", what, path, *map(str, numbers)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def load_main(what: str, path: str, *numbers: str) -> None:
    work = {"beat": beat, "crowd": crowd, "append": append}[what]
    seconds, load = timed(lambda: asyncio.run(work(path, *(int(float(n)) for n in numbers))))
    print(json.dumps({"rate": len(load.took) / seconds, "p50": load.percentile(0.5), "p99": load.percentile(0.99),
                      "bad": load.bad, "count": len(load.took)}))  # fmt: skip


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mebi(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure(is_quick: bool) -> dict[str, str]:
    import pytest

    from integration.watchdogs import Watchdog
    from integration.world import World

    patch, found, share = pytest.MonkeyPatch(), {}, 10 if is_quick else 1
    world = World(patch, {"offline": {"after": "1h"}, "heartbeat": {"timeout": "30s", "longest_wait": "1m"}}).adopt()
    watchdog = Watchdog(world).start()
    try:
        pid, path = watchdog.process.pid, world.paths.watchdog_socket_path
        time.sleep(3)
        before, pss = cpu_seconds(pid), pss_mebi(pid)
        time.sleep(30 / share)
        found["idle PSS"] = f"{pss:.1f} MiB"
        found["idle CPU"] = f"{(cpu_seconds(pid) - before) / (30 / share) * 100:.2f} %"
        for name, what, connections, each in (
            ("heartbeats at 32 connections", "beat", 32, 2000 // share),
            ("durable appends at 256 connections", "append", 256, 200 // share),
        ):
            before = cpu_seconds(pid)
            row = under_load(path, what, connections, each)
            each_cost = (cpu_seconds(pid) - before) / row["count"]
            found[name] = (f"{row['rate']:,.0f}/s, p99 {row['p99'] * 1000:.1f} ms; {each_cost * 1e6:.0f} us of CPU "
                           f"each, which is {1 / each_cost:,.0f}/s of a core")  # fmt: skip
        row = under_load(path, "crowd", 10_000 / share, 40)
        offline = [a["name"] for a in watchdog.ask("GET", "/agents").json["agents"] if a["state"] == "offline"]
        found["10,000 agents, a beat every 10 s"] = f"p99 {row['p99'] * 1000:.1f} ms, {len(offline)} false offline"
        found.update(million(watchdog, world, 1_000_000 // share))
    finally:
        watchdog.kill()
        world.end()
        patch.undo()
    return found


def settle(pid: int) -> None:
    """Wait until the search index is made, which goes on behind the writes."""
    before = -1.0
    while (now := cpu_seconds(pid)) - before > 0.1:
        before = now
        time.sleep(3)


def million(watchdog, world, count: int) -> dict[str, str]:
    """Ship a file of a million messages, read its end, and see what a relaunch pays for it."""
    from agentctl.state import agent_state

    path = world.state / "history.jsonl"
    with open(path, "w") as file:
        file.writelines(
            json.dumps({"id": f"m{number}", "at": "2026-01-01T00:00:00Z", "role": "user",
                        "content": f"message {number} " + "word " * 20}) + "\n"
            for number in range(count)
        )  # fmt: skip
    last = f"m{count - 1}"
    began = time.perf_counter()
    deadline = began + 900
    while (
        watchdog.ask("GET", "/history?last=1").json["messages"][-1:] == []
        or watchdog.ask("GET", "/history?last=1").json["messages"][-1]["id"] != last
    ):
        if time.perf_counter() > deadline:
            raise SystemExit("the history was not carried over in time")
        time.sleep(0.5)
    carried = time.perf_counter() - began
    settle(watchdog.process.pid)
    reading = sorted(timed(lambda: watchdog.ask("GET", "/history?last=50"))[0] for _ in range(30))
    relaunch = sorted(timed(lambda: agent_state.complete_history(world.context, str(world.folder / "kept")))[0]
                      for _ in range(30))  # fmt: skip
    return {"last 50 of 1,000,000 messages": f"{reading[15] * 1000:.1f} ms",
            "1,000,000 messages add to a relaunch": f"{relaunch[15] * 1000:.1f} ms",
            "carrying 1,000,000 messages into the store": f"{carried:.0f} s"}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the watchdog.")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--load", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load_main(*options.load)
        return 0
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr)
    found = measure(options.quick)
    print("| What | Target | Measured |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {TARGETS.get(name, '')} | {value} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
