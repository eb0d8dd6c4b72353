"""The part that runs outside: make a box with agentctl and supervisor in it, run `inside` there, report.

The disk for code, state and data is one ext4 image each on a loop device, over memory: a real file system with
its journal and its syncs, without the waits of a real disk. It is the same for every contender.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import report

PACKAGING = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PACKAGING), str(PACKAGING.parent / "tests/system"), str(PACKAGING.parent / "tests")]

import box as machine  # noqa: E402
import boxes  # noqa: E402

ROUNDS = 7
DISKS = {"/srv": "8G", "/var/lib/agentctl": "4G"}
MEMORY = "14G"  # the most that the disks may take
LIMIT_SECONDS = 1200
SUPERVISOR = "/opt/supervisor"
VARIANT = "/opt/variant/agentctl"


def main(arguments=None):
    """Run the benchmark; return 0 if it ran, whatever it measured, and 1 if a contender failed."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up of every `with`
    try:
        measured = measure(options)
    except (machine.BoxError, boxes.Unavailable, RuntimeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    text = report.render(measured)
    print(text)
    if options.json:
        Path(options.json).write_text(json.dumps(measured, indent=1) + "\n")
    is_whole = options.rows == report.ROW_NUMBERS and options.rounds >= ROUNDS and not options.variant
    if is_whole and not options.dry_run:
        report.write(PACKAGING.parent / "docs/benchmark.md", text)
        print("written to docs/benchmark.md")
    return 1 if measured["failed"] else 0


def parser():
    top = argparse.ArgumentParser(prog="bench", description="Measure agentctl against its targets.")
    top.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of every row (default: {ROUNDS})")
    top.add_argument("--only", dest="rows", type=rows, default=report.ROW_NUMBERS, metavar="ROWS",
                     help="only these rows, as in 1,4; the document is then not written")  # fmt: skip
    top.add_argument("--root", choices=boxes.ROOTS, default="own", help="the root tree to boot (default: own)")
    top.add_argument("--variant", metavar="FOLDER", help="measure another agentctl package (.../watchdog/agentctl) "
                     "in the same rounds, to see what a change is worth; the document is then not written")  # fmt: skip
    top.add_argument("--dry-run", action="store_true", help="print only, do not write the document")
    top.add_argument("--json", metavar="FILE", help="write every sample there")
    return top


def rows(text):
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not set(numbers) <= set(report.ROW_NUMBERS):
        raise argparse.ArgumentTypeError(f"rows are numbers from {report.ROW_NUMBERS[0]} to {report.ROW_NUMBERS[-1]}")
    return numbers


def measure(options):
    load = os.getloadavg()[0]
    root = boxes.find_root(options.root)
    with tempfile.TemporaryDirectory(prefix="agentctl-bench-") as place:
        wheels = supervisor_wheels(Path(place)) if {2, 6} & set(options.rows) else None
        shared = [(wheels, "/opt/supervisor-wheels")] if wheels else []
        copied = [(options.variant, VARIANT)] if options.variant else []
        with boxes.agentctl_box(root, name="bench", ext4=DISKS, size=MEMORY, shared=shared, copied=copied) as box:
            box.boot()
            if copied:
                box.run(["python3", "-m", "compileall", "-q", VARIANT])
            if wheels:
                install_supervisor(box)
            measured = run_inside(box, options, has_supervisor=wheels is not None)
    return {**measured, "load": load, "rows": options.rows}


def run_inside(box, options, has_supervisor):
    asked = {
        "rounds": options.rounds,
        "rows": options.rows,
        "has_supervisor": has_supervisor,
        "variant": VARIANT if options.variant else None,
    }
    argv = ["python3", "-B", f"{boxes.SOURCE_INSIDE}/packaging/benchmark/inside.py", json.dumps(asked)]
    process = box.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    said, _ = process.communicate(timeout=LIMIT_SECONDS)
    if process.returncode:
        raise RuntimeError(f"the measurement ended with status {process.returncode}")
    return json.loads(said)


def supervisor_wheels(place):
    """Return a folder with supervisor's wheel, or None where it cannot be had: its rows are then left out."""
    try:
        boxes._pip_wheel(place / "wheels", "supervisor", "pip")
    except boxes.Unavailable as error:
        print(f"rows 2 and 6 are measured without supervisord: {error}", file=sys.stderr)
        return None
    return place / "wheels"


def install_supervisor(box):
    python = f"{SUPERVISOR}/venv/bin/python"
    pip = next(name for name in os.listdir(box.path("/opt/supervisor-wheels")) if name.startswith("pip-"))
    box.run(["python3", "-m", "venv", "--without-pip", f"{SUPERVISOR}/venv"], env=boxes.IN_BOX)
    box.run([python, f"/opt/supervisor-wheels/{pip}/pip", "install", "--isolated", "--no-index", "--no-cache-dir",
             "--find-links=/opt/supervisor-wheels", "supervisor"], env=boxes.IN_BOX, timeout=120)  # fmt: skip
