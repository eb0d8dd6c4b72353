"""One agent, opened: where its things are, what counts where its settings are broken, and locks on its files."""

import os
import subprocess
import sys
import time

import pytest

from agentctl.config import context as contexts
from agentctl.config.context import Context, Lock
from agentctl.core.errors import AgentctlError, LockHeld
from agentctl.core.paths import SYSTEM, USER
from kit import deadline
from ledger_builder import ROOT


def test_an_agent_that_is_not_there_is_told_with_what_makes_one(home):
    with pytest.raises(AgentctlError, match="there is no agent called 'nobody' here") as refused:
        Context.open("nobody")
    assert "agentctl init" in refused.value.hint


def test_broken_settings_are_refused_or_the_last_valid_ones_count(home):
    assert Context.open("agent").complaint == ""
    with open(home.paths.config_path, "a") as file:
        file.write("torn = \n")
    with pytest.raises(AgentctlError):
        Context.open("agent")
    found = Context.open("agent", lenient=True)
    assert found.code_dir == str(home.code) and found.complaint


def test_places_of_the_state_are_below_its_folder(home):
    found = Context.open("agent")
    for path, name in ((found.task_path, "current_task.md"), (found.history_path, "history.jsonl"),
                       (found.brief_path, "BRIEF.md")):  # fmt: skip
        assert path == f"{found.state_dir}/{name}"
    assert found.incident_dir("I") == f"{home.paths.incidents_dir}/I"
    assert found.launch_dir("L") == f"{home.paths.incidents_dir}/launches/L"


def test_a_tilde_means_the_home_of_who_the_agent_runs_as(home, monkeypatch):
    with open(home.paths.config_path, "a") as file:
        file.write('[state]\nextra = ["~/.tool/**", "/srv/x"]\n')
    monkeypatch.setenv("HOME", "/home/robin")
    assert Context.open("agent").extra_state == ["/home/robin/.tool/**", "/srv/x"]


@pytest.mark.parametrize(("variable", "scope"), [(SYSTEM, SYSTEM), (USER, USER), (None, None)])
def test_whose_agent_is_meant(monkeypatch, variable, scope):
    monkeypatch.delenv("AGENTCTL_SCOPE", raising=False)
    if variable:
        monkeypatch.setenv("AGENTCTL_SCOPE", variable)
    assert contexts.find_paths("agent").scope == (scope or (SYSTEM if os.geteuid() == 0 else USER))


def test_ids_sort_by_time(monkeypatch):
    then = [time.gmtime(seconds) for seconds in (9.0, 10.0, 4_000_000_000.0)]
    ids = []
    for instant in then:
        monkeypatch.setattr(contexts.time, "gmtime", lambda instant=instant: instant)
        ids.append(contexts.new_id())
    assert ids == sorted(ids) and ids[0].startswith("19700101-000009-") and len({len(one) for one in ids}) == 1


# -- locks --------------------------------------------------------------------------------------------------------


def test_a_lock_is_held_once_and_says_by_whom(tmp_path):
    path = str(tmp_path / "lock")
    held = Lock(path, "a rollback").take()
    with pytest.raises(LockHeld, match=rf"a rollback is .*process {os.getpid()}\)"):
        Lock(path, "a rollback").take()
    held.release()
    with Lock(path, "a rollback").take(), open(path) as file:
        assert file.read().strip() == str(os.getpid())


def test_one_that_waits_gets_it_when_it_is_free(tmp_path):
    path = str(tmp_path / "lock")
    code = (
        f"import sys, time; sys.path.insert(0, {ROOT + '/watchdog'!r})\n"
        "from agentctl.config.context import Lock\n"
        "with Lock(sys.argv[1], 'x').take(): print('held', flush=True); time.sleep(0.3)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert deadline.read_line(holder) == "held\n"
    with pytest.raises(LockHeld):
        Lock(path, "x").take()
    Lock(path, "x").take(wait_seconds=60).release()
    assert deadline.wait(holder) == 0
    holder.stdout.close()


def test_a_child_does_not_inherit_it(tmp_path):
    lock = Lock(str(tmp_path / "lock"), "x").take()
    assert not os.get_inheritable(lock._fd)
    lock.release()


def test_where_no_lock_can_be_it_is_told(tmp_path):
    with pytest.raises(AgentctlError, match="cannot take the lock"):
        Lock(str(tmp_path / "no/folder"), "x").take()
