"""Which files of tests a gate runs again after a failure: `python tests/kit/second_look.py [--failed] RESULTS.xml`.

A few thousand tests of real processes on a noisy machine meet an interleaving of their own now and then. What passes
the second time is told as unsteady and is somebody's work; what breaks a promise is never asked twice.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as tree
from pathlib import Path

MOST_TESTS, MOST_FILES = 8, 2  # one takes along those that go on from it; more is no accident
PARTS = ("integration", "system", "compose")  # those of real processes; a unit test has no excuse
# In the name of a file: promises are tried at crash points there.
FAULTS = ("kill", "power", "syscall", "broken", "damaged", "lost", "trigger", "crash", "fallback", "moving",
          "storage", "postgres")  # fmt: skip


def failed(results: str | Path) -> list[tuple[str, str]]:
    """Return the file and the name of each test that failed or could not be set up, from a JUnit file."""
    cases = tree.parse(results).getroot().iter("testcase")
    return [(case.get("classname", "").replace(".", "/") + ".py", case.get("name", "")) for case in cases
            if case.find("failure") is not None or case.find("error") is not None]  # fmt: skip


def files_to_run_again(failures: list[tuple[str, str]]) -> list[str]:
    """Return the files in their order, whole ones: tests of a file go on from each other; [] if one look is enough."""
    files = list(dict.fromkeys(file for file, _ in failures))
    if not 0 < len(failures) <= MOST_TESTS or len(files) > MOST_FILES:
        return []
    return files if all(_may_be_unsteady(file) for file in files) else []


def _may_be_unsteady(file: str) -> bool:
    _, part, *name = file.split("/")
    return part in PARTS and not any(word in "/".join(name) for word in FAULTS)


if __name__ == "__main__":
    *wish, path = sys.argv[1:]
    failures = failed(path)
    lines = [f"  {file}::{name}" for file, name in failures] if wish == ["--failed"] else files_to_run_again(failures)
    sys.stdout.writelines(f"{line}\n" for line in lines)
