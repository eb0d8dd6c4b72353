#!/usr/bin/env python3
"""Measure the runtime `compose` beside what Docker users have: `docker restart`, and restarting what is unhealthy.

All on one container engine of their own, with the same image and the same agent, in interleaved rounds; a time is
from the agent's last word to its next READY=1. Needs root, Debian's docker.io; writes its table of docs/benchmark.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.dont_write_bytecode = True
sys.path[:1] = [str(CHECKOUT / "tests"), str(CHECKOUT / "watchdog"), str(HERE.parent)]  # HERE has a compose, too

from agentctl.changes import adopt  # noqa: E402
from benchmark import report  # noqa: E402
from benchmark.contenders import Event, Failed, expect, wait_until  # noqa: E402
from compose import images  # noqa: E402
from compose.compose_world import DOCKERFILE, ComposeWorld  # noqa: E402

ROUNDS = 7
HEALTH_SECONDS = 5  # the health check's interval, and our heartbeat timeout where that is what is measured
HEAL_SECONDS = 5  # how often docker-autoheal looks, by default
BEGIN, END = "<!-- measured: written by packaging/benchmark/compose.py -->", "<!-- /measured compose -->"
AGENT = (HERE / "agent.py").read_text()
GENEROUS = {
    "agent": {"ready_timeout": "60s", "stop_grace": "10s"},
    "heartbeat": {"timeout": f"{HEALTH_SECONDS}s", "longest_wait": "1m"},
    "probation": {"tries": 1, "duration": "10m"},
    "rollback": {"restarts": 100, "attempts": 100, "per_day": 1000},
}


class Log:
    """The file that an agent writes its words into; in its container it has the same path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self) -> list[Event]:
        try:
            return [Event(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def wait(self, word: str, count: int, version: str | None = None) -> Event:
        """Return the first such event after the first `count` ones."""

        def found():
            return [e for e in self.events()[count:] if e.word == word and version in (None, e.version)]

        return wait_until(found, f"'{word}' in {self.path}")[0]


def tell(engine, container: str, pid: int, signal: str) -> None:
    """Send a signal to a process of a container, by its number in there; the container may end before we are told."""
    code = f"import os, signal; os.kill({pid}, signal.{signal})"
    engine.docker("exec", container, "python3", "-I", "-S", "-c", code, check=False)


class Plain:
    """The agent alone in a container of the same image, and somebody who restarts it."""

    def __init__(self, engine, folder: Path, name: str, *more: str) -> None:
        self.engine, self.name, self.log = engine, name, Log(folder / "log")
        folder.mkdir()
        folder.chmod(0o777)
        (folder / "agent.py").write_text(AGENT)
        engine.docker(
            "run",
            "--detach",
            "--name",
            name,
            "--volume",
            f"{folder}:{folder}",
            "--workdir",
            folder,
            *more,
            "--entrypoint",
            "tini",
            images.AGENT,
            "--",
            "python3",
            "-I",
            "-S",
            "agent.py",
            self.log.path,
        )
        self.log.wait("ready", 0)

    def crash(self) -> float:
        """`docker restart` as soon as Docker says that it has ended."""
        count = len(self.log.events())
        waiting = subprocess.Popen(["docker", "wait", self.name], env=self.engine.environment, stdout=subprocess.PIPE)
        tell(self.engine, self.name, self.log.events()[-1].pid, "SIGUSR1")
        waiting.communicate()
        self.engine.docker("restart", self.name)
        return self.log.wait("ready", count).at - self.log.wait("crash", count).at

    def hang(self) -> float:
        """docker-autoheal's way: what the health check calls unhealthy is restarted by a loop, with its defaults."""
        wait_until(lambda: self.engine.ask("{{.State.Health.Status}}", self.name) == "healthy", "the health check")
        count, is_over = len(self.log.events()), threading.Event()
        healer = threading.Thread(target=self._heal, args=(is_over,))
        healer.start()
        try:
            tell(self.engine, self.name, self.log.events()[-1].pid, "SIGUSR2")
            return self.log.wait("ready", count).at - self.log.wait("hang", count).at
        finally:
            is_over.set()
            healer.join()

    def _heal(self, is_over: threading.Event) -> None:
        while not is_over.wait(HEAL_SECONDS):
            for found in self.engine.docker("ps", "--quiet", "--filter", "health=unhealthy").stdout.split():
                self.engine.docker("restart", "--time", "10", found)


class Ours(ComposeWorld):
    """agentctl: a bad version with a new image fails, the good one with its own image comes back."""

    number = 0

    def adopt(self) -> Ours:
        self.log_file = Log(self.state / "words")
        self.state.chmod(0o777)
        self.commit({"agent.py": AGENT, "Dockerfile": DOCKERFILE}, "the agent of the benchmark")
        (self.state / "config/mode").write_text("good\n")
        self.give()
        self.first = self.head()
        self.context = adopt.adopt(self.paths, str(self.code), ["python3", "-I", "-S", "agent.py",
                                   str(self.log_file.path), str(self.state)], user=self.owner,
                                   state_dir=str(self.state), settings=self.settings)  # fmt: skip
        return self

    def fail(self, signal: str, word: str) -> float:
        """Release a bad version in a new image, break it, and check that the good one runs on its own again."""
        self.number += 1
        version = f"bad-{self.number}"
        self.commit(
            {
                "agent.py": AGENT.replace('VERSION = "good"', f'VERSION = "{version}"'),
                "Dockerfile": f"{DOCKERFILE}ENV NUMBER={self.number}\n",
            },
            version,
        )
        count = len(self.log_file.events())
        self.start()
        self.log_file.wait("spoilt", count, version)
        self.until_beating(self.number + 1)
        os.sync()
        tell(self.engine, self.container()["Id"], self.log_file.wait("ready", count, version).pid, signal)
        end = self.log_file.wait(word, count)
        ready = self.log_file.wait("ready", count, "good")
        expect(end.version, version, "the code that was broken")
        expect(ready.state, "good", "the state the agent found")
        expect(self.until_outcome("recovered", 60)["generation_to"], 1, "the incident's target")
        expect(self.container()["Image"], self.image_of(1), "the image that runs")
        expect(self.image_of(self.number + 1) not in ("", self.image_of(1)), True, "an image of its own")
        expect(self.head(), self.first, "HEAD")
        self.stop()
        return ready.at - end.at

    def restart(self) -> float:
        """Crash the good version: the same container is started again."""
        count = len(self.log_file.events())
        self.start()
        ready = self.log_file.wait("ready", count)
        self.until_beating(1)
        count = len(self.log_file.events())
        tell(self.engine, self.container()["Id"], ready.pid, "SIGUSR1")
        took = self.log_file.wait("ready", count, "good").at - self.log_file.wait("crash", count).at
        self.until_outcome("recovered", 60)
        self.stop()
        return took


class Variables:
    """What pytest's monkeypatch is to a world."""

    def setenv(self, name: str, value: str) -> None:
        os.environ[name] = value


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the samples by name, in seconds."""
    engine = images.start_engine()
    with tempfile.TemporaryDirectory(prefix="agentctl-bench-") as place:
        world = None
        try:
            images.build(engine, "agent", images.AGENT)
            world = Ours(Variables(), engine, GENEROUS).adopt()
            plain = Plain(engine, Path(place, "plain"), "plain")
            check = f"! tail -n 1 {place}/healed/log | grep -q ^hang"  # knows at once, which no real check does
            healed = Plain(engine, Path(place, "healed"), "healed", "--health-interval", f"{HEALTH_SECONDS}s",
                           "--health-retries", "1", "--health-cmd", check)  # fmt: skip
            ways = {
                "rollback": lambda: world.fail("SIGUSR1", "crash"),
                "docker restart": plain.crash,
                "restart": world.restart,
                "hang": lambda: world.fail("SIGUSR2", "hang"),
                "autoheal": healed.hang,
            }
            samples: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(rounds):
                for name in list(ways) if number % 2 == 0 else reversed(ways):
                    samples[name].append(ways[name]())
                    print(f"round {number + 1}: {name} {samples[name][-1]:.3f} s", file=sys.stderr)
            return samples
        finally:
            if world:
                world.end()
            engine.close()


def render(samples: dict[str, list[float]], load: float) -> str:
    """Return the markdown that stands between the markers."""
    mid = {name: median(values) for name, values in samples.items()}
    spread = ", ".join(f"{name} {min(v):.2f}-{max(v):.2f} s" for name, v in samples.items())
    allowed = 2 * mid["docker restart"] + HEALTH_SECONDS
    lines = [
        (
            f"Medians of {len(samples['rollback'])} interleaved rounds on {os.cpu_count()} cores, kernel "
            f"{os.uname().release}; load before the run: {load:.1f}. Smallest and largest: {spread}."
        ),
        "",
        "| What | agentctl | Compared with | | Ratio | To reach | |",
        "|---" * 7 + "|",
    ]
    restart = "`docker restart` of the same agent as soon as it has ended"
    heal = f"unhealthy -> restart, every {HEAL_SECONDS} s (docker-autoheal's defaults); rolls nothing back"
    for what, ours, against, other, limit in (
        ("crash of a version with a new image -> ready on the previous image, with its state", "rollback", restart,
         "docker restart", allowed),
        ("crash of good code -> ready again, same container", "restart", "the same", "docker restart", allowed),
        ("hang of a version with a new image -> ready on the previous image", "hang", heal, "autoheal",
         mid["autoheal"]),
    ):  # fmt: skip
        verdict = "yes" if mid[ours] <= limit else "**no**"
        lines.append(
            f"| {what} | {report.seconds(mid[ours])} | {against} | {report.seconds(mid[other])} "
            f"| {report.times(mid[ours] / mid[other])} | <= {report.seconds(limit)} | {verdict} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="compose.py", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dry-run", action="store_true", help="print only, do not write the document")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    try:
        text = render(measure(options.rounds), load)
    except (Failed, images.EngineError, images.machine.BoxError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(text)
    path = CHECKOUT / "docs/benchmark.md"
    if not options.dry_run and options.rounds >= ROUNDS:
        head, rest = path.read_text().split(BEGIN, 1)
        path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")
        print(f"written to {path.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
