"""Is it steady? The same files of tests again and again, beside a load, each time in another order.

`python tests/kit/steady.py [--python PYTHON] [FILE...]`: 50 rounds (AGENTCTL_STEADY_ROUNDS) on as many lanes as there
are cores, while as many processes keep them busy. Without files at night: the night's share of all files, for as long
as AGENTCTL_STEADY_MINUTES allow. Says which test failed how often; the exit status is 1 if any did.
"""

from __future__ import annotations

import argparse
import collections
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit import affected, effort

ROUND_SECONDS = 3600
BUSY = "while True: pass"
SHARE_OF_NIGHTS = 7  # every file comes once in so many rounds of all nights


class Load:
    """Keep every core busy until the end of the `with`."""

    def __enter__(self) -> None:
        self.running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]

    def __exit__(self, *_) -> None:
        for process in self.running:
            process.kill()
            process.wait(60)


def run_once(python: str, files: list[str], number: int, results: Path) -> int:
    """Run the files in the order of this round; return pytest's exit status, or -9 where it did not end."""
    env = {**os.environ, "AGENTCTL_SEED": f"{effort.SEED}-{number}", "AGENTCTL_SURVIVAL": "", "AGENTCTL_NIGHTLY": ""}
    argv = [python, "-m", "pytest", "-q", "-n", str(os.cpu_count() or 1), "--dist", "loadscope",
            "--no-loadscope-reorder", f"--junit-xml={results}", *files]  # fmt: skip
    with open(results.with_suffix(".log"), "wb") as log:
        running = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env,
                                   start_new_session=True)  # fmt: skip
        try:
            return running.wait(ROUND_SECONDS)
        except BaseException as error:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(60)
            if isinstance(error, subprocess.TimeoutExpired):
                return -9
            raise


def failures_in(results: Path) -> tuple[int, list[str]]:
    """Return how many tests a round had, and the names of those that failed, from its JUnit file."""
    if not results.exists():
        return 0, []
    cases = list(ET.parse(results).getroot().iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return len(cases), [f"{case.get('classname')}::{case.get('name')}" for case in bad]


def files_of_tonight() -> list[str]:
    """Return the night's share of all files."""
    number, count = effort.NIGHT or (1, 1)
    whole = count * SHARE_OF_NIGHTS
    first = (int(time.time() // 86400) % SHARE_OF_NIGHTS) * count + number - 1
    return affected.all_tests()[first::whole]


def main() -> int:
    """Run the rounds, and say what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("files", nargs="*")
    wanted = parser.parse_args()
    files = wanted.files or (files_of_tonight() if effort.NIGHT else [])
    if not files:
        parser.error("name the files; only a night chooses them itself")
    rounds = int(os.environ.get("AGENTCTL_STEADY_ROUNDS", "50"))
    minutes = float(os.environ.get("AGENTCTL_STEADY_MINUTES", "10" if effort.NIGHT else "600"))
    print(f"steady: {rounds} rounds of {' '.join(files)}", flush=True)
    began, done, failed, tests = time.monotonic(), 0, collections.Counter(), 0
    with tempfile.TemporaryDirectory(prefix="ags") as folder, Load():
        for number in range(1, rounds + 1):
            results = Path(folder, f"{number}.xml")
            status = run_once(wanted.python, files, number, results)
            count, bad = failures_in(results)
            tests += count
            failed.update(bad or ([f"round {number} ended with {status}"] if status not in (0, 5) else []))
            if bad or status not in (0, 5):
                print(results.with_suffix(".log").read_text(errors="replace")[-6000:], flush=True)
            done = number
            if time.monotonic() - began > minutes * 60:
                break
    print(f"steady: {done} rounds, {tests} tests, {sum(failed.values())} failed, {time.monotonic() - began:.0f} s")
    for name, count in failed.most_common():
        print(f"  {count} of {done}: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
