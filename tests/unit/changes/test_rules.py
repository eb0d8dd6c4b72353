"""The rules of a change as tables: names, what is missing, what comes next."""

import pytest

from agentctl.changes import rules
from agentctl.ledger import models
from kit import rows

PREFIXES = ["feature/", "hotfix/"]
TREE, MAIN_TREE, HEAD = "a" * 40, "b" * 40, "c" * 40
GOOD = {"tree": TREE, "ok": True, "commit": HEAD}


def facts(**known):
    plain = {
        "head": HEAD,
        "tree": TREE,
        "main": "d" * 40,
        "main_tree": MAIN_TREE,
        "behind": 0,
        "ahead": 1,
        "has_worktree": True,
        "dirty": [],
        "live_branch": "main",
        "live_head": "d" * 40,
        "live_dirty": [],
    }
    return rules.BranchFacts(**(plain | known))


def row(**known):
    plain = {"name": "feature/x", "worktree": "/w", "status": "open", "checked": GOOD, "tried": GOOD, "reviewed": GOOD}
    return rows.change_row(**(plain | known))


def generation(status, **known):
    return rows.row("generations", status=status, **known)


def next_of(a_row, a_facts, review="self", condemned=None):
    return rules.choose_next_verb(a_row, a_facts, review=review, condemned=condemned, main="main")


@pytest.mark.parametrize(("verb", "a_row", "a_facts"), [
    ("promote", row(), facts()),
    ("wait", row(status="promoting"), facts()),
    ("start", row(status="abandoned", reason="no good"), facts()),
    ("start", row(), facts(has_worktree=False)),
    ("start", row(), facts(head="", tree="")),
    ("commit", row(), facts(dirty=["a.py"])),
    ("commit", row(), facts(ahead=0)),
    ("commit", row(), facts(tree=MAIN_TREE)),
    ("update", row(), facts(behind=2)),
    ("check", row(checked={}), facts()),
    ("check", row(checked=GOOD | {"tree": "e" * 40}), facts()),
    ("check", row(checked=GOOD | {"ok": False, "why": "lint"}), facts()),
    ("try", row(tried={}), facts()),
    ("try", row(tried=GOOD | {"ok": False}), facts()),
    ("review", row(reviewed={}), facts()),
    ("live", row(), facts(live_dirty=["x"])),
    ("live", row(), facts(live_branch="other")),
    ("live", row(), facts(live_branch="")),
])  # fmt: skip
def test_what_comes_next(verb, a_row, a_facts):
    lack = next_of(a_row, a_facts)
    assert lack.verb == verb
    assert lack.why and lack.command


def test_whose_review_is_wanted():
    assert next_of(row(reviewed={}), facts(), "none").verb == "promote"
    assert next_of(row(), facts(), "human").verb == "approve"
    assert next_of(row(approved={"commit": "e" * 40}), facts(), "human").verb == "approve"
    assert next_of(row(approved={"commit": HEAD}), facts(), "human").verb == "promote"


def test_a_condemned_tree_needs_force():
    lack = next_of(row(), facts(), condemned=generation("condemned", number=3, reason="it hung"))
    assert lack.verb == "force" and "generation 3: it hung" in lack.why and "--force" in lack.command


def test_a_record_is_bound_to_the_tree_and_an_approval_to_the_commit():
    amended = facts(head="f" * 40)
    assert next_of(row(), amended).verb == "promote"
    assert next_of(row(approved={"commit": HEAD}), amended, "human").verb == "approve"


def test_everything_that_is_missing_is_listed_in_order():
    lacks = rules.find_lacks(
        row(checked={}, tried={}, reviewed={}), facts(), review="human", condemned=None, main="main"
    )
    assert [lack.verb for lack in lacks] == ["check", "try", "review", "approve"]


@pytest.mark.parametrize(("state", "is_open", "a_row", "generation"), [
    ("open", True, row(), None),
    ("abandoned", False, row(status="abandoned"), None),
    ("blessed", False, row(status="promoted", generation=2), generation("good")),
    ("rolled back", True, row(status="promoted", generation=2), generation("condemned")),
    ("on probation", False, row(status="promoted", generation=2), generation("candidate")),
    ("unconfirmed", False, row(status="promoted", generation=2), generation("candidate", confirm_by=1.0)),
])  # fmt: skip
def test_where_a_change_stands(state, is_open, a_row, generation):
    assert models.tell_state(a_row, generation) == state
    assert models.is_open(a_row, generation) == is_open


# -- what refuses whatever the change ---------------------------------------------------------------

ROOT = rules.Typist(owner="sudo -u bot ", agent="w1")
WORLD = rules.WorldFacts


