"""Every broken repository of the kit: the agent fails in it, and then stands in a healthy one; nothing is lost."""

import os
import re
from pathlib import Path

import pytest

from integration.broken_world import BrokenWorld, digests, disk_use, listing
from kit import effort
from kit.broken_repositories import STATES
from kit.broken_repositories.subject import BAD
from kit.survival import survived

PLAIN_FILE = re.compile(rb"(ref: refs/heads/[\w/.-]+|[0-9a-f]{40})\n?")
MOMENTS = ("early", "late")  # broken before the launch, or while it runs
# What no commit holds and the agent works with goes on to the good tree, untracked as it was: a file too large to
# capture, a linked worktree whose place is written down in `.git`.
CARRIED = ("?? huge.bin", "?? beside/")
FAMILIES = sorted({state.family for state in STATES})
IN_GATE = 4  # of each family
ADOPTIONS_IN_GATE = 8
# What a night once found and a gate has to hold from then on, beside what the seed chooses.
FOUND = {
    ("objects-good-commit-fifo", "early"), ("objects-good-blob-fifo", "late"), ("objects-bad-tree-fifo", "early"),
    ("objects-bad-blob-fifo", "late"), ("objects-junk-in-midx", "late"), ("trees-fifo-gitattributes", "early"),
    ("trees-fifo-deep-attributes", "late"),
    ("refs-main-of-no-object", "early"), ("refs-main-is-link-to-idea", "early"), ("refs-packed-refs-are-junk", "early"),
    ("heads-head-to-a-tag", "late"), ("hostile-promisor", "early"),
    ("refs-main-is-moved-by-force", "early"), ("trees-linked-worktree-inside", "late"),
}  # fmt: skip
CHOSEN = [case for family in FAMILIES for case in effort.share(
    [(s, m) for s in STATES if s.family == family for m in MOMENTS], IN_GATE, "broken repository", family)]  # fmt: skip
CASES = [*CHOSEN, *((s, m) for s in STATES for m in MOMENTS if (repr(s), m) in FOUND and (s, m) not in CHOSEN)]
ADOPTIONS = effort.share([s for s in STATES if not s.loses & {"tree"}], ADOPTIONS_IN_GATE, "adoption")


def test_what_was_found_is_among_the_cases():
    assert {(repr(state), moment) for state, moment in CASES} >= FOUND


@pytest.fixture(scope="module")
def world():
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = BrokenWorld(monkeypatch)
        yield made
        made.end()


@pytest.mark.every_night
@pytest.mark.parametrize(("state", "moment"), CASES, ids=str)
def test_it_is_healthy_again_and_nothing_is_lost(world, state, moment):
    world.reset("unlaunched" if moment == "early" else "failed")
    subject = world.subject
    state.break_it(subject)
    own_all(world)
    before = world.everything()
    if moment == "early":
        world.fail()
    assert world.recover() == 0, world.log
    try:
        check_nothing_ran(world)
        check_nothing_is_missing(world, before)
        disarm(world, state)
        check_health(world, state)
        check_kept(world, state)
        check_use(world)
        check_no_way_back(world)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{world.log[-3000:]}") from None
    survived("broken repository", state.family, 1)


@pytest.mark.every_night
@pytest.mark.parametrize("state", ADOPTIONS, ids=repr)
def test_an_adoption_works_or_says_why_not(world, state):
    world.reset("unlaunched")
    world.forget()
    state.break_it(world.subject)
    own_all(world)
    status = world.adopt_again()
    assert status in (0, 1), world.log
    if status:
        assert "Error: " in world.log and "Hint:  " in world.log, world.log
        assert not os.path.exists(world.paths.data_dir) and not os.path.exists(world.context.slots.folder)
    check_nothing_ran(world)
    survived("broken repository", "adoption", 1)


def own_all(world):
    """Everything outside our own folders is the agent's."""
    home = world.subject.code.parent
    world.subject.own(*[path for path in home.iterdir() if not path.name.endswith(".agentctl")])


def check_nothing_ran(world):
    """Nothing of the agent's was executed on the way."""
    witness = world.subject.code.parent / "witness"
    assert not witness.exists(), witness.read_text()


def disarm(world, state):
    """Take the agent's traps away: git would run them for us."""
    subject = world.subject
    if state.family == "hostile":
        subject.write({".git/config": "[core]\n\trepositoryformatversion = 0\n", ".git/info/attributes": ""})
        for hook in (subject.dot_git / "hooks").iterdir():
            hook.unlink()
        subject.own()


