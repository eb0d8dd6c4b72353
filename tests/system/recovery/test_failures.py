"""Each way to fail ends well without a human: on good code, with its state, its task, its work kept."""

import itertools

import pytest
from boxed_world import World

pytestmark = pytest.mark.every_root  # what everything else leans on
NUMBERS = itertools.count(1)


@pytest.fixture
def make(box):
    """Make a running agent of its own: `make(settings...)`."""
    made = []

    def start(**settings):
        made.append(World(box, f"a{next(NUMBERS)}", **settings).make().start())
        return made[-1]

    yield start
    for world in made:
        world.stop()


# -- a bad commit on main -------------------------------------------------------------------------


def test_a_crash_at_import_under_the_default_name(box):
    world = World(box, probation={"tries": 2}).make().start()
    before = world.break_it("crash-at-import")
    incident = world.check_rolled_back(before, "crash-at-start", runs=2)
    assert incident["evidence"]["exit_class"] == "RuntimeError: broken at import"
    assert "broken at import" in world.ctl("why").stdout
    assert "broken at import" in world.witnesses()[-1]["brief"]
    assert (incident["from"], incident["to"]) == (2, 1)
    assert [attempt["rung"] for attempt in incident["attempts"]] == ["restart", "last known good"]
    world.stop()


BROKEN = {
    "crash-at-import": ("crash-at-start", "RuntimeError: broken at import"),
    "crash": ("crash", "RuntimeError: broken later"),
    "hang": ("watchdog", "watchdog"),
    "hang-with-thread": ("watchdog", "watchdog"),
    "never-ready": ("not-ready", "not-ready"),
    "exit-78": ("crash", "exit status 78"),
}


@pytest.fixture(scope="module")
def broken(box):
    """One agent for each way to be broken; all fail at once, which costs the time of the slowest."""
    worlds = {word: World(box, f"bad{number}").make() for number, word in enumerate(BROKEN)}
    box.run(["systemctl", "start", *(world.name for world in worlds.values())])
    for world in worlds.values():
        world.wait_steady()
    befores = {word: world.break_it("spoil-state", word, restart=False)
               for word, world in worlds.items()}  # fmt: skip
    box.run(["systemctl", "restart", "--no-block", *(world.name for world in worlds.values())])
    yield {word: (world, befores[word]) for word, world in worlds.items()}
    for world in worlds.values():
        world.stop()


@pytest.mark.parametrize("word", BROKEN)
def test_a_bad_commit_is_rolled_back(broken, word):
    trigger, exit_class = BROKEN[word]
    world, before = broken[word]
    incident = world.check_rolled_back(before, trigger)
    assert incident["evidence"]["exit_class"] == exit_class
    assert len(incident["attempts"]) == 1
    assert incident["reason"] in world.witnesses()[-1]["brief"]
    assert world.read("config/settings.txt") == "good\n"
    if word not in ("crash-at-import", "never-ready"):  # those never came to spoil anything
        assert world.read("free.txt") == "of no pattern\n"
        assert world.read("config/added.txt") is None
    if word in ("hang", "hang-with-thread", "never-ready"):
        stack = "\n".join(incident["evidence"]["stack"])
        assert 'agent.py", line' in stack and "in hang" in stack
    if word == "hang-with-thread":
        assert "no heartbeat for" in incident["reason"]
        assert "progress" in " ".join(incident["evidence"]["notes"])


def test_a_history_that_was_eaten_is_whole_again(make):
    world = make()
    before = world.break_it("eat-history", "eat-task", "crash")
    world.check_rolled_back(before, "crash")


def test_a_second_failure_is_a_second_incident(make):
    world = make()
    world.check_rolled_back(world.break_it("crash"), "crash")
    before = world.break_it("hang", version="3")
    world.check_rolled_back(before, "watchdog", count=2)


def test_what_proves_itself_is_the_next_good_one(make):
    world = make()
    better = world.commit(version="2")
    world.systemctl("restart", world.name)
    world.wait_steady(commit=better)
    world.wait_until(lambda: world.status()["last_known_good"] == 2, "the blessing")
    world.good = better
    world.check_rolled_back(world.break_it("crash", version="3"), "crash")
    assert world.witnesses()[-1]["version"] == "2\n"
