"""What a list of changes and a verdict say to people."""

from agentctl.changes import rules
from agentctl.cli import change_text
from agentctl.core import text

LONG = "sudo -u somebody-with-a-name git -C /srv/agent/.agent.agentctl/changes/feature/" + "x" * 60 + " merge main"


def shown(**known):
    plain = {"name": "feature/x", "about": "go faster", "author": "a", "started_at": 1.0, "base": "b", "worktree": "/w",
             "status": "open", "state": "open", "is_open": True}  # fmt: skip
    return change_text.ShownChange(**(plain | known))


def test_the_next_command_is_never_cut():
    lines = change_text.as_table([shown(next="update: " + "because " * 40, next_command=LONG)], 2.0, False)
    assert lines[-1] == f"  next: {LONG}" and len(LONG) > text.WIDTH
    assert all(len(line) <= text.WIDTH for line in lines[:-1])


def test_what_became_of_it_is_told_beside_its_state():
    lines = change_text.as_table([shown(state="rolled back", generation=2, reason="generation 2 is condemned: hung")],
                                 2.0, False)  # fmt: skip
    assert "rolled back" in lines[1] and "generation 2" in lines[1] and lines[2] == "  generation 2 is condemned: hung"


def test_an_obstacle_is_told_with_its_command():
    row = {
        "name": "feature/x",
        "branch_was_there": False,
        "worktree": "/w",
        "base": "c" * 40,
        "snapshot": "1",
        "task": "",
        "commit": "git -C /w commit",
        "obstacles": [{"why": "it is halted", "command": "agentctl why"}],
    }
    told = change_text.started(row, rules.Typist(agent="w1"))
    assert told[-5:] == ["promote will refuse: it is halted", "      agentctl why",
                         "next: edit in the worktree (the running tree stays as it is), then",
                         "      git -C /w commit", "      agentctl change check feature/x --name w1"]  # fmt: skip
