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
