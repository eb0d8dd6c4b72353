"""The wheels of the agents from PyPI: of the versions that are pinned, or, to see what still passes, of the newest.

AGENTCTL_AGENT_VERSIONS=newest takes the newest that the box's Python can run; `packaging/test versions` sets it. As a
program it tells, from the tests' report, which versions passed: `agent_wheels.py REPORT.xml`.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

SOURCES = Path(__file__).with_name("foreign")
IS_NEWEST = os.environ.get("AGENTCTL_AGENT_VERSIONS") == "newest"
DOWNLOAD_SECONDS = 1800
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.MULTILINE)


class CannotDownload(Exception):
    """pip could not get the wheels; the text says why."""


def fetch(root, name, cache):
    """Return a folder of wheels of what `name` asks for, for the Python of that root. Raise CannotDownload."""
    wanted, today = pins(name), time.strftime("%Y%m%d")
    python = Path(root, "usr/bin/python3").resolve().name.removeprefix("python")
    kind = ""
    if IS_NEWEST:
        wanted, kind = PIN.sub(r"\1", wanted), f"newest-{today}-"
    key = hashlib.sha256(f"{python}\n{wanted}".encode()).hexdigest()[:12]
    folder = cache / f"wheels-{name}-{kind}{key}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"wheels-{name}-newest-*") if IS_NEWEST else ():
            if today not in old.name:  # of today's, one may be in use at this moment
                shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix=".wheels-", dir=cache) as place:
            _download(Path(place) / "wheels", python, wanted.split())
            with contextlib.suppress(OSError):  # somebody else was faster
                (Path(place) / "wheels").rename(folder)
    return folder


def pins(name):
    """Return what `name` asks for, as it stands in its source."""
    return (SOURCES / name / "requirements.txt").read_text()


def pins_of(wheels, name):
    """Return what `name` asks for, with the versions of these wheels."""
    parts = [wheel.split("-")[:2] for wheel in wheels if wheel.endswith(".whl")]
    found = {_plain(project): version for project, version in parts}
    return PIN.sub(lambda pin: f"{pin[1]}=={found[_plain(pin[1])]}", pins(name))


def _plain(project):
    return re.sub(r"[-_.]+", "-", project).lower()


def _download(folder, python, wanted):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--python-version", python, "--dest", str(folder), *wanted, "pip"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired:
        raise CannotDownload(f"{' '.join(command)} did not end within {DOWNLOAD_SECONDS} s") from None
    if done.returncode:
        raise CannotDownload(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def tell(report):
    """Return one line for each agent: its version here, the version tried, and what passed."""
    root = ET.parse(report).getroot()
    tried = {p.get("name").removeprefix("version "): p.get("value") for p in root.iter("property")}
    lines = [f"{'agent':16}{'tried':28}{'verified with':28}passed"]
    for agent, text in sorted(tried.items()):
        cases = [case for case in root.iter("testcase") if (case.get("name") or "").endswith(f"[{agent}]")]
        bad = [case.get("name").partition("[")[0] for case in cases if len(case)]
        newest, _, pinned = text.partition(" | ")
        outcome = f"all {len(cases)}" if not bad else f"{len(cases) - len(bad)} of {len(cases)}; not {', '.join(bad)}"
        lines.append(f"{agent:16}{newest:28}{pinned:28}{outcome}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tell(sys.argv[1]))
