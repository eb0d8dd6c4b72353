"""What a gate and the nights do of the long tests: the nights together everything once, a gate what the seed says."""

import fnmatch
import functools

import pytest

from kit import affected, effort

NIGHTS = 5
CASES = [f"case {n}" for n in range(23)]


@pytest.fixture
def nights(monkeypatch):
    """Call a function once in each night, and return what it said."""

    def call(function):
        said = []
        for number in range(1, NIGHTS + 1):
            monkeypatch.setattr(effort, "NIGHT", (number, NIGHTS))
            said.append(function())
        return said

    return call


@pytest.fixture
def gate(monkeypatch):
    """Set the seed of a gate."""
    monkeypatch.setattr(effort, "NIGHT", None)
    return lambda seed: monkeypatch.setattr(effort, "SEED", seed)


@pytest.mark.parametrize(("text", "night"), [("", None), ("3/24", (3, 24)), ("1/1", (1, 1)), ("1", (1, 1))])
def test_a_night_is_read(text, night):
    assert effort.read_night(text) == night


@pytest.mark.parametrize("text", ["0/3", "4/3", "x/3", "-1/2", "1/x"])
def test_what_is_no_night_is_refused(text):
    with pytest.raises(ValueError):
        effort.read_night(text)


def test_the_nights_together_try_every_case_and_line_once(nights):
    shares = nights(lambda: effort.share(CASES, 2, "a family"))
    assert sorted(case for share in shares for case in share) == sorted(CASES)
    lines = nights(lambda: effort.lines(100, 7, "a run"))
    assert sorted(line for part in lines for line in part) == list(range(1, 100))


def test_every_test_falls_into_one_night(nights):
    found = nights(lambda: [name for name in CASES if effort.is_tonight(name)])
    assert sorted(name for night in found for name in night) == sorted(CASES)


def test_the_points_of_the_nights_add_up(nights):
    assert NIGHTS * 4 >= sum(nights(lambda: effort.points(1, 18))) >= 18


def test_each_night_rolls_its_own_dice(nights):
    assert len(set(nights(lambda: effort.dice("a family").random()))) == NIGHTS


def test_in_a_gate_the_seed_chooses_and_the_same_seed_the_same(gate):
    gate("one")
    first = effort.choose(CASES, 4, "a family"), effort.some_lines(1000, 6, "a run")
    assert first == (effort.choose(CASES, 4, "a family"), effort.some_lines(1000, 6, "a run"))
    assert len(first[0]) == 4 and len(first[1]) == 6
    assert [case for case in CASES if case in first[0]] == first[0], "their order stays"
    chosen = set()
    for seed in range(60):
        gate(str(seed))
        chosen |= set(effort.choose(CASES, 4, "a family"))
    assert chosen == set(CASES), "no case is left out for ever"


def test_one_line_in_each_part_of_a_run(gate):
    gate("one")
    lines = effort.some_lines(601, 6, "a run")
    assert [(line - 1) // 100 for line in lines] == list(range(6))


TESTS = affected.all_tests()


@functools.cache
def needs():
    """What each file of tests imports; a second's work."""
    return {test: affected.needs_of(affected.CHECKOUT / test) for test in TESTS}


def test_every_place_is_there_and_names_tests_that_are_there():
    files = [str(path.relative_to(affected.CHECKOUT)) for path in affected.CHECKOUT.rglob("*") if path.is_file()]
    for place, patterns in affected.BY_PLACE.items():
        assert fnmatch.filter(files, place), place
        for pattern in patterns:
            assert fnmatch.filter(TESTS, f"tests/{pattern}"), pattern


def test_every_module_of_the_product_has_tests_that_run_it():
    modules = (affected.CHECKOUT / "watchdog").rglob("*.py")
    for path in modules:
        name = str(path.relative_to(affected.CHECKOUT))
        assert len(affected.affected([name], TESTS, needs())) > len(affected.ALWAYS), name


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ("tests/unit/kit/test_kit.py", "tests/unit/kit/test_kit.py"),
        ("tests/kit/line_killer.py", "tests/integration/runner/test_kill_launch.py"),
        ("tests/system/boxed_world.py", "tests/system/recovery/test_failures.py"),
        ("tests/system/conftest.py", "tests/system/runtime/test_systemd.py"),
        ("watchdog/agentctl/recovery/policy.py", "tests/unit/recovery/test_policy.py"),
        ("watchdog/agentctl/changes/checks.py", "tests/integration/changes/test_change_check.py"),
        ("systemd/agent.service", "tests/system/runtime/test_systemd.py"),
    ],
)
def test_what_a_change_touches(changed, wanted):
    assert wanted in affected.affected([changed], TESTS, needs())


def test_what_a_change_does_not_touch_is_left_out():
    found = affected.affected(["watchdog/agentctl/changes/checks.py"], TESTS, needs())
    assert "tests/integration/generations/test_slots.py" not in found and len(found) < len(TESTS) // 3
