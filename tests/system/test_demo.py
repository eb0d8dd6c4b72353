"""The demo under a real systemd: booted by itself, and on a machine that runs one already."""

import os
import subprocess
import time

import boxes
import pytest

DEMO = boxes.CHECKOUT / "packaging/demo"
INSIDE = f"{boxes.SOURCE_INSIDE}/packaging/demo"
PYTHON = f"{boxes.VENV_INSIDE}/bin/python"
WHAT_IT_COULD_LEAVE = """
ls -d /tmp/agentctl-* /etc/systemd/system/*demo* /run/agentctl /etc/agentctl /var/lib/agentctl
systemctl list-units --all --plain --no-legend 'demo*'
ps -eo args | grep '[a]gentctl-demo'
"""


def what_is_left(box):
    return box.run(["sh", "-c", WHAT_IT_COULD_LEAVE], check=False).stdout


def assert_told(output):
    """What a reader has to have seen, in this order."""
    place = 0
    for words in (
        "speed up: changed my source",
        "Watchdog timeout",
        "rollback  incident",
        "I was rolled back, and ['speed up'] is gone.",
        "write note I am still here: noted",
        "the watchdog fires",
        "the trees are switched",
        "its first heartbeat: recovered",
        "the task is finished",
        "$ agentctl status",
        "is well: steady",
        "$ agentctl why",
        "To look further",
    ):
        place = output.find(words, place)
        assert place >= 0, f"not told, or not in this order: {words}\n{output}"
    assert "not seen" not in output
    assert all(len(line) <= 80 for line in output.splitlines())


def test_tells_its_story_under_systemd_and_leaves_nothing_behind(box):
    before = what_is_left(box)
    done = box.run([INSIDE, "--runtime", "systemd", "--python", PYTHON], check=False, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_told(done.stdout)
    assert what_is_left(box) == before


def test_interrupted_under_systemd_it_leaves_nothing_behind(box):
    before = what_is_left(box)
    cut = ["timeout", "--signal=INT", "4", INSIDE, "--runtime", "systemd", "--python", PYTHON]
    done = box.run(cut, check=False, timeout=90)
    assert done.returncode == 124
    assert "I am back, as generation 1." in done.stdout, done.stdout + done.stderr
    assert what_is_left(box) == before


@pytest.fixture
def root_on_this_machine():
    try:
        boxes.find_root("own")
    except boxes.Unavailable as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(f"SYSTEM TESTS DO NOT RUN: {error}")


def test_boots_a_systemd_of_its_own_where_there_is_none(root_on_this_machine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("d")
    began_at = time.monotonic()
    done = subprocess.run(
        [DEMO, "--runtime", "box"],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "booted systemd" in done.stdout
    assert_told(done.stdout)
    assert list(folder.iterdir()) == []
    assert time.monotonic() - began_at < 180
