"""`agentctl prune`: frees what is over its budget and never the last copy of anything; stops for a rollback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentctl.config.context import Lock
from agentctl.core.errors import LaunchRefused
from agentctl.generations import lifecycle, rebuild_ledger
from agentctl.ledger import writers
from agentctl.recovery import requests
from agentctl.retention import prune
from agentctl.runner import launch
from agentctl.state import agent_state
from integration.past import Past
from integration.world import git, write


@pytest.fixture
def make(monkeypatch):
    made = []

    def build(*words, **more):
        made.append(Past(monkeypatch, *words, **more))
        return made[-1]

    yield build
    for past in made:
        past.end()


def check(past: Past) -> None:
    past.check_vault()
    past.check_snapshots()
    past.check_trees()


def test_a_clock_that_leapt_frees_nothing_until_a_person_believes_it(make):
    """The note of the last look is set back, which is what it looks like to find the clock three years ahead."""
    past = make(2)
    past.age(400)
    with past.world.ledger() as ledger:
        seen = json.loads(ledger.meta("clock"))
        ledger.set_meta("clock", json.dumps({**seen, "at": seen["at"] - 3 * 365 * 86400.0}))
    before = past.quarantined()
    shown = past.prune()
    assert "would prune" in shown.stdout and "has leapt" in shown.stdout
    assert json.loads(past.prune("--json").stdout)["clock"].startswith("it was moved forward by 1095 days")
    refused = past.prune("--yes", expect=1)
    assert "the clock has leapt" in refused.stderr and "Hint:" in refused.stderr
    assert "--clock-is-right" in refused.stderr and past.quarantined() == before
    past.prune("--clock-is-right", expect=2)
    assert "things" in past.prune("--yes", "--clock-is-right").stdout
    assert len(past.quarantined()) == 1
    assert "has leapt" not in past.prune().stdout
    past.prune("--yes")
    with past.world.ledger() as ledger:
        writers.note_asked(ledger, "of the future", at=time.time() + 9e6, target=1, reason="asked")
    assert "on record already" in past.prune("--yes", expect=1).stderr
    assert prune.main(past.world.name) == 1, "the daily one is refused, too"
    past.prune("--yes", "--clock-is-right")
    assert prune.main(past.world.name) == 0
    check(past)


def test_old_things_go_and_nothing_is_lost(make):
    past = make(3)
    assert "nothing is over its budget" in past.prune().stdout
    past.age(400)
    (oldest, middle, newest) = past.trees
    shown = json.loads(past.prune("--json").stdout)
    kinds = {kind["kind"]: kind for kind in shown["kinds"]}
    assert [row["id"] for row in kinds["quarantine"]["pruned"]] == [oldest, middle]
    (row, _) = kinds["quarantine"]["pruned"]
    assert row["reason"] == "older than 30d" and row["archived_files"] > 0 and row["bytes"] > 0
    assert set(row["left_out"]) == {"tree/.venv", "tree/__pycache__"}
    assert not shown["done"] and past.quarantined() == {oldest, middle, newest}
    done = json.loads(past.prune("--yes", "--json").stdout)
    assert done["done"] and done["freed_bytes"] > 0 and done["stays"] == []
    assert past.quarantined() == {newest}
    assert sorted(done["archives"])[-2:] == [f"quarantine/{oldest}", f"quarantine/{middle}"]
    check(past)
    with past.world.ledger() as ledger:
        pruned = [g for g in ledger.generations() if not g.vault_commit]
        assert [g.number for g in pruned] == [2, 3] and {g.status for g in pruned} == {"condemned"}
        assert all(g.tree and g.reason for g in pruned)
    assert "nothing is over its budget" in past.prune().stdout
    assert "nothing was pruned" in past.prune("--yes").stdout
    check(past)
    text = past.prune("--bring-back", oldest, "--to", str(past.world.folder / "back")).stdout
    assert "entries of" in text and (past.world.folder / "back/tree/only.cache").read_text() == "last copy 0"
    assert (past.world.folder / "back/tree/nested/.git/config").exists()
    sparse = os.stat(past.world.folder / "back/tree/sparse")
    assert sparse.st_size == 32 << 20 and sparse.st_blocks * 512 < 1 << 20
    assert b"bad\xff\xfename" in os.listdir(os.fsencode(past.world.folder / "back/tree"))


def test_a_bad_tree_stays_known_also_to_a_rebuilt_ledger(make):
    past = make(2).age(400)
    git(past.world.code, "checkout", "-q", "-f", "main")
    past.prune("--yes")
    with past.world.ledger() as ledger:
        lines = ledger.generations()
        (bad,) = [g for g in lines if not g.vault_commit]
    assert "refs/agentctl/g/2" not in past.context.vault.refs("refs/agentctl/")
    os.unlink(past.world.paths.ledger_path)
    with rebuild_ledger.open_or_rebuild(past.context, lambda _: None) as ledger:
        assert ledger.generation(2) == bad.replace(is_golden=0)
        past.world.commit({"behaviour.py": "MODE = 'bad 0'\n"}, "again")
        tree = ledger.generation(2).tree
        commit, _, branch = past.context.repository.look()
        capture = past.context.staging.capture(past.context.repository.git, commit, branch)
        # By hand: the very tree, without its odd files, which no capture takes without them.
        ledger.update("generations", {"number": 2}, tree=capture.tree)
        assert tree != capture.tree
        assert lifecycle.identify(past.context, ledger).number == 2
        with pytest.raises(LaunchRefused, match="condemned"):
            launch.begin(past.context, ledger)


def test_a_pruned_good_tree_that_comes_back_is_captured_anew(make):
    past = make(0)
    with past.world.ledger() as ledger:
        for number in (2, 3):
            past.world.commit({"behaviour.py": f"MODE = 'good {number}'\n"})
            generation = lifecycle.identify(past.context, ledger)
            past.context.vault.update({f"refs/agentctl/good/{number}": generation.vault_commit})
            writers.bless(ledger, number, at=float(number) + 1e12, reason="", snapshot="")
            agent_state.take_snapshot(past.context)
    past.age(400).prune("--yes")
    with past.world.ledger() as ledger:
        assert [g.vault_commit == "" for g in ledger.generations()] == [False, True, False]  # 1 is the standby
        second = ledger.generation(2)
        git(past.world.code, "reset", "-q", "--hard", second.commit_id)
        again = lifecycle.identify(past.context, ledger)
        assert (again.number, again.status, again.tree) == (4, "good", second.tree)
    check(past)


def test_what_is_guarded_stays_and_the_excess_is_said(make):
    past = make(1, retention={"quarantine_size": "1K", "snapshots_count": 1}).age(400)
    shown = json.loads(past.prune("--json").stdout)
    kinds = {kind["kind"]: kind for kind in shown["kinds"]}
    assert kinds["quarantine"]["pruned"] == [] and "more than the 1K allowed" in kinds["quarantine"]["excess"]
    assert kinds["quarantine"]["guarded"] == {"the rollback that can be undone": 1}
    past.prune("--yes")
    with past.world.ledger() as ledger:
        requests.submit(ledger, "undo")
    assert past.world.rollback_once() == 0
    assert (past.world.code / "behaviour.py").read_text() == "MODE = 'bad 0'\n"
    check(past)


def test_status_says_that_a_budget_is_exceeded(make):
    past = make(3)
    assert past.status()["over_budget"] == {}
    past.age(400)
    assert past.status()["over_budget"] == {
        "quarantine": "2 over the budget",
        "evidence": past.status()["over_budget"]["evidence"],
        "generations": "2 over the budget",
        "snapshots": past.status()["over_budget"]["snapshots"],
    }
    assert "quarantine: 2 over the budget" in past.cli("status", expect=3).stdout
    past.prune("--yes")
    assert past.status()["over_budget"] == {}


def test_it_refuses_while_a_rollback_runs_or_is_asked_for(make):
    past = make(1).age(400)
    with Lock(past.world.paths.rollback_lock_path, "a rollback").take():
        done = past.prune("--yes", "--json", expect=4)
        assert json.loads(done.stderr)["code"] == "lock-held"
        past.prune()  # looking is free
    with Lock(f"{past.world.paths.data_dir}/prune.lock", "x").take():
        past.prune("--yes", expect=4)
    with past.world.ledger() as ledger:
        requests.submit(ledger, "rollback")
    past.prune("--yes", expect=4)


def test_a_rollback_that_comes_in_the_middle_goes_first(make):
    past = make(3).age(400)
    with past.world.ledger() as ledger:
        plan = prune.make_plan(past.context, ledger, 4e9)
        requests.submit(ledger, "undo")
        with pytest.raises(prune.LockHeld):
            prune.carry_out(past.context, ledger, plan, print)
    assert past.world.rollback_once() == 0
    check(past)


def test_a_tree_with_too_much_that_exists_nowhere_else_stays(make):
    past = make(2, retention={"archive_size": "1K"})
    (oldest, _) = past.trees
    write(past.world.quarantine({"id": oldest}) / "tree", {"large.cache": os.urandom(5000)})
    past.age(400)
    done = json.loads(past.prune("--yes", "--json").stdout)
    assert ("quarantine", oldest) in {(stay["kind"], stay["id"]) for stay in done["stays"]}
    assert oldest in past.quarantined()
    check(past)


def test_a_tree_that_is_written_to_stays(make, monkeypatch):
    past = make(2).age(400)
    (oldest, _) = past.trees
    tree = past.world.quarantine({"id": oldest}) / "tree"
    pack = prune.archive.pack

    def disturbed(found, vault, ref):
        if oldest in ref:
            (tree / "late").write_text("written while it is archived")
        return pack(found, vault, ref)

    monkeypatch.setattr(prune.archive, "pack", disturbed)
    with past.world.ledger() as ledger:
        plan = prune.make_plan(past.context, ledger, 4e9)
        prune.carry_out(past.context, ledger, plan, print)
    assert [name for kind, name, _ in plan.stays if kind == "quarantine"] == [oldest]
    assert (tree / "late").exists()
    check(past)


def test_what_is_planted_in_the_place_of_the_slots_is_not_touched(make, tmp_path):
    """The agent may own the folder that the slots are in: a link there must lead nobody to other people's files."""
    past = make()
    past.age(400)
    (tmp_path / "elsewhere/quarantine").mkdir(parents=True)
    write(tmp_path / "elsewhere/quarantine/old", {"tree/precious": "somebody's"})
    os.utime(tmp_path / "elsewhere/quarantine/old", (0, 0))
    slots = past.context.slots.folder
    os.rename(slots, f"{slots}.hidden")
    os.symlink(tmp_path / "elsewhere", slots)
    done = past.prune("--yes", expect=1)
    assert "cannot open the slots" in done.stderr
    assert (tmp_path / "elsewhere/quarantine/old/tree/precious").read_text() == "somebody's"
    os.unlink(slots)
    shutil.copytree(tmp_path / "elsewhere", slots)
    os.chmod(slots, 0o777)
    assert "are not ours" in past.prune("--yes", expect=1).stderr
    assert Path(slots, "quarantine/old/tree/precious").exists()