def check_health(world, state):
    subject = world.subject
    assert os.path.isdir(subject.dot_git)
    assert subject.git("rev-parse", "HEAD", "refs/heads/main").split() == [subject.good] * 2
    assert subject.git("symbolic-ref", "HEAD") == "refs/heads/main"
    seen = subject.git("status", "--porcelain")
    assert seen == "" or ("clean" in state.loses and seen in CARRIED)
    assert (subject.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
    assert "history" in state.loses or subject.git("log", "--format=%s") == "the good version\nthe first version"
    assert disk_use(world.folder) < 200 << 20
    said = subject.git("fsck", "--strict", "--full", status=None)
    assert "missing" not in said and "error" not in said and "broken" not in said, said
    subject.git("fsck", "--strict", "--full")


def check_kept(world, state):
    """Branches, tags, stashes and the condemned work are there, as far as they were."""
    subject = world.subject
    heads = subject.git("for-each-ref", "--format=%(refname) %(contents:subject)", "refs/heads", "refs/tags")
    assert state.loses & {"idea"} or "refs/heads/idea an idea" in heads
    assert state.loses & {"idea"} or subject.git("log", "-1", "--format=%s", "refs/heads/idea") == "an idea"
    assert state.loses & {"fresh"} or "refs/heads/fresh a fresh idea" in heads, heads
    assert state.loses & {"tags"} or "refs/tags/v1 version one\nrefs/tags/v2 a fresh idea" in heads, heads
    if "stash" not in state.loses:
        assert len(subject.git("stash", "list").splitlines()) == 2, subject.git("stash", "list")
        assert subject.git("show", "stash@{1}:notes.txt") == "the first stash"
    if "tree" not in state.loses:
        rescue = [line for line in heads.split("\n") if world.incident in line]
        assert rescue, heads
        if "head" not in state.loses and state.family != "operations":
            held = subject.git("for-each-ref", "--contains", subject.bad, "--format=%(refname)", "refs/heads").split()
            assert set(held) & {line.split()[0] for line in rescue}, (held, rescue)
    refs = subject.git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/stash").split("\n")
    for text in subject.kept_texts:
        subject.git("grep", "-q", text, *refs)


def check_nothing_is_missing(world, before):
    """Every entry of before is in live or in quarantine; of .git, every file's content."""
    live, old = listing(world.subject.code), listing(world.quarantine / "tree")
    tree = {path: what for path, what in before.items() if path.split("/")[0] != ".git"}
    missing = {p: what for p, what in tree.items() if live.get(p) != what and old.get(p) != what}
    assert not missing, missing
    kept = digests(world.subject.code / ".git") | digests(world.quarantine)
    gone = [
        path
        for path, what in before.items()
        if path.startswith(".git/") and what[0] == "file" and what[3] not in kept and not is_followed(world, path)
    ]
    assert not gone, gone


def is_followed(world, path):
    """Tell whether a file of .git lives on, changed as git changes it."""
    live = Path(world.subject.code, path)
    return path.startswith(".git/logs/") or (path in (".git/HEAD", ".git/refs/heads/main") and live.is_file())


def check_use(world):
    """It takes work: commit, switch, stash, merge, tag, config, gc."""
    git, subject = world.subject.git, world.subject
    subject.write({"after.txt": "x"})
    subject.own()
    git("add", "--force", "after.txt")
    git("commit", "-q", "--no-verify", "-m", "after")
    git("switch", "-q", "-c", "try/it")
    git("switch", "-q", "main")
    subject.write({"after.txt": "y"})
    subject.own()
    git("stash", "-q")
    git("stash", "pop", "-q")
    git("commit", "-q", "--no-verify", "-am", "more after")
    git("config", "some.key", "value")
    git("tag", "-f", "v3")
    git("pack-refs", "--all")
    git("gc", "-q")
    git("reset", "-q", "--hard", subject.good)


def check_no_way_back(world):
    """No operation of before can be continued or aborted into the bad code."""
    git, subject = world.subject.git, world.subject
    for operation in ("merge", "rebase", "cherry-pick", "revert", "am"):
        git(operation, "--abort", status=None)
    git("bisect", "reset", status=None)
    assert git("rev-parse", "HEAD") == subject.good
    assert git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert (subject.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
    assert BAD not in (subject.code / "behaviour.py").read_text()
