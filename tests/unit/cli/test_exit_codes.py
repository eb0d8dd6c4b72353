"""What goes wrong on the command line: one line, a hint, and an exit status that says what kind it is."""

import json
import os
import sys
from pathlib import Path

import pytest

from agentctl.cli import exit_codes
from agentctl.core import errors
from kit import deadline
from ledger_builder import ROOT, agentctl

DOC = Path(ROOT) / "docs/cli.md"


def test_every_exit_code_is_documented():
    text = DOC.read_text()
    codes = [value for name, value in vars(errors).items() if name.startswith("EXIT_")]
    assert all(f"| {code} |" in text for code in codes)


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
