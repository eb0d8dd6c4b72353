"""What is measured without breaking anything: an idle runner, `agentctl status`, a second snapshot."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from contenders import VENV_PYTHON

IDLE_SECONDS = 20
SETTLE_SECONDS = 2
STATUS_CALLS_A_ROUND = 3
# From the call to its return, durable: what `report.seconds` says leaves the last sync out.
TIMED = """
import sys, time
from agentctl.state.snapshots import snapshot as snapshots
state, root, id, previous = sys.argv[1:]
began = time.perf_counter()
report = snapshots.take(state, root, id, previous=previous or None)
print(f"{time.perf_counter() - began:.6f} s, {report.files} files, {report.copied_bytes} bytes copied")
"""


def idle(contender, rounds):
    """Return the medians' raw material: PSS in MiB (all but the agent) and CPU in percent of one core."""
    contender.start()
    time.sleep(SETTLE_SECONDS)
    pids = contender.pids()
    began, spent = time.monotonic(), cpu_seconds(pids)
    sizes = []
    for _ in range(rounds):
        time.sleep(IDLE_SECONDS / rounds)
        sizes.append(sum(map(pss_mib, pids)))
    percent = 100 * (cpu_seconds(pids) - spent) / (time.monotonic() - began)
    parts = {name_of(pid): round(pss_mib(pid), 2) for pid in pids}
    contender.stop()
    return {"pss": sizes, "cpu": percent, "parts": parts}


def cpu_seconds(pids):
    """What the scheduler counted, in nanoseconds; clock ticks would be too coarse."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def pss_mib(pid):
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def name_of(pid):
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return f"{Path(f'/proc/{pid}/comm').read_text().strip()} {os.path.basename(words[-2]).decode()}"


def status(name, samples):
    """Time `agentctl status` and a bare interpreter, in turn."""
    for _ in range(STATUS_CALLS_A_ROUND):
        samples["status"].append(seconds_of(["/usr/local/bin/agentctl", "--name", name, "status"]))
        samples["pass"].append(seconds_of([VENV_PYTHON, "-c", "pass"]))


def seconds_of(argv):
    began = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    took = time.perf_counter() - began
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}")
    return took


def make_big_state(folder, files, size):
    for number in range(files):
        place = Path(folder, f"{number // 100:03}")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06}").write_bytes(os.urandom(size))


def snapshot(state, root, samples):
    """One round: a first snapshot of everything, one file in a hundred changed, the second."""
    shutil.rmtree(root, ignore_errors=True)
    os.sync()
    samples["first snapshot"].append(take(state, root, "000001", ""))
    for number, path in enumerate(sorted(p for p in Path(state).rglob("*") if p.is_file())):
        if number % 100 == 0:
            path.write_bytes(os.urandom(path.stat().st_size))
    os.sync()
    samples["second snapshot"].append(take(state, root, "000002", "000001"))


def take(state, root, id, previous):
    done = subprocess.run(
        [VENV_PYTHON, "-c", TIMED, state, root, id, previous], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"snapshot {id} failed: {done.stderr[-2000:]}")
    sys.stderr.write(f"  snapshot {id}: {done.stdout}")
    return float(done.stdout.split()[0])
