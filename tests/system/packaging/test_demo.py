"""The demo under a real systemd: booted by itself, and on a machine that runs one already."""

import os
import subprocess

import boxes
import foreign_agent
import pytest

from kit import deadline, effort

DEMO = boxes.CHECKOUT / "packaging/demo"
INSIDE = f"{boxes.SOURCE_INSIDE}/packaging/demo"
PYTHON = f"{boxes.VENV_INSIDE}/bin/python"
WHAT_IT_COULD_LEAVE = """
ls -d /tmp/agentctl-* /etc/systemd/system/*demo* /run/agentctl /etc/agentctl /var/lib/agentctl
systemctl list-units --all --plain --no-legend 'demo*'
ps -eo args | grep '[a]gentctl-demo'
"""


# A ^C in the middle of the story, whenever that is.
CUT = """
told=$(mktemp)
"$0" "$@" >"$told" 2>&1 &
while kill -0 $! && ! grep -q 'I am back, as generation 1' "$told"; do sleep 0.1; done
kill -INT $!
wait $!
status=$?
cat "$told"
rm "$told"
exit $status
"""


def what_is_left(box):
    return box.run(["sh", "-c", WHAT_IT_COULD_LEAVE], check=False).stdout


def assert_in_order(output, told):
    """What a reader has to have seen, in this order."""
    place = 0
    for words in told:
        place = output.find(words, place)
        assert place >= 0, f"not told, or not in this order: {words}\n{output}"


def assert_told(output):
    assert_in_order(output, (
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
    ))  # fmt: skip
    assert "not seen" not in output
    assert all(len(line) <= 80 for line in output.splitlines())


def test_tells_its_story_under_systemd_and_leaves_nothing_behind(box):
    before = what_is_left(box)
    done = box.run([INSIDE, "--runtime", "systemd", "--python", PYTHON], check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_told(done.stdout)
    assert what_is_left(box) == before


def test_interrupted_under_systemd_it_leaves_nothing_behind(box):
    before = what_is_left(box)
    cut = ["sh", "-c", CUT, INSIDE, "--runtime", "systemd", "--python", PYTHON]
    done = box.run(cut, check=False, timeout=300)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "I am back, as generation 1." in done.stdout, done.stdout + done.stderr
    assert "the task is finished" not in done.stdout
    assert what_is_left(box) == before


MAKE_VENV = """
set -e
python3 -m venv --without-pip /opt/agent
/opt/agent/bin/python "$(echo /opt/agent-wheels/pip-*.whl)/pip" install --isolated --quiet --no-index --no-cache-dir \
    --find-links=/opt/agent-wheels -r "$1"
"""
REAL_AGENTS = effort.choose(("nanobot", "llm"), 1, "demo")


@pytest.fixture(params=REAL_AGENTS)
def real_agent(request):
    """A box with that agent in /opt/agent; return (box, the agent's name)."""
    pins = f"{boxes.SOURCE_INSIDE}/packaging/demo.d/agents/{request.param}/requirements.txt"
    try:
        root = boxes.find_root(boxes.wanted_roots()[0])
        wheels = foreign_agent.wheels_for(root, request.param)
        box = boxes.agentctl_box(root, shared=[(wheels, foreign_agent.WHEELS_INSIDE)])
    except boxes.Unavailable as error:
        boxes.give_up(str(error))
    with box:
        box.boot()
        box.run(["sh", "-c", MAKE_VENV, "sh", pins], timeout=foreign_agent.BUILD_SECONDS)
        yield box, request.param


def test_a_real_agent_changes_itself_breaks_and_mends_the_change(real_agent):
    box, name = real_agent
    before = what_is_left(box)
    words = ["--runtime", "systemd", "--python", PYTHON, "--agent", name, "--agent-venv", "/opt/agent"]
    done = box.run([INSIDE, *words], check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_in_order(done.stdout, (
        "the commit was refused: syntax: habits.py", "it held for ", "agentctl change promote feature/outbox",
        "back.txt'", "the tree is generation 1", "I was rolled back; the brief tells why", "it held for ",
        "generation 3 is good now", "Done: it is blessed", "What is claimed", "$ agentctl why",
    ))  # fmt: skip
    assert done.stdout.count("\n  ok ") >= 11 and "WRONG" not in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
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
    done = deadline.run(
        [DEMO, "--runtime", "box"],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "booted systemd" in done.stdout
    assert_told(done.stdout)
    assert list(folder.iterdir()) == []