@pytest.mark.parametrize(("verb", "a_facts", "world", "command"), [
    ("update", facts(behind=2), WORLD(), "sudo -u bot git -C /w merge main"),
    ("live", facts(live_branch="other", code="/code"), WORLD(), "sudo -u bot git -C /code switch main"),
    ("live", facts(live_dirty=["x"], code="/co de"), WORLD(), "sudo -u bot git -C '/co de' stash -u"),
    ("resume", facts(), WORLD(halted="it fell"), "agentctl resume --name w1"),
    ("wait", facts(), WORLD(rival="feature/y"), "agentctl status --name w1"),
    ("wait", facts(), WORLD(is_switching=True, incident="i"), "agentctl status --name w1"),
    ("wait", facts(), WORLD(incident="i"), "first heartbeat"),
])  # fmt: skip
def test_what_promote_would_refuse_is_told_before_the_work_is_done(verb, a_facts, world, command):
    """At start and check, where nothing is recorded yet, and as what is missing at the end, in the same words."""
    fresh = row(checked={}, tried={}, reviewed={})
    (told,) = rules.find_obstacles(fresh, a_facts, condemned=None, main="main", world=world, typist=ROOT)
    assert told.verb == verb and told.why and command in told.command
    last = rules.find_lacks(row(), a_facts, review="self", condemned=None, main="main", world=world, typist=ROOT)
    assert [lack.to_dict() for lack in last] == [told.to_dict()]


def test_a_tree_that_is_condemned_is_told_before_the_work_is_done():
    bad = generation("condemned", number=3, reason="it hung")
    (told,) = rules.find_obstacles(row(checked={}), facts(), condemned=bad, main="main", world=WORLD())
    assert told.verb == "force"
    assert rules.find_obstacles(row(checked={}), facts(), condemned=None, main="main", world=WORLD()) == []


@pytest.mark.parametrize(("typist", "command"), [
    (rules.Typist(), "git -C /w add -A && git -C /w commit -m \"what and why\""),
    (ROOT, "sudo -u bot git -C /w add -A && sudo -u bot git -C /w commit -m \"what and why\""),
])  # fmt: skip
def test_the_commit_is_typed_as_who_owns_the_worktree(typist, command):
    lack = rules.find_lacks(row(), facts(dirty=["a"]), review="self", condemned=None, main="main", typist=typist)[0]
    assert lack.command == command


@pytest.mark.parametrize(("word", "shown"), [("/a-b_c.d", "/a-b_c.d"), ("/a b", "'/a b'"), ("", "''"),
                                             ("it's", "'it'\\''s'"), ("$(id)", "'$(id)'")])  # fmt: skip
def test_a_word_as_a_shell_takes_it(word, shown):
    assert rules.quoted(word) == shown


# -- what became of it ------------------------------------------------------------------------------


def shown(status="open", state="open", generation=None):
    return rules.Listed(name="feature/x", about="", author="a", started_at=1.0, base="b", worktree="/w", status=status,
                        state=state, is_open=state == "open", generation=generation)  # fmt: skip


def holder(number, status, **more):
    return rules.KnownGeneration(number=number, commit_id=f"{number}", tree="", status=status, **more)


def move(source, target, launch="L"):
    return rules.Move(id="i", launch=launch, generation_from=source, generation_to=target)


@pytest.mark.parametrize(("state", "a_row", "holders", "moves", "running"), [
    ("open", shown(), [], [], 1),
    ("blessed", shown(), [holder(2, "good")], [], 2),  # merged by hand
    ("blessed", shown(), [holder(2, "candidate"), holder(3, "good")], [], 3),  # below a later change
    ("blessed", shown("promoted", "on probation", 2), [holder(2, "candidate"), holder(3, "good")], [], 3),
    ("blessed", shown("promoted", "blessed", 2), [holder(2, "good"), holder(3, "condemned")], [move(3, 2)], 2),
    ("blessed", shown("promoted", "blessed", 2), [holder(2, "good")], [], None),
    ("blessed", shown("promoted", "blessed", 2), [holder(2, "good")], [], 9),  # replaced by no rollback
    ("blessed", shown("promoted", "blessed", 2), [holder(2, "good")], [move(7, 6)], 9),
    ("rolled back", shown("promoted", "blessed", 2), [holder(2, "good")], [move(2, 1)], 1),
    ("rolled back", shown("promoted", "blessed", 2), [holder(2, "good"), holder(3, "good")], [move(3, 1)], 1),
    ("blessed", shown("promoted", "blessed", 2), [holder(2, "good")], [move(1, 2), move(2, 1)], 2),  # undone
    ("rolled back", shown(), [holder(2, "condemned", reason="it hung")], [move(2, 1)], 1),
    ("rolled back", shown(), [holder(2, "suspect", reason="it hung")], [move(2, 1)], 1),
    ("on probation", shown(), [holder(2, "condemned"), holder(3, "candidate")], [], 3),
    ("unconfirmed", shown(), [holder(3, "candidate", confirm_by=1.0)], [], 3),
    ("abandoned", shown("abandoned", "abandoned"), [holder(2, "good")], [], 2),
    ("promoting", shown("promoting", "promoting"), [holder(2, "condemned")], [], 1),
])  # fmt: skip
def test_the_fate_of_a_commit_is_the_fate_of_its_generations(state, a_row, holders, moves, running):
    told = rules.tell_fate(a_row, holders, moves, running)
    assert told.state == state
    assert told.is_open == (state in ("open", "rolled back"))
    assert (state == "rolled back") == bool(told.reason)


@pytest.mark.parametrize(("moves", "running"), [
    ([], 2),
    ([move(2, 1, launch="L")], 1),  # nothing was launched since
    ([move(3, 1, launch="older")], 2),
])  # fmt: skip
def test_what_is_in_place(moves, running):
    assert rules.find_running(moves, "L", 2) == running
