"""What happens around a working agent: processes killed, asked restarts, stops. Most are no failures."""

import itertools
import re
import signal

import pytest
from boxed_world import World

NUMBERS = itertools.count(1)


@pytest.fixture
def make(box):
    """Make a running agent of its own: `make(settings...)`."""
    made = []

    def start(words="", **settings):
        world = World(box, f"b{next(NUMBERS)}", **settings).make_repository()
        if words:
            world.good = world.commit(*words.split())
        made.append(world.adopt().install().start())
        return world

    yield start
    for world in made:
        world.systemctl("kill", "--signal=KILL", world.name, check=False)
        world.stop()


def kill(world, pid, number):
    world.box.run(["kill", f"-{signal.Signals(number).name[3:]}", str(pid)])


def check_restarted(world, launch, trigger, *, runs=1):
    """Check that a good generation was restarted as it was, once, and is itself again."""
    incident = world.wait_outcome()
    status = world.wait_steady(commit=world.good)
    assert incident["trigger"] == trigger
    assert (incident["from"], incident["to"]) == (1, 1)
    assert status["launch_id"] != launch["launch_id"]
    witness = world.witnesses()[-1]
    assert witness["launch"] == status["launch_id"]
    assert witness["resumed"] == "1"
    assert witness["brief"] is None
    assert "go on counting" in witness["task"]
    assert world.head == world.good
    assert world.rollback_runs() == runs, world.all_journals()
    assert "Recovered" in world.ctl("why").stdout
    return incident


# -- failures of code that is good: a plain restart -----------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_tmux_server_is_killed(make, number):
    world = make()
    launch, pid = world.status(), world.witnesses()[-1]["pid"]
    server = world.box.path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[1]
    kill(world, server, number)
    check_restarted(world, launch, "tmux-killed")
    assert not world.box.path(f"/proc/{pid}").exists()


def test_the_runner_is_killed(make):
    world = make()
    launch, pid = world.status(), world.witnesses()[-1]["pid"]
    kill(world, world.unit("MainPID"), signal.SIGKILL)
    incident = check_restarted(world, launch, "runner-killed")
    assert not world.box.path(f"/proc/{pid}").exists()
    assert "runner was killed" in incident["reason"]


def test_tmux_continues_an_agent_that_is_stopped(make):
    world = make()
    launch, messages = world.status(), world.witnesses()
    kill(world, messages[-1]["pid"], signal.SIGSTOP)
    world.wait_until(lambda: world.status()["heartbeats"] > launch["heartbeats"] + 12, "heartbeats")
    assert world.status()["launch_id"] == launch["launch_id"]
    assert world.incidents() == []


def test_an_agent_below_a_shell_is_stopped(box):
    world = World(box, "frozen").make_repository().adopt("sh", "-c", "python3 agent.py; exit $?")
    world.install().start()
    launch = world.status()
    kill(world, world.witnesses()[-1]["pid"], signal.SIGSTOP)
    incident = check_restarted(world, launch, "watchdog")
    assert "no heartbeat for" in incident["reason"]
    assert "Current thread" in "\n".join(incident["evidence"]["stack"])
    world.stop()


def test_the_runner_is_stopped(make):
    world = make()
    launch = world.status()
    kill(world, world.unit("MainPID"), signal.SIGSTOP)
    check_restarted(world, launch, "watchdog")


def test_the_agent_is_killed(make):
    world = make()
    launch = world.status()
    kill(world, world.witnesses()[-1]["pid"], signal.SIGKILL)
    incident = check_restarted(world, launch, "crash")
    assert incident["evidence"]["exit_signal"] == 9


@pytest.mark.parametrize("word", ["crash", "hang"])
def test_good_code_fails_once(make, word):
    world = make()
    launch = world.status()
    world.tell(word)
    check_restarted(world, launch, {"crash": "crash", "hang": "watchdog"}[word])


def test_a_task_that_was_not_saved_is_built_from_the_history(make):
    world = make()
    world.tell("eat-task")
    world.wait_until(lambda: world.read("current_task.md") is None, "the task to be gone")
    kill(world, world.witnesses()[-1]["pid"], signal.SIGKILL)
    world.wait_outcome()
    task = world.witnesses()[-1]["task"]
    assert task.startswith("# Current Task\n")
    assert "rebuilt" in task.lower()


