"""The door and the other views: verbs, errors and exit codes, tables, diff, logs, words for people."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from agentctl.cli import agent_verbs, exit_codes
from agentctl.cli.verbs import BY_NAME, TABLE
from agentctl.core import errors
from agentctl.core import text as format
from agentctl.core.paths import SYSTEM, USER, AgentPaths
from agentctl.generations.vault import create_bare
from kit import deadline
from ledger_builder import INCIDENT_KEYS, ROOT, Home, agentctl

DOC = Path(ROOT) / "docs/cli.md"


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = Home(tmp_path, monkeypatch)
    yield made
    made.close()


# --- the table of verbs


def test_every_verb_has_one_line_of_help():
    assert len(BY_NAME) == len(TABLE)
    assert all(verb.help and len(verb.help) <= 60 and verb.help[-1] == "." for verb in TABLE)


def test_help_lists_every_verb_and_imports_none():
    code = "import sys; from agentctl.cli.main import main; main(['--help']); "
    code += "print([m for m in sys.modules if m.startswith('agentctl.cli.main.')])"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/watchdog"}
    done = deadline.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert all(f"  {verb.name} " in done.stdout for verb in TABLE), done.stderr
    loaded = done.stdout.splitlines()[-1]
    assert not any(f"'{verb.module}'" in loaded for verb in TABLE)
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80


def test_every_verb_is_documented_and_nothing_else():
    documented = re.findall(r"^\| `agentctl ([a-z]+)", DOC.read_text(), re.MULTILINE)
    assert sorted(set(documented)) == sorted(BY_NAME)


def test_every_exit_code_is_documented():
    text = DOC.read_text()
    codes = [value for name, value in vars(errors).items() if name.startswith("EXIT_")]
    assert all(f"| {code} |" in text for code in codes)


# --- errors


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.AgentctlError("no", "do"), 1),
        (errors.UsageError("no", "do"), 2),
        (errors.LockHeld("no", "do"), 4),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("no"), 70),
    ],
)
def test_exit_codes(error, status, capsys, monkeypatch):
    monkeypatch.setenv("AGENTCTL_DEBUG", "1")
    assert exit_codes.through(raising(error), as_json=False) == status
    said = capsys.readouterr()
    assert said.out == "" and "Error: " in said.err
    assert exit_codes.through(raising(error), as_json=True) == status
    printed = capsys.readouterr().err
    assert json.loads(printed[printed.index("{") :]).keys() == {"code", "message", "hint"}


def test_a_bug_keeps_its_traceback_in_a_file(capsys, monkeypatch, tmp_path):
    import tempfile

    monkeypatch.delenv("AGENTCTL_DEBUG", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert exit_codes.through(raising(ValueError("x\x1b[31m")), as_json=False) == 70
    (path,) = tmp_path.iterdir()
    assert "Traceback" in path.read_text() and path.stat().st_mode & 0o077 == 0
    said = capsys.readouterr().err
    assert str(path) in said and "\x1b" not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["staus"], "did you mean 'agentctl status'?"),
        (["xyzzy"], "agentctl --help lists the verbs"),
        (["why", "--nonsense"], "agentctl why --help"),
        (["diff", "1"], "agentctl diff --help"),
        (["config"], "show"),
    ],
)
def test_usage_errors(home, words, expected):
    done = agentctl(*words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and expected in done.stderr


def test_errors_with_json_leave_standard_output_empty(home):
    done = agentctl("diff", "1", "2", "--json")
    assert done.returncode == 1 and done.stdout == ""
    assert json.loads(done.stderr)["code"] == "failed"


def test_a_reader_that_leaves_is_no_drama(home):
    for number in range(1, 400):
        home.generation(number)
    code = "import sys; from agentctl.cli.main import main; sys.exit(main())"
    call = f'"{sys.executable}" -c "{code}" generations --json | head -c 10'
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/watchdog"}
    done = deadline.run(["/bin/sh", "-c", call], env=env, capture_output=True, text=True)
    assert done.stderr == ""


# --- generations, incidents, diff


def test_generations(home):
    home.generation(1, is_golden=1)
    home.generation(2, "condemned", reason="exit \x1b[31mstatus 1; " + "because " * 20)
    home.generation(3, "candidate", branch="feature/" + "long-" * 10)
    home.launch(generation=3)
    lines = agentctl("generations").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[1] for line in lines[1:]] == ["candidate", "condemned", "golden"]
    assert lines[1].startswith("3*") and "\x1b" not in "".join(lines)
    rows = json.loads(agentctl("generations", "--json").stdout)
    keys = {"number", "commit", "tree", "status", "created_at", "blessed_at", "reason", "snapshot"}
    assert [row["status"] for row in rows] == ["golden", "condemned", "candidate"]
    assert all(row.keys() >= keys for row in rows)
    assert rows[0]["created_at"].endswith("Z") and rows[2]["blessed_at"] is None


def test_incidents(home):
    assert agentctl("incidents").stdout == "no incident yet\n"
    home.incident(outcome="recovered", ended_at=home.now - 98)
    home.incident("20260202-000000-123456", at=home.now, reason="long " * 40, generation_to=None)
    lines = agentctl("incidents").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "20260202" in lines[1] and "open" in lines[1] and "2 -> 1" in lines[3]
    assert lines[2].startswith("  long long") and lines[4] == "  exit status 1 after 3.0s"
    rows = json.loads(agentctl("incidents", "--json").stdout)
    assert rows[0]["id"].startswith("20260202") and all(row.keys() >= INCIDENT_KEYS for row in rows)
    assert len(json.loads(agentctl("incidents", "-n", "1", "--json").stdout)) == 1


def test_diff_is_readable_though_the_vault_calls_everything_binary(home):
    vault = home.paths.vault_path
    create_bare(vault)

    def git(*words, stdin=b""):
        identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a"}
        identity |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a"}
        argv = ["git", "--git-dir", vault, *words]
        env = {**os.environ, **identity}
        return deadline.run(argv, input=stdin, env=env, check=True, capture_output=True).stdout.strip().decode()

    for number, content in ((1, b"a\nb\n"), (2, b"a\nc\nd\n")):
        blob = git("hash-object", "-w", "--stdin", stdin=content)
        tree = git("mktree", stdin=f"100644 blob {blob}\tx.py\n".encode())
        home.generation(number, vault_commit=git("commit-tree", tree, "-m", "x"))
    assert "-b\n+c\n+d\n" in agentctl("diff", "1", "2").stdout
    assert "x.py | 3 ++-" in agentctl("diff", "--stat", "1", "2").stdout
    found = json.loads(agentctl("diff", "1", "2", "--json").stdout)
    assert (found["from"], found["to"]) == (1, 2) and "+c" in found["diff"]
    assert agentctl("diff", "1", "1").stderr == "no difference\n"
    unknown = agentctl("diff", "1", "9")
    assert unknown.returncode == 1 and "there is no generation 9" in unknown.stderr


# --- logs


@pytest.mark.parametrize(
    ("scope", "arguments", "expected"),
    [
        (SYSTEM, {}, "-u a.service -u a-rollback.service -u a-rescue.service -n 200 --output=short-iso"),
        (USER, {"lines": 5}, "--user -u a.service -u a-rollback.service -u a-rescue.service -n 5"),
        (SYSTEM, {"follow": True}, "-n 200 --follow --output"),
        (SYSTEM, {"follow": True, "since": "-1h"}, "--no-tail --follow --since=-1h --output"),
        (SYSTEM, {"fields": {"AGENTCTL_LAUNCH_ID": "L"}}, "short-iso AGENTCTL_LAUNCH_ID=L"),
        (SYSTEM, {"fields": {"AGENTCTL_GENERATION": 0}, "as_json": True}, "json AGENTCTL_GENERATION=0"),
    ],
)  # fmt: skip
def test_journal_call(scope, arguments, expected):
    known = {"follow": False, "lines": None, "since": "", "fields": {}, "as_json": False}
    argv = agent_verbs.journal_argv(AgentPaths("a", scope, {"HOME": "/h"}, 0), **{**known, **arguments})
    assert expected in " ".join(argv)


def test_kept_file_of_the_direct_runtime(home):
    with open(f"{home.paths.data_dir}/agent.log", "w") as file:
        file.write("one\n\x1b[31mtwo\x1b[0m\nthree\n")
    assert agentctl("logs", "-n", "2").stdout == "two\nthree\n"
    refused = agentctl("logs", "--launch", "L1")
    assert refused.returncode == 2 and "cannot be filtered" in refused.stderr


# --- words for people


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0, "0.0s"), (0.42, "0.4s"), (9.96, "10s"), (59.6, "1m"), (80, "1m20s")]
    + [(3600, "1h"), (7500, "2h05m"), (86400, "1d"), (273600, "3d4h"), (65, "1m05s")],
)
def test_duration(seconds, text):
    assert format.duration(seconds).replace("0s", "0.0s", 1 if seconds <= 0 else 0) == text


def test_stamp_rounds_to_milliseconds():
    assert format.stamp(0.9996) == "1970-01-01T00:00:01.000Z"
    assert format.stamp(1.0015) == "1970-01-01T00:00:01.002Z"


def test_public_turns_instants_only():
    made = format.public({"at": 0, "seconds": 1.5, "x": [{"ended_at": None, "ready_at": 0.5}]})
    assert made["at"] == "1970-01-01T00:00:00.000Z" and made["seconds"] == 1.5
    assert made["x"] == [{"ended_at": None, "ready_at": "1970-01-01T00:00:00.500Z"}]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("a\x00b\rc\x08d\x7fe\x85f", "abcdef"),
        ("\u202eevil\u2066", "evil"),
        ("half \ud800", "half ?"),
        ("tab\tline\n", "tab\tline\n"),
    ],
)
def test_clean(text, cleaned):
    assert format.clean(text) == cleaned


def test_wrap_breaks_what_has_no_spaces():
    lines = format.wrap("x" * 200 + " end", "  label  ")
    assert max(map(len, lines)) <= 80 and "".join("".join(lines).split()).count("x") == 200
