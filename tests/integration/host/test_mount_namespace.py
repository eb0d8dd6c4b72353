"""A view of the file system of one's own, as root and as anybody: not seen outside, and not to be undone."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from agentctl.host import mount_namespace
from agentctl.runtime import sandbox
from integration.world import SOURCE, write
from kit import deadline

NOBODY = 65534
LOOK = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from agentctl.host import mount_namespace as own_view
top = sys.argv[2]
own_view.enter()
own_view.write_apart(f"{top}/outside", f"{top}/aside")
own_view.put_over(f"{top}/copy", f"{top}/state")
own_view.make_read_only(f"{top}/code", [f"{top}/code/.git", f"{top}/code/in"])
os.execv(sys.executable, [sys.executable, "-c", '''
import json, os, subprocess, sys
top, found = sys.argv[1], {}
def attempt(name, act):
    try:
        found[name] = act()
    except OSError as error:
        found[name] = error.errno
def put(path):
    with open(path, "a") as file:
        return file.write("x")
for path in ("state/a", "code/a", "code/.git/a", "code/in/a", "code/in/deep/a", "outside/a", "outside/new"):
    attempt(path, lambda: put(f"{top}/{path}"))
attempt("what was the state", lambda: open(f"{top}/state/a").read())
attempt("what lies outside", lambda: sorted(os.listdir(f"{top}/outside")))
attempt("undo", lambda: subprocess.run(["umount", f"{top}/state"], stderr=subprocess.DEVNULL).returncode != 0)
attempt("undo in another", lambda: subprocess.run(["unshare", "-Urm", "umount", f"{top}/state"],
                                                  stderr=subprocess.DEVNULL).returncode != 0)
print(json.dumps(found))
''', top])
"""


@pytest.fixture
def top():
    """A folder that anybody may enter: the others' temp folders are closed."""
    folder = Path(tempfile.mkdtemp(prefix="agw", dir="/tmp"))
    write(
        folder,
        {
            "state/a": "real",
            "copy/a": "copy",
            "code/a": "code",
            "code/.git/a": "",
            "code/in/deep/a": "",
            "code/in/a": "",
            "outside/a": "real",
        },
    )
    yield folder
    shutil.rmtree(folder)


def look(top, uid: int) -> dict:
    if uid:
        deadline.run(["chown", "-R", f"{uid}:{uid}", top], check=True)
    become = {"user": uid, "group": uid, "extra_groups": []} if uid != os.geteuid() else {}
    done = deadline.run(["/usr/bin/python3", "-c", LOOK, SOURCE, str(top)], capture_output=True, text=True, **become)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("uid", [os.geteuid(), *([NOBODY] if os.geteuid() == 0 else [])])
def test_what_is_closed_stays_closed(top, uid):
    found = look(top, uid)
    undone = {name: found.pop(name) for name in ("undo", "undo in another")}
    assert found == {
        "state/a": 1,
        "code/a": 30,
        "code/.git/a": 1,
        "code/in/a": 1,
        "code/in/deep/a": 1,
        "outside/a": 1,
        "outside/new": 1,
        "what was the state": "copyx",
        "what lies outside": ["a", "new"],
    }
    if uid:  # root may do anything
        assert undone == {"undo": True, "undo in another": True}
    assert (top / "state/a").read_text() == "real" and (top / "copy/a").read_text() == "copyx"
    assert os.listdir(top / "outside") == ["a"] and (top / "outside/a").read_text() == "real"
    assert (top / "code/.git/a").read_text() == "x" and (top / "code/a").read_text() == "code"


def test_where_it_is_not_allowed_it_says_so(top, monkeypatch):
    def refuse():
        raise PermissionError(1, "Operation not permitted", "a user namespace")

    monkeypatch.setattr(mount_namespace, "enter", refuse)
    plan = {"state": str(top / "state"), "folder": str(top), "extra": [], "doors": "", "code": "", "in_code": []}
    assert sandbox.seclude(plan) == "a user namespace: Operation not permitted"


def test_folders_outside_are_taken_once(top):
    patterns = [f"{top}/outside/*.db", f"{top}/outside/a", f"{top}/code/in/*", f"{top}/code/**/x", f"{top}/none/*"]
    assert sandbox.outside(patterns) == [f"{top}/code", f"{top}/outside"]
