"""The table of verbs: short words, all of them documented, and none imported before it is called."""

import os
import re
import sys
from pathlib import Path

from agentctl.cli.verbs import BY_NAME, TABLE
from kit import deadline
from ledger_builder import ROOT

DOC = Path(ROOT) / "docs/cli.md"


def test_every_verb_has_one_line_of_help():
    assert len(BY_NAME) == len(TABLE)
    assert all(verb.help and len(verb.help) <= 60 and verb.help[-1] == "." for verb in TABLE)


def test_help_lists_every_verb_and_imports_none():
    code = "import sys; from agentctl.cli.main import main; main(['--help']); "
    code += "print([m for m in sys.modules if m.startswith('agentctl.cli.')])"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/watchdog"}
    done = deadline.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert all(f"  {verb.name} " in done.stdout for verb in TABLE), done.stderr
    loaded = done.stdout.splitlines()[-1]
    assert "'agentctl.cli.main'" in loaded and not any(f"'{verb.module}'" in loaded for verb in TABLE)
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80


def test_every_verb_is_documented_and_nothing_else():
    documented = re.findall(r"^\| `agentctl ([a-z]+)", DOC.read_text(), re.MULTILINE)
    assert sorted(set(documented)) == sorted(BY_NAME)