def test_what_ends_at_once_is_a_bad_commit_too(box):
    world = World(box, "quick").make_repository()
    world.shell('cd "$1"; echo "exec python3 agent.py" >run.sh; git add run.sh; git commit -qm Run')
    world.good = world.head
    world.adopt("sh", "run.sh").install().start()
    before = world.break_it(script="echo exit 127 >run.sh")
    world.check_rolled_back(before, "crash-at-start")
    world.stop()


# -- asked for: no incident -----------------------------------------------------------------------


@pytest.mark.parametrize("word", ["exit-0", "exit-75"])
def test_the_agent_ends_itself_to_be_restarted(make, word):
    world = make()
    launch = world.status()["launch_id"]
    world.tell(word)
    witness = world.wait_launch(launch)
    assert witness["resumed"] == "1"
    world.wait_steady(commit=world.good)
    assert world.incidents() == []
    assert world.rollback_runs() == 1


def test_a_candidate_pays_for_restarting_itself(make):
    world = make(probation={"tries": 3, "duration": "1h"})
    before = world.break_it("exit-0")
    incident = world.check_rolled_back(before, "asked", runs=3)
    assert "restarted itself" in incident["reason"]


@pytest.mark.parametrize("words", ["", "exit-3-on-sigterm"])
@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_what_a_human_asks_systemd_for_is_no_failure(make, verb, words):
    world = make(words)
    launch = world.status()["launch_id"]
    world.systemctl(verb, world.name)
    if verb == "stop":
        assert world.wait_phase("stopped")["last_incident"] is None
        assert world.unit("Result") == "success"
        world.systemctl("start", world.name)
    witness = world.wait_launch(launch)
    assert f"saved by {launch}" in witness["task"]
    assert witness["resumed"] == "1"
    world.wait_steady()
    assert world.incidents() == []
    assert world.rollback_runs() == 0


def test_who_ignores_sigterm_is_killed_after_the_grace(make):
    world = make("ignore-sigterm", agent={"stop_grace": "1s"})
    pid = world.witnesses()[-1]["pid"]
    world.systemctl("stop", world.name)
    assert not world.box.path(f"/proc/{pid}").exists()
    assert re.search(r"killed after \d+\.\d", world.journal())
    world.systemctl("start", world.name)
    world.wait_steady()
    assert world.incidents() == []
    assert world.rollback_runs() == 0


@pytest.mark.parametrize("words", ["exit-3-on-sigterm", "ignore-sigterm"])
def test_a_stop_uses_up_no_try(make, words):
    world = make(probation={"duration": "1h", "tries": 2}, agent={"stop_grace": "500ms"})
    candidate = world.commit(*words.split())
    for _ in range(3):
        world.systemctl("restart", world.name)
        assert world.wait_phase("probation", commit=candidate)["tries_left"] == 1
    world.systemctl("stop", world.name)
    world.systemctl("start", world.name)
    assert world.wait_phase("probation", commit=candidate)["tries_left"] == 1
    assert world.incidents() == []


# -- save before restart --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_agentctl_restart_saves_first(make, where):
    world = make()
    launch = world.status()["launch_id"]
    if where == "outside":
        world.ctl("restart")
        assert world.status()["launch_id"] != launch
    else:
        world.tell("restart")
    witness = world.wait_launch(launch)
    world.wait_steady()
    assert witness["resumed"] == "1"
    assert f"saved by {launch}" in witness["task"]
    assert witness["messages"] == 2
    assert world.incidents() == []
    assert world.rollback_runs() == 0
    failed = [done for done in world.lines("restart.jsonl") if done["status"]]
    assert not failed


def test_a_restart_from_inside_takes_the_new_code(make):
    world = make()
    launch, better = world.status()["launch_id"], world.commit(version="2")
    world.tell("restart")
    assert world.wait_launch(launch)["commit"] == better
    world.wait_steady(commit=better, last_known_good=2)
