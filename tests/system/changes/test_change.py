"""The change workflow on real systemd: the agent's own user, from inside its unit, and by root from outside."""

import json
import re
import shlex

import pytest
from boxed_world import World

pytestmark = pytest.mark.in_order  # one agent, whose changes follow one another
CHANGE = {"change": {"try_for": "500ms"}}


def fresh_user(box, name):
    box.run(["useradd", "-m", name])
    return name


@pytest.fixture(scope="module")
def world(box):
    """An agent with a user of its own, adopted with the hook and the protocol."""
    owner = fresh_user(box, "robin")
    made = World(box, "changer", owner=owner, is_users=False, **CHANGE).make_repository()
    return made.adopt(options=()).install().start()


def tell(world, *words, by="agentctl"):
    """Have the running agent call agentctl, as its own user inside its own unit; return what it said."""
    before = world.read("ran") or ""
    world.tell(f"run {by} {shlex.join(words)}")

    def said():
        text = (world.read("ran") or "")[len(before) :]
        return text if re.search(r"^status \d+\n", text, re.MULTILINE) else None

    return world.wait_until(said, f"the agent's agentctl {' '.join(words)}")


def edit(world, name, script):
    """Edit and commit in the change's worktree, as the agent's user and past no hook."""
    row = next(row for row in world.ask("change", "list") if row["name"] == name)
    world.shell(f"cd {shlex.quote(row['worktree'])}\n{script}\ngit add -A && git commit -qm 'A change'")
    return row["worktree"]


def test_the_whole_path_from_inside_the_unit(world):
    assert "status 0" in tell(world, "change", "start", "feature/two", "--about", "be version two")
    assert "- [ ] change feature/two: be version two" in world.read("current_task.md")
    folder = edit(world, "feature/two", "echo 2 >version")
    assert world.box.path(folder).stat().st_uid == int(world.box.run(["id", "-u", "robin"]).stdout)
    for words in (["check"], ["try"], ["review", "--note", "it is two"]):
        said = tell(world, "change", words[0], "feature/two", *words[1:])
        assert "status 0" in said and "not closed off" not in said, said
    launch, runs = world.status()["launch_id"], world.rollback_runs()
    world.tell("run agentctl change promote feature/two")
    witness = world.wait_launch(launch)
    assert (witness["generation"], witness["version"], witness["resumed"]) == (2, "2\n", "1")
    world.wait_steady(last_known_good=2)
    assert world.git("log", "-1", "--format=%s", "main") == "Merge feature/two: be version two"
    assert world.git("rev-parse", "v2") == world.head and world.git("status", "--porcelain") == ""
    assert world.incidents() == [] and world.rollback_runs() == runs + 1
    assert world.box.run(["find", world.code, "-ignore_readdir_race", "!", "-user", "robin"]).stdout == ""
    assert [row["state"] for row in world.ask("change", "list", "--all")] == ["blessed"]
    assert (world.box.path(world.code) / "SELF_MODIFICATION.md").exists()


def test_what_the_agent_may_not(world):
    """Approve itself, or write our records: its word is taken for what it is."""
    said = tell(world, "change", "start", "feature/mine")
    assert "status 0" in said, said
    edit(world, "feature/mine", "echo x >x")
    assert "this is the agent itself" in tell(world, "change", "approve", "feature/mine")
    refused = tell(world, "change", "promote", "feature/mine")
    assert "it was not checked" in refused and "status 1" in refused
    assert world.ctl("change", "approve", "feature/mine").returncode == 0
    world.ctl("change", "abandon", "feature/mine", "--reason", "only a test")


