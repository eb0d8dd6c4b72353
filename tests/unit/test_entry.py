"""The door of the units: which part each word starts, and with what."""

import os
import sys

import pytest

from agentctl import entry
from kit import deadline
from ledger_builder import ROOT

PARTS = [
    ("runner", "agentctl.runner.runner", ()),
    ("inside", "agentctl.runtime.container.entrypoint", None),
    ("health", "agentctl.runtime.container.health", None),
    ("trial", "agentctl.runner.trial_process", ("more",)),
    ("rollback", "agentctl.recovery.process", ()),
    ("rescue", "agentctl.rescue", ()),
    ("watchdog", "agentctl.watchdog.daemon", ()),
    ("story", "agentctl.cli.alert_text", ()),
    ("prune", "agentctl.retention.prune", ()),
    ("job", "agentctl.runner.jobs", ("more",)),
]


@pytest.mark.parametrize(("part", "module", "rest"), PARTS)
def test_each_word_starts_its_part(monkeypatch, part, module, rest):
    calls = []
    monkeypatch.setattr(f"{module}.main", lambda *words: calls.append(words) or 7)
    before = os.umask(0o077)
    try:
        assert entry.main(["entry.py", part, "robin", *(rest or ())]) == 7
        assert os.umask(0o077) == 0o022
    finally:
        os.umask(before)
    assert calls == [() if rest is None else ("robin", *rest)]


def test_as_a_file_it_takes_nothing_of_the_agent_s(tmp_path):
    """What an agent could plant, a module in its folder or in PYTHONPATH, is not imported."""
    for name in ("agentctl", "fcntl", "time"):
        (tmp_path / f"{name}.py").write_text("print('planted')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "AGENTCTL_ROOT": str(tmp_path)}
    argv = [sys.executable, "-I", "-S", f"{ROOT}/watchdog/agentctl/entry.py", "health", "robin"]
    done = deadline.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 3 and "planted" not in done.stdout and "no launch" in done.stdout + done.stderr
