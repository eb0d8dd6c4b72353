"""`agentctl change promote`: main moves to a tested version in one step, or stays where it is and says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from agentctl.changes import agent_files
from agentctl.core.errors import AgentctlError
from agentctl.runtime import runner_client
from integration.changing import CTL, making
from integration.world import SOURCE, git, write
from kit import deadline
from kit.manifest import manifest


@pytest.fixture
def make(monkeypatch):
    yield from making(monkeypatch)


def test_a_good_change_is_blessed_and_main_moves(make):
    world = make()
    write(world.code, {"kept.cache": "ignored\n", ".venv/version": "old\n"})
    agent_files.install(str(world.code), world.name, world.paths.config_path, "/nowhere/agentctl", {})
    world.start()
    world.until_beating(1)
    folder = world.begin(files={"note.txt": "new\n"}, about="take a note")
    world.really_pass_on()
    head = git(folder, "rev-parse", "HEAD")
    row = world.ask("change", "promote", "--wait")
    assert (row["outcome"], row["generation"]) == ("blessed", 2)
    main = git(world.code, "rev-parse", "main")
    assert git(world.code, "rev-parse", "main^1", "main^2", "v2", "HEAD").split() == [world.first, head, main, main]
    assert git(world.code, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(world.code, "log", "-1", "--format=%s", "main") == "Merge feature/x: take a note"
    assert "looks good" in git(world.code, "log", "-1", "--format=%b", "main")
    assert git(world.code, "status", "--porcelain") == ""
    assert (world.code / "note.txt").read_text() == "new\n"
    assert (world.code / "SELF_MODIFICATION.md").exists()
    assert (world.code / "kept.cache").exists() and (world.code / ".venv/version").read_text() == "old\n"
    assert world.incidents() == [] and world.rungs() == [("promote", 2)]
    assert world.starts()[-1]["generation"] == "2" and world.starts()[-1]["commit"] == main
    assert world.change()["state"] == "blessed"
    assert world.all("SELECT source, change FROM generations WHERE number=2") == [
        {"source": "change", "change": "feature/x"}
    ]
    # the next start takes the worktree of the blessed one away
    world.begin("feature/next")
    assert not folder.exists()


def test_each_missing_verb_is_named(make):
    world = make()
    folder = world.begin(files={"note.txt": "new\n"})
    for verb, words in (("check", ["check"]), ("try", ["try"]), ("review", ["review", "--note", "fine"])):
        told = world.refuses("change", "promote")
        assert f"agentctl change {verb} feature/x" in told, told
        world.ctl("change", *words)
    world.commit_in(folder, {"note.txt": "newer\n"}, "in a hurry", "--no-verify")
    assert "changed since it was checked" in world.refuses("change", "promote")
    assert git(world.code, "rev-parse", "main") == world.first


def test_without_a_runner_it_is_put_in_place_for_the_next_start(make):
    world = make()
    world.make_ready()
    assert world.ask("change", "promote")["outcome"] == "in place"
    assert (world.code / "note.txt").exists()
    world.start()
    world.until(lambda: world.status_of(2) == "good", "the blessing")
    assert world.incidents() == []


def test_main_that_moved_asks_for_an_update_and_nothing_is_lost(make):
    world = make()
    folder = world.make_ready()
    moved = world.commit({"other.txt": "meanwhile\n"})
    told = world.refuses("change", "promote")
    assert "main has 1 commit that it does not have" in told and f"git -C {folder} merge main" in told
    git(folder, "merge", "-q", "main")
    assert "changed since it was checked" in world.refuses("change", "promote")
    world.pass_on()
    world.ctl("change", "promote")
    assert git(world.code, "rev-parse", "main^1") == moved
    assert (world.code / "other.txt").exists() and (world.code / "note.txt").exists()


def test_a_merge_conflict_is_found_in_the_worktree_not_in_the_running_tree(make):
    world = make()
    folder = world.make_ready(files={"behaviour.py": "MODE = 'healthy'  # mine\n"})
    world.commit({"behaviour.py": "MODE = 'healthy'  # theirs\n"})
    assert "merge main" in world.refuses("change", "promote")
    with pytest.raises(AssertionError):
        git(folder, "merge", "-q", "main")
    assert "in no commit: behaviour.py" in world.refuses("change", "promote")
    assert (world.code / "behaviour.py").read_text() == "MODE = 'healthy'  # theirs\n"


def test_two_changes_at_once_one_after_the_other(make):
    world = make()
    world.start()
    world.until_beating(1)
    world.make_ready("feature/one", {"one.txt": "1"})
    other = world.make_ready("feature/two", {"two.txt": "2"})
    world.ctl("change", "promote", "feature/one", "--wait")
    assert "main has 2 commits" in world.refuses("change", "promote", "feature/two")
    git(other, "merge", "-q", "main")
    world.pass_on("feature/two")
    world.ctl("change", "promote", "feature/two", "--wait")
    assert (world.code / "one.txt").exists() and (world.code / "two.txt").exists()
    assert world.incidents() == []


def test_a_running_tree_that_is_not_clean(make):
    world = make()
    world.make_ready()
    write(world.code, {"draft.py": "x = 1\n"})
    assert "in no commit: draft.py" in world.refuses("change", "promote")
    git(world.code, "stash", "-u", "-q")
    git(world.code, "switch", "-q", "-c", "aside")
    assert "on branch aside, not on main" in world.refuses("change", "promote")
    git(world.code, "switch", "-q", "main")
    world.ctl("change", "promote")


def test_a_change_that_fails_its_probation_goes_back_with_a_brief(make):
    world = make({"probation": {"duration": "3s"}})
    world.start()
    world.until_beating(1)
    folder = world.make_ready(files={"behaviour.py": "MODE = 'crash-later'\n"}, about="go faster")
    told = world.refuses("change", "promote", "--wait")
    assert "was rolled back: generation 2 is condemned" in told
    world.until_outcome("recovered")
    assert git(world.code, "rev-parse", "main") == world.first
    assert world.change()["state"] == "rolled back" and world.change()["is_open"]
    brief = (world.state / "BRIEF.md").read_text()
    assert "feature/x" in brief and str(folder) in brief
    # the same tree is refused, also amended; a mended one goes on
    world.until_beating(1)
    git(folder, "commit", "-q", "--amend", "-m", "another name for it")
    told = world.refuses("change", "promote")
    assert "this very tree was condemned as generation 2" in told and "--force" in told
    world.commit_in(folder, {"behaviour.py": "MODE = 'healthy'  # mended\n"})
    world.pass_on()
    assert world.ask("change", "promote", "--wait")["generation"] == 3
    assert git(world.code, "rev-parse", "main^1") == world.first


def test_a_condemned_tree_is_known_again_and_forced_with_an_audit(make):
    world = make()
    world.start()
    world.until_beating(1)
    world.make_ready()
    world.ctl("change", "promote", "--wait")
    world.ctl("condemn", "2", "--reason", "it sends mails")
    world.ctl("rollback", "1", "--yes")
    world.until_beating(1)
    folder = world.ask("change", "start", "feature/again", "--from", world.first)["worktree"]
    git(folder, "cherry-pick", "feature/x")
    world.pass_on("feature/again")
    assert "it sends mails" in world.refuses("change", "promote", "feature/again")
    row = world.ask("change", "promote", "feature/again", "--force", "--wait")
    assert row["outcome"] == "blessed" and row["generation"] == 3
    (event,) = world.all("SELECT text FROM events WHERE kind='forced'")
    assert "generation 3 has a condemned tree" in event["text"]
    last = world.launches()[-1]["id"]
    world.ctl("restart")
    assert world.until_beating(after=last)["generation"] == 3  # and the launch does not take it for the condemned one


def test_a_human_has_to_approve(make):
    world = make({"change": {"review": "human"}})
    world.start()
    world.until_beating(1)
    folder = world.make_ready()
    assert "nobody but the agent has approved" in world.refuses("change", "promote")
    socket = world.paths.api_socket_path.replace("/", "%2F")
    inside = {"AGENT_NAME": world.name, "AGENT_API_URL": f"http+unix://{socket}"}
    assert "this is the agent itself" in world.ctl("change", "approve", env=inside, status=1).stderr
    approve = [sys.executable, "-c", CTL, "--name", world.name, "change", "approve"]
    for stripped in (["-u", "AGENT_API_URL"], ["AGENT_API_URL=", "AGENT_NAME="]):  # what stands above it stays
        done = deadline.run(["/bin/sh", "-c", 'env "$@"; exit $?', "sh", *stripped, *approve], capture_output=True,
                            text=True, env={**os.environ, **inside, "PYTHONPATH": SOURCE}, timeout=60)  # fmt: skip
        assert done.returncode == 1 and "this is the agent itself" in done.stderr, (stripped, done)
    with pytest.raises(AgentctlError, match="this is the agent itself"):  # nor at the runner's door, whoever it runs as
        runner_client.ask(
            world.paths.api_socket_path,
            "POST",
            "/changes",
            {"verb": "approve", "name": "feature/x", "commit": git(folder, "rev-parse", "HEAD")},
        )
    world.ctl("change", "approve", "--note", "go")
    git(folder, "commit", "-q", "--amend", "-m", "approved was another one")
    assert "approved" in world.refuses("change", "promote")
    world.ctl("change", "approve")
    world.ctl("change", "promote", "--wait")


def test_a_rejected_change_is_not_promoted(make):
    world = make()
    world.begin(files={"note.txt": "new\n"})
    world.really_pass_on()
    world.ctl("change", "review", "--reject", "--note", "it eats memory")
    assert "the review failed: it eats memory" in world.refuses("change", "promote")
    shown = world.ctl("change", "review").stdout
    assert "+new" in shown and "check: syntax" in shown and "[ ] it does what it says" in shown


def test_promote_from_inside_the_agent_that_dies_of_it(make):
    """The agent calls it as any of its tools, is stopped in the middle, and the new one runs."""
    world = make()
    world.start()
    world.until_beating(1)
    world.make_ready()
    before = manifest(world.code, without=(".git",))
    script = (
        f"import os, subprocess, sys\nif not os.path.exists({str(world.folder / 'asked')!r}):\n"
        f"    open({str(world.folder / 'asked')!r}, 'w').close()\n"
        f"    log = open({str(world.folder / 'said')!r}, 'w')\n"
        f"    subprocess.Popen([sys.executable, '-c', {CTL!r}, 'change', 'promote'], stdout=log, stderr=log, "
        f"env={{**os.environ, 'PYTHONPATH': {SOURCE!r}, 'AGENTCTL_SCOPE': 'user'}})\n"
    )
    assert "note.txt" not in before
    world.stop()
    write(world.state, {"run.py": script})
    write(world.state, {"mode": "run"})
    world.start()
    world.until((world.folder / "asked").exists, "the agent to ask")
    world.until(lambda: world.status_of(2) == "good", "generation 2 to be good")
    assert world.change()["state"] == "blessed" and (world.code / "note.txt").exists()
    assert world.incidents() == []


def test_asked_twice_at_once_it_is_done_once(make):
    world = make()
    world.start()
    world.until_beating(1)
    world.make_ready()
    env = {**os.environ, "PYTHONPATH": SOURCE}
    argv = [sys.executable, "-c", CTL, "--name", world.name, "change", "promote"]
    both = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    assert 0 in [deadline.wait(process, timeout=120) for process in both]
    world.until(lambda: world.change()["state"] == "blessed", "the blessing")
    assert len([rung for rung, _ in world.rungs() if rung == "promote"]) == 1
    assert world.incidents() == []


def test_what_was_cut_off_before_the_request_was_written_goes_on_with_the_same_merge(make):
    world = make()
    world.make_ready()
    world.wish_for()
    merge = json.loads(world.all("SELECT promotion FROM changes")[0]["promotion"])["merge"]
    assert world.change()["next"].startswith("promote: nothing is missing")
    world.ctl("change", "promote")
    assert git(world.code, "rev-parse", "main", "v2").split() == [merge, merge]
    assert len(world.all("SELECT 1 FROM generations")) == 2


def test_a_promotion_is_refused_while_the_agent_is_halted(make):
    world = make()
    world.make_ready()
    with world.ledger() as ledger:
        ledger.set_meta("halted", "it fell down")
    assert "halted: it fell down" in world.refuses("change", "promote")
    assert git(world.code, "rev-parse", "main") == world.first and world.change()["state"] == "open"