def test_a_change_that_fails_its_probation_is_refused_a_second_time(world):
    world.good = world.head
    world.ctl("change", "start", "hotfix/bad")
    # On trial it is told that it is: what breaks only in real life passes the trial.
    crash = 'if not os.environ.get("AGENT_TRIAL"):\\n    raise RuntimeError("broken in real life")'
    edit(world, "hotfix/bad", f"printf '%b\\n' {shlex.quote(crash)} >tail; sed -i '/^BEAT_SECONDS/r tail' agent.py")
    for words in (["check"], ["try"], ["review", "--note", "fine"]):
        world.ctl("change", words[0], "hotfix/bad", *words[1:])
    told = world.ctl("change", "promote", "hotfix/bad", "--wait", check=False)
    assert told.returncode == 1 and "was rolled back: generation 3 is condemned" in told.stderr, told.stderr
    world.wait_outcome()
    world.wait_steady(commit=world.good)
    assert "hotfix/bad" in world.witnesses()[-1]["brief"]
    again = world.ctl("change", "promote", "hotfix/bad", check=False)
    assert "this very tree was condemned as generation 3" in again.stderr


@pytest.mark.parametrize("user", [None, "robin"], ids=["root", "the agent's user"])
def test_nobody_has_to_change_user(world, user):
    """Outside the agent, by root and by the agent's user: what is printed is typed as it is, and works."""
    name = f"feature/by-{user or 'root'}"

    def run(*words):
        scope = ["env", "AGENTCTL_SCOPE=system", "agentctl", "--name", world.name]
        return world.box.run([*scope, "change", *words], user=user, timeout=400).stdout

    told = run("start", name)
    folder = next(line.split()[1] for line in told.splitlines() if line.startswith("  worktree "))
    world.box.path(folder).joinpath(f"by-{user or 'root'}").write_text("new\n")
    assert "its worktree has what is in no commit" in run("list")
    command = next(line.strip() for line in told.splitlines() if " commit " in line)
    assert command.startswith("git -C " if user else ("sudo -u robin git -C ", "runuser -u robin -- git -C "))
    assert f"  next: {command}" in run("list").splitlines()
    world.box.run(["sh", "-c", command], user=user)
    assert "promote:" in run("go", name, "--note", "fine")
    world.wait_until(lambda: state_of(world, name) == "blessed", "the blessing")
    assert world.box.run(["find", world.code, "-ignore_readdir_race", "!", "-user", "robin"]).stdout == ""
    assert name in [row["name"] for row in json.loads(run("list", "--all", "--json"))]


def state_of(world, name):
    return next(row["state"] for row in world.ask("change", "list", "--all") if row["name"] == name)


def test_an_unconfirmed_version_goes_back_also_across_a_reboot(fresh_box):
    box = fresh_box().boot()
    world = World(box, "sure", **CHANGE).make().start()
    world.ctl("change", "start", "feature/two")
    edit(world, "feature/two", "echo 2 >version")
    for words in (["check"], ["try"], ["review", "--note", "fine"]):
        world.ctl("change", *words)
    world.ctl("change", "promote", "--confirm-within", "20s")
    world.wait_until(lambda: "agentctl confirm" in world.ctl("status", check=False).stdout, "the deadline to be shown")
    box.reboot()
    incident = world.wait_outcome()
    assert incident["trigger"] == "not-confirmed"
    world.wait_steady(commit=world.good)
    assert world.head == world.good and world.witnesses()[-1]["version"] == "1\n"


def test_a_tool_that_drops_all_variables_still_reaches_its_own_agent(world):
    """Agents' shell tools pass next to nothing on; sudo from below an agent believes none of its variables."""
    bare = "env -i /usr/local/bin/agentctl"
    said = tell(world, "protocol", by=f"{bare} change list --all --json; {bare}").partition("# How to")[0]
    assert "feature/two" in [row["name"] for row in json.loads(said)]
    inside = ["env", f"AGENT_NAME={world.name}", "AGENTCTL_SCOPE=system", "sh", "-c"]
    for user, found in (("root", True), ("robin", False)):
        script = f"setpriv --reuid {user} --clear-groups env -i /usr/local/bin/agentctl change list; :"
        done = world.box.run([*inside, script])
        assert ("there is no agent called 'agent'" not in done.stderr) is found, done.stdout + done.stderr