def test_forgetting_is_only_by_name(make):
    past = make(2).age(400)
    past.prune("--yes")
    (name,) = [a for a in prune.archives(past.context) if a.startswith("quarantine/")]
    assert "there is no archive" in past.prune("--forget", "nothing", expect=1).stderr
    past.prune("--forget", name)
    assert name not in prune.archives(past.context)


def test_captures_go_on_while_it_prunes(make):
    """Nothing that a launch captures meanwhile is lost, whichever comes first."""
    past = make(3).age(400)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from agentctl.cli.main import main; sys.exit(main())",
            "--name",
            past.world.name,
            "prune",
            "--yes",
        ],
        env=env,
        stdout=subprocess.DEVNULL,
    )
    number = 0
    with past.world.ledger() as ledger:
        while running.poll() is None or number < 3:
            write(past.world.code, {"more.py": f"more {number}\n"})
            lifecycle.identify(past.context, ledger)
            past.context.vault.keep_branches(past.context.repository.git)
            number += 1
    assert running.returncode == 0
    check(past)


def test_the_scratch_of_captures_does_not_grow_for_ever(make):
    past = make(1)
    objects = Path(past.world.paths.staging_path) / "objects"
    found = list(objects.glob("??/*"))
    assert len(found) > 10
    for path in found:
        os.utime(path, (1e9, 1e9))
    past.prune("--yes")
    left = list(objects.glob("??/*"))
    assert len(left) < len(found)
    with past.world.ledger() as ledger:
        write(past.world.code, {"fresh.py": "fresh\n"})
        assert lifecycle.identify(past.context, ledger).number == 3
    check(past)
