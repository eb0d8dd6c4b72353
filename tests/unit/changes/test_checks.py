"""The gate's parts on real files: parsers, linters, tests that hang, print for ever or leave children behind."""

import os
import sys
import time

import pytest

from agentctl.changes import checks
from agentctl.host import procfs

GOOD = {
    "a.py": "x: int = 1\n", "sub/b.pyi": "def f() -> int: ...\n", "tool.sh": "#!/bin/sh\nif true; then echo; fi\n",
    "run": "#!/usr/bin/env python3\nprint(1)\n", "go": "#!/bin/bash\na=(1 2)\n", "d.json": '{"a": 1}\n',
    "t.toml": "a = 1\n", "notes.txt": "(((", "tsconfig.json": "{ // a comment\n}", "odd name.py": "y = 1\n",
    "latin.py": b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
}  # fmt: skip
BAD = {
    "a.py": "def f(:\n", "b.py": b"x = '\xff'\n", "c.py": b"x = 1\0\n", "deep.py": "x = " + "(" * 3000 + ")" * 3000,
    "tool.sh": "#!/bin/sh\nif true; then\n", "go": "#!/bin/bash\na=(1 2\n", "run": "#!/usr/bin/env python3\nprint(\n",
    "plain.sh": "for x in\n", "d.json": "{", "t.toml": "a = = 1\n", "indent.py": "def f():\nx = 1\n",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    def fill(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(tmp_path)

    return fill


def read(folder, files):
    return checks.check(folder(files), list(files), sys.executable, dict(os.environ))


def test_what_is_well_formed_passes(folder):
    verdict = read(folder, GOOD)
    assert verdict.problems == [] and verdict.read == len(GOOD) - 2 and verdict.unread == 2


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_is_named(folder, name):
    problems = read(folder, {name: BAD[name]}).problems
    assert len(problems) == 1 and problems[0].startswith(name), problems


def test_every_bad_file_is_named_at_once(folder):
    problems = read(folder, BAD).problems
    assert {p.partition(":")[0] for p in problems} == set(BAD)


def test_links_and_missing_files_are_left_alone(folder, tmp_path):
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    verdict = checks.check(str(tmp_path), ["link.py", "gone.py"], sys.executable, dict(os.environ))
    assert (verdict.problems, verdict.unread) == ([], 2)


def run(tmp_path, *argv, limit=30.0, name="tests"):
    env = checks.environment(str(tmp_path), str(tmp_path), [], str(tmp_path))
    log = str(tmp_path / "logs/x.log")
    if name == "lint":
        return checks.run_lint(str(tmp_path), list(argv), ["a.py", "b.txt"], env, limit, log)
    return checks.run_tests(str(tmp_path), list(argv), env, limit, log)


def test_no_tests_are_no_failure(tmp_path):
    part = run(tmp_path)
    assert part.ok and "none are configured" in part.said


def test_a_failing_test_tells_its_last_words_and_where_all_of_them_are(tmp_path):
    part = run(tmp_path, "sh", "-c", "echo it broke here; exit 3")
    assert not part.ok and "exit status 3" in part.said and "it broke here" in part.said
    assert str(tmp_path / "logs/x.log") in part.hint


def test_a_killed_test_is_told_so(tmp_path):
    assert "signal 9" in run(tmp_path, "sh", "-c", "kill -9 $$").said


def test_a_tool_that_is_missing_is_named_with_what_to_do(tmp_path):
    for name in ("tests", "lint"):
        part = run(tmp_path, "no-such-tool", name=name)
        assert not part.ok and "'no-such-tool' is not here" in part.said and f"change.{name}" in part.hint


def test_a_hanging_test_is_killed_with_all_its_children(tmp_path):
    script = "setsid sh -c 'echo $$ >away; exec sleep 600' & echo $$ >here; sleep 600"
    part = run(tmp_path, "sh", "-c", script, limit=5)
    assert not part.ok and "no end after 5s" in part.said
    for name in ("here", "away"):
        assert not procfs.is_alive(int((tmp_path / name).read_text()))


def test_what_a_good_test_leaves_running_is_ended(tmp_path):
    part = run(tmp_path, "sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $! >left")
    assert part.ok
    assert not procfs.is_alive(int((tmp_path / "left").read_text()))


def test_what_prints_without_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "MOST_OUTPUT_BYTES", 1 << 20)
    began = time.monotonic()
    part = run(tmp_path, "sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", limit=120)
    assert not part.ok and "printed more than" in part.said and time.monotonic() - began < 100


def test_the_linter_gets_what_was_changed(tmp_path):
    part = run(tmp_path, "sh", "-c", 'echo "$@"; exit 1', "sh", "{python}", "-", "{files}", name="lint")
    assert "a.py - a.py b.txt" in part.said
    assert run(tmp_path, "false", "{python}", name="lint").ok is False
    env = checks.environment("/", "/", [], "/")
    assert checks.run_lint("/", ["false", "{python}"], ["b.txt"], env, 5, "/x").ok


def test_nothing_of_the_running_agent_is_passed_on(tmp_path, monkeypatch):
    for name in ("AGENT_STATE_DIR", "AGENT_TOKEN_FILE", "NOTIFY_SOCKET", "AGENTCTL_SCOPE", "GIT_DIR"):
        monkeypatch.setenv(name, "/secret")
    assert "/secret" not in checks.environment(str(tmp_path), "/", [], "/").values()


def test_the_agent_s_own_tools_come_first(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    path = checks.environment(str(tmp_path), "/nowhere", [".venv"], "/")["PATH"]
    assert path.startswith(f"{tmp_path}/.venv/bin:")
